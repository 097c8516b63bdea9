"""Folds: each image is detected by the weights that never saw it, and a kill loses at most an epoch."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from command_line import PATIENCE_SECONDS
from PIL import Image
from repository import KILLER, ROOT
from toy import FOLDS, TOY, TOY_TEST_IMAGES, copied

from kit.config import load, override, save
from kit.core.errors import KitError
from kit.data.competition import load_training, patients
from kit.data.synthetic.generator import write_competition
from kit.detectors.checkpoints import load_checkpoint
from kit.evaluation.predict import predict
from kit.evaluation.report import fold_training
from kit.runs.detections import read_detections
from kit.runs.folder import Run, read_finished, read_split
from kit.runs.locks import training_lock
from kit.training.train import train

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def run(folded):
    return Run(folded, "folds")


class TestOutOfFold:
    def test_every_training_image_is_held_out_by_one_fold_and_no_patient_by_two(self, run):
        split = read_split(run)
        assert len(split.folds) == 3
        assert split.validation == split.images == load_training(run.workspace, load(run.config)).image_ids
        patient = patients(split.images, load(run.config).data.patient_pattern, {})
        held = [{patient[image_id] for image_id in fold} for fold in split.folds]
        assert sum(map(len, held)) == len(set.union(*held))

    def test_an_image_is_detected_by_the_fold_that_held_it_out(self, run):
        table, fold_of = read_detections(run.detections("validation")), read_split(run).fold_of
        assert set(table["fold"]) == {0, 1, 2}
        assert (table["image_id"].map(fold_of) == table["fold"]).all()
        assert len(table) == sum(len(read_detections(fold.detections("validation"))) for fold in run.in_folds(3))

    def test_each_fold_has_its_folder_and_the_end_names_all_weights(self, run):
        for fold in run.in_folds(3):
            assert fold.home == run.folder / f"fold-{fold.fold}"
            assert all(path.is_file() for path in (fold.best, fold.last, fold.history))
            assert list((fold.home / "tensorboard").glob("events.*"))
        finished = read_finished(run)
        assert (finished.epoch, finished.epochs) == ((1, 1, 1), (1, 1, 1))
        assert list(finished.weights) == ["folds/fold-0", "folds/fold-1", "folds/fold-2"]
        assert len(set(finished.weights.values())) == 3

    def test_all_images_are_scored_at_once_and_each_folds_history_is_shown(self, run):
        report = json.loads(run.report.read_text())
        assert report["many_box"]["images"] == report["images"]["validation"] == 32
        assert report["images"]["folds"] == 3
        assert [fold["epochs"] for fold in report["training"]] == [1, 1, 1]
        assert {path.stem for path in (run.folder / "figures").glob("history*")} == {
            "history-fold-0", "history-fold-1", "history-fold-2",
        }  # fmt: skip
        assert 0 < report["images"]["test_patients_in_train_share"] < 1

    def test_every_fold_looks_at_every_test_image(self, run):
        submission = predict(run)
        table = read_detections(run.detections("test"))
        seen = table.groupby("fold")["image_id"].nunique()
        assert seen.index.tolist() == [0, 1, 2]
        assert (seen == TOY_TEST_IMAGES).all()
        manifest = json.loads((submission.folder / "manifest.json").read_text())
        assert len(manifest["origin"]["weights"]) == 3
        before = run.detections("test").stat().st_mtime_ns
        assert predict(run).csv_sha256 == submission.csv_sha256
        assert run.detections("test").stat().st_mtime_ns == before


class TestAgain:
    def test_a_finished_run_says_so_also_for_one_fold(self, run):
        assert train(run.workspace, "folds").already
        assert train(run.workspace, "folds", fold=1).already

    def test_another_number_of_folds_is_another_run(self, run):
        with pytest.raises(KitError, match=r"data\.folds: 3 -> 2"):
            train(run.workspace, "folds", None, ("data.folds=2",))

    @pytest.mark.parametrize("fold", [-1, 3])
    def test_a_fold_that_is_not_there_is_an_error(self, fold, run):
        with pytest.raises(KitError, match="--fold between 0 and 2"):
            train(run.workspace, "folds", fold=fold)

    def test_a_fold_that_is_being_trained_is_refused_and_another_one_is_not(self, run):
        with training_lock(run.in_folds(3)[1]):
            with pytest.raises(KitError, match=f"(?s)'folds/fold-1'.*process {os.getpid()}"):
                train(run.workspace, "folds", fold=1)
            with pytest.raises(KitError, match="'folds/fold-1'"):
                train(run.workspace, "folds")
            assert train(run.workspace, "folds", fold=2).already

    def test_lost_detections_are_merged_again_without_a_network(self, run):
        before = read_detections(run.detections("validation"))
        run.detections("validation").unlink()
        run.finished.unlink()
        kept = {fold.detections("validation").stat().st_mtime_ns for fold in run.in_folds(3)}
        assert train(run.workspace, "folds").finished.epochs == (1, 1, 1)
        assert read_detections(run.detections("validation")).equals(before)
        assert {fold.detections("validation").stat().st_mtime_ns for fold in run.in_folds(3)} == kept

    def test_a_checkpoint_that_was_changed_after_the_end_answers_no_test_image(self, run):
        last, best = run.in_folds(3)[0].last, run.in_folds(3)[1].best
        best.write_bytes(last.read_bytes())
        with pytest.raises(KitError, match="as it was when the run was finished") as caught:
            predict(run)
        assert str(best) in str(caught.value)
        assert not (run.workspace / "submissions").exists()

    @pytest.mark.slow
    def test_an_end_with_a_hash_too_few_answers_no_test_image(self, run):
        finished = json.loads(run.finished.read_text())
        run.finished.write_text(json.dumps(finished | {"weights": dict(list(finished["weights"].items())[:1])}))
        with pytest.raises(KitError, match=r"when the run was finished \(no hash"):
            predict(run)

    def test_norms_that_a_config_leaves_open_are_those_of_the_weights(self, run):
        config = load(run.config)
        save(
            dataclasses.replace(config, model=dataclasses.replace(config.model, norm="auto", norm_eps=-1.0)),
            run.config,
        )
        assert predict(run).number == 1

    def test_weights_that_do_not_fit_their_config_are_named(self, run):
        config = override(load(run.config), ["model.detector=fcos_resnet50_fpn"])
        save(config, run.config)
        with pytest.raises(KitError, match="to fit the detector of") as caught:
            predict(run)
        assert str(run.in_folds(3)[0].best) in str(caught.value)

    def test_the_images_that_folds_began_with_are_settled(self, run):
        run.finished.unlink()
        source = sorted((run.workspace / "data" / "train").glob("*.png"))[0]
        (source.parent / "99999999_000.png").write_bytes(source.read_bytes())
        for fold in run.in_folds(3):
            fold.last.unlink()
        with pytest.raises(KitError, match=r"99999999_000\.png"):
            train(run.workspace, "folds")


def copied_without_times(source, goal, run):
    """A copy of a workspace with new file times, without its pixel cache and without the run's checkpoints."""
    shutil.copytree(source, goal, copy_function=shutil.copyfile)
    shutil.rmtree(goal / ".cache")
    for path in (goal / "runs" / run).rglob("*.ckpt"):
        path.unlink()
    return goal


