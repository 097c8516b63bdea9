"""Making a fold's raw detections: the network with the weights that a run keeps, and the loop over its images."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from kit.config import Config
from kit.core.errors import KitError
from kit.core.files import remove_partials
from kit.core.progress import Track, silent
from kit.data.pixel_cache import PixelCache
from kit.detectors import networks
from kit.detectors.checkpoints import is_state_dict, load_checkpoint, not_finite
from kit.detectors.hardware import explain_failures, uses_gpu
from kit.detectors.inference import detect
from kit.detectors.memory import channels_last
from kit.detectors.source import Source
from kit.detectors.weights import resolve_norms
from kit.runs.detections import chunks_of, detections_key, read_detections, read_made_from, write_detections
from kit.runs.folder import Run, Split
from kit.schemas.detections import detection_table

_RESTORE = "restore the file from a copy, or train under another --run name"
CHUNK_IMAGES = 32
_CHUNK_FOLDER_DIGITS = 16
log = logging.getLogger("kit")


def detect_fold(
    run: Run,
    config: Config,
    split: Split,
    source: Source,
    path: Path,
    pixels: PixelCache,
    image_ids: Sequence[str],
    track: Track = silent,
) -> pd.DataFrame:
    """The detections of one fold (``run`` names it), written to ``path``; see ``store_detections``.

    Raises KitError if its checkpoint is lost or does not fit its network.
    """

    def detector() -> nn.Module:
        checkpoint, _, weights = kept_weights(run, config.training.keep)
        network = bare_detector(config, split)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            found = str(error).splitlines()[-1].strip()
            raise KitError(f"{checkpoint} to fit the detector of {run.config}", found, _RESTORE) from error
        device = "cuda" if uses_gpu(config) else "cpu"
        return channels_last(network).to(device)

    with explain_failures(config.inference.batch_size, config.model.image_size_px, "inference.batch_size"):
        return store_detections(path, source, detector, pixels, image_ids, track)


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
    key = detections_key(source, pixels, image_ids)
    if (found := read_made_from(path, key)) is not None:
        return found
    if path.exists():
        log.info("%s: not made from these weights, knobs and images; detecting again", path)
    chunk_folder = chunks_of(path) / key[:_CHUNK_FOLDER_DIGITS]
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


def bare_detector(config: Config, split: Split) -> nn.Module:
    """The run's network before any weights are put into it: the same random ones every time."""
    torch.manual_seed(config.training.seed)
    return networks.build(resolve_norms(config.model), len(split.labels))


def kept_weights(run: Run, keep: str) -> tuple[Path, int, Mapping[str, Tensor]]:
    """The checkpoint that detects, its epoch (from 1) and its weights for a bare detector.

    ``best`` and ``ema`` are averaged weights if the run averages; ``last`` never is.
    Raises KitError if the file is missing, no checkpoint, or has weights that are NaN or infinite.
    """
    path = run.checkpoint(keep)
    do = f"restore it from a copy, or train anew under another name than {run.name}"
    state = load_checkpoint(path, do)
    key = "current_model_state" if keep == "last" and "current_model_state" in state else "state_dict"
    weights, made = state.get(key), state.get("kit")
    epoch = made.get("epoch") if isinstance(made, dict) else None
    if not is_state_dict(weights) or type(epoch) is not int or epoch < 1:
        raise KitError(f"{path} to be a checkpoint of `invoke train`", f"keys {', '.join(map(str, state))}", do)
    if strange := not_finite(weights):
        raise KitError(f"{path} to hold finite weights", strange, do)
    return path, epoch, weights
