"""Bootstrap intervals: nothing to resample, by hand, against writing every image out, and what they cover."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from box_tables import random_case, truth_of
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import detector, one_box_images

from kit.metrics.average_precision import average_precision, match, mean_average_precision, score_detections
from kit.metrics.bootstrap import expected_score, map_intervals, paired_difference, resampled


def random_matches(seed, coarse=True):
    truth, found, names = random_case(seed, coarse=coarse)
    return match(truth, found, names), {name: f"patient {number // 2}" for number, name in enumerate(names)}


def written_out(matches, person, counts):
    """Each class's AP with every image written out as often as its patient was drawn."""
    drawn = counts[person].astype(int)
    return {
        label: average_precision(np.repeat(part.hits, drawn[part.images]), int(part.positives @ drawn))
        for label, part in matches.classes.items()
        if part.positives.any()
    }


def test_no_images_and_no_truth_have_no_interval():
    nothing = match(truth_of(), truth_of().assign(score=[]), [])
    assert math.isnan(map_intervals(nothing, {}, 0).overall.low)
    assert map_intervals(nothing, {}, 0).per_class == {}
    assert math.isnan(expected_score(nothing, 170, 0).mean)
    without = match(truth_of(), truth_of().assign(score=[]), ["1.png", "2.png"])
    found = map_intervals(without, {"1.png": "a", "2.png": "b"}, 0).overall
    assert all(map(math.isnan, (found.value, found.low, found.high)))
    assert math.isnan(expected_score(without, 1, 0).mean)


def test_one_patient_has_a_value_and_no_interval():
    truth, found, names = random_case(1)
    matches = match(truth, found, names)
    one = map_intervals(matches, dict.fromkeys(names, "the only one"), 0)
    assert one.overall.value == score_detections(truth, found, names).map50
    assert math.isnan(one.overall.low)
    assert math.isnan(one.overall.high)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_a_resample_scores_as_if_its_images_were_written_out(seed, coarse):
    matches, patients = random_matches(seed, coarse)
    names, person = np.unique([patients[image] for image in matches.image_ids], return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), 5)
    found = resampled(matches, person.astype(np.int64), counts.astype(np.float64))
    for number, row in enumerate(counts):
        for label, expected in written_out(matches, person, row).items():
            assert found[label][number] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_the_values_are_those_of_the_score_and_the_unresampled_resample_is_too(seed):
    truth, found, names = random_case(seed)
    matches, patients = random_matches(seed)
    scores, intervals = score_detections(truth, found, names), map_intervals(matches, patients, 0, resamples=20)
    assert intervals.overall.value == scores.map50
    assert {label: part.value for label, part in intervals.per_class.items()} == {
        label: part.ap50 for label, part in scores.per_class.items()
    }
    once = resampled(matches, np.arange(len(names)), np.ones((1, len(names))))
    assert [values[0] for values in once.values()] == pytest.approx(
        [part.ap50 for part in scores.per_class.values()], abs=1e-12
    )


