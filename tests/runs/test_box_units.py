"""Boxes in another unit than pixels of the original image are refused; those of the image itself never are."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.boxes.geometry import CORNERS
from kit.runs.box_units import unit_faults

WIDTH, HEIGHT = 1000, 800


def true_boxes(seed, count=60, sides_px=(60, 300)):
    """Boxes all over the image, on thirty images."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(*sides_px, (count, 2))
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([WIDTH, HEIGHT]) - size)
    table = pd.DataFrame(np.hstack([corner, corner + size]), columns=CORNERS)
    return table.assign(image_id=[f"{i % 30}.png" for i in range(count)])


def rows_of(boxes, sides=(WIDTH, HEIGHT)):
    return boxes.assign(part="train", width_px=sides[0], height_px=sides[1], score=0.5)


def scaled(boxes, x, y):
    return boxes.assign(**{name: boxes[name] * (x if name[0] == "x" else y) for name in CORNERS})


def faults(rows, truth, sizes=None):
    return unit_faults(Path("a.csv"), rows.assign(stated=rows["image_id"].map((sizes or {}).get)), truth)


def corners_in_place_of_sizes(low, high):
    return low, low + high


def sizes_in_place_of_corners(low, high):
    return low, high - low


def centre_in_place_of_corner(low, high):
    return (low + high) / 2, (low + high) / 2 + high - low


def centre_and_size(low, high):
    return (low + high) / 2, high - low


CONVENTIONS = {
    corners_in_place_of_sizes: "two corners where x, y, width and height belong",
    sizes_in_place_of_corners: "x, y, width and height where two corners belong",
    centre_in_place_of_corner: "the centre where x and y of the upper left corner belong",
    centre_and_size: "centre, width and height where two corners belong",
}


