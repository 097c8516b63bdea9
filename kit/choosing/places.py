"""Where a class's boxes usually lie and how large they are, and how far a candidate is from that.

A candidate is right if it overlaps a true box by half, not if there is something: these distances and the spread of
its fused boxes say how good a place it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64

from kit.boxes.geometry import CORNERS, Sizes, area, image_sides

# The columns of the candidates that say how good their place is; ``spread`` comes from the fusion.
PLACE_COLUMNS = ("spread", "off_centre", "off_size")
_LEAST_CENTRE, _LEAST_SIDE = 0.01, 0.05  # a class of few boxes may have none of a usual distance
_LEAST_BOXES = 2


@dataclass(frozen=True)
class Usual:
    """Mean and standard deviation."""

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ValueError(f"a standard deviation lies above 0, not {self.deviation}")


@dataclass(frozen=True)
class ClassPlace:
    """A class's centres as fractions of the image's sides, and logarithms of its sides as such fractions."""

    x: Usual
    y: Usual
    width: Usual
    height: Usual


Places = Mapping[str, ClassPlace]


def fit_places(truth: pd.DataFrame, sizes: Sizes) -> dict[str, ClassPlace]:
    """The usual places of annotations (image_id, corners, label) by class; a class with a single box has none.

    They are those of the training images, never of the images whose candidates they judge.
    """
    truth = truth[area(truth[CORNERS].to_numpy(np.float64)) > 0]
    values = _centres_and_sides(truth, sizes)
    least = np.array([_LEAST_CENTRE, _LEAST_CENTRE, _LEAST_SIDE, _LEAST_SIDE])
    places = {}
    for label, rows in sorted(truth.groupby("label").indices.items()):
        if len(rows) >= _LEAST_BOXES:
            means, deviations = values[rows].mean(axis=0), np.maximum(values[rows].std(axis=0), least)
            usual = [Usual(*pair) for pair in zip(means.tolist(), deviations.tolist(), strict=True)]
            places[str(label)] = ClassPlace(*usual)
    return places


def with_places(candidates: pd.DataFrame, places: Places, sizes: Sizes) -> pd.DataFrame:
    """The candidates (image_id, corners, label) with the columns ``off_centre`` and ``off_size``.

    Each is a distance from the class's mean in standard deviations: of the centre, and of the sides' logarithms.
    NaN for a class without a usual place and for a box without area.
    """
    label, labels = pd.factorize(candidates["label"])
    unknown = (np.nan,) * 8
    usual = [_numbers(places[str(name)]) if str(name) in places else unknown for name in labels]
    means, deviations = np.array(usual).reshape(-1, 2, 4)[label].transpose(1, 0, 2)
    away = np.square((_centres_and_sides(candidates, sizes) - means) / deviations)
    return candidates.assign(off_centre=np.sqrt(away[:, :2].sum(axis=1)), off_size=np.sqrt(away[:, 2:].sum(axis=1)))


def with_places_out_of_fold(
    candidates: pd.DataFrame, places: Sequence[Places], fold_of: Mapping[str, int], sizes: Sizes
) -> pd.DataFrame:
    """The same, each image's candidates with the places of its fold, learned from the images of the others."""
    fold = candidates["image_id"].map(fold_of).to_numpy(np.int64)
    parts = [with_places(candidates[fold == number], found, sizes) for number, found in enumerate(places)]
    return pd.concat(parts).sort_index()


def _numbers(place: ClassPlace) -> tuple[float, ...]:
    usual = (place.x, place.y, place.width, place.height)
    return (*(value.mean for value in usual), *(value.deviation for value in usual))


def _centres_and_sides(boxes: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, "n 4"]:
    """Centre x and y, and the logarithms of width and height, in fractions of the image; NaN for a side of 0."""
    pixels = image_sides(boxes["image_id"], sizes)
    corners = boxes[CORNERS].to_numpy(np.float64)
    low, high = corners[:, :2] / pixels, corners[:, 2:] / pixels
    side = high - low
    return np.hstack([(low + high) / 2, np.log(np.where(side > 0, side, np.nan))])
