"""The test run checks the types of kit: of functions with arrays and without, and of dataclasses."""

from pathlib import Path

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from typechecks import checked

from kit.boxes.geometry import area, iou_pairs
from kit.core.errors import first_few
from kit.runs.folder import Run


def test_an_array_of_another_shape_or_dtype_is_refused():
    with pytest.raises(BeartypeCallHintViolation):
        area(np.zeros((2, 3)))
    with pytest.raises(BeartypeCallHintViolation):
        area(np.zeros((2, 4), dtype=np.int64))


def test_arrays_that_share_a_side_must_agree_in_it():
    with pytest.raises(BeartypeCallHintViolation):
        iou_pairs(np.zeros((2, 4)), np.zeros((3, 4)))


@checked
def rows(table: Float[np.ndarray, "n 4"], count: int) -> Float[np.ndarray, " n"]:
    assert count == 0 or len(rows(np.zeros((count, 4)), 0)) == count  # its n is another one
    return table[: len(table) - count, 0]


def test_a_result_must_agree_with_the_arguments_and_each_call_has_its_own_sides():
    assert len(rows(np.zeros((3, 4)), 0)) == 3
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        rows(np.zeros((3, 4)), 1)
    assert len(rows(np.zeros((2, 4)), 0)) == 2  # no side is left over from the call that failed


def test_a_function_without_arrays_and_a_dataclass_are_checked_too():
    with pytest.raises(BeartypeCallHintViolation):
        first_few(3)
    with pytest.raises(BeartypeCallHintViolation):
        Run(Path("here"), 3)
