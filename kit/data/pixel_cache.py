"""The pixel cache: every image of a folder decoded once, as one memory-mapped file of grey levels.

Decoding is also the only real check of an image, so the cache remembers which files could not be read.
Deleting the cache costs time only, and a command that uses it must be given again; it is rebuilt whenever a
file's name, size or time has changed.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from kit.core.errors import KitError
from kit.core.files import make_folder, remove_partials, replacing, require_free_space
from kit.core.json_files import fingerprint, read_json, read_record, write_json
from kit.core.locks import locked
from kit.core.progress import Track, silent
from kit.data.images import Grey, ImageError, read_grey
from kit.schemas.image_headers import ImageFacts, image_headers, image_names

_GIB = 2**30
_KEY_DIGITS = 16
_FORMAT = 2
_TASK = 8  # images: of small ones the handing out costs as much as the decoding


@dataclass(frozen=True)
class PixelRows:
    """Some images of a cache in a fixed order: arrays, which the processes of a loader share without copying.

    A Python object per image would be copied into every worker, page by page, by counting references to it.
    """

    file: Path
    offsets: Int64[np.ndarray, " n"]
    widths_px: Int64[np.ndarray, " n"]
    heights_px: Int64[np.ndarray, " n"]

    def read(self, index: int) -> Grey:
        """Grey levels of an image, shape (h, w): a read-only view of the cache, nothing is copied."""
        shape = (int(self.heights_px[index]), int(self.widths_px[index]))
        # Opened anew each time: a map kept for long counts as a worker's memory.
        return np.memmap(self.file, np.uint8, "r", int(self.offsets[index]), shape)


@dataclass(frozen=True)
class PixelCache:
    """Decoded images of one folder. ``facts`` has every file, those that could not be read included."""

    facts: Mapping[str, ImageFacts]
    file: Path

    def read(self, image_id: str) -> Grey:
        """Grey levels of an image, shape (h, w): a read-only view of the cache, nothing is copied.

        Raises KitError where the cache was deleted meanwhile.
        """
        try:
            return self._all.read(self._places[image_id])
        except FileNotFoundError as error:
            raise KitError(
                f"the pixel cache {self.file} to stay while it is used", "no such file",
                "the same command makes it anew",
            ) from error  # fmt: skip

    def rows(self, image_ids: Sequence[str]) -> PixelRows:
        """The named images in that order, for whoever reads them by number."""
        places = np.array([self._places[image_id] for image_id in image_ids], dtype=np.int64)
        everyone = self._all
        return PixelRows(
            self.file, everyone.offsets[places], everyone.widths_px[places], everyone.heights_px[places]
        )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {image_id: place for place, image_id in enumerate(self.facts)}

    @cached_property
    def _all(self) -> PixelRows:
        widths, heights = (
            np.array([getattr(fact, side) for fact in self.facts.values()], dtype=np.int64)
            for side in ("width_px", "height_px")
        )
        return PixelRows(self.file, np.cumsum(widths * heights) - widths * heights, widths, heights)


def open_cache(folder: Path, cache: Path, max_gib: float, track: Track = silent) -> PixelCache:
    """The cache of a folder of images, built under ``cache`` where it is missing or stale.

    Where no file's name, size or time has changed, none is opened. Raises KitError where the folder is missing
    or the cache would not fit (``data.cache_max_gib``, the disk). Unreadable images raise nothing: their
    ``facts`` carry the fault, for the tables' check to name the row.
    """
    names = image_names(folder)
    make_folder(cache)
    key = _key(folder, names)
    pixels, index = cache / f"{folder.name}-{key}.u8", cache / f"{folder.name}.json"
    with locked(cache / ".lock"):  # two processes that start at once build it once
        stored = _stored(index, key, names)
        if stored and pixels.exists() and pixels.stat().st_size == stored.total_bytes:
            return PixelCache(stored.facts(folder, names), pixels)
        facts = _build(folder, pixels, max_gib, track)
        sides = [tuple(getattr(fact, side) for fact in facts.values()) for side in ("width_px", "height_px")]
        faults = {name: fact.fault for name, fact in facts.items() if fact.fault}
        write_json(index, asdict(_Index(key, sides[0], sides[1], faults)))
        for stale in cache.glob(f"{folder.name}-*.u8"):
            if stale != pixels:
                stale.unlink(missing_ok=True)
    return PixelCache(facts, pixels)


@dataclass(frozen=True)
class _Index:
    """What is known of the files, in the order of their names; the key says of which files."""

    key: str
    widths_px: tuple[int, ...]
    heights_px: tuple[int, ...]
    faults: Mapping[str, str]

    @property
    def total_bytes(self) -> int:
        return sum(width * height for width, height in zip(self.widths_px, self.heights_px, strict=True))

    def facts(self, folder: Path, names: Sequence[str]) -> dict[str, ImageFacts]:
        sizes = zip(names, self.widths_px, self.heights_px, strict=True)
        return {
            name: ImageFacts(folder / name, width, height, self.faults.get(name, ""))
            for name, width, height in sizes
        }


def _stored(index: Path, key: str, names: Sequence[str]) -> _Index | None:
    """The index, if it is of these files. Raises KitError where it is broken."""
    do = f"delete {index}; it is made anew"
    if not index.exists():
        return None
    content = read_json(index, do)
    if not isinstance(content, dict) or content.get("key") != key:
        return None
    stored = read_record(index, _Index, do)
    if not len(stored.widths_px) == len(stored.heights_px) == len(names):
        raise KitError(f"{index} to tell the sizes of {len(names)} images", f"{len(stored.widths_px)}", do)
    return stored


def _build(folder: Path, goal: Path, max_gib: float, track: Track) -> dict[str, ImageFacts]:
    """Decode every image into ``goal``, on all cores; the facts with the faults that decoding found."""
    facts = image_headers(folder)
    sizes = [fact.width_px * fact.height_px for fact in facts.values()]
    offsets = dict(zip(facts, np.cumsum([0, *sizes]).tolist(), strict=False))
    remove_partials(goal.parent)
    _check_room(sum(sizes), goal.parent, max_gib)
    with replacing(goal) as partial:
        with partial.open("wb") as file:
            file.truncate(sum(sizes))

        def decode(name: str) -> ImageFacts:
            fact = facts[name]
            if fact.fault:
                return fact
            try:
                pixels = read_grey(fact.path)
            except ImageError as error:
                return replace(fact, fault=str(error))
            if pixels.shape != (fact.height_px, fact.width_px):
                said = f"its header says {fact.width_px} x {fact.height_px} pixels"
                return replace(fact, fault=f"{said}, it holds {pixels.shape}")
            with partial.open("rb+") as file:
                file.seek(offsets[name])
                file.write(np.ascontiguousarray(pixels).data)
            return fact

        def decode_all(some: Sequence[str]) -> list[ImageFacts]:
            return [decode(name) for name in some]

        names = list(facts)
        tasks = [names[start : start + _TASK] for start in range(0, len(names), _TASK)]
        with warnings.catch_warnings(), contextlib.closing(_Pool(os.cpu_count())) as pool:
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata; what matters is a fault
            decoded = chain.from_iterable(pool.map(decode_all, tasks))
            return dict(zip(facts, track(decoded, f"decoding {folder.name}", len(facts)), strict=True))


class _Pool(ThreadPoolExecutor):
    def close(self) -> None:
        """Wait for the tasks that have begun only: after Ctrl-C nobody wants the others."""
        self.shutdown(cancel_futures=True)


def _key(folder: Path, names: Sequence[str]) -> str:
    state = [(name, *_size_and_time(folder / name)) for name in names]
    return fingerprint([_FORMAT, state])[:_KEY_DIGITS]


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a link to nothing: its header's fault says so
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _check_room(total_bytes: int, cache: Path, max_gib: float) -> None:
    if total_bytes > max_gib * _GIB:
        raise KitError(
            f"the pixel cache to stay below data.cache_max_gib={max_gib:g}",
            f"{total_bytes / _GIB:.1f} GiB of decoded pixels",
            f"--set data.cache_max_gib={np.ceil(total_bytes / _GIB):.0f}, if the disk has room",
        )
    require_free_space(cache, total_bytes, f"room for the pixel cache in {cache}")
