"""What weights were trained on: one stage after the other, each with its data set and the weights it started from.

A run keeps the stages of its ancestors: they outlive the first stage's workspace. ``stages.json`` has them, every
checkpoint too. Runs of earlier versions have neither: what they were trained on is not recorded.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kit.core.json_files import as_record, record_content
from kit.detectors.weights_source import WeightsSource
from kit.importing.record import ImportRecord

FOLDER, IMPORTED, SYNTHETIC = "folder", "import", "synthetic"  # origins beside those of a download
NOT_RECORDED = "not recorded"
_DIGITS = 12
_ORIGINS = {
    "kaggle": "from Kaggle", "mounted": "from Kaggle", "hand": "put there by hand", FOLDER: "put there by hand",
    SYNTHETIC: "synthetic",
}  # fmt: skip


@dataclass(frozen=True)
class DataSet:
    """The training half of a workspace.

    ``name`` is the competition's in its Kaggle address, or the imported folder's, or the workspace's;
    ``origin`` is that of a download, or import, synthetic or folder (nothing is known). ``table_sha256`` is the
    hash of train.csv's text, ``images_sha256`` that of the images' names and of the pixels that training reads.
    """

    name: str
    origin: str
    images: int
    boxes: int
    table_sha256: str
    images_sha256: str
    imported: ImportRecord | None = None

    def text(self) -> str:
        """The data set in words."""
        origin = f"import of {self.imported.form}" if self.imported else _ORIGINS.get(self.origin, self.origin)
        return (
            f"{self.name} ({origin}): {self.images} images, {self.boxes} boxes, "
            f"train.csv {self.table_sha256[:_DIGITS]}, images {self.images_sha256[:_DIGITS]}"
        )


@dataclass(frozen=True)
class Stage:
    """A training: the title of its run, its data set and what it started from; None is not recorded."""

    run: str
    data: DataSet | None = None
    start: WeightsSource | None = None

    def text(self) -> str:
        """The stage in words, without its run."""
        data = self.data.text() if self.data else f"data {NOT_RECORDED}"
        return f"{data}; from {self.start.text() if self.start else f'weights {NOT_RECORDED}'}"


@dataclass(frozen=True)
class Stages:
    """The stages that led to some weights, the first one first."""

    stages: tuple[Stage, ...]

    def content(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return record_content(self)


def saved_stages(content: object, source: str, do: str) -> Stages | None:
    """The stages in the part ``kit`` of a checkpoint; None if none were recorded.

    Raises KitError with the advice ``do`` if they are no stages.
    """
    if not isinstance(content, dict) or content.get("stages") is None:
        return None
    return as_record(content["stages"], Stages, source, do)


def stage_lines(titles: Iterable[str], stages: Mapping[str, Sequence[Stage]]) -> list[str]:
    """A line for each stage of each run; folds with the same stages share them.

    Args:
        titles: Those whose weights, or adopted detections, made a submission.
        stages: By title; without a title, or without a stage, nothing was recorded.
    """
    known = collections.Counter((title.partition("/")[0], _texts(title, stages)) for title in titles)
    lines = []
    for (name, texts), count in known.items():
        whose = f"{name} ({count} folds)" if count > 1 else name
        several = len(texts) > 1
        lines += [
            f"{whose}, stage {number} of {len(texts)}: {text}" if several else f"{whose}: {text}"
            for number, text in enumerate(texts, start=1)
        ]
    return lines


def _texts(title: str, stages: Mapping[str, Sequence[Stage]]) -> tuple[str, ...]:
    """The stages of a title in words; an only one without its run, which is the title's."""
    known = stages.get(title) or ()
    if not known:
        return (NOT_RECORDED,)
    if len(known) == 1:
        return (known[0].text(),)
    runs = [*(stage.run for stage in known[:-1]), title.partition("/")[0]]
    return tuple(f"run {run} on {stage.text()}" for run, stage in zip(runs, known, strict=True))
