"""Run as a script: the parts without torch, tested on the lowest versions that pyproject.toml allows.

`python tests/support/lowest.py` makes a virtual environment, installs those versions, and runs the tests of these
parts. Needs the package index and about three minutes.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from repository import ROOT

# Torch and what needs it stay out.
PACKAGES = (
    "albumentations", "filelock", "invoke", "jaxtyping", "jinja2", "kaggle", "matplotlib", "numpy",
    "opencv-python-headless", "pandas", "pandera", "pillow", "pyarrow", "pycocotools", "pydantic", "rich",
    "scipy", "six",
)  # fmt: skip
TEST_PACKAGES = ("beartype", "ensemble-boxes", "hypothesis", "pytest", "scikit-learn", "threadpoolctl")
FILES = (
    "boxes/test_geometry.py",
    "metrics/test_average_precision.py",
    "metrics/test_bootstrap.py",
    "metrics/test_error_analysis.py",
    "choosing/test_calibration.py",
    "choosing/test_balanced_folds.py",
    "choosing/test_devices.py",
    "choosing/test_selection.py",
    "choosing/test_one_box.py",
    "schemas/test_schemas.py",
    "schemas/test_submission_schema.py",
    "core/test_files.py",
    "core/test_json_files.py",
    "data/test_images.py",
    "data/test_augmentation.py",
    "data/test_generator.py",
    "detectors/test_tta.py",
    "runs/test_run_folder.py",
    "kaggle/test_zip_archive.py",
    "kaggle/test_kaggle_client.py",
    "kaggle/test_kaggle_errors.py",
    "submission/test_submission_folders.py",
    "submission/test_upload.py",
    "promises/test_bad_images.py",
    "promises/test_bad_json.py",
    "promises/test_bad_tables.py",
    "test_config.py",
    "test_house.py",
)
# An old scikit-learn under a newer scipy, an old matplotlib under the newest pyparsing: neither has an upper bound.
WARNS = (
    "ignore:scipy.optimize:DeprecationWarning",
    "ignore::DeprecationWarning:matplotlib._fontconfig_pattern",
    "ignore::DeprecationWarning:matplotlib._mathtext",
)


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
        files = [ROOT / "tests" / name for name in FILES]
        tests = [
            python,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            *(f"-W{text}" for text in WARNS),
            "-m",
            "not slow",
            *files,
        ]
        return subprocess.run(tests, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
