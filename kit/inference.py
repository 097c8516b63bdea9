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
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from kit.boxes.geometry import CORNERS, Boxes, clip
from kit.checkpoints import is_state_dict, load_checkpoint
from kit.config import InferenceConfig
from kit.core.errors import KitError
from kit.core.files import make_folder, remove_partials, replacing
from kit.core.progress import Track, silent
from kit.data.images import Grey
from kit.data.pixel_cache import PixelCache
from kit.memory import keeping_freed_memory
from kit.model import network_input
from kit.runs import Run
from kit.schemas.detections import DETECTION_COLUMNS, check_detections
from kit.tta import View, views

CHUNK_IMAGES = 32
KEY = "kit_source"
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
            _write(detect(source, network, pixels, chunk), part)
        tables.append(read_detections(part))
    table = pd.concat(tables, ignore_index=True) if tables else _table([])
    write_detections(table, path, key)
    shutil.rmtree(path.with_suffix(".parts"))
    return table


def merge_detections(
    path: Path, tables: Sequence[pd.DataFrame], image_ids: Sequence[str] | None = None
) -> pd.DataFrame:
    """Stored tables, or their rows on some images, as one at ``path``, written where it is not theirs already."""
    content = json.dumps([[table.attrs.get(KEY) for table in tables], image_ids])
    key = hashlib.sha256(content.encode()).hexdigest()
    if path.exists() and (merged := read_detections(path)).attrs.get(KEY) == key:
        return merged
    table = _table([rows if image_ids is None else rows[rows["image_id"].isin(image_ids)] for rows in tables])
    write_detections(table, path, key)
    return table


def write_detections(table: pd.DataFrame, path: Path, key: str) -> None:
    """Store a table together with a key that says what it was made from."""
    table.attrs = {KEY: key}
    _write(table, path)


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
    """Raw detections of every view, boxes in the original's pixels, clipped to the image, by image and view.

    View after view of a few images of one shape: the cache's pixels are mapped, and of each image one view at
    a time is in memory.
    """
    detector.eval()
    device = next(detector.parameters()).device
    found: dict[tuple[int, int], _Found] = {}
    batches = _same_shape([_size(pixels, image_id) for image_id in image_ids], source.inference.batch_size)
    with keeping_freed_memory(device.type), torch.autocast(device.type, enabled=device.type == "cuda"):
        for batch in batches:
            images = [pixels.read(image_ids[place]) for place in batch]
            for number, view in enumerate(views(source.inference)):
                outputs = detector(_shown(view, images, source.image_size_px, device))
                for place, output in zip(batch, outputs, strict=True):
                    size = _size(pixels, image_ids[place])
                    found[place, number] = _in_original(view, size, source.image_size_px, output)
    return _detections(source, image_ids, found)


def _key(source: Source, pixels: PixelCache, image_ids: Sequence[str]) -> str:
    # The cache's name changes with the files that it was made from.
    content = json.dumps([asdict(source), pixels.file.name, list(image_ids)])
    return hashlib.sha256(content.encode()).hexdigest()


def _size(pixels: PixelCache, image_id: str) -> tuple[int, int]:
    """Width and height, pixels."""
    facts = pixels.facts[image_id]
    return facts.width_px, facts.height_px


def _same_shape(sizes: Sequence[tuple[int, int]], most: int) -> list[list[int]]:
    """Batches of indices of images with one size each: padding would cost time and change scores."""
    order = sorted(range(len(sizes)), key=lambda place: sizes[place])
    batches: list[list[int]] = []
    for place in order:
        if batches and len(batches[-1]) < most and sizes[batches[-1][0]] == sizes[place]:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _shown(view: View, images: Sequence[Grey], size_px: int, device: torch.device) -> list[torch.Tensor]:
    """What the network gets of a view; its bytes are gone when this returns."""
    return network_input([torch.tensor(view.apply(image, size_px))[None].to(device) for image in images])


class _Found(NamedTuple):
    """One image's detections in one view, boxes in the original's pixels."""

    boxes: Boxes
    scores: Float32[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]


def _in_original(view: View, size: tuple[int, int], size_px: int, output: Mapping[str, torch.Tensor]) -> _Found:
    numbers = output["labels"].cpu().numpy()
    seen: Boxes = output["boxes"].float().cpu().numpy().reshape(-1, 4)
    boxes = clip(view.invert(seen, *size, size_px), *size).astype(np.float32)
    real = (numbers > 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # 0 is background
    return _Found(boxes[real], output["scores"].float().cpu().numpy()[real], numbers[real])


def _detections(source: Source, image_ids: Sequence[str], found: Mapping[tuple[int, int], _Found]) -> pd.DataFrame:
    """The table, by image and view; made at once, since a small table per view costs as much as a large one."""
    if not found:
        return _table([])
    keys = sorted(found)
    counts = [len(found[key].scores) for key in keys]
    names = np.array([view.name for view in views(source.inference)], dtype=object)
    place, number = np.repeat(np.array(keys, dtype=np.int64), counts, axis=0).T
    labels = np.array(["", *source.labels], dtype=object)
    table = pd.DataFrame(np.concatenate([found[key].boxes for key in keys]), columns=CORNERS).assign(
        run=source.run,
        fold=source.fold,
        view=names[number],
        image_id=np.array(image_ids, dtype=object)[place],
        score=np.concatenate([found[key].scores for key in keys]),
        label=labels[np.concatenate([found[key].labels for key in keys])],
    )
    return _table([table[list(DETECTION_COLUMNS)]])


def _table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(DETECTION_COLUMNS))
    kinds = dict.fromkeys(("run", "view", "image_id", "label"), "object") | {"fold": "int64"}
    return table.astype(kinds | dict.fromkeys((*CORNERS, "score"), "float32"))


def _write(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as partial:
        table.to_parquet(partial, index=False)
