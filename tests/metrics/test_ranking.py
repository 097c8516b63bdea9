"""The area under the ROC curve: by hand, against scikit-learn, and resampled by patient."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kit.metrics.ranking import area_under_roc


def area(scores, shown, patients=None, resamples=0):
    names = [f"{number}.png" for number in range(len(scores))]
    of = dict(zip(names, patients or names, strict=True))
    return area_under_roc(np.array(scores, dtype=float), np.array(shown, dtype=bool), names, of, 0, resamples)


def test_without_both_kinds_of_images_there_is_no_area():
    for shown in ([], [True, True], [False]):
        assert all(math.isnan(number) for number in vars(area([0.5] * len(shown), shown)).values())


def test_by_hand_a_tie_is_half_a_pair():
    # 0.8 is above both images without it, 0.4 is above one of them and equal to the other: 3.5 of 4 pairs.
    assert area([0.8, 0.4, 0.4, 0.1], [True, True, False, False]).value == 3.5 / 4


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    shown = rng.random(200) < 0.3
    scores = np.round(rng.normal(shown, 1), 1)  # with ties
    assert area(scores, shown).value == pytest.approx(roc_auc_score(shown, scores), abs=1e-12)


def test_patients_are_drawn_whole():
    rng = np.random.default_rng(0)
    shown = rng.random(60) < 0.5
    scores = rng.normal(shown, 1)
    alone = area(scores, shown, resamples=300)
    thrice = area(np.tile(scores, 3), np.tile(shown, 3), patients=[f"p{n % 60}" for n in range(180)], resamples=300)
    assert alone.low < alone.value < alone.high
    # Copies of a patient's images are no new patients.
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high), abs=0.03)
    one = area(scores, shown, patients=["p"] * 60, resamples=300)
    assert one.value == alone.value
    assert math.isnan(one.low)
