"""From candidates to the one box of each ID: calibrated, selected, or the location prior's. Pure functions."""
