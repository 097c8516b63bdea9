"""The out-of-fold store: a run's raw detections, made fold by fold where they are missing, kept as one table.

A training image is detected by the one fold that held it out, a test image by every fold.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from kit.config import Config, load
from kit.core.errors import KitError
from kit.core.files import make_folder, remove_partials, sha256
from kit.core.json_files import fingerprint
from kit.core.progress import Track, silent
from kit.data.competition import TestData, TrainingData
from kit.data.pixel_cache import PixelCache
from kit.detectors import networks
from kit.detectors.checkpoints import is_state_dict, load_checkpoint
from kit.detectors.hardware import explain_failures, uses_gpu
from kit.detectors.inference import Source, detect
from kit.detectors.memory import channels_last
from kit.detectors.weights import resolve_norms
from kit.runs.detections import KEY, merge_detections, read_detections, write_detections
from kit.runs.ensemble import member_run, refresh
from kit.runs.folder import Run, Split, read_finished, read_split
from kit.runs.locks import using_results
from kit.runs.members import members
from kit.schemas.detections import detection_table

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
        device = "cuda" if uses_gpu(config) else "cpu"
        return channels_last(network).to(device)

    with explain_failures(config.inference.batch_size, config.model.image_size_px, "inference.batch_size"):
        return store_detections(run.detections(data.part), source, detector, data.pixels, image_ids, track)


def bare_detector(config: Config, split: Split) -> nn.Module:
    """The run's network before any weights are put into it: the same random ones every time."""
    torch.manual_seed(config.training.seed)
    return networks.build(resolve_norms(config.model), len(split.labels))


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


CHUNK_IMAGES = 32
_PART_NAME_DIGITS = 16


def store_detections(
    path: Path,
    source: Source,
    detector: Callable[[], nn.Module],
    pixels: PixelCache,
    image_ids: Sequence[str],
    track: Track = silent,
) -> pd.DataFrame:
    """The raw detections of all views of the images, written to ``path`` (parquet) where they are not yet.

    ``detector`` makes the network with its weights on its device; it is called only if something is missing.
    Chunks that an interrupted call left behind are taken over if they come from the same source and images.
    """
    key = _key(source, pixels, image_ids)
    if path.exists() and (stored := read_detections(path)).attrs.get(KEY) == key:
        return stored
    parts = path.with_suffix(".parts") / key[:_PART_NAME_DIGITS]
    chunks = [tuple(image_ids[i : i + CHUNK_IMAGES]) for i in range(0, len(image_ids), CHUNK_IMAGES)]
    make_folder(parts)
    remove_partials(parts)
    network = None
    tables = []
    for number, chunk in enumerate(track(chunks, f"detecting: {path.stem}", len(chunks))):
        part = parts / f"{number:05d}.parquet"
        if not part.exists():
            network = network or detector()
            write_detections(detect(source, network, pixels, chunk), part, key)
        tables.append(read_detections(part))
    table = pd.concat(tables, ignore_index=True) if tables else detection_table([])
    write_detections(table, path, key)
    shutil.rmtree(path.with_suffix(".parts"))
    return table


def kept_weights(run: Run, keep: str) -> tuple[Path, int, Mapping[str, Tensor]]:
    """The checkpoint that predicts, its epoch (from 1) and its weights for a bare detector.

    ``best`` and ``ema`` are averaged weights where there is an average; ``last`` never is.
    """
    path = run.best if keep == "best" else run.last
    do = f"restore it from a copy, or train anew under another name than {run.name}"
    state = load_checkpoint(path, do)
    key = "current_model_state" if keep == "last" and "current_model_state" in state else "state_dict"
    weights, made = state.get(key), state.get("kit")
    epoch = made.get("epoch") if isinstance(made, dict) else None
    if not is_state_dict(weights) or type(epoch) is not int or epoch < 1:
        raise KitError(f"{path} to be a checkpoint of `invoke train`", f"keys {', '.join(map(str, state))}", do)
    return path, epoch, weights


def _key(source: Source, pixels: PixelCache, image_ids: Sequence[str]) -> str:
    # The cache's name changes with the files that it was made from.
    return fingerprint([asdict(source), pixels.file.name, list(image_ids)])


def detections(run: Run, data: TrainingData | TestData, track: Track = silent) -> pd.DataFrame:
    """A run's detections of the held-out or the test images, made where they are missing and can be.

    Raises KitError where a checkpoint or a member of an ensemble is gone, or an adopted file had none.
    """
    path = run.detections(data.part)
    if run.ensemble.exists():
        refresh(run)
        if isinstance(data, TrainingData):
            return read_detections(path)
        tables = []
        for one in (member_run(run, each.run) for each in members(run)):
            with using_results(one):
                tables.append(detections(one, data, track))
        return merge_detections(path, tables)
    if not run.adopted.exists():
        return stored(run, load(run.config), read_split(run), data, track)
    if not path.exists():
        raise KitError(
            f"detections of the {data.part} images in the file that run {run.name!r} adopted", "none",
            "adopt a file that has them too, under another --run NAME",
        )  # fmt: skip
    return read_detections(path)
