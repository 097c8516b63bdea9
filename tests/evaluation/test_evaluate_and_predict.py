"""The road from a trained run to a filed submission: what is validated is what is submitted."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import Timeout
from toy import TOY, TOY_TEST_IMAGES, second_run, toy_config

from kit.choosing import location_prior, one_box
from kit.config import FusionConfig, load, override, save
from kit.core.errors import KitError
from kit.core.locks import locked
from kit.data.competition import load_training
from kit.evaluation.comparison import compare
from kit.evaluation.held_out import out_of_fold_priors, score_held_out
from kit.evaluation.predict import predict
from kit.evaluation.report import current_report, evaluate
from kit.metrics import average_precision
from kit.reports.dataset_report import describe
from kit.reports.report_file import read_report
from kit.runs.detections import read_detections
from kit.runs.folder import Run, existing, newest_finished, read_split
from kit.runs.knobs import adjust
from kit.runs.locks import training_lock
from kit.schemas.image_headers import image_sizes
from kit.schemas.tables import validate_submission
from kit.submission.folders import read_submissions
from kit.training.train import train

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def run(trained):
    return Run(trained, "demo")


@pytest.fixture
def scored(evaluated):
    return Run(evaluated, "demo")


def test_the_report_has_every_promised_key(scored):
    report = json.loads(scored.report.read_text())
    assert 0 <= report["many_box"]["map50"] <= 1
    assert 0 <= report["one_box"]["map50"] <= 1
    assert 0 <= report["one_box"]["prior_map50"] <= 1
    assert {"map50_area", "map50_11", "map50_95"} <= set(report["many_box"])
    assert all("ap50" in part for part in report["per_class"].values())
    assert [point["threshold"] for point in report["threshold"]["curve"]] == [
        0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4,
    ]  # fmt: skip
    assert report["threshold"]["best"] == 0
    assert report["threshold"]["applied"] == 0


def test_the_one_box_score_asks_exactly_the_validation_images_with_one_box(scored):
    report = json.loads(scored.report.read_text())
    held = set(read_split(scored).validation)
    annotations = load_training(scored.workspace, toy_config()).annotations
    boxes = annotations[annotations["image_id"].isin(held)].groupby("image_id").size()
    assert report["one_box"]["images"] == report["images"]["validation_single_box"] == int((boxes == 1).sum())
    assert report["many_box"]["images"] == len(held)
    assert report["many_box"]["boxes"] == boxes.sum()


def test_patients_in_both_halves_are_unknown_and_not_none_if_the_pattern_does_not_fit(scored):
    assert read_report(scored.report).images.test_patients_in_train_share is not None
    save(load(scored.config).replace({"data.patient_pattern": "patient(.)"}), scored.config)
    assert evaluate(scored).images.test_patients_in_train_share is None
    assert "is not known" in (scored.folder / "report.html").read_text()
    described = describe(scored.workspace, load(scored.config))
    assert not [what for what in described.tables["counts"]["what"] if "patients" in what]
    assert "patients" not in described.tables["classes"]


class TestValidationOfTheSeedNotebook:
    """Defect: validation scored many boxes without the views, the submission had one box with them."""

    def test_the_reported_score_is_that_of_the_submissions_own_path_and_file_format(self, scored, tmp_path):
        report = json.loads(scored.report.read_text())
        views = set(read_detections(scored.detections("validation"))["view"])
        assert views == set(load(scored.config).inference.views)
        held = score_held_out(scored)
        answers = held.answers(held.judged[report["decision"]["chosen"]])
        (tmp_path / "submission.csv").write_text(one_box.submission_text(answers.table))
        written = pd.read_csv(tmp_path / "submission.csv")
        truth = one_box.one_box_truth(held.truth, held.mapping)
        scores = average_precision.score_detections(
            truth, one_box.answers_to_detections(written), held.mapping["image_id"]
        )
        assert scores.map50 == report["one_box"]["map50"]
        assert scores.images == report["one_box"]["images"]

    def test_the_prior_that_is_judged_never_saw_the_images_and_the_submissions_saw_all(self, scored):
        data, split = load_training(scored.workspace, toy_config()), read_split(scored)
        held = data.annotations["image_id"].isin(split.validation)
        sizes = image_sizes(data.pixels.facts)
        (judged,) = out_of_fold_priors(data.annotations, split, sizes)
        everything = location_prior.fit_prior(data.annotations, sizes)
        assert judged == location_prior.fit_prior(data.annotations[~held], sizes) != everything
        assert read_report(scored.report).prior == everything


class TestThresholdOfTheSeedNotebook:
    """Defect: its sweep ran the network again for every threshold, and a threshold can only lower the mAP."""

    def test_the_curve_needs_no_weights_and_never_rises(self, run):
        run.best.unlink()
        run.last.unlink()
        curve = evaluate(run).threshold.curve
        scores = [point.map50 for point in curve]
        assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(scores))

    @pytest.mark.slow
    def test_a_threshold_that_is_not_measurably_better_is_not_applied(self, scored):
        adjust(scored, ("decision.threshold=1",))
        report = evaluate(scored)
        assert report.decision.knobs.threshold == 1
        assert report.threshold.applied == 0
        assert report.one_box.map50 == report.threshold.curve[0].one_box_map50


def test_predict_evaluates_first_and_files_a_valid_submission(run):
    assert not run.report.exists()
    submission = predict(run, "first try")
    assert run.report.exists()
    assert submission.folder.name == "0001-first-try"
    table = validate_submission(submission.csv, run.workspace / "data", TOY_TEST_IMAGES)
    assert len(table) == TOY_TEST_IMAGES
    manifest = json.loads((submission.folder / "manifest.json").read_text())
    assert manifest["origin"]["local_score"] == json.loads(run.report.read_text())["one_box"]["map50"]
    assert manifest["origin"]["config"]["model"]["detector"] == "fcos_tiny"
    assert len(manifest["origin"]["weights"]["demo"]) == 64


def test_confidences_have_at_least_six_decimals(scored):
    lines = predict(scored).csv.read_text().splitlines()[1:]
    assert all(len(line.split(",")[6].partition(".")[2]) >= 6 for line in lines)


def test_two_ids_of_one_image_get_two_different_boxes(run):
    path = run.workspace / "data" / "ID_to_Image_Mapping.csv"
    mapping = pd.read_csv(path)
    mapping["image_id"] = mapping["image_id"].iloc[[0, 0, 0, 3, 4, 5, 6, 7]].to_numpy()
    path.write_text(mapping.to_csv(index=False))
    report = evaluate(run)
    assert report.one_box.images == report.many_box.images  # as many answers as boxes, on all images
    table = pd.read_csv(predict(run).csv)
    boxes = table[table["image_id"] == mapping["image_id"][0]][["x_min", "y_min", "x_max", "y_max"]]
    assert len(boxes) == len(boxes.drop_duplicates()) == 3


def test_an_image_without_any_detection_gets_the_priors_box_and_that_is_counted(scored):
    config = load(scored.config)
    predict(scored)
    path = scored.detections("test")
    table = pd.read_parquet(path)
    attributes = dict(table.attrs)
    missing = sorted(set(table["image_id"]))[0]
    table = table[table["image_id"] != missing]
    table.attrs = attributes
    table.to_parquet(path, index=False)
    submission = predict(scored)
    assert submission.origin.fallbacks == 1
    row = pd.read_csv(submission.csv).set_index("image_id").loc[missing]
    assert row["confidence"] == config.decision.fallback_confidence
    prior = json.loads(scored.report.read_text())["prior"]["ranked"][0]
    assert row["label"] == prior["label"]
    assert np.allclose(
        row[["x_min", "y_min", "x_max", "y_max"]].astype(float), np.array(prior["box"]) * 96, atol=0.01
    )


def test_predict_again_runs_no_network_and_files_the_next_number(scored):
    first = predict(scored, "one")
    scored.best.rename(scored.folder / "kept")
    before = scored.detections("test").stat().st_mtime_ns
    (scored.folder / "kept").rename(scored.best)
    second = predict(scored, "two")
    assert scored.detections("test").stat().st_mtime_ns == before
    assert (first.number, second.number) == (1, 2)
    assert first.csv_sha256 == second.csv_sha256
    assert [one.origin.message for one in read_submissions(scored.workspace / "submissions")] == ["one", "two"]


def test_a_report_older_than_its_detections_is_made_anew(scored):
    old = json.loads(scored.report.read_text())
    table = read_detections(scored.detections("validation"))
    table[table["score"] > table["score"].median()].to_parquet(scored.detections("validation"), index=False)
    assert current_report(scored).detections_sha256 != old["detections_sha256"]


def test_a_report_older_than_the_mapping_is_made_anew(scored):
    path = scored.workspace / "data" / "ID_to_Image_Mapping.csv"
    lines = path.read_text().splitlines()
    lines[-1] = lines[-1].split(",")[0] + "," + lines[1].split(",")[1]  # an image is asked for twice from now on
    path.write_text("\n".join(lines) + "\n")
    report = current_report(scored)
    assert report.one_box.images == score_held_out(scored).mapping["image_id"].nunique()
    assert report.expected_on_leaderboard.images == len(lines) - 2


def test_a_report_older_than_groups_csv_is_made_anew(scored):
    """It says whose images are drawn together in a resample, so every interval depends on it."""
    groups = scored.workspace / "data" / "groups.csv"
    images = read_split(scored).validation
    groups.write_text("image_id,group\n" + "".join(f"{name},{i % 3}\n" for i, name in enumerate(images)))
    before = current_report(scored)
    written = scored.report.stat().st_mtime_ns
    groups.write_bytes(groups.read_text().replace("\n", "\r\n").encode("utf-8-sig"))  # another editor saved it
    predict(scored)
    assert scored.report.stat().st_mtime_ns == written
    groups.write_text("image_id,group\n" + "".join(f"{name},{i}\n" for i, name in enumerate(images)))
    predict(scored)
    assert read_report(scored.report).made_from.groups_sha256 != before.made_from.groups_sha256
    groups.unlink()
    assert current_report(scored).made_from.groups_sha256 is None


def test_a_message_that_cannot_be_uploaded_is_refused_before_it_is_filed(scored):
    before = read_submissions(scored.workspace / "submissions")
    for message in ("one line\nand another", " ", "x" * 201):
        with pytest.raises(KitError, match="as one line of at most 200 letters"):
            predict(scored, message)
    assert read_submissions(scored.workspace / "submissions") == before
    assert predict(scored, "one line").origin.message == "one line"


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["decision.rule", "prior", "threshold.applied", "expected_on_leaderboard.low"])
def test_a_report_of_another_version_is_made_anew(lost, scored, caplog):
    report = json.loads(scored.report.read_text())
    *path, name = lost.split(".")
    part = report
    for key in path:
        part = part[key]
    part.pop(name)
    scored.report.write_text(json.dumps(report))
    caplog.set_level("INFO", "kit")
    assert current_report(scored).kit_version
    assert json.loads(scored.report.read_text()).keys() >= {"prior", "decision"}
    assert re.search(f"report.json cannot be read and is made anew: .*no {name}", caplog.text)


def test_a_report_with_a_word_for_a_number_is_made_anew(scored, caplog):
    report = json.loads(scored.report.read_text())
    before, report["prior"]["ranked"][0]["value"] = scored.report.read_bytes(), "high"
    scored.report.write_text(json.dumps(report))
    caplog.set_level("INFO", "kit")
    current_report(scored)
    assert "made anew: prior.ranked[0].value is 'high', not a finite number" in caplog.text
    assert scored.report.read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"),
    [("prior", {"ranked": [{"label": "x", "box": [0, 0, 1, 1], "hit_rate": 0.5, "value": 9.0}]}),
     ("threshold", {"best": 0.0, "one_box_best": 0.0, "applied": 0.9, "curve": []})],
)  # fmt: skip
def test_a_report_that_was_edited_is_made_anew_before_it_answers(key, value, scored, caplog):
    caplog.set_level("INFO", "kit")
    before = scored.report.read_bytes()
    scored.report.write_text(json.dumps(json.loads(before) | {key: value}))
    with pytest.raises(KitError, match="invoke evaluate --run demo"):
        read_report(scored.report)
    current_report(scored)
    assert "made anew" in caplog.text
    assert scored.report.read_bytes() == before
    content = json.loads(before)
    del content["sha256"]  # as an earlier version wrote it
    scored.report.write_text(json.dumps(content))
    assert read_report(scored.report).prior == current_report(scored).prior
    assert scored.report.read_bytes() == before


class TestDataAreLoadedOnce:
    @pytest.fixture
    def opened(self):
        """The tables that were opened while the test ran; an audit hook stays, so it is told when to stop."""
        paths, listening = [], [True]

        def listen(event, arguments):
            if listening and event == "open" and str(arguments[0]).endswith("train.csv"):
                paths.append(arguments[0])

        sys.addaudithook(listen)
        yield paths
        listening.clear()

    def loads(self, opened, use, scored):
        """How often ``use`` loads the training data."""
        opened.clear()
        load_training(scored.workspace, toy_config())
        once = len(opened)
        assert once
        opened.clear()
        use()
        return len(opened) / once

    def test_by_predict_that_evaluates_first(self, opened, scored):
        scored.report.unlink()
        assert self.loads(opened, lambda: predict(scored), scored) == 1

    @pytest.mark.slow
    def test_by_compare_of_two_runs_that_it_evaluates_first(self, opened, scored):
        other = second_run(scored, "other")
        scored.report.unlink()
        assert self.loads(opened, lambda: compare(scored, other), scored) == 1


def test_a_run_whose_folder_was_renamed_says_so(scored):
    scored.folder.rename(scored.folder.with_name("other"))
    with pytest.raises(KitError, match="rename the folder back"):
        evaluate(Run(scored.workspace, "other"))


def test_detections_of_an_image_that_was_not_held_out_are_refused(scored):
    path = scored.detections("validation")
    table = read_detections(path)
    table.loc[0, "image_id"] = read_split(scored).training(0)[0]
    table.to_parquet(path, index=False)
    with pytest.raises(KitError, match="1 other image"):
        score_held_out(scored)


@pytest.mark.parametrize("module", ["predict", "report"])
def test_knobs_are_changed_and_used_under_one_lock(module, scored, monkeypatch):
    """Two commands at once, each with its own --set: neither may answer by the other's."""
    before = load(scored.config).decision.rule

    def used(run, *rest):
        assert load(run.config).decision.rule == "score" != before
        with pytest.raises(Timeout), locked(run.folder / ".work", seconds=0):
            raise AssertionError("another command may change the knobs")
        raise EOFError  # before anything is computed

    name = "kit.evaluation.predict._predicted" if module == "predict" else "kit.evaluation.report._evaluated"
    monkeypatch.setattr(name, used)
    run_with = predict if module == "predict" else evaluate
    with pytest.raises(EOFError):
        run_with(scored, assignments=("decision.rule=score",))


