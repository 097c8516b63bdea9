"""Cost as the work grows: small images by the thousand through cache, loader, fusion, scores, decision, submission.

Per step the time of an image among many against that of one among few: CPU seconds of the process, all threads.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kit.boxes.fusion import fuse
from kit.boxes.geometry import CORNERS
from kit.choosing import location_prior, one_box
from kit.choosing.selection import SCORE
from kit.config import AugmentationConfig, Config, FusionConfig
from kit.data.competition import AUDIT, TrainingData, load_training
from kit.data.dataset import DetectionDataset
from kit.data.pixel_cache import open_cache
from kit.data.splits import assign_folds
from kit.evaluation.report import THRESHOLDS
from kit.metrics import average_precision
from kit.reports.audit_report import audit_workspace
from kit.schemas.image_headers import image_sizes
from kit.schemas.tables import read_submission
from kit.submission.folders import Origin, write_submission

from .measure import CPU, Row, timed
from .sizes import Sizes
from .tables import LABELS, SIDE_PX, detections, image_names, truth

PX = 64
OF_IMAGES = ("cache, built", "audit", "split by patient")
_LIMIT = 1.15
_REPEATS, _FEW_REPEATS = 2, 3
_SOURCES, _BOXES = 2, 10
Step = Callable[[], object]


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    yield from grown(sizes.few, sizes.many, PX, folder)


def grown(
    few_images: int, many_images: int, px: int, folder: Path, only: Sequence[str] | None = None
) -> Iterator[Row]:
    """A row per step: an image of ``px`` pixels among many against one among few."""
    few = _Work.of(few_images, px, folder / "few")
    many = _Work.of(many_images, px, folder / "many")
    for name, step in few.steps().items():
        if only is not None and name not in only:
            continue
        large = many.steps()[name]
        step()
        times = [
            (timed(large, CPU), statistics.median(timed(step, CPU) for _ in range(_FEW_REPEATS)))
            for _ in range(_REPEATS)
        ]
        a, b = (statistics.median(each) for each in zip(*times, strict=True))
        yield Row("growth", f"{name}: an image of {px} px among {many_images:,}", f"one among {few_images:,}", "ms",
                  a / many_images * 1e3, b / few_images * 1e3, "times as much", limit=_LIMIT)  # fmt: skip


@dataclass(frozen=True)
class _Work:
    """Everything that the steps take, for one number of images."""

    folder: Path
    config: Config
    data: TrainingData
    detections: pd.DataFrame
    candidates: pd.DataFrame
    answers: pd.DataFrame
    mapping: pd.DataFrame

    @classmethod
    def of(cls, count: int, px: int, folder: Path) -> _Work:
        """Write the images and tables, and go through every step once."""
        config = Config()
        image_ids = sorted(write_images(folder, count, px))
        data = load_training(folder, config)
        found = detections(image_ids, _SOURCES, _BOXES).assign(
            **{name: lambda t, n=name: t[n] * (px / SIDE_PX) for name in CORNERS}
        )
        mapping = pd.DataFrame({"ID": np.arange(count), "image_id": image_ids})
        sizes = image_sizes(data.pixels.facts)
        candidates = SCORE.judge(fuse(found, FusionConfig(), sources_of(found)), sizes)
        answers = one_box.decide(
            candidates, mapping, location_prior.fit_prior(data.annotations, sizes), sizes
        ).table
        return cls(folder, config, data, found, candidates, answers, mapping)

    def steps(self) -> dict[str, Step]:
        """The steps by name, in the order of the road."""
        return {
            "cache, built": self.build_cache,
            "cache, opened, and tables read": lambda: load_training(self.folder, self.config),
            "audit": self.audit,
            "split by patient": self.split,
            "loader, one epoch": self.load,
            "fusion, suppressed": lambda: fuse(self.detections, FusionConfig(), sources_of(self.detections)),
            "fusion, weighted": lambda: fuse(
                self.detections, FusionConfig("wbf", 0.4), sources_of(self.detections)
            ),
            "evaluation and curve": self.evaluate,
            "decision": self.decide,
            "submission, written and checked": self.submit,
        }

    def build_cache(self) -> None:
        for path in (self.folder / ".cache").glob("train*"):
            path.unlink()
        open_cache(self.folder / "data" / "train", self.folder / ".cache", 1.0)

    def audit(self) -> None:
        shutil.rmtree(self.folder / AUDIT, ignore_errors=True)
        self.forget("copies.npy", "groups.json")
        audit_workspace(self.folder, self.config)

    def split(self) -> None:
        self.forget("groups.json")
        assign_folds(self.data, self.config.data, 0)

    def forget(self, *endings: str) -> None:
        """Delete what an earlier step stored beside the pixels: every repeat does the whole work."""
        for ending in endings:
            for path in (self.folder / ".cache").glob(f"*.{ending}"):
                path.unlink()

    def load(self) -> None:
        dataset = DetectionDataset(self.data, self.data.image_ids, PX, 0, AugmentationConfig())
        for index in range(len(dataset)):
            dataset[0, index]

    def evaluate(self) -> None:
        average_precision.score_detections(self.data.annotations, self.candidates, self.data.image_ids)
        average_precision.threshold_curve(self.data.annotations, self.candidates, self.data.image_ids, THRESHOLDS)

    def decide(self) -> None:
        sizes = image_sizes(self.data.pixels.facts)
        prior = location_prior.fit_prior(self.data.annotations, sizes)
        one_box.decide(self.candidates, self.mapping, prior, sizes)

    def submit(self) -> None:
        facts = self.data.pixels.facts
        write_submission(
            self.folder / "submissions",
            one_box.submission_text(self.answers),
            Origin("bench", "bench", None),
            lambda path: read_submission(path, self.mapping, LABELS, facts),
        )


def sources_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The (run, view) pairs that a table of detections has rows of."""
    return sorted(set(zip(table["run"], table["view"], strict=True)))


def write_images(folder: Path, count: int, px: int = PX) -> Sequence[str]:
    """Small grey PNGs with one box each, and their table, as a competition's training half; the names."""
    names = image_names(count)
    images = folder / "data" / "train"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names:  # no two alike: equal pixels would stay together in a split
        Image.fromarray(rng.integers(0, 256, (px, px), dtype=np.uint8)).save(images / name, compress_level=1)
    table = truth(names)
    table[CORNERS] *= px / SIDE_PX
    table.to_csv(folder / "data" / "train.csv", index=False)
    return names
