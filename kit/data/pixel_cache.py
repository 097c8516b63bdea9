"""The pixel cache: every image of a folder decoded once, as one memory-mapped file of grey levels.

Its index holds the digest of each image's pixels, and the fault of each file that cannot be decoded. It is
rebuilt if a file's name, size or time has changed, and can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import logging
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
from kit.data.images import Grey, ImageError, pixel_digest, read_grey
from kit.schemas.image_headers import ImageFacts, image_headers, image_names

_GIB = 2**30
_KEY_DIGITS = 16
_FORMAT = 3
_TASK = 8  # images: scheduling a small one alone costs as much as decoding it
log = logging.getLogger("kit")


@dataclass(frozen=True)
class PixelRows:
    """Some images of a cache in a fixed order: arrays, which the processes of a loader share without copying.

    Counting the references to a Python object writes to its memory page, so that every worker would copy it.
    """

    file: Path
    offsets: Int64[np.ndarray, " n"]
    widths_px: Int64[np.ndarray, " n"]
    heights_px: Int64[np.ndarray, " n"]

    def read(self, index: int) -> Grey:
        """Grey levels of an image, shape (h, w): a read-only view of the cache, nothing is copied."""
        shape = (int(self.heights_px[index]), int(self.widths_px[index]))
        # Opened for each image: the pages of a long-lived map count as a worker's memory.
        return np.memmap(self.file, np.uint8, "r", int(self.offsets[index]), shape)


@dataclass(frozen=True)
class PixelCache:
    """Decoded images of one folder.

    ``facts`` has every file, ``digests`` (see ``pixel_digest``) those that can be read; both by image_id, sorted.
    """

    facts: Mapping[str, ImageFacts]
    digests: Mapping[str, str]
    file: Path

    def read(self, image_id: str) -> Grey:
        """Grey levels of an image, shape (h, w): a read-only view of the cache, nothing is copied.

        Raises KitError if the cache was deleted meanwhile.
        """
        try:
            return self._all_rows.read(self._indices[image_id])
        except FileNotFoundError as error:
            raise KitError(
                f"the pixel cache {self.file} to exist while it is used", "no such file",
                "repeat the command: it makes the cache anew",
            ) from error  # fmt: skip

    def rows(self, image_ids: Sequence[str]) -> PixelRows:
        """The named images in that order, to be read by index."""
        indices = np.array([self._indices[image_id] for image_id in image_ids], dtype=np.int64)
        rows = self._all_rows
        return PixelRows(self.file, rows.offsets[indices], rows.widths_px[indices], rows.heights_px[indices])

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {image_id: index for index, image_id in enumerate(self.facts)}

    @cached_property
    def _all_rows(self) -> PixelRows:
        widths, heights = (
            np.array([getattr(fact, side) for fact in self.facts.values()], dtype=np.int64)
            for side in ("width_px", "height_px")
        )
        return PixelRows(self.file, np.cumsum(widths * heights) - widths * heights, widths, heights)


def open_cache(folder: Path, cache: Path, max_gib: float, track: Track = silent) -> PixelCache:
    """The cache of a folder of images, built under ``cache`` if it is missing or stale.

    If no file's name, size or time has changed, no image is opened: a change that keeps all three goes unnoticed.
    Raises KitError if the folder is missing or the cache does not fit (``data.cache_max_gib``, the disk).
    Unreadable images raise nothing: their ``facts`` hold the fault, and reading the table names the row.
    """
    names = image_names(folder)
    make_folder(cache)
    key = _key(folder, names)
    pixels, index = cache / f"{folder.name}-{key}.u8", cache / f"{folder.name}.json"
    with locked(cache / ".lock"):  # two processes that start at once build it once
        stored = _stored(index, key, names)
        if stored and pixels.exists() and pixels.stat().st_size == stored.total_bytes:
            return stored.cache(folder, names, pixels)
        cache_of_folder = _build(folder, pixels, max_gib, track)
        write_json(index, asdict(_Index.of(key, cache_of_folder)))
        for stale in cache.glob(f"{folder.name}-*.u8"):
            if stale != pixels:
                stale.unlink(missing_ok=True)
    return cache_of_folder


@dataclass(frozen=True)
class _Index:
    """What the index file stores of each image, sorted by name; ``key`` changes with the files."""

    key: str
    widths_px: tuple[int, ...]
    heights_px: tuple[int, ...]
    digests: tuple[str, ...]  # empty for an image that cannot be read
    faults: Mapping[str, str]

    @classmethod
    def of(cls, key: str, cache: PixelCache) -> _Index:
        facts = cache.facts.items()
        return cls(
            key,
            tuple(fact.width_px for _, fact in facts),
            tuple(fact.height_px for _, fact in facts),
            tuple(cache.digests.get(name, "") for name, _ in facts),
            {name: fact.fault for name, fact in facts if fact.fault},
        )

    @property
    def total_bytes(self) -> int:
        return sum(width * height for width, height in zip(self.widths_px, self.heights_px, strict=True))

    def cache(self, folder: Path, names: Sequence[str], pixels: Path) -> PixelCache:
        facts = {
            name: ImageFacts(folder / name, width, height, self.faults.get(name, ""))
            for name, width, height in zip(names, self.widths_px, self.heights_px, strict=True)
        }
        digests = {name: digest for name, digest in zip(names, self.digests, strict=True) if digest}
        return PixelCache(facts, digests, pixels)


def _stored(index: Path, key: str, names: Sequence[str]) -> _Index | None:
    """The index, if it is of these files. Raises KitError if it is broken."""
    do = f"delete {index}; it is made anew"
    if not index.exists():
        return None
    content = read_json(index, do)
    if not isinstance(content, dict) or content.get("key") != key:
        if isinstance(content, dict) and "digests" not in content:
            log.info("%s: made by an earlier version, without digests; decoding the images again", index)
        return None
    stored = read_record(index, _Index, do)
    counts = {len(stored.widths_px), len(stored.heights_px), len(stored.digests)} - {len(names)}
    if counts:
        raise KitError(f"{index} to hold sizes and digests of {len(names)} images", f"{min(counts)}", do)
    return stored


def _build(folder: Path, goal: Path, max_gib: float, track: Track) -> PixelCache:
    """Decode every image into ``goal``, on all cores, and note the faults that decoding finds."""
    facts = image_headers(folder)
    sizes = [fact.width_px * fact.height_px for fact in facts.values()]
    offsets = dict(zip(facts, np.cumsum([0, *sizes]).tolist(), strict=False))
    remove_partials(goal.parent)
    _check_room(sum(sizes), goal.parent, max_gib)
    with replacing(goal) as partial:
        with partial.open("wb") as file:
            file.truncate(sum(sizes))

        def decode(name: str) -> tuple[ImageFacts, str]:
            fact = facts[name]
            if fact.fault:
                return fact, ""
            try:
                pixels = read_grey(fact.path)
            except ImageError as error:
                return replace(fact, fault=str(error)), ""
            if pixels.shape != (fact.height_px, fact.width_px):
                header = f"its header says {fact.width_px} x {fact.height_px} pixels"
                return replace(fact, fault=f"{header}, it holds {pixels.shape}"), ""
            with partial.open("rb+") as file:
                file.seek(offsets[name])
                file.write(np.ascontiguousarray(pixels).data)
            return fact, pixel_digest(pixels)

        def decode_all(some: Sequence[str]) -> list[tuple[ImageFacts, str]]:
            return [decode(name) for name in some]

        names = list(facts)
        tasks = [names[start : start + _TASK] for start in range(0, len(names), _TASK)]
        with warnings.catch_warnings(), contextlib.closing(_Pool(os.cpu_count())) as pool:
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata; what matters is a fault
            decoded = chain.from_iterable(pool.map(decode_all, tasks))
            results = list(track(decoded, f"decoding {folder.name}", len(facts)))
    digests = {name: digest for name, (_, digest) in zip(facts, results, strict=True) if digest}
    return PixelCache(dict(zip(facts, (fact for fact, _ in results), strict=True)), digests, goal)


class _Pool(ThreadPoolExecutor):
    def close(self) -> None:
        """Wait for the tasks that have started; cancel the others, since after Ctrl-C they are useless."""
        self.shutdown(cancel_futures=True)


def _key(folder: Path, names: Sequence[str]) -> str:
    state = [(name, *_size_and_time(folder / name)) for name in names]
    return fingerprint([_FORMAT, state])[:_KEY_DIGITS]


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a broken link: its facts have a fault
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