@pytest.mark.slow
class TestKnobsAfterTheTraining:
    def test_those_that_act_on_stored_detections_may_change_and_are_reported(self, scored):
        adjust(scored, ("fusion.method=suppress", "fusion.iou=0.5"))
        assert current_report(scored).fusion == FusionConfig("suppress", 0.5)
        assert train(scored.workspace, "demo", None, ("competition.expected_ids=9",)).already
        assert load(scored.config).competition.expected_ids == 9

    def test_those_of_the_training_may_not(self, scored):
        with pytest.raises(KitError, match=r"training\.seed: 42 -> 1"):
            adjust(scored, ("training.seed=1",))


@pytest.mark.slow
class TestWhatWasLost:
    def test_detections_that_were_deleted_are_made_anew_by_train(self, scored):
        before = read_detections(scored.detections("validation"))
        scored.detections("validation").unlink()
        with pytest.raises(KitError, match="invoke train --run demo"):
            predict(scored)
        train(scored.workspace, "demo")
        assert read_detections(scored.detections("validation")).equals(before)

    @pytest.mark.parametrize("content", [None, ""])
    def test_a_lost_history_is_written_anew_and_the_report_goes_without_it_meanwhile(self, content, scored):
        before = scored.history.read_text()
        scored.history.unlink()
        if content is not None:
            scored.history.write_text(content)
        evaluate(scored)
        scored.finished.unlink()
        assert train(scored.workspace, "demo").finished.epochs == (2,)
        assert scored.history.read_text() == before

    def test_a_lost_checkpoint_is_an_error_that_names_it(self, scored):
        scored.best.unlink()
        with pytest.raises(KitError, match=r"best\.ckpt"):
            predict(scored)

    def test_a_broken_report_is_made_anew(self, scored):
        scored.report.write_text("{")
        assert predict(scored).origin.local_score == json.loads(scored.report.read_text())["one_box"]["map50"]

    def test_the_weights_that_a_run_started_from_are_not_needed_again(self, trained, tmp_path):
        run, start = Run(trained, "demo"), tmp_path / "start.ckpt"
        start.write_bytes(run.last.read_bytes())
        shutil.copy(run.last.with_name("seen.parquet"), tmp_path)
        train(trained, "again", "demo", (*TOY, f"model.weights={start}"))
        start.unlink()
        assert train(trained, "again", "demo", (*TOY, f"model.weights={start}")).already


