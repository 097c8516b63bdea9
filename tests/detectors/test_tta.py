"""Views and the way back for their boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.boxes.geometry import flip_horizontally, scale
from kit.config import VIEW_NAMES, InferenceConfig
from kit.data.images import fitted_size
from kit.detectors.tta import View, views

ALL = {view.name: view for view in views(InferenceConfig())}
EMPTY = np.zeros((0, 4), dtype=np.float32)


def shown_boxes(view, boxes, width_px, height_px, image_size_px):
    """Boxes of an original of that size, in the pixels that the view shows: what ``invert`` undoes."""
    width, height = fitted_size(width_px, height_px, view.size_px(image_size_px))
    shown = scale(boxes, width / width_px, height / height_px)
    return flip_horizontally(shown, width) if view.flip else shown


def test_the_default_views_are_the_five_of_the_recipe():
    assert tuple(ALL) == VIEW_NAMES
    assert [view.zoom for view in ALL.values()] == [1, 1, 1, 0.9, 1.1]


def test_views_come_in_the_configured_order():
    assert [view.name for view in views(InferenceConfig(views=("zoom_in", "plain")))] == ["zoom_in", "plain"]


@pytest.mark.parametrize("name", VIEW_NAMES)
def test_zero_boxes_come_back_as_zero_boxes(name):
    assert ALL[name].invert(EMPTY, 100, 80, 50).shape == (0, 4)


def test_flipping_mirrors_the_resized_image_and_its_boxes():
    image = np.zeros((100, 200), dtype=np.uint8)
    image[20:40, 20:60] = 255
    boxes = np.array([[20, 20, 60, 40]], dtype=np.float32)
    shown = ALL["flip"].apply(image, 100)
    assert shown.shape == (50, 100)
    # half the size: 10..30 of 100 becomes 100 - 30 = 70 .. 100 - 10 = 90
    assert shown_boxes(ALL["flip"], boxes, 200, 100, 100).tolist() == [[70, 10, 90, 20]]
    assert ALL["flip"].invert(np.array([[70.0, 10, 90, 20]]), 200, 100, 100).tolist() == boxes.tolist()
    assert shown[10:20, 70:90].min() == 255


@pytest.mark.parametrize(("name", "longer"), [("plain", 128), ("zoom_out", 115), ("zoom_in", 141)])
def test_a_zoom_shows_the_whole_image_at_another_size(name, longer):
    """Defect of the seed: its 0.9x view was shrunk and enlarged again, a blur of the same size."""
    gradient = np.tile(np.linspace(0, 255, 256).astype(np.uint8), (256, 1))
    shown = ALL[name].apply(gradient, 128)
    assert shown.shape == (longer, longer)
    assert shown[:, 0].max() <= 3
    assert shown[:, -1].min() >= 252


def test_brightness_multiplies_the_levels_and_stops_at_white():
    image = np.array([[0, 100, 250]], dtype=np.uint8)
    assert View("bright", brightness=1.2).apply(image, 3).tolist() == [[0, 120, 255]]


def test_a_view_leaves_its_input_alone():
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    before = image.copy()
    for view in ALL.values():
        view.apply(image, 8)
    assert (image == before).all()


corner = st.floats(0, 1, width=32)


@settings(deadline=None)
@given(
    st.sampled_from(VIEW_NAMES),
    st.lists(st.tuples(corner, corner, corner, corner), max_size=5),
    st.integers(16, 3000),
    st.integers(16, 3000),
    st.integers(32, 1500),
)
def test_there_and_back_is_the_identity_on_boxes(name, fractions, width, height, size):
    boxes = np.array(fractions, dtype=np.float64).reshape(-1, 4) * [width, height, width, height]
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    there = shown_boxes(ALL[name], boxes, width, height, size)
    back = ALL[name].invert(there, width, height, size)
    assert np.allclose(back, boxes, atol=1e-6 * max(width, height))
