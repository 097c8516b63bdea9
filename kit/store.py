"""The out-of-fold store: a run's raw detections, made fold by fold where they are missing, kept as one table.

A training image is detected by the one fold that held it out, a test image by every fold.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import nn

from kit import model
from kit.config import Config
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.progress import Track, silent
from kit.data.competition import TestData, TrainingData
from kit.inference import Source, kept_weights, merge_detections, store_detections
from kit.machine import in_words, on_gpu
from kit.memory import laid_out
from kit.runs import Run, Split, read_finished

_RESTORE = "restore the file from a copy, or train under another --run name"
_DIGITS = 12


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

    _require_finished_with(run, path, source.weights_sha256)

    def detector() -> nn.Module:
        network = bare_detector(config, split)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            found = str(error).splitlines()[-1].strip()
            raise KitError(f"{path} to fit the detector of {run.config}", found, _RESTORE) from error
        device = "cuda" if on_gpu(config) else "cpu"
        return laid_out(network).to(device)

    with in_words(config.inference.batch_size, config.model.image_size_px, "inference.batch_size"):
        return store_detections(run.detections(data.part), source, detector, data.pixels, image_ids, track)


def bare_detector(config: Config, split: Split) -> nn.Module:
    """The run's network before any weights are put into it: the same random ones every time."""
    torch.manual_seed(config.training.seed)
    return model.build(model.resolved(config.model), len(split.labels))


def _require_finished_with(run: Run, path: Path, found: str) -> None:
    """Once a run is finished its checkpoints stay: another one would answer under the name of the scored one."""
    if not run.finished.exists():
        return
    # By place, not by title: a run's folder may have been renamed.
    hashes, fold = list(read_finished(run).weights.values()), run.fold or 0
    expected = hashes[fold] if fold < len(hashes) else "no hash"
    if found != expected:
        raise KitError(
            f"{path} as it was when the run was finished ({expected[:_DIGITS]}...)",
            f"{found[:_DIGITS]}...",
            _RESTORE,
        )
