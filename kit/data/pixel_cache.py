"""The pixel cache: every image of a folder decoded once, as one memory-mapped file of grey levels.

Its index holds the digest of each image's pixels, the EXIF orientations, the ranges of 16-bit images, and the fault
of each file that cannot be decoded. It is rebuilt if a file's name, size or time has changed, and can be deleted at
any time. The pixels are stored as they lie in the files: turning and inverting happen when they are read.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from kit.core.errors import KitError, first_few
from kit.core.files import make_folder, remove_partials, replacing, require_free_space
from kit.core.json_files import fingerprint, read_json, read_record, write_json
from kit.core.locks import locked
from kit.core.progress import Track, silent
from kit.core.threads import Threads
from kit.data.images import Grey, ImageError, Levels, as_read, decode, pixel_digest
from kit.schemas.image_headers import UPRIGHT, ImageFacts, image_headers, image_names, lies_on_its_side

_GIB = 2**30
_KEY_DIGITS = 16
_FORMAT = 5
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
    turns: Int64[np.ndarray, " n"]
    inverted: Bool[np.ndarray, " n"]

    def read(self, index: int) -> Grey:
        """Grey levels of an image, shape (h, w): a read-only view of the cache, or a copy if turned or inverted."""
        return as_read(self.read_file(index), int(self.turns[index]), bool(self.inverted[index]))

    def read_file(self, index: int) -> Grey:
        """The pixels of an image as they lie in its file, shape (h, w): a read-only view, nothing is copied."""
        height, width, offset = (int(of[index]) for of in (self.heights_px, self.widths_px, self.offsets))
        before = offset % mmap.ALLOCATIONGRANULARITY  # np.memmap does the same in twice the time
        # Opened for each image: the pages of a long-lived map count as a worker's memory.
        with self.file.open("rb", buffering=0) as file:
            pixels = mmap.mmap(
                file.fileno(), before + height * width, access=mmap.ACCESS_READ, offset=offset - before
            )
        return np.frombuffer(pixels, np.uint8, height * width, before).reshape(height, width)


@dataclass(frozen=True)
class PixelCache:
    """Decoded images of one folder.

    ``facts`` has every file, ``digests`` (see ``pixel_digest``) those that can be read; both by image_id, sorted.
    An image that is turned or inverted has a digest of its own kind. ``levels`` has the 16-bit images.
    """

    facts: Mapping[str, ImageFacts]
    digests: Mapping[str, str]
    file: Path
    levels: Mapping[str, Levels] = field(default_factory=dict)

    def treated(self, orientation: str, inverted: Collection[str] = ()) -> PixelCache:
        """The same images, turned by their EXIF orientations if ``orientation`` is "exif", some inverted."""
        facts = {
            name: replace(fact.turned() if orientation == "exif" else fact, inverted=name in inverted)
            for name, fact in self.facts.items()
        }
        digests = {
            name: digest
            if facts[name].turn == UPRIGHT and name not in inverted
            else fingerprint([digest, facts[name].turn, name in inverted])
            for name, digest in self.digests.items()
        }
        return replace(self, facts=facts, digests=digests)

    def read(self, image_id: str) -> Grey:
        """Grey levels of an image, shape (h, w): a read-only view of the cache; a copy if it is turned or inverted.

        Raises KitError if the cache was deleted meanwhile.
        """
        with self._explaining_a_loss():
            return self._all_rows.read(self._indices[image_id])

    def read_file(self, image_id: str) -> Grey:
        """The pixels of an image as they lie in its file, whatever the knobs say; see ``read``."""
        with self._explaining_a_loss():
            return self._all_rows.read_file(self._indices[image_id])

    @contextlib.contextmanager
    def _explaining_a_loss(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise KitError(
                f"the pixel cache {self.file} to exist while it is used", "no such file",
                "repeat the command: it makes the cache anew",
            ) from error  # fmt: skip

    def rows(self, image_ids: Sequence[str]) -> PixelRows:
        """The named images in that order, to be read by index."""
        indices = np.array([self._indices[image_id] for image_id in image_ids], dtype=np.int64)
        rows = self._all_rows
        return PixelRows(
            self.file, rows.offsets[indices], rows.widths_px[indices], rows.heights_px[indices],
            rows.turns[indices], rows.inverted[indices],
        )  # fmt: skip

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {image_id: index for index, image_id in enumerate(self.facts)}

    @cached_property
    def _all_rows(self) -> PixelRows:
        facts = self.facts.values()
        # The sizes in the file: an image that is turned on its side has them exchanged.
        sizes = [
            (fact.height_px, fact.width_px) if lies_on_its_side(fact.turn) else (fact.width_px, fact.height_px)
            for fact in facts
        ]
        widths, heights = np.array(sizes, dtype=np.int64).reshape(-1, 2).T
        turns = np.array([fact.turn for fact in facts], dtype=np.int64)
        inverted = np.array([fact.inverted for fact in facts], dtype=bool)
        return PixelRows(
            self.file, np.cumsum(widths * heights) - widths * heights, widths, heights, turns, inverted
        )


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
    orientations: Mapping[str, int]  # of the images whose EXIF orientation is not 1
    levels: Mapping[str, Levels]  # of the images of 16 bits

    def __post_init__(self) -> None:
        if min((0, *self.widths_px, *self.heights_px)) < 0:
            raise ValueError("an image of fewer than 0 pixels")

    @classmethod
    def of(cls, key: str, cache: PixelCache) -> _Index:
        facts = cache.facts.items()
        return cls(
            key,
            tuple(fact.width_px for _, fact in facts),
            tuple(fact.height_px for _, fact in facts),
            tuple(cache.digests.get(name, "") for name, _ in facts),
            {name: fact.fault for name, fact in facts if fact.fault},
            {name: fact.tag for name, fact in facts if fact.tag != UPRIGHT},
            cache.levels,
        )

    @property
    def total_bytes(self) -> int:
        return sum(width * height for width, height in zip(self.widths_px, self.heights_px, strict=True))

    def cache(self, folder: Path, names: Sequence[str], pixels: Path) -> PixelCache:
        facts = {
            name: ImageFacts(
                folder / name, width, height, self.faults.get(name, ""), self.orientations.get(name, UPRIGHT)
            )
            for name, width, height in zip(names, self.widths_px, self.heights_px, strict=True)
        }
        digests = {name: digest for name, digest in zip(names, self.digests, strict=True) if digest}
        return PixelCache(facts, digests, pixels, self.levels)


def _stored(index: Path, key: str, names: Sequence[str]) -> _Index | None:
    """The index, if it is of these files. Raises KitError if it is broken."""
    do = f"delete {index}; it is made anew"
    if not index.exists():
        return None
    content = read_json(index, do)
    if not isinstance(content, dict) or content.get("key") != key:
        if isinstance(content, dict) and not {"digests", "levels"} <= set(content):
            log.info("%s: made by an earlier version; decoding the images again", index)
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

        def decode_one(name: str) -> tuple[ImageFacts, str, Levels | None]:
            fact = facts[name]
            if fact.fault:
                return fact, "", None
            try:
                decoded = decode(fact.path)
            except ImageError as error:
                return replace(fact, fault=str(error)), "", None
            pixels = decoded.pixels
            if pixels.shape != (fact.height_px, fact.width_px):
                header = f"its header says {fact.width_px} x {fact.height_px} pixels"
                return replace(fact, fault=f"{header}, it holds {pixels.shape}"), "", None
            with partial.open("rb+") as file:
                file.seek(offsets[name])
                file.write(np.ascontiguousarray(pixels).data)
            return replace(fact, tag=decoded.orientation), pixel_digest(pixels), decoded.levels

        def decode_all(some: Sequence[str]) -> list[tuple[ImageFacts, str, Levels | None]]:
            return [decode_one(name) for name in some]

        names = list(facts)
        tasks = [names[start : start + _TASK] for start in range(0, len(names), _TASK)]
        with warnings.catch_warnings(), contextlib.closing(Threads()) as pool:
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata; what matters is a fault
            decoded = chain.from_iterable(pool.map(decode_all, tasks))
            results = dict(zip(facts, track(decoded, f"decoding {folder.name}", len(facts)), strict=True))
    cache = PixelCache(
        {name: fact for name, (fact, _, _) in results.items()},
        {name: digest for name, (_, digest, _) in results.items() if digest},
        goal,
        {name: levels for name, (_, _, levels) in results.items() if levels},
    )
    cut = [
        f"{name} ({it.lowest}..{it.highest}: {it.low}..{it.high})"
        for name, it in cache.levels.items()
        if it.outside
    ]
    if cut:
        log.info(
            "%s: %d images of 16 bits have a few pixels far outside the levels of the others, as a marker has; "
            "black and white are the ends of the others' range: %s", folder.name, len(cut), first_few(cut),
        )  # fmt: skip
    return cache


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
