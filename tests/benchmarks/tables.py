"""Made-up tables of truth and detections, drawn from a seed: as many rows as wanted, in no time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS

LABELS = tuple(f"finding {number}" for number in range(8))
SIDE_PX = 1024
PLACES = 10  # of an image: where clustered boxes lie
_JITTER = 0.015  # of a clustered box, share of the side
Scatter = Literal["clustered", "uniform", "one class"]


def image_names(count: int, patients: float = 0.7) -> list[str]:
    """Names like NIH's; ``patients`` for each image, so that some share theirs."""
    return [f"{int(number * patients):08d}_{number % 1000:03d}.png" for number in range(count)]


def detections(
    image_ids: Sequence[str], sources: int, boxes: int, seed: int = 0, scatter: Scatter = "clustered"
) -> pd.DataFrame:
    """Raw detections: ``boxes`` of each source (one run each, plain view) on each image.

    Clustered boxes lie about ten places of their image, each with its class, and most sources find the same
    places; uniform ones lie anywhere in any class; those of one class are clustered.
    """
    rng = np.random.default_rng(seed)
    shape = (len(image_ids), sources, boxes)
    if scatter == "uniform":
        corners, label = _boxes(rng, shape), rng.integers(0, len(LABELS), shape)
    else:
        classes = 1 if scatter == "one class" else len(LABELS)
        places = _boxes(rng, (len(image_ids), PLACES))
        class_of = rng.integers(0, classes, (len(image_ids), PLACES))
        place, image = rng.integers(0, PLACES, shape), np.arange(len(image_ids))[:, None, None]
        corners, label = places[image, place] + rng.normal(0, _JITTER, (*shape, 4)), class_of[image, place]
    image, source, _ = (axis.ravel() for axis in np.indices(shape))
    table = pd.DataFrame(_pixels(corners).reshape(-1, 4), columns=CORNERS)
    return table.assign(
        run=np.array([f"run {number}" for number in range(sources)], dtype=object)[source],
        fold=0,
        view="plain",
        image_id=np.array(image_ids, dtype=object)[image],
        score=rng.uniform(0.001, 1, image.size).astype(np.float32),
        label=np.array(LABELS, dtype=object)[label.ravel()],
    )


def truth(image_ids: Sequence[str], seed: int = 1) -> pd.DataFrame:
    """One box for each image."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(_pixels(_boxes(rng, (len(image_ids),))), columns=CORNERS)
    label = np.array(LABELS, dtype=object)[rng.integers(0, len(LABELS), len(image_ids))]
    return table.assign(image_id=list(image_ids), label=label)[["image_id", *CORNERS, "label"]]


def _boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes (..., 4) in shares of the side, each side at least a twentieth."""
    centre, half = rng.uniform(0.2, 0.8, (*shape, 2)), rng.uniform(0.05, 0.15, (*shape, 2))
    return np.concatenate([centre - half, centre + half], axis=-1)


def _pixels(corners: np.ndarray) -> np.ndarray:
    return (np.clip(corners, 0, 1) * SIDE_PX).astype(np.float32)
