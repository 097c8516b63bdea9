"""Shapes and types are checked while the tests run; nothing leaves this machine."""

import os
import socket
import warnings

import pytest
from hypothesis import HealthCheck, settings
from toy import FOLDS, TOY, TOY_TEST_IMAGES, copied, toy_config

# The same examples every time: a red run can be repeated, and a green one does not turn red by chance. How fast
# they come depends on what else the machine does, not on the kit. `--hypothesis-profile=default` draws others.
settings.register_profile("kit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kit")

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "2")

with warnings.catch_warnings():  # jaxtyping imports what is installed and warns of what is old there
    warnings.simplefilter("ignore")
    from jaxtyping import install_import_hook

    install_import_hook("kit", "typechecks.check")

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


@pytest.fixture(params=[8, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def step(request):
    """Of thousands of generated cases every so many are tried by the fast suite, and all by the slow one."""
    return request.param


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
def toy_source(tmp_path_factory):
    """A synthetic competition of 32 + 8 images with its pixel cache; tests work on copies."""
    from kit.data.competition import load_test, load_training
    from kit.data.synthetic.generator import write_competition

    workspace = tmp_path_factory.mktemp("toy")
    write_competition(workspace, 3, train_images=32, test_images=TOY_TEST_IMAGES, size_px=96)
    load_training(workspace, toy_config())
    load_test(workspace, toy_config())
    return workspace


@pytest.fixture
def toy(toy_source, tmp_path):
    """A fresh copy of the toy competition's workspace."""
    return copied(toy_source, tmp_path / "toy")


@pytest.fixture(scope="session")
def trained_source(toy_source, tmp_path_factory):
    """The toy competition with a run 'demo' trained for two epochs; tests work on copies."""
    from kit.training.train import train

    workspace = copied(toy_source, tmp_path_factory.mktemp("trained") / "toy")
    train(workspace, None, "demo", TOY)
    return workspace


@pytest.fixture
def trained(trained_source, tmp_path):
    """A fresh copy of the workspace with the trained run."""
    return copied(trained_source, tmp_path / "trained")


@pytest.fixture(scope="session")
def evaluated_source(trained_source, tmp_path_factory):
    """The trained workspace with its report; tests work on copies."""
    from kit.evaluation.report import evaluate
    from kit.runs.folder import Run

    workspace = copied(trained_source, tmp_path_factory.mktemp("evaluated") / "toy")
    evaluate(Run(workspace, "demo"))
    return workspace


@pytest.fixture
def evaluated(evaluated_source, tmp_path):
    """A fresh copy of the workspace with the evaluated run."""
    return copied(evaluated_source, tmp_path / "evaluated")


@pytest.fixture(scope="session")
def folded_source(toy_source, tmp_path_factory):
    """The toy competition with an evaluated run 'folds': three folds, an epoch each; tests work on copies."""
    from kit.evaluation.report import evaluate
    from kit.training.train import train

    workspace = copied(toy_source, tmp_path_factory.mktemp("folded") / "toy")
    evaluate(train(workspace, "folds", "demo", FOLDS).run)
    return workspace


@pytest.fixture
def folded(folded_source, tmp_path):
    """A fresh copy of the workspace with the run of three folds."""
    return copied(folded_source, tmp_path / "folded")
