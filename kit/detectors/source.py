"""Where a table of detections comes from: what a store compares, without loading a network."""

from __future__ import annotations

from dataclasses import dataclass

from kit.config import InferenceConfig


@dataclass(frozen=True)
class Source:
    """The origin of detections: the run, the fold that its weights did not see, and how the detections are made."""

    run: str
    fold: int
    weights_sha256: str
    labels: tuple[str, ...]
    image_size_px: int
    inference: InferenceConfig
