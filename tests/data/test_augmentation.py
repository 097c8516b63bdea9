"""Augmented boxes stay in step with the picture."""

import warnings

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.config import AugmentationConfig
from kit.data.augmentation import Augmentation

NOTHING = {"flip_p": 0.0, "affine_p": 0.0, "brightness_p": 0.0, "dropout_p": 0.0}
EMPTY = np.zeros((0, 4), dtype=np.float32)


def square(x_min, y_min, x_max, y_max, side=128):
    image = np.zeros((side, side), dtype=np.uint8)
    image[y_min:y_max, x_min:x_max] = 200
    return image, np.array([[x_min, y_min, x_max, y_max]], dtype=np.float32)


def lit(image):
    rows, columns = np.nonzero(image > 100)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_an_image_without_boxes_is_augmented_too():
    result = Augmentation(AugmentationConfig())(np.zeros((64, 48), dtype=np.uint8), EMPTY, 3)
    assert result.image.shape == (64, 48)
    assert result.boxes.shape == (0, 4)
    assert result.kept.shape == (0,)


def test_without_any_probability_nothing_changes():
    image, boxes = square(10, 20, 50, 90)
    result = Augmentation(AugmentationConfig(**NOTHING))(image, boxes, 0)
    assert (result.image == image).all()
    assert result.boxes.tolist() == boxes.tolist()
    assert result.kept.tolist() == [0]


def test_a_flip_mirrors_the_box_and_its_switch_turns_it_off():
    image, boxes = square(10, 20, 50, 90)
    flipped = Augmentation(AugmentationConfig(**NOTHING | {"flip_p": 1.0}))(image, boxes, 0)
    assert flipped.boxes.tolist() == [[128 - 50, 20, 128 - 10, 90]]
    assert lit(flipped.image).tolist() == [78, 20, 118, 90]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_boxes_follow_the_picture_whatever_the_seed(seed):
    """The lit square's own extent and its box agree; the ellipse method leaves its corners a little outside."""
    image, boxes = square(44, 44, 84, 84)
    result = Augmentation(AugmentationConfig(dropout_p=0.0))(image, boxes, seed)
    assert result.kept.tolist() == [0]
    assert np.abs(result.boxes[0] - lit(result.image)).max() <= 8


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_rotated_box_is_not_inflated(seed):
    """15 degrees with the loosest box turn a square into one of (cos 15 + sin 15)^2 = 1.5 times its area."""
    config = AugmentationConfig(**NOTHING | {"affine_p": 1.0}, shift=0.0, scale=0.0)
    image, boxes = square(44, 44, 84, 84)
    x_min, y_min, x_max, y_max = Augmentation(config)(image, boxes, seed).boxes[0]
    assert (x_max - x_min) * (y_max - y_min) <= 1.05 * 40 * 40


def test_the_result_is_a_function_of_the_seed_in_any_order():
    image, boxes = square(30, 30, 70, 90)
    first, second = Augmentation(AugmentationConfig()), Augmentation(AugmentationConfig())
    forward = [first(image, boxes, seed) for seed in range(6)]
    backward = [second(image, boxes, seed) for seed in reversed(range(6))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert (one.image == other.image).all()
        assert one.boxes.tolist() == other.boxes.tolist()
    assert len({result.image.tobytes() for result in forward}) > 1


def test_a_box_that_leaves_the_picture_is_not_among_the_kept():
    config = AugmentationConfig(**NOTHING | {"affine_p": 1.0}, shift=0.5, scale=0.0, rotate_degrees=0.0)
    image = np.zeros((100, 100), dtype=np.uint8)
    boxes = np.array([[0, 0, 20, 20], [40, 40, 60, 60], [80, 80, 100, 100]], dtype=np.float32)
    kept = [Augmentation(config)(image, boxes, seed).kept.tolist() for seed in range(20)]
    assert any(len(indices) < 3 for indices in kept)
    assert all(1 in indices for indices in kept)


def test_one_look_at_the_boxes_after_all_transforms_finds_what_a_look_after_each_one_finds():
    config = AugmentationConfig(shift=0.5, rotate_degrees=40.0, min_visibility=0.3)
    once, each = Augmentation(config), Augmentation(config)
    each._geometry.check_each_transform = list(each._geometry.processors.values())
    image = np.zeros((128, 128), dtype=np.uint8)
    boxes = np.array([[0, 0, 20, 20], [40.3, 40.6, 60.1, 60.2], [99, 100.5, 128, 128]], dtype=np.float32)
    results = [(once(image, boxes, seed), each(image, boxes, seed)) for seed in range(40)]
    assert len({len(one.kept) for one, _ in results}) > 1
    for one, other in results:
        assert one.kept.tolist() == other.kept.tolist()
        assert one.boxes.tolist() == other.boxes.tolist()


class TestDropoutOfTheSeedNotebook:
    """Defect: CoarseDropout was called with arguments that Albumentations 2 ignores with a warning."""

    def test_the_old_arguments_only_warn(self):
        with pytest.warns(UserWarning, match="not valid"):
            A.CoarseDropout(max_holes=8, max_height=64, max_width=64, p=1.0)

    def test_ours_are_the_current_ones_and_cut_holes_of_the_configured_size(self):
        config = AugmentationConfig(**NOTHING | {"dropout_p": 1.0}, dropout_holes=1, dropout_side=0.25)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = Augmentation(config)(np.full((64, 64), 9, dtype=np.uint8), EMPTY, 1)
        assert int((result.image == 0).sum()) == 16 * 16

    def test_boxes_pass_through_unchanged_and_a_covered_one_stays(self):
        config = AugmentationConfig(**NOTHING | {"dropout_p": 1.0}, dropout_holes=8, dropout_side=0.9)
        boxes = np.array([[10.25, 20.5, 13.75, 23.125]], dtype=np.float32)
        result = Augmentation(config)(np.full((64, 64), 9, dtype=np.uint8), boxes, 1)
        assert result.boxes.tolist() == boxes.tolist()
