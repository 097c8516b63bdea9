"""What was lost, by its cause: nothing, each cause by hand, and what must hold for every table."""

import math

import pytest
from box_tables import detected, random_case, truth_of
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.boxes.nearest_truth import hits_alone, nearest_true_boxes
from kit.metrics.average_precision import score_detections
from kit.metrics.error_analysis import CAUSES, RIGHT, analyse_errors, detection_causes

BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)
SHIFTED = (0, 0, 10, 4)  # overlaps BOX by 40 / 100
TWO = truth_of(("1.png", BOX, "Mass"), ("2.png", BOX, "Nodule"))
BOTH = ["1.png", "2.png"]


def counts(found):
    return {cause: part.count for cause, part in found.causes.items() if part.count}


def gains(found):
    return {cause: part.gain for cause, part in found.causes.items() if part.gain}


def test_no_truth_and_no_detections_lose_nothing():
    nothing = analyse_errors(truth_of(), detected(), [])
    assert (nothing.boxes, nothing.found, counts(nothing)) == (0, 0, {})
    assert math.isnan(nothing.map50)
    assert list(nothing.causes) == list(CAUSES)
    wild = analyse_errors(truth_of(), detected(("1.png", BOX, 0.9, "Mass")), ["1.png"])
    assert counts(wild) == {"background": 1}


def test_without_detections_every_box_is_missed_and_asking_for_none_leaves_nothing():
    found = analyse_errors(TWO, detected(), BOTH)
    assert (found.map50, found.found, counts(found)) == (0, 0, {"missed": 2})
    assert math.isnan(found.causes["missed"].gain)


def test_a_perfect_table_loses_nothing():
    found = analyse_errors(TWO, TWO.assign(score=0.5), BOTH)
    assert (found.map50, found.found, counts(found), gains(found)) == (1, 2, {}, {})


def test_a_wrong_class_by_hand():
    table = detected(("1.png", BOX, 0.9, "Nodule"), ("2.png", BOX, 0.8, "Nodule"))
    found = analyse_errors(TWO, table, BOTH)
    assert counts(found) == {"wrong class": 1}  # and the Mass is not missed: something points to it
    # Mass 0, Nodule found at rank 2: (0 + 1/2) / 2. Repaired, both classes are perfect.
    assert found.map50 == pytest.approx(1 / 4)
    assert gains(found) == {"wrong class": pytest.approx(3 / 4)}


def test_a_wrong_place_by_hand():
    table = detected(
        ("1.png", SHIFTED, 0.9, "Mass"), ("1.png", SHIFTED, 0.8, "Mass"), ("2.png", BOX, 0.5, "Nodule")
    )
    found = analyse_errors(TWO, table, BOTH)
    assert counts(found) == {"wrong place": 2}
    # Of two that point to one box the higher becomes a hit, the other goes.
    assert gains(found) == {"wrong place": pytest.approx(1 - 1 / 2)}


def test_a_duplicate_and_background_by_hand():
    table = detected(
        ("1.png", BOX, 0.9, "Mass"), ("1.png", (0, 0, 10, 9), 0.8, "Mass"),  # duplicate, after the hit: no harm
        ("1.png", FAR, 0.7, "Nodule"), ("2.png", BOX, 0.6, "Nodule"),
    )  # fmt: skip
    found = analyse_errors(TWO, table, BOTH)
    assert counts(found) == {"duplicate": 1, "background": 1}
    assert found.map50 == pytest.approx((1 + 1 / 2) / 2)
    assert gains(found) == {"background": pytest.approx(1 / 4)}


def test_a_misplaced_box_of_another_class_is_background():
    found = analyse_errors(TWO, detected(("1.png", SHIFTED, 0.9, "Nodule")), BOTH)
    assert counts(found) == {"background": 1, "missed": 2}


def test_a_box_that_somebody_took_is_not_found_again():
    table = detected(("1.png", BOX, 0.9, "Mass"), ("1.png", SHIFTED, 0.8, "Mass"), ("1.png", BOX, 0.7, "Nodule"))
    found = analyse_errors(TWO, table, BOTH)
    assert counts(found) == {"wrong place": 1, "wrong class": 1, "missed": 1}
    assert found.causes["wrong place"].gain == 0  # it goes, and was behind the hit anyway


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_every_detection_and_every_box_is_counted_once_and_no_repair_does_harm(seed, coarse):
    truth, table, names = random_case(seed, coarse=coarse)
    found = analyse_errors(truth, table, names)
    assert found.map50 == score_detections(truth, table, names).map50
    assert found.boxes == len(truth)
    wrong = sum(part.count for cause, part in found.causes.items() if cause != "missed")
    assert wrong + found.found == len(table)
    assert found.causes["missed"].count <= found.boxes - found.found
    for cause, part in found.causes.items():
        assert math.isnan(part.gain) or part.gain >= -1e-12, cause
        assert part.count or not part.gain


def test_the_nearest_boxes_by_hand():
    truth = truth_of(
        ("1.png", FAR, "Mass"), ("1.png", BOX, "Mass"), ("1.png", BOX, "Nodule"), ("2.png", BOX, "Mass")
    )
    table = detected(("1.png", SHIFTED, 0.5, "Mass"), ("3.png", BOX, 0.5, "Mass"), ("2.png", BOX, 0.5, "Nodule"))
    own, other = nearest_true_boxes(truth, table)
    assert (own.truth.tolist(), own.iou.tolist()) == ([1, -1, -1], [0.4, 0, 0])
    assert (other.truth.tolist(), other.iou.tolist()) == ([2, -1, 3], [0.4, 0, 1])
    assert hits_alone(truth, table, 0.4).tolist() == [True, False, False]
    assert len(hits_alone(truth_of(), detected(), 0.5)) == 0


def test_alone_a_second_box_on_a_truth_is_right_too():
    table = detected(("1.png", BOX, 0.9, "Mass"), ("1.png", BOX, 0.8, "Mass"))
    assert hits_alone(TWO, table, 0.5).tolist() == [True, True]


@pytest.mark.parametrize("seed", range(5))
def test_the_cause_of_each_detection_is_counted_by_the_analysis_above_any_threshold(seed):
    truth, found, names = random_case(seed)
    found = found.reset_index(drop=True)
    each = detection_causes(truth.reset_index(drop=True), found, names)
    for threshold in (0, 0.3, 0.7):
        above = (found["score"] >= threshold).to_numpy()
        analysed = analyse_errors(truth.reset_index(drop=True), found[above].reset_index(drop=True), names)
        assert (each.cause[above] == RIGHT).sum() == analysed.found
        for cause in CAUSES[:-1]:
            assert (each.cause[above] == cause).sum() == analysed.causes[cause].count
    assert ((each.true_box >= 0) == (each.cause != "background")).all()
    labels = truth["label"].to_numpy(object)
    hit = each.cause == RIGHT
    assert (labels[each.true_box[hit]] == found["label"].to_numpy(object)[hit]).all()