class TestCopiedWorkspace:
    """Stored detections are keyed by weights, knobs, labels and pixels, not by names and times of files."""

    def test_it_needs_neither_checkpoints_nor_a_network(self, run, tmp_path):
        before = predict(run)
        copy = Run(copied_without_times(run.workspace, tmp_path / "copy", "folds"), "folds")
        stored = {path: path.stat().st_mtime_ns for path in copy.folder.rglob("detections/*.parquet")}
        assert len(stored) == 8
        assert predict(copy).csv_sha256 == before.csv_sha256
        assert {path: path.stat().st_mtime_ns for path in copy.folder.rglob("detections/*.parquet")} == stored
        assert train(copy.workspace, "folds").already

    def test_other_pixels_under_the_same_name_are_detected_anew(self, run, tmp_path, caplog):
        caplog.set_level("INFO", "kit")
        predict(run)
        copy = Run(copied_without_times(run.workspace, tmp_path / "copy", "folds"), "folds")
        for workspace in (run.workspace, copy.workspace):
            path = sorted((workspace / "data" / "test").glob("*.png"))[0]
            with Image.open(path) as image:
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
        predict(run)
        assert caplog.text.count("detecting again") == 3
        with pytest.raises(KitError, match="no such file"):  # the copy has no checkpoints
            predict(copy)
        assert not list(copy.folder.rglob("*.parts"))


@pytest.mark.slow
def test_the_run_is_finished_by_the_fold_that_ends_last(folded_source, toy):
    for fold in (2, 0):
        trained = train(toy, "folds", "demo", FOLDS, fold=fold)
        assert trained.finished is None
        assert not Run(toy, "folds").finished.exists()
    finished = train(toy, "folds", "demo", FOLDS, fold=1).finished
    whole = Run(folded_source, "folds")
    assert finished.weights.keys() == read_finished(whole).weights.keys()
    one, other = (read_detections(run.detections("validation")) for run in (Run(toy, "folds"), whole))
    assert one.equals(other)


