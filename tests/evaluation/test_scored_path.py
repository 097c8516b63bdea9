"""The scored path: one fold is left alone, several are joined, and the test takes the held-out images' way."""

import numpy as np
import pandas as pd
import pytest
from box_tables import LEFT, NEAR_LEFT, RIGHT, random_detections
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from stores import answered, detector, one_box_images

from kit.boxes.geometry import CORNERS
from kit.choosing.selection import SCORE, SelectionRule, fit_rules
from kit.config import FusionConfig
from kit.core.errors import KitError
from kit.evaluation.joined_folds import candidates_for_test, joined
from kit.runs.members import Member, by_fold, fused

WBF, SUPPRESS = FusionConfig(method="wbf", iou=0.5), FusionConfig(method="suppress", iou=0.5)
VIEWS = ("plain", "flip")


def rows(*found):
    """Rows of (run, fold, box, score); one image, one view, one class."""
    return pd.DataFrame(
        [(run, fold, "plain", "1.png", *box, score, "Mass") for run, fold, box, score in found],
        columns=["run", "fold", "view", "image_id", *CORNERS, "score", "label"],
    )


def judged(*found):
    """Candidates of a fold as (box, confidence), with the value of the rule ``score``."""
    table = pd.DataFrame([(*box, confidence) for box, confidence in found], columns=[*CORNERS, "confidence"])
    table = table.assign(image_id="1.png", label="Mass", score=0.5, agreement=1.0)
    return SCORE.valued(table)


@pytest.mark.parametrize("config", [WBF, SUPPRESS])
def test_nothing_gives_no_candidates(config):
    members = [Member("a", VIEWS, folds=3)]
    assert len(fused(rows(), members, config)) == 0
    assert [len(fused(part, members, config)) for part in by_fold(rows(), members)] == [0, 0, 0]
    assert len(candidates_for_test(rows(), members, config, SCORE, {})) == 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(["wbf", "suppress"]), st.sampled_from([0.2, 0.5]))
def test_a_single_split_is_answered_as_its_held_out_images_are(seed, method, iou):
    # Their detections take the same way, number by number: joining one fold changes nothing.
    config, members = FusionConfig(method=method, iou=iou), [Member("a", VIEWS), Member("b", ("plain",))]
    table, sizes = random_detections(seed), {f"{number}.png": (1024, 1024) for number in range(3)}
    candidates = fused(table, members, config)
    truth = candidates.groupby("image_id").first().reset_index()[["image_id", *CORNERS, "label"]]
    for rule in fit_rules(candidates, truth, sizes).values():
        assert_frame_equal(candidates_for_test(table, members, config, rule, sizes), rule.judge(candidates, sizes))


def test_folds_are_joined_with_equal_weights_and_an_absent_one_counts_0():
    found = joined([judged((LEFT, 0.6)), judged((NEAR_LEFT, 0.3), (RIGHT, 0.9)), judged()], SCORE, 0.5)
    # (.6 + .3 + 0) / 3 and (0 + .9 + 0) / 3; y_max is weighted by the confidences.
    assert found["confidence"].tolist() == pytest.approx([0.9 / 3, 0.9 / 3])
    left = found.set_index("x_min").loc[0]
    assert left[CORNERS[1:]].tolist() == pytest.approx([0, 10, (0.6 * 10 + 0.3 * 8) / 0.9], abs=1e-5)


def test_the_rule_values_what_was_joined():
    rare = SelectionRule("calibrated-frequency", None, {"Mass": 0.25, "Nodule": 0.75})
    found = joined([judged((LEFT, 0.6)), judged((LEFT, 0.2))], rare, 0.5)
    assert found["confidence"].tolist() == pytest.approx([0.4])
    assert found["value"].tolist() == pytest.approx([0.4 / 0.25])


def test_each_fold_is_fused_by_itself_and_a_single_split_stands_in_every_fold():
    table = rows(
        ("five", 0, LEFT, 0.6), ("five", 1, RIGHT, 0.8), ("single", 0, NEAR_LEFT, 0.3),
    )  # fmt: skip
    members = [Member("five", ("plain",), folds=2), Member("single", ("plain",))]
    first, second = (fused(part, members, WBF) for part in by_fold(table, members))
    # Fold 0: both runs see the left box: mean(.6, .3) x 2 / 2. Fold 1: each box is seen by one of two.
    assert first[["score", "agreement"]].to_numpy() == pytest.approx(np.array([[0.45, 1.0]]))
    assert second["score"].tolist() == pytest.approx([0.8 / 2, 0.3 / 2])
    assert second["agreement"].tolist() == [0.5, 0.5]


def test_a_members_weight_is_that_of_its_views():
    table = rows(("a", 0, LEFT, 0.6), ("b", 0, LEFT, 0.6))
    alone = fused(table[table["run"] == "a"], [Member("a", ("plain",), 3.0), Member("b", ("plain",))], WBF)
    assert alone["score"].tolist() == pytest.approx([0.6 * 3 / (3 + 1)])


def test_rows_of_a_run_that_is_no_member_are_refused():
    # Left out in silence they would score 0, as those of a run whose folder was renamed did.
    table = rows(("a", 0, LEFT, 0.6), ("stranger", 0, LEFT, 0.9))
    with pytest.raises(KitError, match="rows of stranger plain"):
        fused(table, [Member("a", ("plain",))], SUPPRESS)


def test_a_rival_below_the_threshold_counts_as_it_does_on_held_out_images():
    truth, _, sizes = one_box_images(3, 300)
    found = detector(truth, 4)
    rule = fit_rules(found, truth, sizes)["calibrated"]
    table = found.assign(run="a", view="plain", fold=0)
    whole = candidates_for_test(table, [Member("a", ("plain",))], SUPPRESS, rule, sizes)
    cut = candidates_for_test(table, [Member("a", ("plain",))], SUPPRESS, rule, sizes, threshold=0.3)
    assert 0 < len(cut) < len(whole)
    assert_frame_equal(cut.reset_index(drop=True), whole[whole["score"] >= 0.3].reset_index(drop=True))


def test_a_threshold_leaves_out_candidates_by_their_score_before_the_folds_are_joined():
    table = rows(("a", 0, LEFT, 0.6), ("a", 1, RIGHT, 0.2))
    members = [Member("a", ("plain",), folds=2)]
    kept = candidates_for_test(table, members, WBF, SCORE, {}, threshold=0.3)
    assert kept["confidence"].tolist() == pytest.approx([0.6 / 2])


def test_joining_folds_of_one_detector_ranks_better_than_one_fold():

    from kit.metrics.average_precision import mean_average_precision

    truth, _, sizes = one_box_images(0, 200)
    folds = [detector(truth, seed, strength=1.5) for seed in range(1, 6)]
    rule = fit_rules(folds[0], truth, sizes)["calibrated"]
    parts = [rule.judge(fold, sizes) for fold in folds]
    alone = [mean_average_precision(answered(part, truth)) for part in parts]
    assert mean_average_precision(answered(joined(parts, rule, 0.5), truth)) > max(alone)
