"""Pure geometry on tables of boxes: no file, no network, no run."""
