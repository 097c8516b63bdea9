"""Images that are copies of one picture: equal pixels, or compressed, resized, brightened, mirrored or cropped.

Radiographs of different patients look alike, so that a perceptual hash alone is not enough: a hash of 256 bits
proposes pairs, and the correlations of small copies decide, as they are and laid over each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from kit.core.errors import KitError
from kit.core.files import replacing
from kit.core.json_files import fingerprint, read_record, write_record
from kit.core.progress import Track, silent
from kit.data.alignment import aligned_likeness
from kit.data.images import Grey, as_read
from kit.data.inversion import inverted_images
from kit.data.perceptual_hash import SIDE_PX, Hashes, Near, dct_bits, near_pairs, nearness
from kit.data.pixel_cache import PixelCache
from kit.schemas.image_headers import ImageFacts

_SAME_BITS = 32  # of 256; the nearest two of 74 different NIH radiographs differ in 57
SAME_CORRELATION = 0.98  # those two correlate at .93
SAME_DETAIL = 0.97, 0.955  # of all pixels, of four fifths of the tiles; two exposures of one arm: .967 and .952
_COPIES_SUFFIX, _GROUPS_SUFFIX = ".copies.npy", ".groups.json"
_GROUPING = 1  # of stored groups; to be raised where the same images would give others
_PAIRS = 128  # pairs whose small copies are held at a time: what fits into a processor's cache


@dataclass(frozen=True)
class Prints:
    """The prints of images: the digest of size and pixels, and a copy of 64 x 64 pixels (4 KiB), by index."""

    names: tuple[str, ...]
    digests: tuple[str, ...]
    copies: UInt8[np.ndarray, "n 64 64"]


@dataclass(frozen=True)
class Likeness:
    """How alike two images are: whether all pixels are equal, how many bits of the hash differ, the correlation.

    ``aligned`` is the correlation of their details, the one laid over the other, which is mirrored if ``mirrored``.
    """

    equal: bool
    bits: int
    correlation: float
    aligned: float
    mirrored: bool


def take_prints(digests: Mapping[str, str], read: Callable[[str], Grey], track: Track = silent) -> Prints:
    """The prints of the images that ``digests`` names; ``read`` gives their pixels, one image at a time."""
    import cv2  # on use: a stored audit needs no prints

    copies = np.zeros((len(digests), SIDE_PX, SIDE_PX), dtype=np.uint8)
    for index, name in enumerate(track(digests, "comparing images", len(digests))):
        copies[index] = cv2.resize(read(name), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
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
    fits = stored.shape == (len(pixels.digests), SIDE_PX, SIDE_PX) and stored.dtype == np.uint8
    return stored if fits else None


def _store_copies(pixels: PixelCache, copies: UInt8[np.ndarray, "n 64 64"]) -> None:
    """Store them, and delete those of earlier caches. On a disk that refuses they are made again next time."""
    path = pixels.file.with_suffix(_COPIES_SUFFIX)
    with contextlib.suppress(KitError), replacing(path) as partial, partial.open("wb") as file:
        np.save(file, copies)
    _delete_earlier(path, _COPIES_SUFFIX)


def _delete_earlier(path: Path, suffix: str) -> None:
    """Delete what earlier caches of the folder left of this kind."""
    for stale in path.parent.glob(f"{path.name.removesuffix(suffix).rpartition('-')[0]}-*{suffix}"):
        if stale != path:
            with contextlib.suppress(OSError):  # another user's, perhaps
                stale.unlink()


def pictures(pixels: PixelCache, track: Track = silent) -> dict[str, str]:
    """The picture that each readable image shows: the digest of the first of its copies (``duplicate_groups``)."""
    names, digests = tuple(pixels.digests), tuple(pixels.digests.values())
    first = {index: group[0] for group in groups_of_copies(pixels, track) for index in group}
    return {name: digests[first.get(index, index)] for index, name in enumerate(names)}


@dataclass(frozen=True)
class _Groups:
    """The groups of copies among the images of a cache; a fingerprint of both."""

    groups: tuple[tuple[int, ...], ...]
    sha256: str


def groups_of_copies(
    pixels: PixelCache, track: Track = silent, copies: UInt8[np.ndarray, "n 64 64"] | None = None
) -> Sequence[tuple[int, ...]]:
    """The groups of copies among a cache's images, as ``duplicate_groups`` of the order of its ``digests``.

    They are stored beside the cache: the audit, a training and each report ask for them. ``copies`` are the cache's
    ``small_copies``, if they are at hand.
    """
    path = pixels.file.with_suffix(_GROUPS_SUFFIX)
    images = [(name, digest, pixels.facts[name].tag, pixels.facts[name].inverted)
              for name, digest in pixels.digests.items()]  # fmt: skip

    def sha256(groups: Sequence[tuple[int, ...]]) -> str:
        return fingerprint([_GROUPING, images, list(groups)])

    with contextlib.suppress(KitError):
        stored = read_record(path, _Groups, "")
        if stored.sha256 == sha256(stored.groups):
            return stored.groups
    if copies is None:
        (copies,) = small_copies([pixels], track)
    files = Prints(tuple(pixels.digests), tuple(pixels.digests.values()), copies)
    found = inverted_images(copies, np.ones(len(copies), dtype=bool))
    inverted = {name for name, is_inverted in zip(files.names, found, strict=True) if is_inverted}
    inverted |= {name for name, facts in pixels.facts.items() if facts.inverted}
    groups = tuple(duplicate_groups(comparable_prints(files, pixels.facts, inverted)))
    with contextlib.suppress(KitError):  # on a disk that refuses they are made again next time
        write_record(path, _Groups(groups, sha256(groups)))
    _delete_earlier(path, _GROUPS_SUFFIX)
    return groups


def comparable_prints(prints: Prints, facts: Mapping[str, ImageFacts], inverted: Collection[str]) -> Prints:
    """The prints with the small copies turned by their EXIF orientation, and those of ``inverted`` images inverted.

    So a picture and its turned or inverted copy are alike, whatever the knobs say. ``facts`` has all images.
    """
    copies = [
        as_read(copy, facts[name].tag, name in inverted)
        for name, copy in zip(prints.names, prints.copies, strict=True)
    ]
    return replace(prints, copies=np.stack(copies) if copies else prints.copies)


def likeness(prints: Prints, first: int, second: int) -> Likeness:
    """How alike two of the images are, by their indices."""
    both = prints.copies[[first, second]]
    bits = dct_bits(both)
    near = nearness(Hashes.of(both[:1]), Hashes.of(both[1:]), np.array([[0, 0]]))
    aligned = aligned_likeness(both[:1], _as_near(both[1:], near), near.scales)
    return Likeness(
        prints.digests[first] == prints.digests[second],
        int((bits[0] != bits[1]).sum()),
        float(_correlations(both[:1], both[1:])[0]),
        float(aligned[0, 0]),
        bool(near.mirrored[0]),
    )


def duplicate_groups(
    prints: Prints, compared: int = 0, known: Sequence[tuple[int, ...]] = ()
) -> list[tuple[int, ...]]:
    """Groups of two or more copies of a picture, as ascending indices, in the order of their first images.

    Two images are linked if their pixels are equal, or if their hashes are near and ``same_picture`` says so. An
    image of a single grey level is like no other: only equal pixels link it. Memory grows with the number of
    images, not with its square. ``known`` are the groups of the first ``compared`` images, if known already.
    """
    _, first, group_of = np.unique(np.array(prints.digests, dtype=str), return_index=True, return_inverse=True)
    links = [(group[0], index) for group in known for index in group[1:]]
    group_of = joined_groups(group_of, np.array(links, dtype=np.int64).reshape(-1, 2))
    distinct = np.sort(first)
    copies = prints.copies[distinct]
    for batch in batches(near_pairs(Hashes.of(copies), compared=int((distinct < compared).sum()))):
        groups = group_of[distinct[batch.pairs]]
        near = batch.of(groups[:, 0] != groups[:, 1])
        alike = near.pairs[same_picture(copies, copies, near)]
        group_of = joined_groups(group_of, distinct[alike])
    members: dict[int, list[int]] = {}
    for index, group in enumerate(group_of.tolist()):
        members.setdefault(group, []).append(index)
    return [tuple(group) for group in members.values() if len(group) > 1]


def common_pictures(
    first: Prints, second: Prints, first_hash: UInt8[np.ndarray, "n 32"] | None = None
) -> Int64[np.ndarray, "m 2"]:
    """The pairs (index in ``first``, index in ``second``) that show one picture, as in `duplicate_groups`.

    ``first_hash`` are the hashes of the first images if they are known already.
    """
    hashes = Hashes.of(first.copies)
    if first_hash is not None:
        hashes = replace(hashes, whole=first_hash)
    found = [
        near.pairs[same_picture(first.copies, second.copies, near)]
        for near in batches(near_pairs(hashes, Hashes.of(second.copies)))
    ]
    of_digest: dict[str, list[int]] = {}
    for index, digest in enumerate(first.digests):
        of_digest.setdefault(digest, []).append(index)
    equal = [(index, other) for other, digest in enumerate(second.digests) for index in of_digest.get(digest, ())]
    return np.unique(np.concatenate([np.array(equal, dtype=np.int64).reshape(-1, 2), *found]), axis=0)


def batches(near: Iterable[Near]) -> Iterator[Near]:
    """The same pairs in batches of bounded size."""
    for some in near:
        for start in range(0, len(some.pairs), _PAIRS):
            yield some.of(slice(start, start + _PAIRS))


def same_picture(
    first: UInt8[np.ndarray, "n 64 64"], second: UInt8[np.ndarray, "k 64 64"], near: Near
) -> Bool[np.ndarray, " m"]:
    """Which of the near pairs show one picture: the copies decide, mirrored and inverted as the hashes say.

    They do if at most 32 bits differ and the copies correlate at .98 or more, or if their details do at .97 or more
    when one is laid over the other, or at .955 or more in four fifths of the tiles (`aligned_likeness`). Either may
    be laid over the other, so that the order of a pair does not count.
    """
    ours, theirs = first[near.pairs[:, 0]], _as_near(second[near.pairs[:, 1]], near)
    same = (near.bits <= _SAME_BITS) & (_correlations(ours, theirs) >= SAME_CORRELATION)
    rest = np.flatnonzero(~same)
    same[rest] = (aligned_likeness(ours[rest], theirs[rest], near.scales[rest]) >= SAME_DETAIL).any(axis=1)
    return same


def _as_near(copies: UInt8[np.ndarray, "m 64 64"], near: Near) -> UInt8[np.ndarray, "m 64 64"]:
    """The second copies of near pairs, mirrored and inverted like the first."""
    turned = np.where(near.mirrored[:, None, None], copies[:, :, ::-1], copies)
    return np.where(near.inverted[:, None, None], 255 - turned, turned)


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


def _correlations(
    first: UInt8[np.ndarray, "m 64 64"], second: UInt8[np.ndarray, "m 64 64"]
) -> Float32[np.ndarray, " m"]:
    """Pearson's correlation of the small copies of each pair; 0 if one of them has a single grey level."""
    flat = np.stack([first, second], axis=1).reshape(len(first), 2, SIDE_PX**2).astype(np.float32)
    flat -= flat.mean(axis=2, keepdims=True)
    norms = np.linalg.norm(flat, axis=2).prod(axis=1)
    return np.divide((flat[:, 0] * flat[:, 1]).sum(axis=1), norms, out=np.zeros_like(norms), where=norms > 0)
