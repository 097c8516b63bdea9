"""The rules of the house: who imports whom, what starts quickly, what the README says."""

import ast
import functools
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT, tracked_files

from kit import config

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "kit").rglob("*.py"))
    if path.name != "__init__.py"
}

# The packages, bottom first: a package imports from those above its own line only, and from itself.
# Behind each, the heavy libraries that it may import; a package without the library's name may not.
PACKAGES = {
    "core": ("pydantic", "pydantic_core"),
    "presets": (),
    "detector_names": (),
    "config": (),
    "boxes": (),
    "metrics": (),
    "choosing": ("scipy",),
    "schemas": (),
    "data": ("torch", "cv2", "albumentations", "scipy"),
    "importing": ("pydicom", "yaml"),
    "detectors": ("torch", "torchvision", "timm", "safetensors", "transformers", "huggingface_hub"),
    "runs": ("torch", "scipy"),
    "reports": ("matplotlib", "jinja2"),
    "training": ("torch", "pytorch_lightning", "lightning_fabric", "torchmetrics"),
    "kaggle": ("kaggle", "kagglesdk"),
    "submission": (),
    "evaluation": (),
    "demo": (),
    "tasks": (),
}


def package(module: str) -> str:
    """The package of a module by its full name: kit.boxes.fusion -> boxes."""
    return module.split(".")[1]


# Of these packages, the only module that may import the library.
ONLY_IN = {
    ("data", "torch"): "kit.data.dataset",
    ("importing", "pydicom"): "kit.importing.dicom",
    ("importing", "yaml"): "kit.importing.forms.yolo",
    ("data", "albumentations"): "kit.data.augmentation",
    ("data", "scipy"): "kit.data.duplicates",
    ("runs", "scipy"): "kit.runs.label_order",
    ("detectors", "timm"): "kit.detectors.timm_backbones",
    ("detectors", "transformers"): "kit.detectors.set_detectors",
    ("detectors", "huggingface_hub"): "kit.detectors.hub_weights",
    ("reports", "matplotlib"): "kit.reports.figures",
    ("reports", "jinja2"): "kit.reports.html",
    ("runs", "torch"): "kit.runs.detecting",
    ("kaggle", "kaggle"): "kit.kaggle.client",
    ("choosing", "scipy"): "kit.choosing.calibration",
}
# Packages that load no torch.
TORCH_FREE = (
    "core", "presets", "detector_names", "config", "boxes", "metrics", "choosing", "schemas", "importing",
    "reports", "kaggle", "submission",
)  # fmt: skip
# What loads none of the heavy libraries: the verbs that neither train nor draw begin with these.
LIGHT = (
    "config", "schemas.tables", "submission.folders", "runs.folder", "core.files", "core.errors", "core.progress",
    "kaggle.competition_api", "kaggle.download", "kaggle.kernels.push", "kaggle.kernels.session",
    "submission.preview", "submission.upload", "submission.scoreboard",
    "reports.report_file", "evaluation.report", "evaluation.comparison", "evaluation.predict",
    "runs.ensemble", "runs.adoption",
)  # fmt: skip


@functools.cache
def imports(path: Path, everywhere: bool) -> frozenset[str]:
    """Full names of the modules and names that a file imports: at its top, or also inside its functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def imported_modules(name: str) -> set[str]:
    """The kit's own modules that one of them imports, also inside its functions."""
    return imports(MODULES[name], everywhere=True) & set(MODULES) - {name}


def imported_packages(path: Path) -> set[str]:
    """The kit's packages that a file imports from, through a front door or past it."""
    names = {full.split(".")[1] for full in imports(path, everywhere=True) if full.startswith("kit.")}
    return names & set(PACKAGES)