class TestUnits:
    def test_no_rows_are_in_no_other_unit(self):
        truth = true_boxes(0)
        assert faults(rows_of(truth[:0]), truth) == []
        assert faults(rows_of(truth), truth[:0]) == []

    @settings(max_examples=20)
    @given(st.integers(0, 10**6), st.floats(0, 40), st.floats(0.3, 1), st.floats(0, 1))
    def test_boxes_near_the_truth_with_false_ones_among_them_are_taken(self, seed, noise_px, found, false_ones):
        truth, rng = true_boxes(seed), np.random.default_rng(seed + 1)
        seen = truth[rng.uniform(size=len(truth)) < found]
        moved = seen.assign(**{name: seen[name] + rng.uniform(-noise_px, noise_px, len(seen)) for name in CORNERS})
        others = true_boxes(seed + 2)[: int(false_ones * len(truth))]
        assert faults(rows_of(pd.concat([moved, others], ignore_index=True)), truth) == []

    @settings(max_examples=20)
    @given(st.integers(0, 10**6), st.sampled_from([(20, 60), (60, 300), (200, 600)]), st.integers(20, 300))
    def test_boxes_that_find_nothing_are_bad_but_in_no_other_unit(self, seed, sides_px, count):
        assert faults(rows_of(true_boxes(seed, count)), true_boxes(seed + 1, 60, sides_px)) == []

    @settings(max_examples=25)
    @given(
        st.integers(0, 10**6),
        st.one_of(st.floats(0.05, 0.7), st.floats(1.4, 4)),
        st.one_of(st.floats(0.05, 0.7), st.floats(1.4, 4), st.just(1.0)),
        st.floats(0, 5),
    )
    def test_boxes_of_resized_pictures_are_refused_and_scaling_them_helps(self, seed, x, y, noise_px):
        truth, rng = true_boxes(seed), np.random.default_rng(seed + 1)
        near = truth.assign(
            **{name: truth[name] + rng.uniform(-noise_px, noise_px, len(truth)) for name in CORNERS}
        )
        (fault,) = faults(rows_of(scaled(near, x, y)), truth)
        assert "scale the boxes" in fault.do
        assert float(re.search(r"x scaled by (\S+)", fault.value)[1]) == pytest.approx(1 / x, rel=0.2)
        assert faults(rows_of(scaled(scaled(near, x, y), 1 / x, 1 / y)), truth) == []

    @settings(max_examples=5)
    @given(
        st.integers(0, 10**6), st.one_of(st.floats(0.7, 0.93), st.floats(1.08, 1.4)),
        st.one_of(st.floats(0.7, 0.93), st.floats(1.08, 1.4)), st.floats(0, 5),
    )  # fmt: skip
    def test_a_scale_near_one_is_refused_though_false_boxes_reach_the_border(self, seed, x, y, noise_px):
        truth, rng = true_boxes(seed), np.random.default_rng(seed + 1)
        near = truth.assign(
            **{name: truth[name] + rng.uniform(-noise_px, noise_px, len(truth)) for name in CORNERS}
        )
        false = true_boxes(seed + 2, 30).assign(x_max=WIDTH, y_max=HEIGHT)
        rows = pd.concat([scaled(near, x, y), false], ignore_index=True)
        (fault,) = faults(rows_of(rows), truth)
        assert "those of resized pictures" in fault.value
        assert "scale the boxes" in fault.do
        assert faults(rows_of(pd.concat([near, false], ignore_index=True)), truth) == []

    @settings(max_examples=5)
    @given(st.integers(0, 10**6), st.floats(0.3, 0.66), st.floats(0.3, 0.66), st.integers(12, 30))
    def test_a_test_half_of_resized_pictures_is_refused_and_scaling_it_helps(self, seed, x, y, images):
        truth = true_boxes(seed, 120)
        theirs = true_boxes(seed + 1, 4 * images).assign(
            image_id=[f"t{number % images}.png" for number in range(4 * images)]
        )
        halves = [rows_of(truth), rows_of(theirs).assign(part="test")]
        assert faults(pd.concat(halves), truth) == []
        halves[1] = scaled(halves[1], x, y)
        (fault,) = faults(pd.concat(halves), truth)
        assert f"boxes on {images} images of test/ that all end before" in fault.value
        assert "scale the boxes" in fault.do
        halves[1] = scaled(halves[1], 1 / x, 1 / y)
        assert faults(pd.concat(halves), truth) == []

    @settings(max_examples=5)
    @given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 5))
    def test_a_test_half_with_fewer_boxes_an_image_is_in_no_other_unit(self, seed, images, boxes):
        """The surest box of an image alone, say, where train/ has every detection."""
        truth, rng = true_boxes(seed), np.random.default_rng(seed)
        ours = pd.concat([truth.assign(score=0.9), true_boxes(seed + 3, 300)]).fillna({"score": 0.1})
        ours = rows_of(ours).assign(score=ours["score"])
        names = [f"t{number}.png" for number in rng.permutation(images * boxes) % images]
        theirs = rows_of(true_boxes(seed + 1, images * boxes).assign(image_id=names)).assign(part="test")
        assert faults(pd.concat([ours, theirs]), truth) == []

    def test_one_box_on_every_test_image_says_nothing_of_a_unit(self, caplog):
        """As a location prior's."""
        truth = true_boxes(5)
        box = rows_of(true_boxes(6)).assign(x_min=1.0, y_min=2.0, x_max=0.3 * WIDTH, y_max=0.4 * HEIGHT)
        theirs = box.assign(image_id="t" + box["image_id"], part="test")
        assert faults(pd.concat([rows_of(truth), theirs]), truth) == []
        assert not caplog.messages

    def test_a_test_half_that_ends_a_little_earlier_is_said(self, caplog):
        truth = true_boxes(5)
        theirs = rows_of(true_boxes(6).assign(image_id=lambda t: "t" + t["image_id"])).assign(part="test")
        assert faults(pd.concat([rows_of(truth), theirs]), truth) == []
        assert not caplog.messages
        assert faults(pd.concat([rows_of(truth), scaled(theirs, 0.8, 0.8)]), truth) == []
        (line,) = caplog.messages
        assert line.startswith("a.csv: boxes on 30 images of test/ that all end before 77% of the width and 79% of")
        assert "if they are of resized pictures, scale the boxes" in line

    @settings(max_examples=5)
    @given(st.integers(0, 10**6), st.floats(0.3, 0.6), st.floats(0.3, 0.6))
    def test_boxes_that_fit_nothing_and_end_early_are_refused_and_scaling_them_helps(self, seed, x, y):
        truth, found = true_boxes(seed), rows_of(true_boxes(seed + 1))
        assert faults(found, truth) == []
        (fault,) = faults(scaled(found, x, y), truth)
        assert "scale the boxes" in fault.do
        assert faults(scaled(scaled(found, x, y), 1 / x, 1 / y), truth) == []

    def test_a_test_half_beyond_its_images_is_refused_where_clipping_would_hide_it(self):
        truth = true_boxes(5)
        theirs = rows_of(scaled(true_boxes(6).assign(image_id=lambda t: "t" + t["image_id"]), 1.3, 1.3))
        (fault,) = faults(pd.concat([rows_of(truth), theirs.assign(part="test")]), truth)
        assert "end far beyond them" in fault.value
        back = scaled(theirs, 1 / 1.3, 1 / 1.3).assign(part="test")
        assert faults(pd.concat([rows_of(truth), back]), truth) == []

    @pytest.mark.parametrize("written", CONVENTIONS)
    @settings(max_examples=10)
    @given(st.integers(0, 10**6), st.floats(0, 5))
    def test_boxes_in_another_convention_are_refused_and_corners_help(self, written, seed, noise_px):
        truth, rng = true_boxes(seed), np.random.default_rng(seed + 1)
        near = truth.assign(
            **{name: truth[name] + rng.uniform(-noise_px, noise_px, len(truth)) for name in CORNERS}
        )
        boxes = near[CORNERS].to_numpy()
        wrong = np.hstack(written(boxes[:, :2], boxes[:, 2:]))
        (fault,) = faults(rows_of(near.assign(**dict(zip(CORNERS, wrong.T, strict=True)))), truth)
        assert CONVENTIONS[written] in fault.value
        assert "write the upper left corner with the lower right one" in fault.do
        assert faults(rows_of(near), truth) == []

    def test_pictures_of_many_sizes_made_one_size(self):
        truth = true_boxes(5)
        number = truth["image_id"].str.removesuffix(".png").astype(int)
        sides = np.stack([WIDTH + 40 * number, HEIGHT + 25 * number], axis=1)
        factors = np.tile(sides / (WIDTH, HEIGHT), 2)
        own = truth.assign(**{name: truth[name] * factors[:, i] for i, name in enumerate(CORNERS)})
        (fault,) = faults(rows_of(scaled(truth, 640 / WIDTH, 640 / HEIGHT), sides.T), own)
        assert "fit the true ones better" in fault.value
        assert faults(rows_of(own, sides.T), own) == []

    @settings(max_examples=10)
    @given(st.integers(0, 10**6))
    def test_fractions_of_the_sides_are_refused_and_multiplying_helps(self, seed):
        truth = true_boxes(seed)
        (fault,) = faults(rows_of(scaled(truth, 1 / WIDTH, 1 / HEIGHT)), truth)
        assert "60 of 60 boxes within the first pixel" in fault.value
        assert "multiply x_min and x_max by the width" in fault.do
        assert faults(rows_of(scaled(scaled(truth, 1 / WIDTH, 1 / HEIGHT), WIDTH, HEIGHT)), truth) == []

    def test_a_few_tiny_boxes_are_no_other_unit(self):
        truth = true_boxes(3)
        tiny = truth[:6].assign(x_min=0.0, y_min=0.0, x_max=0.9, y_max=0.8)
        assert faults(rows_of(pd.concat([truth, tiny], ignore_index=True)), truth) == []

    @settings(max_examples=10)
    @given(st.sampled_from(["train", "test"]), st.integers(6, 60))
    def test_fractions_in_a_tenth_of_one_half_are_refused_and_multiplying_these_helps(self, half, count):
        truth = true_boxes(4)
        fractions = scaled(truth[:count], 1 / WIDTH, 1 / HEIGHT)
        mixed = pd.concat([fractions, truth[count:]], ignore_index=True)
        other = rows_of(pd.concat([truth] * 9)).assign(part="test" if half == "train" else "train")
        (fault,) = faults(pd.concat([rows_of(mixed).assign(part=half), other]), truth)
        assert f"{count} of 60 boxes within the first pixel of images of {half}/" in fault.value
        assert "multiply x_min and x_max by the width" in fault.do
        assert faults(pd.concat([rows_of(truth).assign(part=half), other]), truth) == []

    def test_a_single_box_is_judged_by_the_first_pixel_alone(self):
        one = true_boxes(0)[:1]
        assert faults(rows_of(scaled(one, 0.5, 0.5)), one) == []
        assert faults(rows_of(scaled(one, 1 / WIDTH, 1 / HEIGHT)), one)

    def test_sizes_that_the_file_states_are_those_of_the_pictures(self):
        truth = true_boxes(1)
        sizes = dict.fromkeys(truth["image_id"], (500, 400))
        half = rows_of(scaled(truth, 0.5, 0.5))
        (fault,) = faults(half, truth, sizes)
        assert fault.value.startswith("30 images of another size: 0.png is 1000 x 800 px, not 500 x 400")
        assert "with width and height of its images" in fault.do
        right = dict.fromkeys(sizes, (WIDTH, HEIGHT))
        assert faults(rows_of(scaled(half, 2, 2)), truth, right) == []
        assert faults(rows_of(truth), truth, right) == []  # only width and height were wrong
