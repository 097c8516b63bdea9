"""Where the repository is, and what lies in it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
KILLER = Path(__file__).parent / "killer"
