"""From candidates to the one box per image: judged, selected, filled in. Pure."""
