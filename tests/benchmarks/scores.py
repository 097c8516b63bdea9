"""Evaluation with the threshold curve, the one-box score and each class's AP, against a network run again.

The kit's network runs once and its detections are stored; the rest are functions of a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from kit.boxes.fusion import fuse
from kit.choosing import location_prior
from kit.choosing.one_box import answers_to_detections, decide, one_box_truth, validation_mapping
from kit.choosing.selection import SCORE
from kit.config import Config
from kit.data.competition import TrainingData, load_training
from kit.data.dataset import DetectionDataset
from kit.data.synthetic.generator import write_competition
from kit.detectors.inference import Source, detect
from kit.detectors.networks import network_input
from kit.evaluation.report import THRESHOLDS
from kit.metrics import average_precision
from kit.schemas.image_headers import image_sizes

from . import seed_way
from .detectors import config_of, detector_of
from .measure import Row, in_turn
from .sizes import Sizes


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    write_competition(folder, 4, train_images=sizes.evaluated_images, test_images=8, size_px=sizes.size_px)
    config = config_of("laptop", sizes).replace({"inference.views": ("plain",)})
    data = load_training(folder, config)
    detector = detector_of(config, len(data.labels)).eval()
    source = Source("bench", 0, "", data.labels, config.model.image_size_px, config.inference)
    images, targets = _in_memory(config, data)
    stored = detect(source, detector, data.pixels, data.image_ids)

    def from_stored() -> object:
        return evaluated(stored, config, data)

    def from_images() -> object:
        return evaluated(detect(source, detector, data.pixels, data.image_ids), config, data)

    def seed() -> object:
        return seed_way.sweep(detector, images, targets)

    what = f"evaluation with threshold curve, one box, per class; {len(images)} images"
    a, b = in_turn(from_images, seed, max(1, sizes.repeats // 2))
    yield Row("scores", f"{what}, the network included", "the seed's way", "s", a, b, "times less", limit=8)
    a, b = in_turn(from_stored, seed, 1)
    yield Row("scores", "the same from stored detections, as `invoke evaluate` has them", "the seed's way",
              "s", a, b, "times less", limit=8)  # fmt: skip


def evaluated(detections: pd.DataFrame, config: Config, data: TrainingData) -> dict[str, Any]:
    """The scores of a run's report, from raw detections."""
    truth, sizes = data.annotations, image_sizes(data.pixels.facts)
    sources = [("bench", view) for view in config.inference.views]
    candidates = SCORE.judge(fuse(detections, config.fusion, sources), sizes)
    mapping = validation_mapping(truth, repeats=False)
    prior = location_prior.fit_prior(truth, sizes)
    asked = one_box_truth(truth, mapping)

    def one_box(threshold: float) -> average_precision.Scores:
        answers = decide(candidates[candidates["score"] >= threshold], mapping, prior, sizes).table
        return average_precision.score_detections(asked, answers_to_detections(answers), set(mapping["image_id"]))

    return {
        "many": average_precision.score_detections(truth, candidates, data.image_ids),
        "curve": average_precision.threshold_curve(truth, candidates, data.image_ids, THRESHOLDS),
        "one_box": [one_box(threshold) for threshold in THRESHOLDS],
    }


def _in_memory(config: Config, data: TrainingData) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Validation images and targets ready for the network: the notebook is not charged for decoding."""
    dataset = DetectionDataset(data, data.image_ids, config.model.image_size_px, config.training.seed)
    samples = [dataset[index] for index in range(len(dataset))]
    images = [image.contiguous() for image in network_input([sample.image for sample in samples])]
    targets = [{"boxes": sample.boxes, "labels": sample.labels.to(torch.int64)} for sample in samples]
    return images, targets
