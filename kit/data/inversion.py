"""Images whose grey levels are inverted against the rest (MONOCHROME1 saved as is), and the audit's list of them.

The list is made from the pixels as they lie in the files, so that no knob changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from kit.core.errors import KitError
from kit.core.json_files import fingerprint, read_record, write_record

LIST_NAME = "inverted.json"
_DO = "run `invoke audit`: it makes the list anew"
_LEAST_NORM = 1e-3  # of an image's shape; one of a single level has that of rounding, below 1e-5
_LEAST_IMAGES = 10  # fewer have no rest to be compared with
_ROUNDS = 20
_LEAST_SPREAD = 0.05
_TO_SD = 1.4826  # from the median distance to the standard deviation of a normal distribution
# Of 24 and 40 NIH radiographs and 521 of bones none lies below -.23; with a twentieth to two fifths inverted, 97 to
# 100% of these are found, and nothing else.
_LIMIT, _DEVIATIONS = -0.4, 5.0


@dataclass(frozen=True)
class InvertedImages:
    """The inverted images by folder (train, test), and a fingerprint of all images of each folder.

    ``sha256`` is that of both: an edited list is none of the audit. Lists of earlier versions have none.
    """

    images: Mapping[str, tuple[str, ...]]
    compared: Mapping[str, str]
    sha256: str = ""

    @property
    def fingerprint(self) -> str:
        """What ``sha256`` is if nobody edited the list."""
        return fingerprint([sorted(self.images.items()), sorted(self.compared.items())])


def inverted_images(
    copies: UInt8[np.ndarray, "n h w"], reference: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which images have black and white exchanged against the ``reference`` images, of which most are right.

    Two values per image change their sign when it is inverted: the correlation of its small copy with the mean of
    the reference, and its median level about mid-grey. The position of an image is the mean of both in units of
    the reference's medians, weighted by how far these are from 0 in robust standard deviations: 1 for an image as
    all are, -1 for its inverse. An image is inverted if it lies below -0.4 and five standard deviations
    below 1. Fewer than ten reference images judge nothing.
    """
    if np.count_nonzero(reference) < _LEAST_IMAGES:
        return np.zeros(len(copies), dtype=bool)
    levels = copies.reshape(len(copies), -1).astype(np.float32) / 127.5 - 1
    middle = np.median(levels, axis=1).astype(np.float64)
    shapes = _shapes(levels)
    squares = np.einsum("ij,ij->i", shapes, shapes).astype(np.float64)  # 1, or 0 for an image of a single level
    signs = np.ones(len(copies))
    for _ in range(_ROUNDS):
        values = np.stack([_correlations(shapes, squares, signs * reference), middle], axis=1)
        position, spread = _positions(values, signs, reference)
        found = np.where(position < 0, -1.0, 1.0)
        if found[reference].sum() < 0:
            found = -found
        if (found == signs).all():
            break
        signs = found
    return position < min(_LIMIT, 1 - _DEVIATIONS * spread)


def _shapes(levels: Float32[np.ndarray, "n p"]) -> Float32[np.ndarray, "n p"]:
    """Each image about its mean, of length 1; 0 throughout for an image of a single level. Changes the levels."""
    levels -= levels.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(levels, axis=1, keepdims=True)
    norms[norms < _LEAST_NORM] = np.inf
    return np.divide(levels, norms, out=levels)


def _correlations(
    shapes: np.ndarray, own: Float64[np.ndarray, " n"], signs: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """The correlation of each image with the sum of the others, each with its sign; 0: it does not count.

    ``own`` is each image's correlation with itself.
    """
    total = (signs @ shapes).astype(np.float64)
    with_all = shapes @ total
    squares = total @ total - 2 * signs * with_all + signs**2 * own
    return (with_all - signs * own) / np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))


def _positions(
    values: Float64[np.ndarray, "n 2"], signs: Float64[np.ndarray, " n"], reference: Bool[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " n"], float]:
    """The position of each image, and the standard deviation of the positions of the reference."""
    folded = (values * signs[:, None])[reference]
    centre = np.median(folded, axis=0)
    scale = np.maximum(_TO_SD * np.median(np.abs(folded - centre), axis=0), _LEAST_SPREAD)
    weights = centre / scale**2
    distance = float(weights @ centre)  # squared, in standard deviations
    if not distance:
        return np.ones(len(values)), np.inf
    return values @ weights / distance, distance**-0.5


def write_list(folder: Path, found: InvertedImages) -> None:
    """Write the list, with its fingerprint, into the audit's folder."""
    write_record(folder / LIST_NAME, replace(found, sha256=found.fingerprint))


def listed_images(folder: Path, part: str, digests: Mapping[str, str]) -> tuple[str, ...]:
    """The inverted images of a part (train or test) by the audit's list in ``folder``.

    Raises KitError if there is no list, if it was edited, if it was made from other images than those of
    ``digests``, or if it names another image.
    """
    path = folder / LIST_NAME
    if not path.is_file():
        raise KitError(f"the audit's list of inverted images {path}, for data.invert=listed", "no such file", _DO)
    found = read_record(path, InvertedImages, _DO)
    if found.compared.get(part) != compared_images(digests):
        raise KitError(
            f"{path}, for data.invert=listed, to be made from the images of {part}/ as they are now",
            "other images or other pixels", _DO,
        )  # fmt: skip
    listed = found.images.get(part, ())
    unknown = sorted(set(listed) - set(digests))
    if unknown or found.sha256 not in ("", found.fingerprint):
        strangers = f"{len(unknown)} that are none, such as {unknown[0]}" if unknown else "a list that was edited"
        raise KitError(
            f"{path}, for data.invert=listed, as the audit wrote it, with images of {part}/", strangers, _DO
        )
    return listed


def compared_images(digests: Mapping[str, str]) -> str:
    """The fingerprint of a folder's images: names and pixels."""
    return fingerprint(sorted(digests.items()))
