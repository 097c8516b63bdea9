"""Knobs of a run that is used by two commands at once: no change of one is lost by the other."""

import pytest
from toy import toy_config

from kit.config import load, override, save
from kit.core.errors import KitError
from kit.runs.folder import Run
from kit.runs.knobs import adjust, save_knobs


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path, "demo")
    run.folder.mkdir(parents=True)
    save(toy_config(), run.config)
    return run


def test_a_knob_that_another_command_changed_meanwhile_stays(run):
    """`invoke train --set trainer.devices=1` reads the knobs, `invoke evaluate --set` changes one, train writes."""
    read = []

    def wanted():
        config = override(load(run.config), ["trainer.devices=1"])
        if not read:
            adjust(run, ["decision.threshold=0.25"])
        read.append(config)
        return config

    save_knobs(run, wanted)
    stored = load(run.config)
    assert (stored.trainer.devices, stored.decision.threshold) == (1, 0.25)


def test_knobs_that_do_not_differ_are_not_written(run):
    before = run.config.stat().st_mtime_ns
    save_knobs(run, lambda: load(run.config))
    assert run.config.stat().st_mtime_ns == before
    assert not (run.folder / ".work").exists()


def test_a_knob_that_needs_a_new_training_is_refused_and_one_that_acts_afterwards_is_not(run):
    with pytest.raises(KitError, match="to keep its knobs"):
        adjust(run, ["model.image_size_px=96"])
    adjust(run, ["decision.threshold=0.25"])
    assert load(run.config).decision.threshold == 0.25