@pytest.mark.slow
def test_norms_that_a_config_by_hand_leaves_open_are_named_at_the_start(toy):
    run, config = Run(toy, "mine"), override(toy_config(), ["training.max_epochs=1"])
    assert (config.model.norm, config.model.norm_eps) == ("auto", -1)
    run.folder.mkdir(parents=True)
    save(config, run.config)
    train(toy, "mine")
    assert (load(run.config).model.norm, load(run.config).model.norm_eps) == ("batch", 1e-5)
    assert train(toy, "mine").already
    assert predict(run).number == 1


def test_without_a_preset_the_recipe_suits_the_machine_and_that_is_said(toy, caplog):
    caplog.set_level("INFO", "kit")
    with pytest.raises(KitError):
        train(toy, assignments=(*TOY, "training.batch_size=3"))
    expected = "'seed', which suits a machine with a" if torch.cuda.is_available() else "'laptop'.*without"
    assert re.search(expected, caplog.text)


class TestAFirstStartThatFails:
    @pytest.mark.parametrize(
        ("wrong", "right"),
        [("training.batch_size=3", "training.batch_size=2"), ("model.weights=coco", "model.weights=none")],
    )
    def test_leaves_the_name_free_for_the_command_that_the_error_advises(self, wrong, right, toy):
        with pytest.raises(KitError) as caught:
            train(toy, None, "demo", (*TOY, wrong))
        assert right in caught.value.do
        assert not Run(toy, "demo").config.exists()

    def test_a_mistyped_workspace_is_not_made(self, tmp_path):
        with pytest.raises(KitError):
            train(tmp_path / "typo", None, "demo", TOY)
        assert not (tmp_path / "typo").exists()


