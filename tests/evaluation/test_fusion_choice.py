"""The fusion that held-out images choose, on the whole road: reported with its number, and applied by predict."""

import json

import numpy as np
import pandas as pd
import pytest
from toy import TOY_TEST_IMAGES, toy_config

from kit.boxes.geometry import CORNERS
from kit.choosing import one_box
from kit.choosing.fusion_settings import Setting
from kit.config import load
from kit.data.competition import load_test, load_training
from kit.evaluation.comparison import compare
from kit.evaluation.held_out import score_held_out
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.metrics.average_precision import score_detections
from kit.runs.adoption import adopt
from kit.runs.folder import Run
from kit.schemas.tables import read_submission

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.slow]

COLUMNS = ["image_id", *CORNERS, "score", "label"]
VIEWS = ("plain", "flip", "bright")
OPEN = ("fusion.method=auto", "fusion.iou=auto", "decision.rule=score")


@pytest.fixture
def voting(toy, tmp_path):
    """A run whose three views agree on each true box, and each see another false one of a higher score."""
    data, test = load_training(toy, toy_config()), load_test(toy, toy_config())
    true = data.annotations.assign(score=np.linspace(0.5, 0.6, len(data.annotations)))[COLUMNS]
    asked = [(name, 20.0, 20.0, 60.0, 80.0, 0.5, data.labels[0]) for name in test.image_ids]
    true = pd.concat([true, pd.DataFrame(asked, columns=COLUMNS)], ignore_index=True)
    tables = []
    for number, view in enumerate(VIEWS):
        false = true.assign(x_min=2.0 + 30 * number, y_min=2.0, x_max=10.0 + 30 * number, y_max=10.0, score=0.9)
        tables.append(pd.concat([true, false]).assign(view=view))
    path = tmp_path / "found.csv"
    pd.concat(tables).to_csv(path, index=False)
    run = Run(toy, "voting")
    adopt(run, path, None, (f"competition.expected_ids={TOY_TEST_IMAGES}",), clip=True)
    return run


def test_a_setting_that_is_measurably_better_is_reported_and_predict_applies_it(voting, tmp_path):
    report = evaluate(voting, assignments=OPEN)
    device, choice = report.devices["fusion"], report.fusion_choice
    assert device.kept, device
    assert device.gain.low > 0
    assert (device.without, device.with_) == (choice.tried[0].map50, report.one_box.map50)
    assert choice.used == Setting("wbf", 0.3, 0.0)  # the first of those with the highest score
    assert len(choice.tried) == 32
    assert (report.fusion.method, report.fusion.iou, report.fusion.skip_score) == ("wbf", 0.3, 0.0)
    assert load(voting.config).fusion.method == "auto"
    written = json.loads(voting.report.read_text())
    assert written["devices"]["fusion"]["with"] == device.with_
    assert written["fusion_choice"]["used"] == {"method": "wbf", "iou": 0.3, "skip_score": 0.0}
    before = voting.report.read_bytes()
    boxes = pd.read_csv(predict(voting).csv)[CORNERS].to_numpy()
    assert boxes == pytest.approx(np.tile([20, 20, 60, 80], (TOY_TEST_IMAGES, 1)))
    assert voting.report.read_bytes() == before

    # The answers that were scored, as a file: it is a valid submission to their images, with the reported score.
    held = score_held_out(voting, fusion=choice)
    answers = held.answers(held.judged["score"], report.threshold.applied)
    (tmp_path / "answers.csv").write_text(one_box.submission_text(answers.table))
    read = read_submission(tmp_path / "answers.csv", held.mapping, held.split.labels, held.data.pixels.facts)
    scores = score_detections(held.one_box_truth, one_box.answers_to_detections(read), held.mapping["image_id"])
    assert scores.map50 == report.one_box.map50
    assert score_held_out(voting).fusion == choice


def test_without_a_better_setting_the_usual_one_stays_everywhere(voting):
    report = evaluate(voting, assignments=("fusion.method=wbf", "fusion.iou=0.5", "decision.rule=score"))
    assert (report.fusion_choice, dict(report.devices)) == (None, {})
    chosen = evaluate(voting, assignments=OPEN)
    assert (chosen.fusion.usual_method, chosen.fusion.usual_iou) == ("wbf", 0.5)  # as it was before auto
    assert not chosen.devices["fusion"].kept
    assert (chosen.fusion.method, chosen.fusion.iou) == ("wbf", 0.5)
    assert chosen.one_box == report.one_box


def test_a_comparison_takes_the_fusion_of_each_report(voting, tmp_path):
    evaluate(voting, assignments=OPEN)
    table = pd.read_parquet(voting.detections("validation")).drop(columns="run")
    table.to_csv(tmp_path / "again.csv", index=False)
    usual = Run(voting.workspace, "usual")
    adopt(usual, tmp_path / "again.csv", None, (f"competition.expected_ids={TOY_TEST_IMAGES}",))
    evaluate(usual, assignments=("decision.rule=score",))
    compared = compare(voting, usual)
    gain = evaluate(voting).devices["fusion"].gain
    assert (compared.one_box.difference, compared.one_box.verdict) == (pytest.approx(gain.value), "better")
