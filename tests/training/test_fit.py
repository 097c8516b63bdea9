"""What is done around the epochs: torch's deterministic algorithms, and the files that a killed process left."""

import pytest
import pytorch_lightning as pl
import torch
from toy import toy_config

from kit.config import load
from kit.data.competition import load_training
from kit.data.splits import assign_folds
from kit.detectors.hardware import deterministic_algorithms
from kit.runs.detecting import bare_detector
from kit.runs.folder import Run, Split, read_split
from kit.training import fit


@pytest.fixture
def fitted(toy, monkeypatch):
    """Fits a run of the toy data whose epochs are a function."""

    def fitting(config, epochs):
        data = load_training(toy, config)
        split = Split(data.labels, data.image_ids, assign_folds(data, config.data, 0), data.table_sha256)
        run = Run(toy, "demo")
        run.folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(pl.Trainer, "fit", lambda *_, **__: epochs())
        fit.fit(run, config, split, data, bare_detector(config, split))

    return fitting


@pytest.mark.parametrize("wanted", [True, False])
def test_the_knob_holds_during_the_training_alone(fitted, wanted):
    seen = []
    config = toy_config().replace({"training.deterministic": wanted})
    fitted(config, lambda: seen.append(torch.are_deterministic_algorithms_enabled()))
    assert seen == [wanted]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("rank", "left"), [(0, False), (1, True)])
def test_the_first_process_alone_deletes_half_written_files(toy, fitted, monkeypatch, rank, left):
    """Another one begins a fold while the first still writes the fold's seen.parquet."""
    half = Run(toy, "demo").folder / ".seen.parquet.x.partial"
    half.parent.mkdir(parents=True)
    half.write_text("half")
    monkeypatch.setattr(fit, "rank", lambda: rank)
    fitted(toy_config(), lambda: None)
    assert half.exists() == left


@pytest.mark.parametrize(("rank", "written"), [(0, True), (1, False)])
def test_the_first_process_alone_writes_the_history_anew(trained, monkeypatch, rank, written):
    run = Run(trained, "demo")
    config, split = load(run.config), read_split(run)
    run.history.unlink()
    monkeypatch.setattr(fit, "rank", lambda: rank)
    fit.fit(run, config, split, load_training(trained, config), bare_detector(config, split))
    assert run.history.exists() == written


def test_an_error_leaves_torch_as_it_was():
    with pytest.raises(RuntimeError), deterministic_algorithms(True):
        raise RuntimeError
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