class TestDataThatChanged:
    def test_an_image_that_came_later_stops_the_run_that_began_without_it(self, scored):
        source = sorted((scored.workspace / "data" / "train").glob("*.png"))[0]
        (source.parent / "99999999_000.png").write_bytes(source.read_bytes())
        with pytest.raises(KitError, match=r"99999999_000\.png"):
            predict(scored)
        scored.finished.unlink()
        with pytest.raises(KitError, match=r"99999999_000\.png"):
            train(scored.workspace, "demo")

    def test_predict_refuses_another_train_csv(self, scored):
        path = scored.workspace / "data" / "train.csv"
        path.write_text(path.read_text() + "\n")
        with pytest.raises(KitError, match=r"train\.csv"):
            predict(scored)

    def test_an_unreadable_image_that_no_row_names_is_a_fault(self, toy):
        (toy / "data" / "train" / "99999998_000.png").write_bytes(b"")
        with pytest.raises(KitError, match=r"99999998_000\.png"):
            train(toy, None, "demo", TOY)


@pytest.mark.slow
@pytest.mark.parametrize("name", [".cache", "runs", "submissions"])
def test_a_file_where_a_folder_belongs_is_an_error_with_its_path(name, trained):
    run = Run(trained, "demo")
    if name != "runs":
        shutil.rmtree(trained / name, ignore_errors=True)
        (trained / name).write_text("")
        with pytest.raises(KitError, match=name):
            predict(run)
    else:
        (trained / "other").mkdir()
        shutil.copytree(trained / "data", trained / "other" / "data")
        (trained / "other" / "runs").write_text("")
        with pytest.raises(KitError, match="runs"):
            train(trained / "other", None, "demo", TOY)


