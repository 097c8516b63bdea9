"""The out-of-fold store: a run's raw detections, made fold by fold if they are missing, and merged to one table.

A training image is detected by the one fold that held it out, a test image by every fold. Stored detections are
reused as long as weights, knobs and pixels are the same, in a copied workspace too.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from kit.config import Config, InferenceConfig, load
from kit.core.errors import KitError, reason
from kit.core.files import remove_partials, sha256
from kit.core.json_files import fingerprint
from kit.core.progress import Track, silent
from kit.data.competition import TestData, TrainingData, load_test
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
from kit.runs.own_rows import require_own_rows
from kit.schemas.detections import detection_table

_RESTORE = "restore the file from a copy, or train under another --run name"
_DIGITS = 12
CHUNK_IMAGES = 32
_CHUNK_FOLDER_DIGITS = 16
log = logging.getLogger("kit")


def stored(
    run: Run, config: Config, split: Split, data: TrainingData | TestData, track: Track = silent
) -> pd.DataFrame:
    """All folds' detections of the training or the test images, made if they are missing.

    Args:
        run: The run.
        config: Every knob of the run.
        split: The images that each fold held out.
        data: The training or the test images.
        track: Reports progress.

    Raises:
        KitError: Detections are missing and a fold's checkpoint is lost.
    """
    folds = run.in_folds(len(split.folds))
    tables = [stored_fold(fold, config, split, data, track) for fold in folds]
    return tables[0] if len(folds) == 1 else merge_detections(run.detections(data.detections_name), tables)


def stored_fold(
    run: Run, config: Config, split: Split, data: TrainingData | TestData, track: Track = silent
) -> pd.DataFrame:
    """The detections of one fold (``run`` names it), made if they are missing; arguments as in ``stored``."""
    fold, keep = run.fold or 0, config.training.keep
    weights_sha256 = _weights_sha256(run, _kept_checkpoint(run, keep))
    source = Source(run.name, fold, weights_sha256, split.labels, config.model.image_size_px, config.inference)
    image_ids = split.folds[fold] if isinstance(data, TrainingData) else data.image_ids

    def detector() -> nn.Module:
        path, _, weights = kept_weights(run, keep)
        network = bare_detector(config, split)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            found = str(error).splitlines()[-1].strip()
            raise KitError(f"{path} to fit the detector of {run.config}", found, _RESTORE) from error
        device = "cuda" if uses_gpu(config) else "cpu"
        return channels_last(network).to(device)

    with explain_failures(config.inference.batch_size, config.model.image_size_px, "inference.batch_size"):
        path = run.detections(data.detections_name)
        return store_detections(path, source, detector, data.pixels, image_ids, track)


def bare_detector(config: Config, split: Split) -> nn.Module:
    """The run's network before any weights are put into it: the same random ones every time."""
    torch.manual_seed(config.training.seed)
    return networks.build(resolve_norms(config.model), len(split.labels))


def _weights_sha256(run: Run, path: Path) -> str:
    """The SHA-256 of the checkpoint at ``path``, or the recorded one if a finished run's file is gone.

    Raises KitError if a finished run's checkpoint was replaced: the scores would no longer describe it.
    """
    recorded = _recorded_sha256(run) if run.finished.exists() else None
    if recorded is not None and not path.exists():
        return recorded
    try:
        actual = sha256(path)
    except OSError as error:
        raise KitError(f"the checkpoint {path}", reason(error), _RESTORE) from error
    if recorded not in (None, actual):
        raise KitError(
            f"{path} as it was when the run was finished ({recorded[:_DIGITS]}...)",
            f"{actual[:_DIGITS]}...",
            _RESTORE,
        )
    return actual


def _recorded_sha256(run: Run) -> str:
    # By index, not by title: a run's folder may have been renamed.
    hashes, fold = list(read_finished(run).weights.values()), run.fold or 0
    return hashes[fold] if fold < len(hashes) else "no hash"


