"""The rules of the house: who imports whom, what starts quickly, what the README says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kit import config

ROOT = Path(__file__).parent.parent
MODULES = {path.stem: path for path in sorted((ROOT / "kit").glob("*.py")) if path.stem != "__init__"}

# A module imports only from lower levels.
LEVELS = (
    ("errors", "progress", "deadlines", "boxes", "images", "radiographs", "loss_check", "memory"),
    ("files", "credentials", "duplicates", "timm_detectors", "overlaps", "calibration", "checkpoints"),
    ("records", "refusals", "archive", "checkout"),
    ("config", "cells", "submission", "download_record"),
    ("rules", "runs", "kaggle_client", "kernel_script", "machine"),
    ("schemas", "locks", "kaggle_api", "kaggle_kernels", "session"),
    (
        "fusion",
        "schedule",
        "transforms",
        "pixels",
        "model",
        "tta",
        "canvas",
        "evaluation",
        "preview",
        "coco",
        "pushes",
    ),
    (
        "intervals",
        "losses",
        "decision",
        "data",
        "phantoms",
        "charts",
        "score_charts",
        "pages",
        "attempts",
        "download",
        "kernel_output",
    ),
    ("run_page", "kernel"),
    ("choice", "inference", "resume", "explore", "splits", "upload", "scores", "members"),
    ("training",),
    ("audit", "store", "adoption", "path"),
    ("audit_report", "ensemble"),
    ("scoring",),
    ("report",),
    ("comparison",),
    ("verbs",),
    ("demo",),
)
ONLY_IN = {
    "pytorch_lightning": {"training"},
    "lightning_fabric": {"training"},
    "torchmetrics": {"training"},
    "matplotlib": {"canvas"},
    "albumentations": {"transforms"},
    "timm": {"timm_detectors"},
    "kaggle": {"kaggle_client"},
    "sklearn": {"calibration"},
}
WITHOUT_TORCH = (
    "config", "schemas", "submission", "runs", "files", "errors", "progress", "kaggle_api", "preview", "upload",
    "scores", "download", "kernel", "session",
)  # fmt: skip


def imports(path: Path, everywhere: bool) -> set[str]:
    """Full names of the modules that a file imports: at its top, or also inside its functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_a_level():
    assert sorted(name for level in LEVELS for name in level) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_lower_levels(name):
    level = next(number for number, names in enumerate(LEVELS) if name in names)
    lower = {each for names in LEVELS[:level] for each in names}
    ours = {full.split(".")[1] for full in imports(MODULES[name], everywhere=True) if full.startswith("kit.")}
    assert ours & set(MODULES) <= lower


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_heavy_package_is_imported_only_where_it_may(package):
    users = {
        name
        for name, path in MODULES.items()
        if any(full.split(".")[0] == package for full in imports(path, everywhere=True))
    }
    assert users <= ONLY_IN[package]


def test_the_tasks_import_nothing_heavy_at_their_top():
    allowed = {"invoke", "kit"} | set(sys.stdlib_module_names)
    assert {full.split(".")[0] for full in imports(ROOT / "tasks.py", everywhere=False)} <= allowed


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_light_module_loads_no_torch(name):
    code = (
        f"import sys, kit.{name}; sys.exit(any(m in sys.modules for m in ('torch', 'cv2', 'matplotlib', 'kaggle')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_every_module_says_what_it_is_for_in_one_to_four_lines():
    for path in [*MODULES.values(), ROOT / "tasks.py"]:
        lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
        assert 1 <= len([line for line in lines if line.strip()]) <= 4, path.name


def test_no_module_is_longer_than_a_reader_can_hold():
    for name, path in MODULES.items():
        limit = 460 if name == "config" else 370  # a table: one line a knob
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, name


def test_the_kit_never_prints_and_never_exits():
    for name, path in MODULES.items():
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        assert not names & {"print", "exit", "quit", "input"}, name


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_tree_is_the_one_that_is_there():
    tree = re.search(r"```\n(kit/\n.*?)```", readme(), re.S)
    assert tree, "the README has a tree that begins with kit/"
    named = set(re.findall(r"^    (\w+)\.py  ", tree[1], re.M))
    assert named == set(MODULES) | {"__init__"}


def test_the_readme_has_every_verb_with_its_own_help():
    listed = subprocess.run(
        [sys.executable, "-m", "invoke", "--list", "--list-format=json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    import json

    top = json.loads(listed)
    verbs = {task["name"]: task["help"] for task in top["tasks"]}
    for inner in top["collections"]:
        verbs |= {f"{inner['name']}.{task['name']}": task["help"] for task in inner["tasks"]}
    rows = dict(re.findall(r"^\| `invoke ([a-z.]+)[^|]*` \| ([^|]+?) \|$", readme(), re.M))
    assert rows == verbs


def test_the_readme_has_every_knob_with_its_line():
    rows = dict(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| `[^|]*` \| ([^|]+?) \|$", readme(), re.M))
    assert rows == {key: spec.metadata["doc"] for key, spec in config.knobs().items()}


def test_the_readme_has_the_two_commands():
    assert "\n    pip install -e . && invoke demo\n" in readme()
    assert "\n    pip install -e '.[dev]' && invoke test\n" in readme()


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("training", "training_step"),
        ("training", "_targets"),
        ("model", "network_input"),
        ("loss_check", "add"),
    ],
)
def test_a_training_step_waits_for_no_gpu(module, function):
    """No call in it needs a number that the GPU is still computing."""
    tree = ast.parse((ROOT / "kit" / f"{module}.py").read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    waits = {
        "item",
        "cpu",
        "numpy",
        "tolist",
        "nonzero",
        "synchronize",
        "float",
        "int",
        "bool",
        "print",
        "any",
        "all",
    }
    assert found
    for node in found:
        called = {
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            for call in ast.walk(node)
            if isinstance(call, ast.Call)
        }
        assert not called & waits
