"""Weights and images in, raw detections out: one table of run, fold, view, image, box, score, label.

The table grows in parts on disk, a chunk of images each, so that a killed inference goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from kit.boxes import CORNERS, Boxes, clip
from kit.config import InferenceConfig
from kit.errors import KitError
from kit.files import make_folder, remove_partials, replacing
from kit.images import Grey
from kit.model import load_checkpoint, network_input
from kit.pixels import PixelCache
from kit.progress import Track, silent
from kit.runs import Run
from kit.schemas import DETECTION_COLUMNS, check_detections
from kit.tta import View, views

CHUNK_IMAGES = 32
_KEY = "kit_source"
_PART_NAME_DIGITS = 16


@dataclass(frozen=True)
class Source:
    """Whose detections these are: the run, the fold that its weights did not see, and how they are made."""

    run: str
    fold: int
    weights_sha256: str
    labels: tuple[str, ...]
    image_size_px: int
    inference: InferenceConfig


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
    if path.exists() and (stored := read_detections(path)).attrs.get(_KEY) == key:
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
            _write(detect(source, network, pixels, chunk), part)
        tables.append(read_detections(part))
    table = pd.concat(tables, ignore_index=True) if tables else _table([])
    table.attrs = {_KEY: key}
    _write(table, path)
    shutil.rmtree(path.with_suffix(".parts"))
    return table


def merge_detections(path: Path, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The stored tables as one at ``path``, written where it is not the same tables' already."""
    key = hashlib.sha256(json.dumps([table.attrs.get(_KEY) for table in tables]).encode()).hexdigest()
    if path.exists() and (merged := read_detections(path)).attrs.get(_KEY) == key:
        return merged
    table = _table(tables)
    table.attrs = {_KEY: key}
    _write(table, path)
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
    tensors = isinstance(weights, dict) and all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
    if not tensors or type(epoch) is not int or epoch < 1:
        raise KitError(f"{path} to be a checkpoint of `invoke train`", f"keys {', '.join(map(str, state))}", do)
    return path, epoch, state[key]


def read_detections(path: Path) -> pd.DataFrame:
    """Read and check a stored table. Raises KitError where it is broken."""
    try:
        table = pd.read_parquet(path)
    # pyarrow and pandas raise ArrowInvalid, OSError, TypeError and others for a broken file.
    except Exception as error:
        raise KitError(
            f"{path} to be a table of detections", (str(error) or type(error).__name__).splitlines()[0],
            "delete it; the next `invoke train` or `invoke predict` of the run makes it anew",
        ) from error  # fmt: skip
    return check_detections(table, str(path))


@torch.inference_mode()
def detect(source: Source, detector: nn.Module, pixels: PixelCache, image_ids: Sequence[str]) -> pd.DataFrame:
    """Raw detections of every view, boxes in the original's pixels, clipped to the image, by image and view."""
    detector.eval()
    device = next(detector.parameters()).device
    found: dict[tuple[int, int], pd.DataFrame] = {}
    order = sorted(range(len(image_ids)), key=lambda i: pixels.read(image_ids[i]).shape)
    for batch in _same_shape(order, [pixels.read(image_ids[i]) for i in order], source.inference.batch_size):
        for place, view in enumerate(views(source.inference)):
            shown = [torch.tensor(view.apply(image, source.image_size_px))[None] for _, image in batch]
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                outputs = detector(network_input([image.to(device) for image in shown]))
            for (i, image), output in zip(batch, outputs, strict=True):
                found[i, place] = _rows(source, view, image_ids[i], image, output)
    return _table([found[key] for key in sorted(found)])


def _key(source: Source, pixels: PixelCache, image_ids: Sequence[str]) -> str:
    # The cache's name changes with the files that it was made from.
    content = json.dumps([asdict(source), pixels.file.name, list(image_ids)])
    return hashlib.sha256(content.encode()).hexdigest()


def _same_shape(order: Sequence[int], images: Sequence[Grey], size: int) -> list[list[tuple[int, Grey]]]:
    """Batches of (index, image) with one shape each: padding would cost time and change scores."""
    batches: list[list[tuple[int, Grey]]] = []
    for index, image in zip(order, images, strict=True):
        if batches and len(batches[-1]) < size and batches[-1][0][1].shape == image.shape:
            batches[-1].append((index, image))
        else:
            batches.append([(index, image)])
    return batches


def _rows(source: Source, view: View, image_id: str, image: Grey, output: dict[str, torch.Tensor]) -> pd.DataFrame:
    height, width = image.shape
    numbers = output["labels"].cpu().numpy()
    seen: Boxes = output["boxes"].float().cpu().numpy().reshape(-1, 4)
    boxes = clip(view.invert(seen, width, height, source.image_size_px), width, height).astype(np.float32)
    real = (numbers > 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # 0 is background
    names = np.array(["", *source.labels], dtype=object)
    table = pd.DataFrame(boxes[real], columns=list(CORNERS))
    return table.assign(
        run=source.run,
        fold=source.fold,
        view=view.name,
        image_id=image_id,
        score=output["scores"].float().cpu().numpy()[real],
        label=names[numbers[real]],
    )[list(DETECTION_COLUMNS)]


def _table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(DETECTION_COLUMNS))
    kinds = dict.fromkeys(("run", "view", "image_id", "label"), "object") | {"fold": "int64"}
    return table.astype(kinds | dict.fromkeys((*CORNERS, "score"), "float32"))


def _write(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as partial:
        table.to_parquet(partial, index=False)
