"""Box geometry: zero boxes, cases by hand, and what must hold for any box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kit.boxes.geometry import area, clip, flip_horizontally, iou_matrix, iou_pairs, scale

NONE = np.zeros((0, 4), dtype=np.float32)
WIDTH, HEIGHT = 640, 480


@st.composite
def boxes(draw, dtype=np.float64):
    """Up to six boxes with whole-pixel corners inside a 640 x 480 image, some without area."""
    count = draw(st.integers(0, 6))
    x = draw(arrays(np.int64, (count, 2), elements=st.integers(0, WIDTH)))
    y = draw(arrays(np.int64, (count, 2), elements=st.integers(0, HEIGHT)))
    x.sort(axis=1)
    y.sort(axis=1)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(dtype)


def test_zero_boxes_are_zero_boxes_everywhere():
    assert area(NONE).shape == (0,)
    assert iou_matrix(NONE, NONE).shape == (0, 0)
    assert iou_matrix(np.ones((3, 4)), NONE).shape == (3, 0)
    assert iou_pairs(NONE, NONE).shape == (0,)
    assert clip(NONE, 10, 10).shape == (0, 4)
    assert clip(NONE, np.zeros(0), np.zeros(0)).shape == (0, 4)
    assert flip_horizontally(NONE, 10).shape == (0, 4)
    assert scale(NONE, 2, 3).shape == (0, 4)


def test_overlap_by_hand():
    a = np.array([[0.0, 0, 10, 10], [0, 0, 20, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]])
    # Areas 100 and 200 against three of 100; the shared strips are 10, 5 and 0 wide, then 10, 10 and 10.
    by_hand = [
        [1, 50 / (100 + 100 - 50), 0],
        [100 / (200 + 100 - 100), 100 / 200, 100 / 200],
    ]
    assert iou_matrix(a, b) == pytest.approx(np.array(by_hand), abs=0)
    assert iou_pairs(a, b[:2]).tolist() == [1, 0.5]
    assert area(a).tolist() == [100, 200]


def test_a_box_without_area_overlaps_nothing_and_warns_of_nothing():
    point, line, inverted = [5, 5, 5, 5], [0, 5, 10, 5], [10, 10, 0, 0]
    poor = np.array([point, line, inverted], dtype=np.float32)
    around = np.array([[0, 0, 10, 10]], dtype=np.float32)
    assert (area(poor) == 0).all()
    assert (iou_matrix(poor, around) == 0).all()
    assert (iou_matrix(poor, poor) == 0).all()


def test_an_overlap_of_one_half_is_one_half_in_float32_too():
    a = np.array([[0.1, 0.1, 1024.7, 512.3]], dtype=np.float32)
    half = a.copy()
    half[0, 2] = (a[0, 0] + a[0, 2]) / 2
    exact = (float(half[0, 2]) - float(a[0, 0])) / (float(a[0, 2]) - float(a[0, 0]))
    assert iou_matrix(half, a)[0, 0] == pytest.approx(exact, abs=1e-15)


def test_clipping_by_hand_with_one_size_or_one_per_box():
    wild = np.array([[-5.0, -5, 12, 3], [2, 2, 30, 30], [20, 20, 30, 30]])
    assert clip(wild, 10, 20).tolist() == [[0, 0, 10, 3], [2, 2, 10, 20], [10, 20, 10, 20]]
    widths, heights = np.array([10, 25, 25]), np.array([2, 25, 25])
    assert clip(wild, widths, heights).tolist() == [[0, 0, 10, 2], [2, 2, 25, 25], [20, 20, 25, 25]]


def test_flipping_and_scaling_by_hand():
    box = np.array([[10.0, 20, 30, 60]])
    assert flip_horizontally(box, 100).tolist() == [[70, 20, 90, 60]]
    assert scale(box, 0.5, 2).tolist() == [[5, 40, 15, 120]]


def test_geometry_keeps_the_dtype_and_the_input():
    for dtype in (np.float32, np.float64):
        box = np.array([[10, 20, 30, 60]], dtype=dtype)
        moved = [clip(box, 20, 20), flip_horizontally(box, 100), scale(box, 0.5, 2)]
        assert [result.dtype for result in moved] == [dtype] * 3
        assert box.tolist() == [[10, 20, 30, 60]]


@settings(deadline=None)
@given(boxes(np.float32))
def test_flipping_twice_returns_the_boxes(some):
    assert (flip_horizontally(flip_horizontally(some, WIDTH), WIDTH) == some).all()


@settings(deadline=None)
@given(boxes(), boxes())
def test_overlap_is_symmetric_within_0_and_1_and_the_same_in_a_mirror(a, b):
    overlap = iou_matrix(a, b)
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert (overlap == iou_matrix(b, a).T).all()
    assert (overlap == iou_matrix(flip_horizontally(a, WIDTH), flip_horizontally(b, WIDTH))).all()
    assert (np.diag(iou_matrix(a, a)) == (area(a) > 0)).all()


@settings(deadline=None)
@given(boxes())
def test_clipping_changes_nothing_inside_the_image(some):
    assert (clip(some, WIDTH, HEIGHT) == some).all()


@settings(deadline=None)
@given(boxes(), st.floats(0.1, 4), st.floats(0.1, 4))
def test_scaling_multiplies_areas_and_keeps_overlaps(some, factor_x, factor_y):
    larger = scale(some, factor_x, factor_y)
    assert area(larger) == pytest.approx(area(some) * factor_x * factor_y)
    assert iou_matrix(larger, larger) == pytest.approx(iou_matrix(some, some))