def store_detections(
    path: Path,
    source: Source,
    detector: Callable[[], nn.Module],
    pixels: PixelCache,
    image_ids: Sequence[str],
    track: Track = silent,
) -> pd.DataFrame:
    """The raw detections of all views of the images, written to ``path`` (parquet) if they are not there yet.

    Chunks that an interrupted call left behind are reused if they come from the same source and images.

    Args:
        path: The parquet file; it also stores a key made from the source, the image_ids and their pixels.
        source: The run, fold, weights and knobs that make the detections.
        detector: Makes the network with its weights on its device; called only if something is missing.
        pixels: The images.
        image_ids: Those to detect on; may be empty.
        track: Shows the progress.
    """
    key = _key(source, pixels, image_ids)
    if path.exists():
        stored = read_detections(path)
        if stored.attrs.get(KEY) == key:
            return stored
        log.info("%s: not made from these weights, knobs and images; detecting again", path)
    chunk_folder = path.with_suffix(".parts") / key[:_CHUNK_FOLDER_DIGITS]
    chunks = [tuple(image_ids[i : i + CHUNK_IMAGES]) for i in range(0, len(image_ids), CHUNK_IMAGES)]
    remove_partials(chunk_folder)
    network = None
    tables = []
    for number, chunk in enumerate(track(chunks, f"detecting: {path.stem}", len(chunks))):
        chunk_path = chunk_folder / f"{number:05d}.parquet"
        if not chunk_path.exists():
            network = network or detector()
            write_detections(detect(source, network, pixels, chunk), chunk_path, key)
        tables.append(read_detections(chunk_path))
    table = pd.concat(tables, ignore_index=True) if tables else detection_table([])
    write_detections(table, path, key)
    shutil.rmtree(chunk_folder.parent, ignore_errors=True)
    return table


def kept_weights(run: Run, keep: str) -> tuple[Path, int, Mapping[str, Tensor]]:
    """The checkpoint that detects, its epoch (from 1) and its weights for a bare detector.

    ``best`` and ``ema`` are averaged weights if the run averages; ``last`` never is.
    Raises KitError if the file is missing or no checkpoint.
    """
    path = _kept_checkpoint(run, keep)
    do = f"restore it from a copy, or train anew under another name than {run.name}"
    state = load_checkpoint(path, do)
    key = "current_model_state" if keep == "last" and "current_model_state" in state else "state_dict"
    weights, made = state.get(key), state.get("kit")
    epoch = made.get("epoch") if isinstance(made, dict) else None
    if not is_state_dict(weights) or type(epoch) is not int or epoch < 1:
        raise KitError(f"{path} to be a checkpoint of `invoke train`", f"keys {', '.join(map(str, state))}", do)
    return path, epoch, weights


def _kept_checkpoint(run: Run, keep: str) -> Path:
    return run.best if keep == "best" else run.last


def _read_by(member: Run, ours: Config, data: TestData) -> TestData:
    """The test images as a member of an ensemble reads them: it may have another data.invert."""
    theirs = load(member.config)
    return data if theirs.data.invert == ours.data.invert else load_test(member.workspace, theirs)


def _key(source: Source, pixels: PixelCache, image_ids: Sequence[str]) -> str:
    # The batch size is the machine's: a smaller one, after a full memory, goes on with the same chunks.
    usual = replace(source, inference=replace(source.inference, batch_size=InferenceConfig().batch_size))
    return fingerprint([asdict(usual), [(image_id, pixels.digests[image_id]) for image_id in image_ids]])


def detections(run: Run, data: TrainingData | TestData, track: Track = silent) -> pd.DataFrame:
    """A run's detections of the held-out or the test images, made if they are missing.

    Raises KitError if they cannot be made: a checkpoint or a member of an ensemble is gone, or the adopted file
    has none; and if they are not the run's own, see `require_own_rows`.
    """
    split = read_split(run)
    image_ids = split.validation if isinstance(data, TrainingData) else data.image_ids
    return require_own_rows(_detections(run, split, data, track), run, data.detections_name, split, image_ids)


def _detections(run: Run, split: Split, data: TrainingData | TestData, track: Track) -> pd.DataFrame:
    path = run.detections(data.detections_name)
    if run.ensemble.exists():
        refresh(run)
        if isinstance(data, TrainingData):
            return read_detections(path)
        tables = []
        for member in members(run):
            of_member = member_run(run, member.run)
            with using_results(of_member):
                tables.append(detections(of_member, _read_by(of_member, load(run.config), data), track))
        return merge_detections(path, tables)
    if not run.adopted.exists():
        return stored(run, load(run.config), split, data, track)
    if not path.exists():
        raise KitError(
            f"detections of the {data.detections_name} images in the file that run {run.name!r} adopted", "none",
            "adopt a file that has them too, under another --run NAME",
        )  # fmt: skip
    return read_detections(path)
