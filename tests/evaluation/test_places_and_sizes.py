"""Usual places and factors on the sides on the whole road: learned, reported, and applied to the test images."""

import numpy as np
import pandas as pd
import pytest
from toy import TOY_TEST_IMAGES, toy_config

from kit.boxes.geometry import CORNERS
from kit.choosing import one_box
from kit.choosing.places import PLACE_COLUMNS, fit_places
from kit.data.competition import load_test, load_training
from kit.evaluation.held_out import score_held_out
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.evaluation.submission_view import view_submission
from kit.metrics.average_precision import score_detections
from kit.reports.report_file import read_report
from kit.runs.adoption import adopt
from kit.runs.folder import Run
from kit.schemas.image_headers import image_sizes
from kit.schemas.tables import read_submission

pytestmark = pytest.mark.usefixtures("undrawn")

WIDER, ASIDE = 1.1, 0.34
COLUMNS = ["image_id", *CORNERS, "score", "label"]


@pytest.fixture
def wide(toy, tmp_path):
    """A run whose boxes are all a tenth too wide and high; most lie aside, and hit if they have the right size."""
    data, test = load_training(toy, toy_config()), load_test(toy, toy_config())
    true = data.annotations[CORNERS].to_numpy(np.float64)
    sides, centres = true[:, 2:] - true[:, :2], (true[:, :2] + true[:, 2:]) / 2
    inward = np.where(centres[:, 0] < 48, 1, -1) * (np.arange(len(true)) % 4 > 0)
    centres[:, 0] += ASIDE * 0.94 * inward * sides[:, 0]
    half = sides * WIDER / 2
    table = data.annotations.assign(
        **dict(zip(CORNERS, np.hstack([centres - half, centres + half]).T, strict=True))
    )
    table = table.assign(score=np.where(inward == 0, 0.6, 0.4) + np.linspace(0, 0.3, len(table)))
    more = [(name, 20.0, 20.0, 60.0, 80.0, 0.6, data.labels[0]) for name in test.image_ids]
    path = tmp_path / "found.csv"
    pd.concat([table[COLUMNS], pd.DataFrame(more, columns=COLUMNS)]).to_csv(path, index=False)
    run = Run(toy, "wide")
    adopt(run, path, None, (f"competition.expected_ids={TOY_TEST_IMAGES}",), clip=True)
    return run


def test_wide_boxes_are_repaired_in_the_report_and_in_the_submission(wide, tmp_path):
    data = load_training(wide.workspace, toy_config())
    report = evaluate(wide, assignments=("decision.box_scale=auto", "decision.localisation=auto"))
    device = report.devices["box_scale"]
    assert device.kept, device
    assert report.one_box.map50 == device.with_ > device.without + 0.2
    assert device.gain.low > 0
    factors = report.box_scale.pooled
    assert (factors.width, factors.height) == pytest.approx((1 / WIDER, 1 / WIDER), abs=0.01)
    assert report.devices["localisation"].kept
    assert report.places == fit_places(data.annotations, image_sizes(data.pixels.facts))
    assert set(report.decision.rule.calibration.extra) == set(PLACE_COLUMNS)
    submission = predict(wide)
    boxes = pd.read_csv(submission.csv)[CORNERS].to_numpy()
    x, y = 20 * factors.width, 30 * factors.height  # half the sides of the box that was found on each test image
    assert boxes == pytest.approx(np.tile([40 - x, 50 - y, 40 + x, 50 + y], (TOY_TEST_IMAGES, 1)), abs=0.005)

    # The page of the submission makes the same candidates anew, and shows them.
    path, *_ = view_submission(wide.workspace, submission, expected_ids=TOY_TEST_IMAGES)
    assert "answers otherwise by now" not in path.read_text(encoding="utf-8")

    # The answers that were scored, as a file: it is a valid submission to their images, with the reported score.
    held = score_held_out(wide)
    answers = held.answers(held.judged[report.decision.chosen], report.threshold.applied)
    (tmp_path / "answers.csv").write_text(one_box.submission_text(answers.table))
    written = read_submission(tmp_path / "answers.csv", held.mapping, held.split.labels, held.data.pixels.facts)
    scores = score_detections(held.one_box_truth, one_box.answers_to_detections(written), held.mapping["image_id"])
    assert scores.map50 == report.one_box.map50
    assert read_report(wide.report).box_scale == report.box_scale
