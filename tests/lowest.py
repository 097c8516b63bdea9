"""Run as a script: the parts without torch, tested on the lowest versions that pyproject.toml allows.

`python tests/lowest.py` makes a virtual environment, installs those versions, and runs the tests of these parts.
Needs the package index and about three minutes.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Torch and what needs it stay out.
PACKAGES = (
    "albumentations", "filelock", "invoke", "jaxtyping", "kaggle", "matplotlib", "numpy", "opencv-python-headless",
    "pandas", "pandera", "pillow", "pyarrow", "pycocotools", "rich", "scikit-learn", "six",
)  # fmt: skip
TEST_PACKAGES = ("beartype", "ensemble-boxes", "hypothesis", "pytest")
PARTS = (
    "archive", "bad_images", "bad_json", "bad_tables", "boxes", "calibration", "choice", "config", "decision",
    "evaluation", "files", "house", "images", "intervals", "kaggle_wire", "losses", "phantoms", "records",
    "refusals", "runs", "schemas", "submission", "submission_schema", "transforms", "tta", "upload",
)  # fmt: skip
# An old scikit-learn under the newest scipy, which it takes without an upper bound.
WARNS = "ignore:scipy.optimize:DeprecationWarning"


def lowest():
    """`name==version` of every package at the lower bound that pyproject.toml gives it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    bounds = {}
    for requirement in wanted:
        name, extra, version = re.match(r"([A-Za-z0-9-]+)(\[[a-z]+\])?>=([0-9.]+)", requirement).groups()
        bounds[name] = f"{name}{extra or ''}=={version}"
    return [bounds[name] for name in (*PACKAGES, *TEST_PACKAGES)]


def main():
    if sys.version_info >= (3, 12):
        print("skipped: the lowest versions are those of Python 3.11, and newer Pythons have no wheels of some")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        versions = lowest()
        print("+", *versions, flush=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *versions]
        subprocess.run(install, check=True)
        files = [ROOT / "tests" / f"test_{name}.py" for name in PARTS]
        tests = [python, "-m", "pytest", "-p", "no:cacheprovider", "-W", WARNS, "-m", "not slow", *files]
        return subprocess.run(tests, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
