"""The test run checks the types of kit: of functions with arrays and without, and of dataclasses."""

from pathlib import Path

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from kit.boxes.geometry import area, iou_pairs
from kit.core.errors import first_few
from kit.runs.folder import Run


def test_an_array_of_another_shape_or_dtype_is_refused():
    with pytest.raises(TypeCheckError):
        area(np.zeros((2, 3)))
    with pytest.raises(TypeCheckError):
        area(np.zeros((2, 4), dtype=np.int64))


def test_arrays_that_share_a_side_must_agree_in_it():
    with pytest.raises(TypeCheckError):
        iou_pairs(np.zeros((2, 4)), np.zeros((3, 4)))


def test_a_function_without_arrays_and_a_dataclass_are_checked_too():
    with pytest.raises(BeartypeCallHintViolation):
        first_few(3)
    with pytest.raises(BeartypeCallHintViolation):
        Run(Path("here"), 3)
