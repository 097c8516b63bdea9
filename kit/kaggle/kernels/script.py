"""The script that is pushed to Kaggle: a docstring, the knobs as JSON, the start, and the package at the end.

Kaggle takes a single code file; it unpacks the kit into a temporary folder and calls ``session.main``.
"""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from kit import __version__
from kit.config import Config

_TEMPLATE = '''\
"""kit {version}: trains the run {run} of the competition {slug} on Kaggle's GPUs.

Pushed by `invoke kernel.push --run {run}`, from {origin}.
In this order: the knobs of the run, the facts of this push, how it starts, and the kit's package (a zip in base64).
`invoke kernel.pull --run {run}` brings the result home.
"""

import base64
import importlib.metadata
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CONFIG = r"""
{config}
"""

PUSH = {push}

REQUIREMENTS = {requirements}


def missing():
    """The requirements that Kaggle's image does not satisfy."""
    from packaging.requirements import Requirement

    for text in REQUIREMENTS:
        wanted = Requirement(text)
        try:
            fits = importlib.metadata.version(wanted.name) in wanted.specifier
        except importlib.metadata.PackageNotFoundError:
            fits = False
        if not fits:
            yield text


def main():
    wanted = list(missing())
    if wanted:
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted])
        if done.returncode:
            sys.exit(f"kit: pip could not install {{', '.join(wanted)}}; push with --set kernel.internet=on")
    package = Path(tempfile.mkdtemp()) / "package"
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(PACKAGE))) as archive:
        archive.extractall(package)
    sys.path.insert(0, str(package))
    from kit.kaggle.kernels.session import main as session

    session(CONFIG, PUSH, package)


PACKAGE = """
{package}
"""

main()
'''
_WIDTH = 110


def kernel_script(
    config: Config,
    push: Mapping[str, str],
    requirements: Sequence[str],
    package: bytes,
    git: Mapping[str, Any],
) -> str:
    """The text of the script.

    Args:
        config: The knobs of the run.
        push: The push's id, the run's name, the preset, and the state that it continues ("" for none).
        requirements: The packages that the kit needs, as in pyproject.toml.
        package: The kit as a zip archive.
        git: The commit and whether it is clean; empty without version control.

    Returns:
        Python source code.
    """
    state = "the commit " + str(git["commit"]) if git else "files that are under no version control"
    changed = "" if not git or git["clean"] else " with changes that are not committed"
    return _TEMPLATE.format(
        version=__version__,
        run=push["run"],
        slug=config.competition.slug,
        origin=state + changed,
        config=json.dumps(config.as_dict(), indent=2),
        push=json.dumps(dict(push), indent=4),
        requirements=json.dumps(list(requirements), indent=4),
        package="\n".join(textwrap.wrap(base64.b64encode(package).decode(), _WIDTH)),
    )