class TestInLoop:
    def test_a_lost_history_has_no_numbers(self):
        training = fold_training(pd.DataFrame({"epoch": [], "map50": []}), 3)
        assert (training.epoch, training.epochs) == (3, 0)
        assert all(math.isnan(score) for name, score in vars(training).items() if name not in ("epoch", "epochs"))

    def test_the_spread_is_that_of_the_last_ten_epochs(self):
        scores = [0.9, 0.1, *(0.3 + 0.01 * i for i in range(10))]
        training = fold_training(pd.DataFrame({"epoch": range(1, 13), "map50": scores}), 1)
        assert (training.chosen_map50, training.last_map50, training.last_ten_low) == (0.9, scores[-1], 0.3)
        assert training.last_ten_high == scores[-1]
        # The deviations are .045, .035 ... .005, twice each: 2 * (.045^2 + ... + .005^2) = .00825, over 9.
        assert training.last_ten_sd == pytest.approx((0.00825 / 9) ** 0.5)


def started(*words, **variables):
    # A suite that runs in the background ignores Ctrl-C, and so would what it starts: handlers are not inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command = [sys.executable, "-m", "invoke", "train", "--run", "folds", "--preset", "demo", *map(str, words)]
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {name: str(value) for name, value in variables.items()},
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def ended(process, code=0):
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said


def killed_when(process, path, how):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    return ended(process, -signal.SIGKILL if how == signal.SIGKILL else 130)


def assert_same(one, other):
    folds = len(read_split(one).folds)
    for first, second in zip(one.in_folds(folds), other.in_folds(folds), strict=True):
        for path, again in ((first.best, second.best), (first.last, second.last)):
            weights, same = load_checkpoint(path, "")["state_dict"], load_checkpoint(again, "")["state_dict"]
            assert all(bool((weights[name] == same[name]).all()) for name in same)
    tables = [read_detections(run.detections("validation")) for run in (one, other)]
    assert tables[0].equals(tables[1])
    assert not list(one.folder.rglob("*.partial"))
    assert not list(one.folder.rglob("*.parts"))


def knobs(*assignments):
    return [word for assignment in assignments for word in ("--set", assignment)]


@pytest.mark.slow
def test_five_folds_that_were_killed_end_as_five_that_were_not(tmp_path):
    """Killed in the second fold, stopped in the fourth, killed while the fifth detects."""
    straight = tmp_path / "straight"
    write_competition(straight, 3, train_images=80, test_images=TOY_TEST_IMAGES, size_px=64)
    killed = copied(straight, tmp_path / "killed")
    words = ("--folds", 5, *knobs(*TOY), "--workspace")
    folds = Run(killed, "folds").in_folds(5)
    killed_when(started(*words, killed), folds[1].history, signal.SIGKILL)
    again = killed_when(started(*words, killed), folds[3].history, signal.SIGINT)
    assert "folds/fold-1: going on from epoch 2 of 2" in again
    assert "fold 0, epoch" not in again
    # When the first of its detections are to be written.
    at = {"KILL_UNDER": folds[4].home, "KILL_AT": "os.mkdir detections"}
    ended(started(*words, killed, PYTHONPATH=KILLER, **at), -signal.SIGKILL)
    assert folds[4].last.exists() and not folds[4].detections("validation").exists()
    said = ended(started(*words, killed))
    assert "epoch" not in said.partition("run folds is finished")[0]
    ended(started(*words, straight))
    assert_same(Run(killed, "folds"), Run(straight, "folds"))


@pytest.mark.slow
def test_two_processes_train_a_fold_each_at_the_same_time_and_one_of_them_finishes_the_run(toy, tmp_path):
    straight = copied(toy, tmp_path / "straight")
    words = ("--folds", 2, *knobs(*TOY), "--workspace")
    both = [started("--fold", fold, *words, toy) for fold in (0, 1)]
    ends = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert any("run folds is finished" in said for said in ends)
    ended(started(*words, straight))
    assert_same(Run(toy, "folds"), Run(straight, "folds"))


@pytest.mark.slow
def test_two_processes_train_the_folds_together(toy):
    """Each fold's training is shared, as on two GPUs; the second process writes nothing and ends with the first."""
    words = ("--folds", 2, *knobs(*TOY, "trainer.devices=2", "trainer.accelerator=cpu"), "--workspace", toy)
    said = ended(started(*words))
    assert said.count("fold 0, epoch") == said.count("fold 1, epoch") == 2
    assert said.count("is finished") == 1
    assert read_finished(Run(toy, "folds")).epochs == (2, 2)
