"""Runs with image scores as evidence: the report measures them, and the submission uses what the report learned."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
from image_scores import IDS, scores_of
from toy import copied

from kit.choosing import devices, one_box
from kit.choosing.image_evidence import DEVICE, evidence_columns
from kit.config import load
from kit.core.errors import KitError
from kit.data.competition import load_test
from kit.evaluation.comparison import compare
from kit.evaluation.held_out import score_held_out
from kit.evaluation.joined_folds import candidates_for_test
from kit.evaluation.predict import predict
from kit.evaluation.report import current_report, evaluate
from kit.evaluation.run_view import view_run
from kit.metrics import average_precision
from kit.reports.report_file import read_report
from kit.runs.ensemble import ensemble
from kit.runs.folder import Run
from kit.runs.image_scores import scores_of_test
from kit.runs.members import members
from kit.runs.out_of_fold import detections
from kit.runs.score_adoption import adopt_image_scores
from kit.schemas.image_headers import image_sizes
from kit.schemas.tables import read_submission

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def workspace(evidence_source, tmp_path):
    return copied(evidence_source, tmp_path / "toy")


def with_scores(workspace, name, table):
    """An ensemble of 'boxes' with this table of image scores, which is adopted under ``name``."""
    (workspace / f"{name}.csv").write_text(table.to_csv(index=False))
    adopt_image_scores(Run(workspace, name), workspace / f"{name}.csv", assignments=IDS)
    run = Run(workspace, f"boxes-{name}")
    ensemble(run, ["boxes"], classifiers=[name])
    return run


def test_the_report_says_what_the_evidence_brought_and_how_good_it_is_alone(workspace, tmp_path):
    run = Run(workspace, "both")
    report = evaluate(run)
    content = json.loads(run.report.read_text())
    device = content["devices"][DEVICE]
    assert device["gain"]["value"] == pytest.approx(device["with"] - device["without"])
    assert device["kept"]
    assert set(content["decision"]["rule"]["calibration"]["extra"]) == set(evidence_columns(["scores"]))
    alone = evaluate(Run(workspace, "boxes"))
    assert device["without"] == alone.one_box.map50
    assert device["with"] == report.one_box.map50 > alone.one_box.map50
    assert (alone.devices, alone.classifiers) == ({}, {})
    classes = report.classifiers["scores"]
    assert all(score.images == 32 and 0 < score.positives < 32 for score in classes.values())
    assert np.mean([score.auc for score in classes.values()]) > 0.8
    page = (run.folder / "report.html").read_text()
    assert "image evidence" in page
    assert "its scores do not show that it was" in page.replace("\n", " ")

    # The cross-fitted answers that were scored, as a CSV: valid, and with the score of the report.
    held = score_held_out(run)
    answers = held.answers(held.judged[report.decision.chosen], report.threshold.applied)
    path = tmp_path / "answers.csv"
    path.write_text(one_box.submission_text(answers.table))
    written = read_submission(path, held.mapping, held.data.labels, held.data.pixels.facts)
    scores = average_precision.score_detections(
        held.one_box_truth, one_box.answers_to_detections(written), set(held.mapping["image_id"])
    )
    assert scores.map50 == report.one_box.map50


@pytest.mark.slow
def test_predict_applies_what_the_report_learned_and_compare_and_view_take_the_run(workspace):
    run = Run(workspace, "both")
    table = pd.read_csv(predict(run).csv)
    report = read_report(run.report)
    (member,) = members(run)
    truth = pd.read_csv(workspace / "test_truth.csv")
    sizes = dict.fromkeys(truth["image_id"], (96, 96))
    data = load_test(workspace, load(run.config))
    stored = detections(run, data)
    judged = candidates_for_test(
        stored, [member], load(run.config).fusion, report.decision.rule, image_sizes(data.pixels.facts), 0.0,
        scores=scores_of_test(run),
    )  # fmt: skip
    answers = one_box.decide(judged, data.mapping, report.prior, sizes)
    assert one_box.submission_text(answers.table) == predict(run).csv.read_text()
    alone = pd.read_csv(predict(Run(workspace, "boxes")).csv)
    right = truth.set_index("image_id")["label"]
    hits = [(each["label"] == each["image_id"].map(right)).mean() for each in (table, alone)]
    assert hits[0] >= hits[1]
    comparison = compare(run, Run(workspace, "boxes"))
    assert comparison.one_box.difference == pytest.approx(
        report.one_box.map50 - read_report(Run(workspace, "boxes").report).one_box.map50
    )
    assert all(path.exists() for path in view_run(run))


@pytest.mark.slow
def test_test_images_without_scores_are_missing_and_the_log_says_so(workspace, caplog):
    table = scores_of(workspace)
    of_train = table["image_id"].isin(table["image_id"].unique()[:32])
    run = with_scores(workspace, "half", table[of_train])
    with caplog.at_level(logging.WARNING, "kit"):
        text = predict(run).csv.read_text()
    assert "8 of 8 test images have no image scores of half" in caplog.text
    assert text != predict(Run(workspace, "both")).csv.read_text()


@pytest.mark.slow
def test_a_report_is_made_anew_where_a_classifier_has_other_scores(workspace):
    run = Run(workspace, "both")
    first = evaluate(run)
    assert current_report(run) == first
    scores = Run(workspace, "scores")
    for path in (scores.adopted, scores.split, scores.finished, scores.config, scores.detections("image_scores")):
        path.unlink()
    (workspace / "scores.csv").write_text(scores_of(workspace, seed=7).to_csv(index=False))
    adopt_image_scores(scores, workspace / "scores.csv", assignments=IDS)
    again = current_report(run)
    assert again.made_from.image_scores != first.made_from.image_scores
    assert again.classifiers != first.classifiers


@pytest.mark.slow
def test_scores_that_mislead_are_left_out_if_they_measurably_harm(workspace, monkeypatch):
    run = Run(workspace, "both")
    measured = devices.paired_difference

    def worse(first, second, *rest):
        return measured(second, first, *rest)

    monkeypatch.setattr(devices, "paired_difference", worse)
    report = evaluate(run)
    assert not report.devices[DEVICE].kept
    assert report.decision.rule.calibration.extra == {}


def test_what_has_image_scores_alone_is_not_scored_predicted_compared_or_viewed(workspace):
    scores, boxes = Run(workspace, "scores"), Run(workspace, "boxes")
    for use in (evaluate, predict, view_run, lambda run: compare(run, boxes), lambda run: compare(boxes, run)):
        with pytest.raises(KitError) as caught:
            use(scores)
        assert "--of DETECTOR --with scores" in caught.value.do
    assert not scores.report.exists()
