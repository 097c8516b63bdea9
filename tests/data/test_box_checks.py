"""Boxes in another unit, and boxes that several readers gave for one finding, are found; sound ones are not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.boxes.geometry import CORNERS
from kit.data.box_checks import box_units, repeated_boxes
from kit.data.repeated_boxes import finding_numbers, fuse_repeated
from kit.schemas.image_headers import ImageFacts

SIDE = 1000


def table(*rows):
    return pd.DataFrame(rows, columns=["image_id", *CORNERS, "label"])


def sizes(boxes, tmp_path, side=SIDE):
    return {name: ImageFacts(tmp_path / name, side, side) for name in boxes["image_id"]}


def drawn(count=30, labels=("Mass", "Nodule"), seed=0):
    """Boxes that reach over most of the picture, one an image."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(50, 700, (count, 2))
    high = low + rng.uniform(60, 250, (count, 2))
    return table(
        *((f"{n}.png", *low[n], *high[n], labels[n % len(labels)]) for n in range(count)),
    )


def scaled(boxes, factor):
    return boxes.assign(**{name: boxes[name] * factor for name in CORNERS})


class TestUnits:
    def test_zero_boxes_are_well(self, tmp_path):
        assert box_units(table(), {}) is None

    @settings(max_examples=30)
    @given(st.integers(0, 1000), st.integers(1, 60))
    def test_boxes_in_pixels_are_well(self, tmp_path_factory, seed, count):
        boxes = drawn(count, seed=seed)
        boxes.loc[0, ["x_max", "y_max"]] = 900.0
        assert box_units(boxes, sizes(boxes, tmp_path_factory.getbasetemp())) is None

    @settings(max_examples=30)
    @given(st.integers(0, 1000), st.integers(1, 60), st.sampled_from([96, 512, 3000]))
    def test_fractions_are_a_fault_in_any_number_and_multiplied_they_are_well(
        self, tmp_path_factory, seed, count, side
    ):
        boxes = drawn(count, seed=seed)
        boxes.loc[0, ["x_max", "y_max"]] = 900.0
        fractions, images = scaled(boxes, 1 / SIDE), sizes(boxes, tmp_path_factory.getbasetemp(), side)
        found = box_units(fractions, images)
        assert (found.level, found.check, len(found.rows)) == ("fault", "box-units", count)
        assert "multiply fractions by the image's width (x) and height (y)" in found.do
        assert box_units(scaled(fractions, side), images) is None

    def test_a_class_of_stand_ins_is_a_fault_that_names_it_and_a_single_one_a_warning(self, tmp_path):
        boxes = drawn(100)
        stand_in = table(("100.png", 0, 0, 1, 1, "14"))
        found = box_units(pd.concat([boxes, stand_in]), sizes(pd.concat([boxes, stand_in]), tmp_path))
        assert found.level == "fault" and "all boxes of 14" in found.text
        single = pd.concat([boxes, stand_in.assign(label="Mass")])
        found = box_units(single, sizes(single, tmp_path))
        assert (found.level, len(found.rows)) == ("warning", 1)

    @pytest.mark.parametrize("factor", [0.1, 0.25, 0.5])
    def test_boxes_of_smaller_pictures_are_a_warning_and_multiplied_they_are_well(self, factor, tmp_path):
        boxes = scaled(drawn(), factor)
        found = box_units(boxes, sizes(boxes, tmp_path))
        assert found.level == "warning" and "drawn on smaller pictures?" in found.text
        assert box_units(scaled(boxes, 1 / factor), sizes(boxes, tmp_path)) is None

    def test_fewer_than_twenty_boxes_may_lie_anywhere(self, tmp_path):
        boxes = scaled(drawn(19), 0.5)
        assert box_units(boxes, sizes(boxes, tmp_path)) is None

    def test_a_picture_of_one_pixel_is_its_own_box(self, tmp_path):
        boxes = table(("a.png", 0, 0, 1, 1, "Mass"))
        assert box_units(boxes, sizes(boxes, tmp_path, side=1)) is None


READERS = table(
    ("a.png", 0, 0, 10, 10, "Mass"),
    ("a.png", 0, 0, 10, 8, "Mass"),  # IoU .8
    ("a.png", 0, 0, 10, 8, "Nodule"),
    ("b.png", 0, 0, 10, 10, "Mass"),
    ("a.png", 2, 0, 12, 10, "Mass"),  # IoU 80 / 120 with the first
    ("a.png", 50, 50, 60, 60, "Mass"),
)


class TestRepeated:
    def test_zero_boxes_have_no_finding(self):
        assert finding_numbers(table()).tolist() == []
        assert repeated_boxes(table(), False) is None
        assert fuse_repeated(table()).empty

    def test_boxes_of_one_image_and_class_over_each_other_are_one_finding(self):
        numbers = finding_numbers(READERS).tolist()
        assert numbers[0] == numbers[1] == numbers[4]
        assert len(set(numbers)) == 4

    def test_their_mean_is_one_box_at_the_place_of_the_first(self):
        fused = fuse_repeated(READERS)
        assert fused.iloc[0].tolist() == ["a.png", 2 / 3, 0, 32 / 3, 28 / 3, "Mass"]
        assert fused.iloc[1:].to_numpy().tolist() == READERS.iloc[[2, 3, 5]].to_numpy().tolist()

    def test_they_are_a_warning_with_a_row_each_and_fused_a_note(self):
        found = repeated_boxes(READERS, False)
        assert (found.level, found.check) == ("warning", "repeated-boxes")
        assert "3 boxes of 6 repeat each other: 1 finding" in found.text
        assert found.rows["finding"].tolist() == [1, 1, 1]
        assert "--set data.repeated_boxes=fuse" in found.do
        assert repeated_boxes(READERS, True).level == "note"
        assert repeated_boxes(fuse_repeated(READERS), False) is None

    def test_half_an_overlap_is_no_repetition(self):
        boxes = table(("a.png", 0, 0, 10, 10, "Mass"), ("a.png", 0, 0, 10, 5, "Mass"))
        assert repeated_boxes(boxes, False) is None

    @settings(max_examples=30)
    @given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 12))
    def test_readers_who_agree_nearly_are_fused_to_one_box_a_finding(self, seed, readers, findings):
        """Findings 200 px apart, corners moved by up to 3 of 60 px: the overlap is at least 54 * 54 / 66 / 66."""
        rng = np.random.default_rng(seed)
        rows = [
            (
                "a.png" if n % 2 else "b.png",
                *(np.array([200 * n, 0, 200 * n + 60, 60]) + rng.uniform(-3, 3, 4)),
                "Mass",
            )
            for n in range(findings)
            for _ in range(readers)
        ]
        shuffled = table(*(rows[i] for i in rng.permutation(len(rows))))
        fused = fuse_repeated(shuffled)
        assert len(fused) == findings
        assert fused["x_min"].sort_values().to_numpy() == pytest.approx(200 * np.arange(findings), abs=3)
