"""How alike two small copies are once one is laid over the other: a crop moves and stretches what stays.

The detail of both is compared (each pixel against those around it), so that brightness and contrast do not count,
in 16 tiles, so that one strong edge does not outweigh the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

Images = Float32[np.ndarray, "m h w"]
Ways = Float32[np.ndarray, "m 4"]  # of the first image's places in the second: scale and shift down, then across
_DETAIL_PX, _LEAST_CONTRAST = 3.0, 12.0  # radius of the surroundings; grey levels below which detail fades
_SMOOTH_PX, _COARSE_PX = 0.7, 2.0
_COARSE_STEPS, _FINE_STEPS = 3, 3
_LEAST_COARSE = 0.88  # below it the fine steps are spared
_LARGEST_STEP, _SCALES, _LARGEST_SHIFT = 0.05, (0.86, 1.16), 0.08  # a crop of 5% on both sides scales by .9
_BLACK, _WHITE = 3, 252  # levels beyond which detail may have been clipped
_MOST_CLIPPED, _CLIP_PX = 0.1, 1.0  # share of such pixels around a clear one, and how far around it reaches
_WHOLE = 1 - 1e-3  # a pixel made of clear ones alone, up to rounding
_TILES = 4  # per direction
_CONTENT, _COVERED = 0.1, 1 / 3  # what a judged tile has: of the strongest tile's detail, of its own pixels
_LEAST_TILES = 3  # that are judged
_WORST = 0.2  # share of the tiles that may differ: markers, letters


def aligned_likeness(
    first: UInt8[np.ndarray, "m n n"], second: UInt8[np.ndarray, "m n n"], scales: Float[np.ndarray, " m"]
) -> Float32[np.ndarray, "m 2"]:
    """The correlation of the details of each pair, once one is stretched and shifted onto the other.

    Either is laid onto the other, and the greater number counts, so that the order of a pair does not.
    The first column is that of all pixels, the second that of the least alike tile after a fifth of the tiles with
    detail is set aside; both from -1 to 1. They are 0 for a pair without detail in three tiles, or unlike at once.
    Stretch and shift are found by Gauss-Newton steps (Lucas and Kanade 1981).

    Args:
        first: Small copies; may be none.
        second: Those that are compared with them.
        scales: What the search starts from: places in the second copy, about its middle, per place in the first.
    """
    if not len(first):
        return np.zeros((0, 2), dtype=np.float32)
    coarse, other = (_details(_halved(copies), _DETAIL_PX / 2, _COARSE_PX / 2) for copies in (first, second))
    (there, near), (back, near_back) = (
        _coarsely_laid(coarse, other, scales),
        _coarsely_laid(other, coarse, 1 / scales),
    )
    result = np.zeros((len(first), 2), dtype=np.float32)
    alive = np.flatnonzero(near | near_back)
    if len(alive):
        one, two = (_Fine.of(copies[alive]) for copies in (first, second))
        onto_first, onto_second = _finely_laid(one, two, there[alive]), _finely_laid(two, one, back[alive])
        result[alive] = np.maximum(onto_first * near[alive, None], onto_second * near_back[alive, None])
    return result


@dataclass(frozen=True)
class _Fine:
    """What is compared of small copies; made once, and used in both directions."""

    details: Images
    smooth: Images  # the details
    clear: Bool[np.ndarray, "m h w"]

    @classmethod
    def of(cls, copies: UInt8[np.ndarray, "m n n"]) -> _Fine:
        levels = copies.astype(np.float32)
        details = _details(levels, _DETAIL_PX)
        return cls(details, _blurred(details, _SMOOTH_PX), _clear(levels))


def _coarsely_laid(
    first: Images, second: Images, scales: Float[np.ndarray, " m"]
) -> tuple[Ways, Bool[np.ndarray, " m"]]:
    """By which ways the details of halved copies lie best on the first ones, and whether they are alike then."""
    ways = np.stack([scales, 0 * scales, scales, 0 * scales], axis=1).astype(np.float32)
    ways = _registered(first, second, ways, _COARSE_STEPS)
    common = _inside(ways, first.shape[1])
    return ways, _correlation(first, _moved(second, ways), common) >= _LEAST_COARSE


def _finely_laid(first: _Fine, second: _Fine, ways: Ways) -> Float32[np.ndarray, "m 2"]:
    """`aligned_likeness` with the second laid onto the first."""
    ways = _registered(first.smooth, second.smooth, ways, _FINE_STEPS)
    clear = _moved(second.clear.astype(np.float32), ways) > _WHOLE
    seen = first.clear & clear & _inside(ways, first.smooth.shape[1])
    moved = _blurred(_moved(second.details, ways), _SMOOTH_PX)
    worst = _worst_tile(first.smooth, moved, seen)
    return np.stack([np.where(worst == 0, 0, _correlation(first.smooth, moved, seen)), worst], axis=1)


def resampling(scale: Float[np.ndarray, " m"], shift: Float[np.ndarray, " m"], size: int) -> Images:
    """Matrices that take each pixel of a line from the place ``scale * x + shift`` of another, interpolated.

    ``x`` is the pixel's place about the middle of the line, in units of its length.
    """
    places = (scale[:, None] * _axis(size) + shift[:, None] + 0.5) * size - 0.5
    weights = places[:, :, None] - np.arange(size)
    np.abs(weights, out=weights)
    np.subtract(1, weights, out=weights)
    return np.maximum(weights, 0, out=weights).astype(np.float32)


def _axis(size: int) -> Float[np.ndarray, " size"]:
    return (np.arange(size) + 0.5) / size - 0.5


def _moved(images: Images, ways: Ways) -> Images:
    size = images.shape[1]
    down, across = resampling(ways[:, 0], ways[:, 1], size), resampling(ways[:, 2], ways[:, 3], size)
    return down @ images @ across.transpose(0, 2, 1)


def _inside(ways: Ways, size: int) -> Bool[np.ndarray, "m size size"]:
    """Which pixels of the first image the second has too."""
    within = [np.abs(ways[:, i, None] * _axis(size) + ways[:, i + 1, None]) <= 0.5 - 0.5 / size for i in (0, 2)]
    return within[0][:, :, None] & within[1][:, None, :]


def _registered(first: Images, second: Images, ways: Ways, steps: int) -> Ways:
    """The ways by which the second images lie best on the first, after some Gauss-Newton steps."""
    size = first.shape[1]
    axis = _axis(size).astype(np.float32)
    down, across = axis[None, :, None], axis[None, None, :]
    for _ in range(steps):
        moved = _moved(second, ways)
        seen = _inside(ways, size)
        slope_down, slope_across = (np.gradient(moved, axis=axis_) * size for axis_ in (1, 2))
        slopes = np.stack([slope_down * down, slope_down, slope_across * across, slope_across], axis=1)
        slopes = (slopes * seen[:, None]).reshape(len(ways), 4, size**2)
        missing = (first - moved).reshape(len(ways), size**2, 1)
        normal = slopes @ slopes.transpose(0, 2, 1) + np.eye(4, dtype=np.float32)
        step = np.linalg.solve(normal, slopes @ missing)[:, :, 0].clip(-_LARGEST_STEP, _LARGEST_STEP)
        scale, shift = ways[:, ::2], ways[:, 1::2]
        shift = (shift + scale * step[:, 1::2]).clip(-_LARGEST_SHIFT, _LARGEST_SHIFT)
        scale = (scale * (1 + step[:, ::2])).clip(*_SCALES)
        ways = np.stack([scale, shift], axis=2).reshape(len(ways), 4).astype(np.float32)
    return ways


def _correlation(first: Images, second: Images, seen: Bool[np.ndarray, "m h w"]) -> Float32[np.ndarray, " m"]:
    """Of the pixels that both have."""
    xx, yy, xy, _ = _sums(first, second, seen.astype(np.float32), 1)
    return (xy / np.sqrt(np.maximum(xx * yy, np.finfo(np.float32).tiny)))[:, 0]


def _worst_tile(first: Images, second: Images, seen: Bool[np.ndarray, "m h w"]) -> Float32[np.ndarray, " m"]:
    """The correlation of the least alike tile, a fifth of the tiles with detail aside."""
    xx, yy, xy, count = _sums(first, second, seen.astype(np.float32), _TILES)
    detail = np.sqrt(np.maximum(xx * yy, np.finfo(np.float32).tiny))
    judged = (detail > _CONTENT * detail.max(axis=1, keepdims=True)) & (
        count > _COVERED * first[0].size / _TILES**2
    )
    number = judged.sum(axis=1)
    ordered = np.sort(np.where(judged, xy / detail, np.inf), axis=1)
    worst = ordered[np.arange(len(ordered)), np.floor(_WORST * np.maximum(number - 1, 0)).astype(np.int64)]
    return np.where(number >= _LEAST_TILES, worst, 0).astype(np.float32)


def _sums(first: Images, second: Images, seen: Images, tiles: int) -> tuple[np.ndarray, ...]:
    """By tile the sums of squares and products about the means, and the number of pixels."""

    def summed(values: Images) -> Float32[np.ndarray, "m t"]:
        side = values.shape[1] // tiles
        return values.reshape(len(values), tiles, side, tiles, side).sum(axis=(2, 4)).reshape(-1, tiles**2)

    count = np.maximum(summed(seen), 1)
    x, y = summed(first * seen), summed(second * seen)
    xx, yy, xy = (summed(values * seen) for values in (first * first, second * second, first * second))
    return xx - x * x / count, yy - y * y / count, xy - x * y / count, count


def _details(levels: Images, radius_px: float, smooth_px: float = 0.0) -> Images:
    """Each pixel against the mean around it, in units of the spread there; smoothed."""
    differences = levels - _blurred(levels, radius_px)
    spread = _blurred(differences * differences, radius_px) + _LEAST_CONTRAST**2
    details = differences / np.sqrt(spread)
    return _blurred(details, smooth_px) if smooth_px else details


def _clear(copies: Images) -> Bool[np.ndarray, "m h w"]:
    """Which pixels, with those beside them, are neither black nor white: detail there is not cut off."""
    clipped = ((copies < _BLACK) | (copies > _WHITE)).astype(np.float32)
    return _blurred(clipped, _CLIP_PX) < _MOST_CLIPPED


def _blurred(images: Images, radius_px: float) -> Images:
    places = np.arange(images.shape[1])
    weights = np.exp(-((places[:, None] - places) ** 2) / (2 * radius_px**2)).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ images @ weights.T


def _halved(copies: UInt8[np.ndarray, "m n n"]) -> Float32[np.ndarray, "m _ _"]:
    levels = copies.astype(np.float32)
    rows = levels[:, ::2] + levels[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) / 4
