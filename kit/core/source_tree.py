"""The kit's own source: its git commit, its requirements, and a zip of it that runs elsewhere."""

from __future__ import annotations

import io
import os
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from kit.core.errors import KitError

ROOT = Path(__file__).parents[2]
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date: the same files give the same bytes


def git_state() -> dict[str, Any]:
    """The commit of the kit's checkout and whether it is clean; empty if it is no checkout or git is missing.

    A kit that lies inside another repository (installed into an environment there, or copied) has no commit.
    """
    # Inside a hook these variables name the hook's own repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, env=env, capture_output=True, encoding="utf-8", errors="replace", check=True
        )
        return done.stdout.strip()

    try:
        if git("rev-parse", "--show-prefix"):  # the way from the repository's root to here
            return {}
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return {}


def pack_source() -> bytes:
    """A zip of the package and tasks.py as they are now. Raises KitError if the kit is no checkout."""
    tasks = ROOT / "tasks.py"
    _require(tasks)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in [*_package_files(), tasks]:
            entry = zipfile.ZipInfo(path.relative_to(ROOT).as_posix(), _EPOCH)
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _package_files() -> list[Path]:
    """Every file of the package: modules, templates and other data files."""
    files = (path for path in (ROOT / "kit").rglob("*") if path.is_file())
    return sorted(path for path in files if "__pycache__" not in path.parts)


def requirements(*extras: str) -> list[str]:
    """The package's dependencies, with those of its extras of these names, as in pyproject.toml."""
    path = ROOT / "pyproject.toml"
    _require(path)
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    optional = [name for extra in extras for name in project["optional-dependencies"][extra]]
    return [*project["dependencies"], *optional]


def _require(path: Path) -> None:
    if not path.is_file():
        raise KitError(
            "the kit's own checkout, to pack it",
            f"no {path}",
            "clone it and `pip install -e .`, then call from there",
        )
