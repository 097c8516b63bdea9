"""Usual places: by hand, never from the images that they judge, and what they bring where place tells."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from stores import answered, detector, one_box_images

from kit.boxes.geometry import CORNERS
from kit.choosing.devices import term_device
from kit.choosing.places import PLACE_COLUMNS, ClassPlace, fit_places, with_places, with_places_out_of_fold
from kit.choosing.selection import fit_rules, judge_out_of_fold, patient_groups
from kit.core.errors import KitError
from kit.core.json_files import as_record, record_content

SIZES = {"1.png": (100, 200), "2.png": (100, 200)}


def boxes(*rows):
    """Rows of (image_id, box, label)."""
    return pd.DataFrame([(name, *box, label) for name, box, label in rows], columns=["image_id", *CORNERS, "label"])


def test_without_boxes_no_place_is_usual_and_without_places_every_distance_is_unknown():
    assert fit_places(boxes(), SIZES) == {}
    one = boxes(("1.png", (0, 0, 20, 20), "Mass"))
    assert fit_places(one, SIZES) == {}  # a single box has no usual distance
    assert with_places(one, {}, SIZES)[["off_centre", "off_size"]].isna().all(axis=None)
    assert list(with_places(boxes(), {}, SIZES)) == ["image_id", *CORNERS, "label", "off_centre", "off_size"]


def test_distances_by_hand():
    truth = boxes(("1.png", (10, 20, 30, 60), "Mass"), ("2.png", (30, 20, 70, 60), "Mass"))
    places = fit_places(truth, SIZES)
    # Centres at .2 and .5 of the width, .2 of the height; widths of .2 and .4.
    mass = places["Mass"]
    assert (mass.x.mean, mass.x.deviation) == pytest.approx((0.35, 0.15))
    assert (mass.y.mean, mass.y.deviation) == pytest.approx((0.2, 0.01))  # no less
    assert mass.width.mean == pytest.approx((np.log(0.2) + np.log(0.4)) / 2)
    found = with_places(boxes(("1.png", (40, 22, 60, 62), "Mass"), ("1.png", (0, 0, 5, 5), "new")), places, SIZES)
    # The centre is at (.5, .21): one deviation beside and one below. The width is .2, the lower of the two.
    assert found["off_centre"].tolist() == pytest.approx([np.sqrt(2), np.nan], nan_ok=True)
    assert found["off_size"].tolist() == pytest.approx([1, np.nan], nan_ok=True)


def test_places_survive_json_and_a_deviation_of_0_is_refused():
    places = fit_places(boxes(*(("1.png", (0, 0, 20 + side, 20), "Mass") for side in range(5))), SIZES)
    content = record_content(places["Mass"])
    assert as_record(content, ClassPlace, "places", "") == places["Mass"]
    content["x"]["deviation"] = 0.0
    with pytest.raises(KitError, match="deviation lies above 0"):
        as_record(content, ClassPlace, "places", "make it anew")


def test_no_image_teaches_its_own_place():
    truth, patients, sizes = one_box_images(2, 60)
    table = detector(truth, 3)
    groups = patient_groups(truth, truth["image_id"], patients, 0)
    moved = truth.assign(x_max=truth["x_max"].mask(truth["image_id"].map(groups) == 2, 500.0))

    def judged(true):
        learned = [true[true["image_id"].map(groups) != fold] for fold in range(5)]
        return with_places_out_of_fold(table, [fit_places(rows, sizes) for rows in learned], groups, sizes)

    before, after, own = judged(truth), judged(moved), table["image_id"].map(groups) == 2
    assert_frame_equal(before.drop(columns=["off_centre", "off_size"]), table)
    assert_frame_equal(before[own], after[own])
    assert not before[~own].equals(after[~own])


class TestAsTermsOfP:
    """A store in which every true box lies in the same cell of a grid, and no false candidate does."""

    def measured(self, columns_of):
        truth, patients, sizes = one_box_images(4, 120)
        table = detector(truth, 5, strength=1.0)
        right = table["x_min"].lt(100) & table["y_min"].lt(100)
        table = columns_of(table.assign(spread=np.nan), right, fit_places(truth, sizes), sizes)
        groups = patient_groups(truth, truth["image_id"], patients, 0)
        with_, without = (
            answered(judge_out_of_fold(table, truth, sizes, groups, terms)["calibrated"], truth)
            for terms in (PLACE_COLUMNS, ())
        )
        return term_device(with_, without, patients, 0), fit_rules(table, truth, sizes, PLACE_COLUMNS)["calibrated"]

    def test_the_place_tells_the_right_candidate(self):
        device, rule = self.measured(lambda table, _, places, sizes: with_places(table, places, sizes))
        assert device.gain.low > 0.2
        assert device.with_ > 0.75  # the detector has the right box of 85% of the images
        assert rule.calibration.extra["off_centre"].factor < 0

    def test_so_does_the_spread_of_boxes_that_agree_on_the_corners(self):
        def with_spread(table, right, *_):
            rng = np.random.default_rng(6)
            spread = np.where(right, 0.05, 0.2) * np.exp(rng.normal(0, 0.3, len(table)))
            return table.assign(spread=np.where(rng.random(len(table)) < 0.1, np.nan, spread))

        device, rule = self.measured(with_spread)
        assert device.gain.low > 0.1
        assert rule.calibration.extra["spread"].factor < 0

    def test_noise_in_the_columns_costs_little(self):
        def with_noise(table, *_):
            rng = np.random.default_rng(7)
            return table.assign(**{name: rng.exponential(1, len(table)) for name in PLACE_COLUMNS})

        device, _ = self.measured(with_noise)
        assert device.gain.value > -0.03
