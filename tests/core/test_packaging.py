"""What is installed from a wheel, and what goes to Kaggle, has every file of the package and writes its pages."""

import io
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from repository import ROOT, tracked_files

from kit.core.source_tree import pack_source

# Scores a run again and writes its report, with the kit of the folder that is named first.
WRITE_REPORT = """
import sys
from pathlib import Path

import kit
from kit.evaluation.report import evaluate
from kit.runs.folder import Run

assert Path(kit.__file__).is_relative_to(sys.argv[1]), kit.__file__
evaluate(Run(Path(sys.argv[2]), "demo"))
"""


def wheel(folder):
    """Build a wheel from a copy of the checkout, so that no build folder stays in it; its path."""
    source = folder / "source"
    shutil.copytree(ROOT / "kit", source / "kit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = ["wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module", params=["wheel", pytest.param("archive for Kaggle", id="archive")])
def unpacked(request, tmp_path_factory):
    """A folder with the package as it is installed or sent, outside the checkout."""
    folder = tmp_path_factory.mktemp("package")
    file = wheel(tmp_path_factory.mktemp("wheel")) if request.param == "wheel" else io.BytesIO(pack_source())
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.slow  # builds a wheel
def test_every_file_of_the_package_is_in_it(unpacked):
    there = {path.relative_to(unpacked).as_posix() for path in (unpacked / "kit").rglob("*") if path.is_file()}
    assert there == {path.as_posix() for path in tracked_files("kit")}
    assert "kit/py.typed" in there


@pytest.mark.slow  # builds a wheel, and starts a Python that evaluates
def test_it_writes_a_runs_report_without_the_checkout(unpacked, evaluated, tmp_path):
    page = evaluated / "runs" / "demo" / "report.html"
    before = page.read_text()
    page.unlink()
    done = subprocess.run(
        [sys.executable, "-c", WRITE_REPORT, unpacked, evaluated], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(unpacked), "PYTHONSAFEPATH": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert page.read_text() == before