class TestTrainAgain:
    def test_a_finished_run_says_so_and_changes_nothing(self, run):
        before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
        trained = train(run.workspace, "demo")
        assert trained.already
        after = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
        assert {path for path in after if after[path] != before.get(path)} <= {
            run.folder / ".holder",
            run.folder / ".lock",
        }

    def test_other_knobs_are_refused_with_the_difference(self, run):
        with pytest.raises(KitError, match=r"training\.max_epochs: 2 -> 3"):
            train(run.workspace, "demo", "demo", (*TOY, "training.max_epochs=3"))

    def test_knobs_of_the_machine_may_change(self, run):
        assert train(run.workspace, "demo", None, ("data.workers=1", "trainer.accelerator=cpu")).already
        adjust(run, ["inference.batch_size=1"])  # what a run that does not fit the memory is advised to do
        assert load(run.config).inference.batch_size == 1

    def test_another_train_csv_is_refused(self, run):
        run.finished.unlink()
        path = run.workspace / "data" / "train.csv"
        path.write_text(path.read_text() + "\n")
        with pytest.raises(KitError, match=r"train\.csv"):
            train(run.workspace, "demo")

    def test_a_held_run_is_refused_with_its_holder(self, run):
        import os

        with training_lock(run), pytest.raises(KitError, match=f"process {os.getpid()}"):
            train(run.workspace, "demo")

    def test_a_mapping_fault_shows_before_the_training(self, toy):
        with pytest.raises(KitError, match=r"competition\.expected_ids"):
            train(toy, None, "demo", (*TOY, "competition.expected_ids=9"))
        assert not Run(toy, "demo").last.exists()


