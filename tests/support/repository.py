"""Where the repository is, and what lies in it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLER = Path(__file__).parent / "killer"


def tracked_files(folder="."):
    """Paths of the files under version control, relative to the root; skips the test outside a checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: no file is under version control")
    listed = subprocess.run(
        ["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).exists()]
