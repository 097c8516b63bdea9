"""The kit's own files: which commit they are, and the package as an archive that runs elsewhere."""

from __future__ import annotations

import io
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from kit.core.errors import KitError

ROOT = Path(__file__).parents[2]
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files give the same archive, whenever they were written


def git_state() -> dict[str, Any]:
    """Commit of the kit's own checkout and whether it was clean; empty where it is none or git is missing."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return {}


def pack_source() -> bytes:
    """A zip of the package and its verbs, as they are now. Raises KitError where the kit is no checkout."""
    files = [*_packaged(), ROOT / "tasks.py"]
    _require(files[-1])
    goal = io.BytesIO()
    with zipfile.ZipFile(goal, "w") as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(ROOT).as_posix(), _EPOCH)
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return goal.getvalue()


def _packaged() -> list[Path]:
    """Every file of the package: modules, and the data files that lie beside them."""
    files = (path for path in (ROOT / "kit").rglob("*") if path.is_file())
    return sorted(path for path in files if "__pycache__" not in path.parts)


def requirements() -> list[str]:
    """What the package needs, as in pyproject.toml."""
    path = ROOT / "pyproject.toml"
    _require(path)
    return list(tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"])


def _require(path: Path) -> None:
    if not path.is_file():
        raise KitError(
            "the kit's own checkout, to pack it",
            f"no {path}",
            "clone it and `pip install -e .`, then call from there",
        )
