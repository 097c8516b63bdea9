"""The pixel cache: every image of a folder decoded once, as one memory-mapped file of grey levels.

Decoding is also the only real check of an image, so the cache remembers which files could not be read.
Deleting the cache costs time only; it is rebuilt whenever a file's name, size or time has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from kit.errors import KitError
from kit.files import make_folder, read_json, remove_partials, replacing, write_json
from kit.images import Grey, ImageError, read_grey
from kit.progress import Track, silent
from kit.schemas import ImageFacts, image_headers

_GIB = 2**30
_KEY_DIGITS = 16
_FORMAT = 1


@dataclass(frozen=True)
class PixelCache:
    """Decoded images of one folder. ``facts`` has every file, those that could not be read included."""

    facts: Mapping[str, ImageFacts]
    file: Path
    offsets: Mapping[str, int]

    def read(self, image_id: str) -> Grey:
        """Grey levels of an image, shape (h, w): a read-only view of the cache, nothing is copied."""
        facts = self.facts[image_id]
        return np.memmap(  # opened anew each time: a map kept for long counts as a worker's memory
            self.file, np.uint8, "r", self.offsets[image_id], (facts.height_px, facts.width_px)
        )


def open_cache(folder: Path, cache: Path, max_gib: float, track: Track = silent) -> PixelCache:
    """The cache of a folder of images, built under ``cache`` where it is missing or stale.

    Raises KitError where the folder is missing or the cache would not fit (``data.cache_max_gib``, the disk).
    Unreadable images raise nothing: their ``facts`` carry the fault, for the tables' check to name the row.
    """
    facts = image_headers(folder)
    make_folder(cache)
    index_path = cache / f"{folder.name}.json"
    key = _key(facts)
    with FileLock(cache / ".lock"):  # two processes that start at once build it once
        if index_path.exists():
            index = read_json(index_path, f"delete {index_path}; it is made anew")
            pixels = cache / str(index.get("file"))
            if index.get("key") == key and pixels.exists() and pixels.stat().st_size == index["bytes"]:
                return _opened(facts, pixels, index["offsets"], index["faults"])
        return _build(facts, folder, cache, key, max_gib, track)


def _build(
    facts: Mapping[str, ImageFacts], folder: Path, cache: Path, key: str, max_gib: float, track: Track
) -> PixelCache:
    sizes = {name: fact.width_px * fact.height_px for name, fact in facts.items()}
    starts = np.concatenate([[0], np.cumsum(list(sizes.values()), dtype=np.int64)])
    total_bytes = int(starts[-1])
    remove_partials(cache)
    _check_room(total_bytes, cache, max_gib)
    offsets = dict(zip(sizes, starts[:-1].tolist(), strict=True))
    pixels_path = cache / f"{folder.name}-{key}.u8"
    faults: dict[str, str] = {}
    with replacing(pixels_path) as partial:
        with partial.open("wb") as file:
            file.truncate(total_bytes)

        def decode(name: str) -> tuple[str, str]:
            fact = facts[name]
            if fact.fault:
                return name, fact.fault
            try:
                pixels = read_grey(fact.path)
            except ImageError as error:
                return name, str(error)
            if pixels.shape != (fact.height_px, fact.width_px):
                return (
                    name,
                    f"its header says {fact.width_px} x {fact.height_px} pixels, it holds {pixels.shape}",
                )
            with partial.open("rb+") as file:
                file.seek(offsets[name])
                file.write(pixels.tobytes())
            return name, ""

        with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata; what matters is a fault
            results = pool.map(decode, facts)
            for name, fault in track(results, f"decoding {folder.name}", len(facts)):
                if fault:
                    faults[name] = fault
    write_json(
        cache / f"{folder.name}.json",
        {"key": key, "file": pixels_path.name, "bytes": total_bytes, "offsets": offsets, "faults": faults},
    )
    for stale in cache.glob(f"{folder.name}-*.u8"):
        if stale != pixels_path:
            stale.unlink(missing_ok=True)
    return _opened(facts, pixels_path, offsets, faults)


def _opened(
    facts: Mapping[str, ImageFacts], file: Path, offsets: Mapping[str, int], faults: Mapping[str, str]
) -> PixelCache:
    checked = {
        name: ImageFacts(fact.path, fact.width_px, fact.height_px, faults.get(name, fact.fault))
        for name, fact in facts.items()
    }
    return PixelCache(checked, file, offsets)


def _key(facts: Mapping[str, ImageFacts]) -> str:
    state = [(name, fact.path.stat().st_size, fact.path.stat().st_mtime_ns) for name, fact in facts.items()]
    return hashlib.sha256(json.dumps([_FORMAT, state]).encode()).hexdigest()[:_KEY_DIGITS]


def _check_room(total_bytes: int, cache: Path, max_gib: float) -> None:
    if total_bytes > max_gib * _GIB:
        raise KitError(
            f"the pixel cache to stay below data.cache_max_gib={max_gib:g}",
            f"{total_bytes / _GIB:.1f} GiB of decoded pixels",
            f"--set data.cache_max_gib={np.ceil(total_bytes / _GIB):.0f}, if the disk has room",
        )
    free = shutil.disk_usage(cache).free
    if total_bytes > free:
        raise KitError(
            f"{total_bytes / _GIB:.1f} GiB of room for the pixel cache in {cache}",
            f"{free / _GIB:.1f} GiB free",
            "make room, or choose another folder with --workspace",
        )
