"""training.deterministic: torch's deterministic algorithms while the network trains, and not after it."""

import pytest
import pytorch_lightning as pl
import torch
from toy import toy_config

from kit.data.competition import load_training
from kit.data.splits import assign_folds
from kit.detectors.hardware import deterministic_algorithms
from kit.runs.detecting import bare_detector
from kit.runs.folder import Run, Split
from kit.training.fit import fit


@pytest.mark.parametrize("wanted", [True, False])
def test_the_knob_holds_during_the_training_alone(toy, monkeypatch, wanted):
    config = toy_config().replace({"training.deterministic": wanted})
    data = load_training(toy, config)
    split = Split(data.labels, data.image_ids, assign_folds(data, config.data, 0), data.table_sha256)
    run, seen = Run(toy, "demo"), []
    run.folder.mkdir(parents=True)
    monkeypatch.setattr(
        pl.Trainer, "fit", lambda *_, **__: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    fit(run, config, split, data, bare_detector(config, split))
    assert seen == [wanted]
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_error_leaves_torch_as_it_was():
    with pytest.raises(RuntimeError), deterministic_algorithms(True):
        raise RuntimeError
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
