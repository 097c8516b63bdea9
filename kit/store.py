"""The out-of-fold store: a run's raw detections, made fold by fold where they are missing, kept as one table.

A training image is detected by the one fold that held it out, a test image by every fold.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import nn

from kit import model
from kit.config import Config
from kit.data import TestData, TrainingData
from kit.files import sha256
from kit.inference import Source, kept_weights, merge_detections, store_detections
from kit.machine import on_gpu
from kit.memory import laid_out
from kit.progress import Track, silent
from kit.runs import Run, Split


def stored(
    run: Run, config: Config, split: Split, data: TrainingData | TestData, track: Track = silent
) -> pd.DataFrame:
    """All folds' detections of the training or the test images, made where they are missing.

    Raises KitError where a fold's checkpoint is lost.
    """
    folds = run.in_folds(len(split.folds))
    tables = [stored_fold(fold, config, split, data, track) for fold in folds]
    return tables[0] if len(folds) == 1 else merge_detections(run.detections(data.part), tables)


def stored_fold(
    run: Run, config: Config, split: Split, data: TrainingData | TestData, track: Track = silent
) -> pd.DataFrame:
    """The detections of one fold (``run`` names it), made where they are missing."""
    fold = run.fold or 0
    path, _, weights = kept_weights(run, config.training.keep)
    source = Source(run.name, fold, sha256(path), split.labels, config.model.image_size_px, config.inference)
    image_ids = split.folds[fold] if isinstance(data, TrainingData) else data.image_ids

    def detector() -> nn.Module:
        network = bare_detector(config, split)
        network.load_state_dict(weights)
        device = "cuda" if on_gpu(config) else "cpu"
        return laid_out(network, device).to(device)

    return store_detections(run.detections(data.part), source, detector, data.pixels, image_ids, track)


def bare_detector(config: Config, split: Split) -> nn.Module:
    """The run's network before any weights are put into it: the same random ones every time."""
    torch.manual_seed(config.training.seed)
    return model.build(config.model, len(split.labels))
