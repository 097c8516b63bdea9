"""Images that are copies of the same picture: equal pixels, or compressed again, resized or brightened.

Radiographs of different patients look alike, so that a perceptual hash alone is not enough: a hash of 256 bits
proposes pairs, and the correlation of small copies decides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from kit.core.errors import KitError
from kit.core.files import replacing
from kit.core.progress import Track, silent
from kit.data.images import Grey, as_read
from kit.data.inversion import inverted_images
from kit.data.pixel_cache import PixelCache
from kit.schemas.image_headers import ImageFacts

NEAR_BITS = 32  # of 256; the nearest two of 74 different NIH radiographs differ in 60
SAME_CORRELATION = 0.98  # those two correlate at .93
_SIDE_PX = 64
_WAVES = 16  # per direction: 16 x 16 coefficients make 256 bits
_BLOCK = 512  # images compared with all others at a time
_COPIES_SUFFIX = ".copies.npy"
_PAIRS = 4096  # pairs whose small copies are held at a time


@dataclass(frozen=True)
class Prints:
    """The prints of images: the digest of size and pixels, and a copy of 64 x 64 pixels (4 KiB), by index."""

    names: tuple[str, ...]
    digests: tuple[str, ...]
    copies: UInt8[np.ndarray, "n 64 64"]


@dataclass(frozen=True)
class Likeness:
    """How alike two images are: whether all pixels are equal, how many bits of the hash differ, the correlation."""

    equal: bool
    bits: int
    correlation: float


def take_prints(digests: Mapping[str, str], read: Callable[[str], Grey], track: Track = silent) -> Prints:
    """The prints of the images that ``digests`` names; ``read`` gives their pixels, one image at a time."""
    import cv2  # on use: a stored audit needs no prints

    copies = np.zeros((len(digests), _SIDE_PX, _SIDE_PX), dtype=np.uint8)
    for index, name in enumerate(track(digests, "comparing images", len(digests))):
        copies[index] = cv2.resize(read(name), (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    return Prints(tuple(digests), tuple(digests.values()), copies)


def small_copies(caches: Sequence[PixelCache], track: Track = silent) -> list[UInt8[np.ndarray, "_ 64 64"]]:
    """The small copies of each cache's readable images as they lie in their files, in the order of its ``digests``.

    They are made once and stored beside the cache, so that a split needs no pixels.
    """
    copies = {cache.file: stored for cache in caches if (stored := _stored_copies(cache)) is not None}
    missing = {str(number): cache for number, cache in enumerate(caches) if cache.file not in copies}

    def read(name: str) -> Grey:
        number, _, image_id = name.partition("/")
        return missing[number].read_file(image_id)

    if missing:
        names = {f"{number}/{name}": "" for number, cache in missing.items() for name in cache.digests}
        ends = np.cumsum([len(cache.digests) for cache in missing.values()])
        made = np.split(take_prints(names, read, track).copies, ends[:-1])
        for cache, copies_of_cache in zip(missing.values(), made, strict=True):
            copies[cache.file] = copies_of_cache
            _store_copies(cache, copies_of_cache)
    return [copies[cache.file] for cache in caches]


def _stored_copies(pixels: PixelCache) -> UInt8[np.ndarray, "n 64 64"] | None:
    """The copies stored beside a cache; None if they are missing, damaged or of other images."""
    try:
        stored = np.lib.format.open_memmap(pixels.file.with_suffix(_COPIES_SUFFIX), mode="r")
    except (OSError, ValueError):
        return None
    fits = stored.shape == (len(pixels.digests), _SIDE_PX, _SIDE_PX) and stored.dtype == np.uint8
    return stored if fits else None


def _store_copies(pixels: PixelCache, copies: UInt8[np.ndarray, "n 64 64"]) -> None:
    """Store them, and delete those of earlier caches. On a disk that refuses they are made again next time."""
    path = pixels.file.with_suffix(_COPIES_SUFFIX)
    with contextlib.suppress(KitError), replacing(path) as partial, partial.open("wb") as file:
        np.save(file, copies)
    for stale in path.parent.glob(f"{path.stem.rpartition('-')[0]}-*{_COPIES_SUFFIX}"):
        if stale != path:
            stale.unlink(missing_ok=True)


def pictures(pixels: PixelCache, track: Track = silent) -> dict[str, str]:
    """The picture that each readable image shows: the digest of the first of its copies (``duplicate_groups``)."""
    (copies,) = small_copies([pixels], track)
    files = Prints(tuple(pixels.digests), tuple(pixels.digests.values()), copies)
    found = inverted_images(copies, np.ones(len(copies), dtype=bool))
    inverted = {name for name, is_inverted in zip(files.names, found, strict=True) if is_inverted}
    inverted |= {name for name, facts in pixels.facts.items() if facts.inverted}
    prints = comparable_prints(files, pixels.facts, inverted)
    first = {index: group[0] for group in duplicate_groups(prints) for index in group}
    return {name: prints.digests[first.get(index, index)] for index, name in enumerate(prints.names)}


def comparable_prints(prints: Prints, facts: Mapping[str, ImageFacts], inverted: Collection[str]) -> Prints:
    """The prints with the small copies turned by their EXIF orientation, and those of ``inverted`` images inverted.

    So a picture and its turned or inverted copy are alike, whatever the knobs say. ``facts`` has all images.
    """
    copies = [
        as_read(copy, facts[name].tag, name in inverted)
        for name, copy in zip(prints.names, prints.copies, strict=True)
    ]
    return replace(prints, copies=np.stack(copies) if copies else prints.copies)


def dct_bits(copies: UInt8[np.ndarray, "n 64 64"]) -> Bool[np.ndarray, "n 256"]:
    """256 bits per image: which of its 16 x 16 longest cosine waves are stronger than their median.

    Brightness and contrast change no bit unless pixels are clipped to black or white. The waves are those of the
    discrete cosine transform (Ahmed et al. 1974); this is the perceptual hash "pHash" with four times its usual 64
    bits.
    """
    indices = np.arange(_SIDE_PX)
    waves = np.cos(np.pi * (2 * indices + 1) * indices[:_WAVES, None] / (2 * _SIDE_PX)).astype(np.float32)
    strengths = (waves @ copies.astype(np.float32) @ waves.T).reshape(len(copies), _WAVES**2)
    return strengths > np.median(strengths, axis=1, keepdims=True) if len(copies) else strengths > 0


def likeness(prints: Prints, first: int, second: int) -> Likeness:
    """How alike two of the images are, by their indices."""
    bits = dct_bits(prints.copies[[first, second]])
    return Likeness(
        prints.digests[first] == prints.digests[second],
        int((bits[0] != bits[1]).sum()),
        float(_correlations(prints.copies, np.array([[first, second]]))[0]),
    )


def duplicate_groups(prints: Prints) -> list[tuple[int, ...]]:
    """Groups of two or more copies of a picture, as ascending indices, in the order of their first images.

    Two images are linked if their pixels are equal, or if their hashes differ in at most 32 bits and their small
    copies correlate at .98 or more. An image of a single grey level has no correlation: only equal pixels link it.
    Memory grows with the number of images, not with its square.
    """
    _, first, group_of = np.unique(np.array(prints.digests, dtype=str), return_index=True, return_inverse=True)
    distinct = np.sort(first)
    signs = np.zeros((len(distinct), _WAVES**2), dtype=np.float32)
    for start in range(0, len(distinct), _BLOCK):
        block = slice(start, start + _BLOCK)
        signs[block] = np.where(dct_bits(prints.copies[distinct[block]]), 1, -1)
    for start in range(0, len(distinct), _BLOCK):
        near = _near(signs, start)
        for begin in range(0, len(near), _PAIRS):
            pairs = distinct[near[begin : begin + _PAIRS]]
            pairs = pairs[group_of[pairs[:, 0]] != group_of[pairs[:, 1]]]
            alike = pairs[_correlations(prints.copies, pairs) >= SAME_CORRELATION]
            group_of = joined_groups(group_of, alike)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(group_of.tolist()):
        members.setdefault(group, []).append(index)
    return [tuple(group) for group in members.values() if len(group) > 1]


def joined_groups(group_of: Int64[np.ndarray, " n"], links: Int64[np.ndarray, "m 2"]) -> Int64[np.ndarray, " n"]:
    """The group of each image after the groups of linked images are joined.

    Images are indices from 0; groups are any numbers from 0, and those of the result are new.
    """
    if not len(links):
        return group_of
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = int(group_of.max()) + 1
    edges = coo_matrix((np.ones(len(links)), tuple(group_of[links].T)), shape=(count, count))
    _, joined = connected_components(edges, directed=False)
    return joined.astype(np.int64)[group_of]


def _near(signs: Float32[np.ndarray, "n 256"], start: int) -> Int64[np.ndarray, "m 2"]:
    """Pairs (i, j), i < j, i in the block from ``start``, whose signs differ in at most ``NEAR_BITS`` columns."""
    block = signs[start : start + _BLOCK]
    differing = (signs.shape[1] - block @ signs[start:].T) / 2
    rows, columns = np.nonzero(np.triu(differing <= NEAR_BITS, k=1))
    return np.stack([rows, columns], axis=1).astype(np.int64) + start


def _correlations(
    copies: UInt8[np.ndarray, "n 64 64"], pairs: Int64[np.ndarray, "m 2"]
) -> Float32[np.ndarray, " m"]:
    """Pearson's correlation of the small copies of each pair; 0 if one of them has a single grey level."""
    flat = copies[pairs].reshape(len(pairs), 2, _SIDE_PX**2).astype(np.float32)
    flat -= flat.mean(axis=2, keepdims=True)
    norms = np.linalg.norm(flat, axis=2).prod(axis=1)
    return np.divide((flat[:, 0] * flat[:, 1]).sum(axis=1), norms, out=np.zeros_like(norms), where=norms > 0)