class TestRunNames:
    def test_the_nearest_names_are_said(self, run):
        with pytest.raises(KitError, match="nearest: demo"):
            existing(run.workspace, "dmo")

    def test_no_run_is_an_error_that_starts_one(self, toy):
        with pytest.raises(KitError, match="invoke train"):
            newest_finished(toy)

    @pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "a" * 65, "x.", "a b"])
    def test_a_name_that_is_no_plain_folder_is_refused(self, name, toy):
        with pytest.raises(KitError, match="--run NAME"):
            Run(toy, name)


def test_no_data_is_an_error_that_says_where_it_belongs(tmp_path):
    with pytest.raises(KitError, match="invoke demo"):
        train(tmp_path, None, "demo", TOY)


def test_the_dataset_report_is_written_with_its_figures(toy):
    report = describe(toy, toy_config())
    assert report.page == toy / "explore" / "explore.html"
    assert all(path.exists() for path in report.figures)
    counts = report.tables["counts"].astype(str).to_numpy().ravel().tolist()
    assert "32" in counts
    assert "8" in counts


@pytest.mark.slow
def test_stored_detections_are_scored_and_answered_without_torch(scored):
    first = predict(scored)
    code = f"""
import sys
from pathlib import Path
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.runs.folder import Run

run = Run(Path({str(scored.workspace)!r}), "demo")
evaluate(run)
print(predict(run).csv)
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == first.csv.read_bytes()
