"""Where the ceiling lies: answers whose fault is known by construction, and parts that sum to the whole."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.boxes.geometry import CORNERS
from kit.choosing.ceiling import ceiling
from kit.choosing.location_prior import Prior, PriorBox
from kit.choosing.one_box import Decision, decide
from kit.choosing.selection import SCORE, oracle, shuffled

RIGHT, WRONG = (0.0, 0.0, 40.0, 40.0), (50.0, 50.0, 90.0, 90.0)
NAMES = ("1.png", "2.png", "3.png", "4.png")
SIZES = dict.fromkeys(NAMES, (100, 100))
PRIOR = Prior((PriorBox("Mass", (0.6, 0.6, 0.9, 0.9), 0.1, 0.1),))
TRUTH = pd.DataFrame([(name, *RIGHT, "Mass") for name in NAMES], columns=["image_id", *CORNERS, "label"])


def answers(*rows, fallbacks=()):
    """Rows of (image, box, confidence, label)."""
    table = pd.DataFrame(
        [(name, *box, confidence, label) for name, box, confidence, label in rows],
        columns=["image_id", *CORNERS, "confidence", "label"],
    )
    table.insert(0, "ID", range(len(table)))
    return Decision(table, fallbacks)


IDEAL = answers(*((name, RIGHT, 1.0, "Mass") for name in NAMES))


def parts(found):
    return {
        name: (getattr(found, name).answers, round(getattr(found, name).gain, 6))
        for name in ("image_ranking", "candidate", "wrong_class")
    }


def test_without_images_nothing_is_known():
    found = ceiling(answers(), answers(), TRUTH.iloc[:0], ())
    assert math.isnan(found.chosen)
    assert math.isnan(found.candidate.gain)
    assert (found.image_ranking.answers, found.wrong_class.answers, found.without_candidate) == (0, 0, 0)


def test_the_oracles_own_answers_lack_nothing():
    found = ceiling(IDEAL, IDEAL, TRUTH, NAMES)
    assert (found.chosen, found.oracle, found.without_candidate) == (1, 1, 0)
    assert parts(found) == dict.fromkeys(("image_ranking", "candidate", "wrong_class"), (0, 0.0))


def rows_with(first):
    return answers(first, *((name, RIGHT, 0.5, "Mass") for name in NAMES[1:]))


@pytest.mark.parametrize(
    ("first", "part"),
    [
        # Ranked last, a wrong answer costs its recall: 3 of 4 boxes are found, 76 of 101 points of recall.
        (("1.png", WRONG, 0.1, "Mass"), "candidate"),
        (("1.png", RIGHT, 0.1, "Nodule"), "wrong_class"),
        (("1.png", WRONG, 0.9, "Nodule"), "wrong_class"),
    ],
)
def test_one_wrong_answer_is_of_one_kind(first, part):
    found = ceiling(rows_with(first), IDEAL, TRUTH, NAMES)
    none = dict.fromkeys(("image_ranking", "candidate", "wrong_class"), (0, 0.0))
    assert parts(found) == none | {part: (1, round(25 / 101, 6))}
    assert found.chosen == pytest.approx(76 / 101)


def test_a_wrong_answer_that_comes_first_costs_the_ranking_too():
    # Ranked first it leaves precisions of 1/2, 2/3, 3/4: the envelope is 3/4 up to a recall of 3/4.
    found = ceiling(rows_with(("1.png", WRONG, 0.9, "Mass")), IDEAL, TRUTH, NAMES)
    assert found.chosen == pytest.approx(0.75 * 76 / 101)
    assert parts(found) == {
        "image_ranking": (3, round(0.25 * 76 / 101, 6)),
        "candidate": (1, round(25 / 101, 6)),
        "wrong_class": (0, 0.0),
    }


def test_an_image_without_a_right_candidate_can_only_be_ranked():
    lost = rows_with(("1.png", WRONG, 0.9, "Mass"))
    best = rows_with(("1.png", WRONG, 0.0, "Mass"))
    found = ceiling(lost, best, TRUTH, NAMES)
    assert parts(found)["image_ranking"] == (3, round(0.25 * 76 / 101, 6))
    assert (parts(found)["candidate"], parts(found)["wrong_class"]) == ((0, 0.0), (0, 0.0))
    assert found.without_candidate == 1


def test_of_an_image_with_two_ids_each_answer_is_repaired_once():
    truth = pd.concat([TRUTH.iloc[:1], TRUTH.iloc[:1].assign(label="Nodule")], ignore_index=True)
    best = answers(("1.png", RIGHT, 1.0, "Nodule"), ("1.png", RIGHT, 1.0, "Mass"))
    found = ceiling(answers(("1.png", WRONG, 0.9, "Mass"), ("1.png", WRONG, 0.8, "Mass")), best, truth, NAMES[:1])
    # One of the two becomes the right box of its class, the other one of the other class.
    assert parts(found) == {"image_ranking": (0, 0.0), "candidate": (1, 0.5), "wrong_class": (1, 0.5)}


@settings(max_examples=8)
@given(st.integers(0, 10**6))
def test_the_parts_are_gains_and_sum_to_the_oracle_minus_the_chosen(seed):
    rng = np.random.default_rng(seed)
    names = [f"{number}.png" for number in range(12)]
    sizes, count = dict.fromkeys(names, (100, 100)), 40
    truth = pd.DataFrame([RIGHT] * 12, columns=CORNERS).assign(image_id=names, label=rng.choice(["a", "b"], 12))
    boxes = np.where(rng.random((count, 1)) < 0.5, [RIGHT], [WRONG])
    table = pd.DataFrame(boxes, columns=CORNERS).assign(
        image_id=rng.choice(names[2:], count), label=rng.choice(["a", "b", "c"], count), score=rng.random(count)
    )
    judged = shuffled(SCORE.judge(table, sizes), rng)
    mapping = pd.DataFrame({"ID": range(12), "image_id": names})
    chosen, best = (decide(rows, mapping, PRIOR, sizes) for rows in (judged, oracle(judged, truth)))
    found = ceiling(chosen, best, truth, names)
    gains = [found.image_ranking.gain, found.candidate.gain, found.wrong_class.gain]
    assert min(gains) >= -1e-12
    assert sum(gains) == pytest.approx(found.oracle - found.chosen, abs=1e-12)