def test_every_package_has_a_line_in_the_table():
    assert {package(name) for name in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("name", MODULES)
def test_a_package_imports_only_from_packages_above_its_line(name):
    order = list(PACKAGES)
    allowed = order[: order.index(package(name)) + 1]
    assert imported_packages(MODULES[name]) <= set(allowed)


def test_no_modules_import_each_other_in_a_circle():
    waiting = {name: imported_modules(name) for name in MODULES}
    while ready := [name for name, needed in waiting.items() if not needed & set(waiting)]:
        for name in ready:
            del waiting[name]
    assert not waiting


@pytest.mark.parametrize("library", sorted({library for libraries in PACKAGES.values() for library in libraries}))
def test_a_heavy_library_is_imported_only_by_the_packages_that_name_it(library):
    users = {
        name
        for name, path in MODULES.items()
        if any(full.split(".")[0] == library for full in imports(path, everywhere=True))
    }
    assert {package(name) for name in users} <= {name for name, names in PACKAGES.items() if library in names}
    for name in users:
        assert ONLY_IN.get((package(name), library), name) == name


@pytest.mark.parametrize(
    "path", [ROOT / "tasks.py", *sorted((ROOT / "kit" / "tasks").glob("*.py"))], ids=lambda p: p.name
)
def test_the_tasks_import_nothing_heavy_at_their_top(path):
    """So `invoke --list` and every mistyped flag answer at once."""
    for name in imports(path, everywhere=False):
        library, *inside = name.split(".")
        assert library in {"invoke", "kit"} | sys.stdlib_module_names, name
        assert library != "kit" or inside[0] in ("core", "tasks"), name


def test_listing_the_tasks_loads_no_library():
    code = (
        "import sys, tasks; sys.exit(any(m in sys.modules for m in ('numpy', 'pandas', 'rich', 'torch', 'kaggle')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_the_list_of_tasks_stays_a_table_of_contents():
    assert len((ROOT / "tasks.py").read_text(encoding="utf-8").splitlines()) <= 60


@pytest.fixture(scope="module")
def heavy_libraries():
    """Name of a light module -> the heavy libraries that importing it alone loads.

    Each is imported in a fork of one Python, which has loaded pandera before: most of them need it.
    """
    code = """
import os, sys
import pandera.pandas
for name in sys.argv[1:]:
    if os.fork() == 0:
        __import__(f"kit.{name}")
        print(name, *{"torch", "cv2", "matplotlib", "kaggle"} & set(sys.modules), flush=True)
        os._exit(0)
    os.wait()
"""
    command = [sys.executable, "-c", code, *LIGHT]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_loads_no_heavy_library(name, heavy_libraries):
    assert heavy_libraries[name] == []


def test_a_package_that_needs_no_network_loads_no_torch():
    free = [name for name in MODULES if package(name) in TORCH_FREE]
    code = f"import sys, {', '.join(free)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_every_module_says_what_it_is_for_in_one_to_four_lines():
    for path in [*MODULES.values(), ROOT / "tasks.py"]:
        lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
        assert 1 <= len([line for line in lines if line.strip()]) <= 4, path.name


def test_no_module_is_longer_than_a_reader_can_hold():
    for name, path in MODULES.items():
        limit = 460 if name == "kit.config" else 350  # a table: one line a knob
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, name


def test_only_the_tasks_print_ask_and_exit():
    # A kernel's session is a program of its own: its exit code tells Kaggle that a step failed.
    exits = {"kit.kaggle.kernels.session"}
    for name, path in MODULES.items():
        if package(name) == "tasks":
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {ast.unparse(call) for call in calls}
        assert not names & {"print", "exit", "quit", "input"}, name
        assert name in exits or not names & {"sys.exit", "os._exit", "SystemExit", "Exit"}, name


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_every_verb_with_its_own_help():
    listed = subprocess.run(
        [sys.executable, "-m", "invoke", "--list", "--list-format=json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    top = json.loads(listed)
    verbs = {task["name"]: task["help"] for task in top["tasks"]}
    for inner in top["collections"]:
        verbs |= {f"{inner['name']}.{task['name']}": task["help"] for task in inner["tasks"]}
    rows = dict(re.findall(r"^\| `invoke ([a-z.]+)[^|]*` \| ([^|]+?) \|$", readme(), re.M))
    assert rows == verbs


def test_the_docs_have_every_knob_with_its_line():
    page = (ROOT / "docs" / "knobs.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| `[^|]*` \| ([^|`]+?) \| [^|]*\|$", page, re.M))
    assert rows == {key: spec.metadata["doc"] for key, spec in config.knobs().items()}


def test_every_function_that_the_docs_name_with_its_module_is_defined_there():
    pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    named = [pair for page in pages for pair in re.findall(r"`(kit/[\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", page)]
    assert len(named) > 25
    for path, names in named:
        assert set(re.findall(r"\w+", names)) <= defined_names(ROOT / path), path
    defined = set().union(*map(defined_names, MODULES.values()))
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(`(\w+)`[,)]", architecture)) <= defined


def defined_names(path: Path) -> set[str]:
    """The functions, methods, classes and constants of a module."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_readme_has_the_two_commands():
    assert "\n    pip install -e . && invoke demo\n" in readme()
    assert "\n    pip install -e '.[dev]' && invoke test\n" in readme()


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("training.module", "training_step"),
        ("training.module", "_targets"),
        ("detectors.networks", "network_input"),
        ("training.finite_loss", "add"),
    ],
)
def test_a_training_step_waits_for_no_gpu(module, function):
    """No call in it needs a number that the GPU is still computing."""
    tree = ast.parse(MODULES[f"kit.{module}"].read_text(encoding="utf-8"))
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


def test_every_package_offers_its_entrances():
    folders = {path.parent for path in MODULES.values()} - {ROOT / "kit", ROOT / "kit" / "tasks"}
    for folder in folders:  # what is typed is collected by tasks.py
        assert importlib.import_module(".".join(folder.relative_to(ROOT).parts)).__all__, folder.name


@pytest.mark.parametrize("door", sorted((ROOT / "kit").rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_a_front_door_says_what_the_package_is_for_and_offers_only_what_is_there(door):
    name = ".".join(door.parent.relative_to(ROOT).parts)
    package = importlib.import_module(name)
    assert package.__doc__
    for offered in getattr(package, "__all__", []):
        assert not (door.parent / f"{offered}.py").exists(), "a module of that name would hide it"
        try:
            assert getattr(package, offered) is not None
        except ModuleNotFoundError as error:  # tests/support/lowest.py installs no torch
            assert error.name == "torch"


def test_the_repository_holds_text_and_small_pictures_only():
    """No binaries, nothing over 500 kB; the docs' pictures stay below 300 kB."""
    for path in tracked_files():
        content = (ROOT / path).read_bytes()
        if path.parent == Path("docs/images"):
            assert path.suffix in {".png", ".svg"}, path
            assert len(content) < 300_000, path
        else:
            assert len(content) < 500_000, path
            content.decode("utf-8")
            assert b"\0" not in content, path
