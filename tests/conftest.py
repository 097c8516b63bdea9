"""Shapes and types are checked while the tests run; nothing leaves this machine."""

import gc
import os
import shutil
import socket
import warnings

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from toy import FOLDS, TOY, TOY_TEST_IMAGES, copied, toy_config

# The same examples every time: a red run can be repeated, and a green one does not turn red by chance. How fast
# they come depends on what else the machine does, not on the kit. `--hypothesis-profile=default` draws others.
settings.register_profile("kit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kit")

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# One of several workers computes with one thread: more would wait for each other. MKL and OpenBLAS follow OMP where
# nobody sets theirs, so a process that a test starts with another OMP_NUM_THREADS gets what it asked for.
THREADS = "1" if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1 else "2"
for library in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
    os.environ.setdefault(library, THREADS)
# Threads that wait sleep: spinning takes the core from the processes that a test starts beside this one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _without_transformers():
    """torchmetrics imports transformers, if it is there, for its metrics of texts: two seconds of each worker."""
    try:
        from lightning_utilities.core.imports import RequirementCache
    except ImportError:  # where the parts without torch are tried alone
        return
    check = RequirementCache._check_requirement

    def checked(cache):
        check(cache)
        cache.available = cache.available and not cache.requirement.startswith("transformers")

    RequirementCache._check_requirement = checked


_without_transformers()

with warnings.catch_warnings():  # jaxtyping imports what is installed and warns of what is old there
    warnings.simplefilter("ignore")
    import typechecks

typechecks.install()


# Half a million objects of the libraries stay for good: to look through them again and again took a twentieth of
# the time. They are not frozen, since Hypothesis 6.100 looks for those who refer to a generator.
gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(items):
    """The files that take minutes go first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.parent.name != "promises" and item.path.name != "test_demo.py")


_connect = socket.socket.connect


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """A test that reaches for anything but this machine fails with the address it wanted."""

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test wanted to connect to {address}")
        return _connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(params=[11, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def step(request):
    """Of thousands of generated cases every so many are tried by the fast suite, and all by the slow one."""
    return request.param


@pytest.fixture
def undrawn(monkeypatch):
    """Reports with one small picture for all their figures; `tests/reports` looks at the real ones."""
    from PIL import Image

    def save_all(folder, drawings, track):
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: folder / f"{name}.png" for name in drawings}
        for path in paths.values():
            Image.new("L", (1, 1)).save(path)
        return paths

    for report in ("run_report", "dataset_report"):
        monkeypatch.setattr(f"kit.reports.{report}.save_all", save_all)


@pytest.fixture
def warm(tmp_path):
    """Command lines that start at once: see warm.py."""
    from warm import Warm

    folder = tmp_path / "warm"
    folder.mkdir()
    process = Warm(folder)
    yield process
    process.end()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Call ``make`` with a new folder once for all workers: later ones wait, and get the same folder."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def folder_of(name, make):
        folder, made = base / name, base / f"{name}.made"
        with FileLock(base / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed half-way
                make(folder)
                made.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def toy_source(made_once):
    """A synthetic competition of 32 + 8 images with its pixel cache; tests work on copies."""
    from kit.data.competition import load_test, load_training
    from kit.data.synthetic.generator import write_competition

    def make(workspace):
        write_competition(workspace, 3, train_images=32, test_images=TOY_TEST_IMAGES, size_px=96)
        load_training(workspace, toy_config())
        load_test(workspace, toy_config())

    return made_once("toy", make)


@pytest.fixture
def toy(toy_source, tmp_path):
    """A fresh copy of the toy competition's workspace."""
    return copied(toy_source, tmp_path / "toy")


@pytest.fixture(scope="session")
def trained_source(toy_source, made_once):
    """The toy competition with a run 'demo' trained for two epochs; tests work on copies."""
    from kit.training.train import train

    return made_once("trained", lambda folder: train(copied(toy_source, folder), None, "demo", TOY))


@pytest.fixture
def trained(trained_source, tmp_path):
    """A fresh copy of the workspace with the trained run."""
    return copied(trained_source, tmp_path / "trained")


@pytest.fixture(scope="session")
def evaluated_source(trained_source, made_once):
    """The trained workspace with its report; tests work on copies."""
    from kit.evaluation.report import evaluate
    from kit.runs.folder import Run

    return made_once("evaluated", lambda folder: evaluate(Run(copied(trained_source, folder), "demo")))


@pytest.fixture
def evaluated(evaluated_source, tmp_path):
    """A fresh copy of the workspace with the evaluated run."""
    return copied(evaluated_source, tmp_path / "evaluated")


@pytest.fixture(scope="session")
def folded_source(toy_source, made_once):
    """The toy competition with an evaluated run 'folds': three folds, an epoch each; tests work on copies."""
    from kit.evaluation.report import evaluate
    from kit.training.train import train

    def make(workspace):
        evaluate(train(copied(toy_source, workspace), "folds", "demo", FOLDS).run)

    return made_once("folded", make)


@pytest.fixture
def folded(folded_source, tmp_path):
    """A fresh copy of the workspace with the run of three folds."""
    return copied(folded_source, tmp_path / "folded")


@pytest.fixture(scope="session")
def evidence_source(toy_source, made_once):
    """The toy competition with 'boxes', 'scores' and 'both', an ensemble of them; tests work on copies."""
    from image_scores import make

    return made_once("evidence", lambda workspace: make(copied(toy_source, workspace)))
