"""A perceptual hash of 256 bits, and which images it proposes as copies: mirrored, inverted and cropped ones too.

A mirrored picture has the bits of the odd waves across exchanged, an inverted one all bits: neither needs a second
hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from kit.data.alignment import resampling

SIDE_PX = 64
NEAR_BITS = 72  # of 256; two images of noise differ in 118, a copy cropped by 5% in up to 61
WAVES = 16  # per direction: 16 x 16 coefficients make 256 bits
HASH_BYTES = WAVES**2 // 8
BORDER = 0.03  # share that is cut off at each side for the second hash of an image
_LOW, _LOW_BITS = 8, 16  # the first sieve: the 8 x 8 longest waves, of which so many bits may differ
_ROWS, _COLUMNS = 256, 1024  # images compared at a time: what fits into a processor's cache
_ONES = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)
_ACROSS = np.tile(np.arange(WAVES), WAVES)
_ORDER = np.argsort(_ACROSS % 2, kind="stable")  # even waves across first, those that mirroring keeps


@dataclass(frozen=True)
class Hashes:
    """The hashes of images, by index: of the whole image, and of its middle, without a border of 3%.

    ``blank`` images have a single grey level: they are near none.
    """

    whole: UInt8[np.ndarray, "n 32"]
    middle: UInt8[np.ndarray, "n 32"]
    blank: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, copies: UInt8[np.ndarray, "n 64 64"]) -> Hashes:
        """The hashes of small copies."""
        blank = copies.min(axis=(1, 2), initial=255) >= copies.max(axis=(1, 2), initial=0)
        return cls(packed_bits(copies), packed_bits(copies, BORDER), blank)


@dataclass(frozen=True)
class Near:
    """Pairs of images whose hashes are near: indices, bits that differ, and how the second seems to be changed.

    ``scales`` are places in the second per place in the first: below 1 if the first seems to be cropped.
    """

    pairs: Int64[np.ndarray, "m 2"]
    bits: Int64[np.ndarray, " m"]
    mirrored: Bool[np.ndarray, " m"]
    inverted: Bool[np.ndarray, " m"]
    scales: Float[np.ndarray, " m"]

    def of(self, chosen: Bool[np.ndarray, " m"] | slice) -> Near:
        """Those that are chosen."""
        return Near(
            self.pairs[chosen], self.bits[chosen], self.mirrored[chosen], self.inverted[chosen], self.scales[chosen]
        )


def dct_bits(copies: UInt8[np.ndarray, "n 64 64"], border: float = 0.0) -> Bool[np.ndarray, "n 256"]:
    """256 bits per image: the signs of its 16 x 16 longest cosine waves, of the image without its ``border``.

    Brightness and contrast change no bit unless pixels are clipped to black or white. The waves are those of the
    discrete cosine transform (Ahmed et al. 1974); this is the perceptual hash "pHash" with four times its usual 64
    bits, cut at 0 in place of the median.
    """
    indices = np.arange(SIDE_PX)
    waves = np.cos(np.pi * (2 * indices + 1) * indices[:WAVES, None] / (2 * SIDE_PX)).astype(np.float32)
    if border:
        waves = waves @ resampling(np.array([1 - 2 * border]), np.zeros(1), SIDE_PX)[0]
    return (waves @ copies.astype(np.float32) @ waves.T).reshape(len(copies), WAVES**2) > 0


def packed_bits(copies: UInt8[np.ndarray, "n 64 64"], border: float = 0.0) -> UInt8[np.ndarray, "n 32"]:
    """The same in 32 bytes: the even waves across, then the odd ones."""
    blocks = [dct_bits(copies[start : start + _COLUMNS], border) for start in range(0, len(copies), _COLUMNS)]
    bits = np.concatenate(blocks) if blocks else np.zeros((0, WAVES**2), dtype=bool)
    return np.packbits(bits[:, _ORDER], axis=1)


def nearness(first: Hashes, second: Hashes, pairs: Int64[np.ndarray, "m 2"]) -> Near:
    """How near each pair is in its nearest way: whole on whole, or the middle of one on the whole of the other."""
    i, j = pairs.T
    ways = ((first.whole, second.whole, 1.0), (first.middle, second.whole, 1 / (1 - 2 * BORDER)),
            (first.whole, second.middle, 1 - 2 * BORDER))  # fmt: skip
    half = WAVES**2 // 2
    differing = [
        _ONES[a[i] ^ b[j]].reshape(len(pairs), 2, HASH_BYTES // 2).sum(axis=2, dtype=np.int64) for a, b, _ in ways
    ]
    bits = np.stack([np.minimum(counts, half - counts).sum(axis=1) for counts in differing])
    best = bits.argmin(axis=0)
    turned = np.stack(differing)[best, np.arange(len(pairs))] > half // 2
    return Near(
        pairs,
        bits[best, np.arange(len(pairs))],
        turned[:, 0] != turned[:, 1],
        turned[:, 0],
        np.array([scale for *_, scale in ways])[best],
    )


def near_pairs(first: Hashes, second: Hashes | None = None, compared: int = 0) -> Iterator[Near]:
    """All pairs of images that differ in at most ``NEAR_BITS`` bits in their nearest way, in batches.

    Without ``second`` the pairs are (i, j), i < j, of the first images, without those of the first ``compared``
    with each other. A first sieve of the 64 longest waves keeps the time short; memory grows with the number of
    images, not with its square.
    """
    other = second or first
    ours, theirs = _low_signs(first), _low_signs(other)
    half = ours.shape[1] // 2
    for top in range(0, len(ours), _ROWS):
        rows = ours[top : top + _ROWS]
        for left in range(0 if second else max(top, compared), len(theirs), _COLUMNS):
            columns = theirs[left : left + _COLUMNS]
            even, odd = rows[:, :half] @ columns[:, :half].T, rows[:, half:] @ columns[:, half:].T
            alike = np.abs(even, out=even)
            alike += np.abs(odd, out=odd)
            pairs = np.argwhere(alike >= 2 * half - 2 * _LOW_BITS) + np.array([top, left])
            near = nearness(first, other, pairs if second else pairs[pairs[:, 0] < pairs[:, 1]])
            if (near.bits <= NEAR_BITS).any():
                yield near.of(near.bits <= NEAR_BITS)


def _low_signs(hashes: Hashes) -> Float32[np.ndarray, "n 64"]:
    """The signs of the 8 x 8 longest waves, the even ones across first; 0 for a blank image."""
    down, across = _ORDER // WAVES, _ACROSS[_ORDER]
    low = np.flatnonzero((down < _LOW) & (across < _LOW))
    signs = np.unpackbits(hashes.whole, axis=1)[:, low].astype(np.float32) * 2 - 1
    signs[hashes.blank] = 0
    return signs
