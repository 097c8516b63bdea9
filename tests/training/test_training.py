"""The recipe's arithmetic, and that a kill changes nothing."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interruption import interrupted_after_one_epoch
from toy import TOY, copied, toy_config

from kit.config import Config, TrainingConfig, override
from kit.core.errors import KitError
from kit.detectors.checkpoints import load_checkpoint
from kit.runs.detecting import kept_weights
from kit.runs.folder import Run, read_finished, read_split
from kit.training import fit, schedule
from kit.training.train import train

SEED = TrainingConfig()


class TestSchedule:
    """Defect of the seed: its cosine did not start where the warm-up ended."""

    def test_the_warm_up_climbs_from_its_first_rate_to_the_peak(self):
        # 5 epochs of 40 steps: step 100 is half way from 1e-4 to 5e-3
        assert schedule.learning_rate(0, 40, SEED) == 1e-4
        assert schedule.learning_rate(100, 40, SEED) == pytest.approx((1e-4 + 5e-3) / 2)
        assert schedule.learning_rate(200, 40, SEED) == pytest.approx(5e-3)

    def test_the_cosine_ends_at_the_final_rate_with_the_last_step(self):
        assert schedule.learning_rate(60 * 40 - 1, 40, SEED) == pytest.approx(1e-6)

    def test_without_a_warm_up_the_first_step_has_the_peak(self):
        assert schedule.learning_rate(0, 40, TrainingConfig(warmup_epochs=0)) == pytest.approx(5e-3)

    @settings(deadline=None)
    @given(st.integers(1, 200), st.integers(1, 80), st.floats(0, 10))
    def test_the_rate_never_jumps_and_stays_between_its_ends(self, steps, epochs, warmup):
        recipe = TrainingConfig(max_epochs=epochs, warmup_epochs=warmup)
        rates = [schedule.learning_rate(step, steps, recipe) for step in range(steps * epochs)]
        assert all(1e-6 * 0.999 <= rate <= 5e-3 * 1.001 for rate in rates)
        climb = (5e-3 - 1e-4) / max(1.0, warmup * steps)
        fall = 5e-3 * math.pi / 2 / max(1.0, (epochs - warmup) * steps - 1)
        assert all(abs(b - a) <= 1.01 * max(climb, fall) for a, b in itertools.pairwise(rates))


class TestAccumulation:
    """Defect of the seed: the last incomplete group of every epoch was thrown away."""

    def test_a_full_window_leaves_the_loss_to_lightning(self):
        assert [schedule.loss_factor(batch, 32, 4, 4) for batch in range(8)] == [1.0] * 8

    def test_the_short_window_and_the_short_batch_count_by_their_images(self):
        # 22 images in batches of 4, windows of 4: 16 images, then 4 + 2 = 6
        assert schedule.loss_factor(4, 22, 4, 4) == pytest.approx(4 * 4 / 6)
        assert schedule.loss_factor(5, 22, 4, 4) == pytest.approx(4 * 2 / 6)

    @settings(deadline=None)
    @given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 8))
    def test_each_step_is_the_mean_over_its_images(self, images, size, window):
        losses = [float(i % 7) for i in range(images)]
        batches = [losses[i : i + size] for i in range(0, images, size)]
        for first in range(0, len(batches), window):
            group = batches[first : first + window]
            lightning = sum(
                schedule.loss_factor(first + i, images, size, window) * (sum(batch) / len(batch)) / window
                for i, batch in enumerate(group)
            )
            seen = [loss for batch in group for loss in batch]
            assert lightning == pytest.approx(sum(seen) / len(seen))

    def test_two_devices_halve_the_window(self):
        assert schedule.accumulation(SEED, 1) == 4
        assert schedule.accumulation(SEED, 2) == 2

    def test_a_batch_that_does_not_divide_is_an_error(self):
        with pytest.raises(KitError, match=r"training\.batch_size"):
            schedule.accumulation(TrainingConfig(batch_size=3), 2)

    @given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 8))
    def test_each_advice_for_a_batch_that_does_not_divide_works(self, effective, batch, processes):
        settings = TrainingConfig(effective_batch=effective, batch_size=batch)
        try:
            schedule.accumulation(settings, processes)
        except KitError as error:
            advised = re.findall(r"--set training\.(\w+)=(\d+)", error.do)
            assert advised[0][0] == "effective_batch"
            for knob, value in advised:
                changed = dataclasses.replace(settings, **{knob: int(value)})
                assert changed != settings
                assert schedule.accumulation(changed, processes) >= 1
            for count in re.findall(r"--set trainer\.devices=(\d+)", error.do):
                assert 0 < int(count) < processes
                assert schedule.accumulation(settings, int(count)) >= 1

    def test_two_images_of_three_processes_never_make_sixteen(self):
        with pytest.raises(KitError) as caught:
            schedule.accumulation(TrainingConfig(effective_batch=16, batch_size=2), 3)
        begun = "a run that has begun goes on with --set trainer.devices=2"
        assert caught.value.do == f"--set training.effective_batch=18; {begun}"

    def test_the_incomplete_group_makes_a_step(self, trained):
        history = pd.read_csv(Run(trained, "demo").history)
        images = 32 - len(read_split(Run(trained, "demo")).validation)
        assert history["step"].tolist() == [math.ceil(images / 8), 2 * math.ceil(images / 8)]
        assert images % 8


def test_the_data_are_opened_once(toy):
    """An index that vanishes after the audit would make whoever opens the cache again decode the images."""
    steps = []

    def track(items, description, total):
        steps.append(description)
        yield from items
        if description == "comparing images":
            for index in (toy / ".cache").glob("*.json"):
                index.unlink()

    with pytest.raises(KitError, match="coco"):  # the weights are checked after the data
        train(toy, None, "demo", (*TOY, "model.weights=coco"), track)
    assert steps == ["comparing images"]


def test_patience_counts_the_epochs_since_the_best():
    assert not schedule.patience_ended([], 2)
    assert not schedule.patience_ended([0.3, 0.1], 2)
    assert schedule.patience_ended([0.3, 0.1, 0.3], 2)
    assert not schedule.patience_ended([0.3, 0.1, 0.4], 2)
    assert not schedule.patience_ended([0.3] * 50, 0)


class TestBestWeights:
    """Defect of the seed: its best weights were a shallow copy, so that the last epoch was restored."""

    def test_a_shallow_copy_follows_the_training(self):
        layer = torch.nn.Linear(1, 1)
        best = layer.state_dict().copy()
        with torch.no_grad():
            layer.weight += 1
        assert torch.equal(best["weight"], layer.weight)

    def test_ours_are_those_of_the_best_epoch(self, trained):
        run = Run(trained, "demo")
        history = pd.read_csv(run.history)
        (epoch,) = read_finished(run).epoch
        assert epoch == history.loc[history["map50"] == history["map50"].max(), "epoch"].iloc[-1]
        best, last = load_checkpoint(run.best, ""), load_checkpoint(run.last, "")
        assert (best["kit"]["epoch"], last["kit"]["epoch"]) == (epoch, 2)
        same = all(torch.equal(best["state_dict"][name], last["state_dict"][name]) for name in best["state_dict"])
        assert same == (epoch == 2)


def test_checkpoints_are_plain_values_with_the_bare_detectors_names(trained):
    run = Run(trained, "demo")
    for path in (run.best, run.last):
        state = torch.load(path, weights_only=True)
        assert "backbone.body.stem.0.weight" in state["state_dict"]
        assert state["kit"]["labels"] == list(read_split(run).labels)
        assert state["kit"]["model"]["norm"] == "batch"


def test_the_run_folder_holds_what_is_promised_and_no_temporary_file(trained):
    folder = trained / "runs" / "demo"
    promised = ["config.json", "best.ckpt", "last.ckpt", "history.csv", "detections/validation.parquet"]
    assert all((folder / name).is_file() for name in promised)
    assert list((folder / "tensorboard").glob("events.*"))
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.rglob("*.parts"))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("training.ema_decay=0.9", "training.keep=ema")], ids=["plain", "ema"])
def test_an_interrupted_run_goes_on_to_the_same_weights(toy, tmp_path, more):
    """Also from another folder: a run that was moved still knows its best score."""
    assignments = (*TOY, *more, "training.max_epochs=3")
    straight = copied(toy, tmp_path / "straight")
    train(straight, None, "demo", assignments)
    interrupted_after_one_epoch(toy, assignments)
    assert not Run(toy, "demo").finished.exists()
    moved = copied(toy, tmp_path / "moved")
    train(moved, None, "demo", assignments)

    one, other = Run(straight, "demo"), Run(moved, "demo")
    for path, again in ((one.best, other.best), (one.last, other.last)):
        first, second = load_checkpoint(path, ""), load_checkpoint(again, "")
        assert first["state_dict"].keys() == second["state_dict"].keys()
        for name, weights in first["state_dict"].items():
            assert torch.equal(weights, second["state_dict"][name]), name
    rows = [pd.read_csv(run.history).drop(columns="seconds") for run in (one, other)]
    assert rows[0].equals(rows[1])
    tables = [pd.read_parquet(run.detections("validation")) for run in (one, other)]
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_workers_change_nothing_but_the_time(toy, tmp_path):
    alone = copied(toy, tmp_path / "alone")
    train(alone, None, "demo", TOY)
    train(toy, None, "demo", (*TOY, "data.workers=2"))
    one, other = (load_checkpoint(Run(workspace, "demo").last, "")["state_dict"] for workspace in (alone, toy))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def averaged(toy_source, tmp_path_factory):
    """A run of averaged weights, from pictures that are moved far."""
    workspace = copied(toy_source, tmp_path_factory.mktemp("averaged") / "toy")
    knobs = ("training.ema_decay=0.9", "training.keep=ema", "augmentation.affine_p=1", "augmentation.shift=0.5")
    return train(workspace, None, "demo", (*TOY, *knobs)).run


def test_boxes_that_leave_the_picture_are_counted_in_the_history(averaged):
    assert pd.read_csv(averaged.history)["boxes_lost"].gt(0).all()


def test_a_run_that_stopped_early_trains_no_more_when_its_end_was_lost(toy):
    assignments = (*TOY, "training.max_epochs=9", "training.patience=1", "training.learning_rate=1e-9",
                   "training.warmup_epochs=0", "training.final_rate=0")  # fmt: skip
    train(toy, None, "demo", assignments)
    run = Run(toy, "demo")
    epochs = len(pd.read_csv(run.history))
    assert epochs < 9
    run.finished.unlink()
    train(toy, None, "demo", assignments)
    assert len(pd.read_csv(run.history)) == epochs


def test_a_non_finite_loss_names_its_images_and_leaves_no_checkpoint(toy):
    with pytest.raises(KitError) as caught:
        train(toy, None, "demo", (*TOY, "training.learning_rate=1e30", "training.warmup_start_rate=1e30",
                                        "training.clip_norm=0"))  # fmt: skip
    assert ".png" in caught.value.found
    assert "epoch 1" in caught.value.found
    assert not Run(toy, "demo").last.exists()


def test_the_averaged_weights_differ_from_the_raw_ones_and_are_kept_on_demand(averaged):
    _, epoch, weights = kept_weights(averaged, "ema")
    _, _, raw = kept_weights(averaged, "last")
    assert epoch == 2
    name = "backbone.body.stem.0.weight"
    assert not torch.equal(weights[name], raw[name])


def test_devices_are_as_asked_for():
    config = toy_config()
    assert fit.process_count(config) == max(1, torch.cuda.device_count())


def test_the_largest_seed_seeds_everything():
    seed = override(Config(), [f"training.seed={2**63 - 1}"]).training.seed
    torch.manual_seed(seed)
    assert np.random.default_rng(seed).random() != np.random.default_rng([seed, 1]).random()
    assert np.random.SeedSequence([seed, 3, 4]).generate_state(1)