def test_a_class_that_no_drawn_patient_has_is_left_out_of_the_mean_of_that_resample():
    truth = truth_of(("1.png", (0, 0, 9, 9), "Mass"), ("2.png", (0, 0, 9, 9), "Nodule"))
    matches = match(truth, truth[truth["label"] == "Mass"].assign(score=0.5), ["1.png", "2.png"])
    found = resampled(matches, np.array([0, 1]), np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    assert found["Mass"] == pytest.approx([1, math.nan, 1], nan_ok=True)
    assert found["Nodule"] == pytest.approx([math.nan, 0, 0], nan_ok=True)
    # Means 1, 0 and 1/2: drawn in a quarter, a quarter and half of the resamples.
    interval = map_intervals(matches, {"1.png": "a", "2.png": "b"}, 0).overall
    assert (interval.value, interval.low, interval.high) == (0.5, 0, 1)


def test_a_difference_sees_the_same_resamples_on_both_sides():
    matches, patients = random_matches(5)
    same = paired_difference(matches, matches, patients, 3)
    assert (same.overall.value, same.overall.low, same.overall.high) == (0, 0, 0)
    other, _ = random_matches(5)
    truth, found, names = random_case(5)
    worse = match(truth, found.assign(score=1 - found["score"]), names)
    there, back = paired_difference(other, worse, patients, 3), paired_difference(worse, other, patients, 3)
    assert (there.overall.low, there.overall.high) == pytest.approx((-back.overall.high, -back.overall.low))


def test_a_difference_needs_the_same_images_and_boxes():
    truth, found, names = random_case(2)
    first = match(truth, found, names)
    for other in (match(truth, found, [*names, "more.png"]), match(truth.iloc[1:], found, names)):
        with pytest.raises(ValueError, match="same images"):
            paired_difference(first, other, dict.fromkeys([*names, "more.png"], "a"), 0)


def test_whole_patients_are_drawn():
    # Two patients with 30 images each, one found everywhere and one nowhere: by image the interval would be
    # narrow; by patient it spans everything.
    names = [f"{number}.png" for number in range(60)]
    truth = truth_of(*((name, (0, 0, 9, 9), "Mass") for name in names))
    matches = match(truth, truth.iloc[:30].assign(score=0.5), names)
    by_patient = map_intervals(matches, {name: str(number // 30) for number, name in enumerate(names)}, 0).overall
    by_image = map_intervals(matches, {name: name for name in names}, 0).overall
    assert (by_patient.low, by_patient.high) == (0, 1)
    assert 0.3 < by_image.low < by_image.high < 0.7


def test_the_expected_score_draws_without_putting_back_from_a_pool_that_is_large_enough():
    truth, _, _ = one_box_images(0, 80)
    matches = match(truth, detector(truth, 1), truth["image_id"])
    half, more = expected_score(matches, 40, 0), expected_score(matches, 41, 0)
    assert (half.replacement, more.replacement) == (False, True)
    assert (half.images, half.draws) == (40, 400)
    assert half.low < half.mean < half.high
    whole = score_detections(truth, detector(truth, 1), truth["image_id"]).map50
    assert half.low < whole < half.high
    assert half.mean > whole  # fewer images, higher level: why only equal numbers are compared


@pytest.mark.slow
@pytest.mark.parametrize("pool", [107, 348, 710])
def test_the_expected_range_holds_the_score_of_another_set_of_that_size(pool):
    held = 0
    for seed in range(200):
        truth, _, _ = one_box_images(2 * seed, pool)
        expected = expected_score(match(truth, detector(truth, seed), truth["image_id"]), 170, seed)
        other, _, _ = one_box_images(2 * seed + 1, 170)
        found = match(other, detector(other, 10**6 + seed), other["image_id"])
        held += expected.low <= mean_average_precision(found) <= expected.high
    assert 0.88 <= held / 200 <= 0.99  # .95 but for the chance of 200 repeats, and the level's bias


@pytest.mark.slow
def test_a_thousand_resamples_of_the_whole_competition_take_a_moment():
    rng = np.random.default_rng(0)
    names = [f"{number:04d}" for number in range(710)]
    truth = truth_of(*((name, (0, 0, 9, 9), f"class {rng.integers(8)}") for name in names))
    found = pd.DataFrame({"image_id": np.repeat(names, 30), "x_min": rng.choice([0.0, 50.0], 710 * 30)})
    found = found.assign(y_min=0.0, x_max=found["x_min"] + 9, y_max=9.0, score=rng.random(len(found)))
    found["label"] = [f"class {number}" for number in rng.integers(0, 8, len(found))]
    matches = match(truth, found, names)
    started = time.process_time()
    map_intervals(matches, {name: name for name in names}, 0)
    assert time.process_time() - started < 2


class TestWhatTheIntervalsCover:
    """A test of the test: stores drawn again and again from a model whose score is known."""

    def repeats(self, count, images, strength=2.0):
        found = []
        for seed in range(count):
            truth, patients, _ = one_box_images(seed, images)
            first, second = (
                match(truth, detector(truth, 1000 * side + seed, strength), truth["image_id"]) for side in (1, 2)
            )
            found.append(
                (map_intervals(first, patients, seed, 400), paired_difference(first, second, patients, seed, 400))
            )
        return found

    def covered(self, count, images):
        """Shares of the repeats in which the mean of all scores, and 0, lie inside the intervals."""
        found = self.repeats(count, images)
        levels, differences = ([each[side].overall for each in found] for side in (0, 1))
        mean = np.mean([each.value for each in levels])
        return (
            np.mean([each.low <= mean <= each.high for each in levels]),
            np.mean([each.low <= 0 <= each.high for each in differences]),
        )

    # Of 60 repeats at 95%, fewer than 51 are inside in one of a thousand series; measured: .93 and .93 to .95.
    def test_a_few_dozen_repeats(self):
        of_level, of_difference = self.covered(60, 60)
        assert of_level >= 51 / 60
        assert of_difference >= 51 / 60

    @pytest.mark.slow
    def test_hundreds_of_repeats(self):
        # Percentile intervals of a mAP lie a little high, since a resample has fewer different images and the
        # level rises then: 91% to 96% were measured, by the number of images and the detector.
        of_level, of_difference = self.covered(300, 107)
        assert 0.88 <= of_level <= 0.99
        assert 0.91 <= of_difference <= 0.99
