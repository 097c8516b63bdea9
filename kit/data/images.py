"""Files to grey pixels: only this module decodes, turns and resizes radiographs.

A 16-bit PNG is scaled by its own range, since 12 of its bits may be used: Pillow's conversion saturates grey ones
to white, and leaves of colours the upper bytes alone, nearly black.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8, UInt16
from PIL import Image

from kit.core.errors import reason
from kit.schemas.image_headers import UPRIGHT, ImageFacts, exif_orientation

Grey = UInt8[np.ndarray, "_ _"]  # (height, width), any size
Deep = UInt16[np.ndarray, "_ _"]
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I")
_DEEP_COLOURS = ("LA;16B", "RGB;16B", "RGBA;16B")  # Pillow's raw modes of PNGs that it reads as 8 bits
_DEEP_LEVELS = 2**16
# ITU-R 601-2 luma, as Pillow's "L": the factors of blue, green and red sum to 2**16, so that grey stays as it is.
_LUMA_BGR, _LUMA_BITS = (7471, 38470, 19595), 16
_PIECE_BYTES = 2**20  # some versions of OpenCV refuse parts of 8 MB
_FEW = 0.01  # share of the pixels at either end of the levels that are left out if they lie far away
_GROUP = 0.05  # the same of a marker or letter that a gap parts from the others
_BETWEEN = 0.0005  # share of the pixels that may lie in such a gap: the soft edge of a marker
_BROKEN = (OSError, SyntaxError, EOFError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)
_SIGNATURE, _PALETTE = b"\x89PNG\r\n\x1a\n", 3
_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}  # by a PNG's colour type
_WHOLE = ((0, 0, 1, 1),)
_INTERLACED = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class ImageError(Exception):
    """A file is no readable radiograph; the text is the reason, without the path."""


@dataclass(frozen=True)
class Levels:
    """The range of a 16-bit image: ``lowest``..``highest`` in the file, ``low``..``high`` became 0..255.

    ``outside`` is the number of pixels outside ``low``..``high``, which became black or white.
    """

    lowest: int
    highest: int
    low: int
    high: int
    outside: int


@dataclass(frozen=True)
class Decoded:
    """A file's pixels as they lie in it, its EXIF orientation, and the range of its levels if it has 16 bits."""

    pixels: Grey
    orientation: int
    levels: Levels | None


def read_grey(path: Path) -> Grey:
    """The grey levels 0..255 of a file, shape (h, w): the pixels of ``decode``."""
    return decode(path).pixels


def read_picture(facts: ImageFacts) -> Grey:
    """The grey levels of a file, turned and inverted as its facts say. Raises ImageError as ``decode``."""
    return as_read(read_grey(facts.path), facts.turn, facts.inverted)


def as_read(grey: Grey, turn: int, inverted: bool) -> Grey:
    """Pixels as they lie in a file, turned by an EXIF orientation and inverted; the input if neither is wanted.

    The orientations are those of EXIF 2.3, tag 0x0112, as Pillow's ``exif_transpose`` applies them.
    """
    if turn == UPRIGHT and not inverted:
        return grey
    ways = {
        1: grey, 2: grey[:, ::-1], 3: grey[::-1, ::-1], 4: grey[::-1],
        5: grey.T, 6: grey.T[:, ::-1], 7: grey.T[::-1, ::-1], 8: grey.T[::-1],
    }  # fmt: skip
    pixels = np.ascontiguousarray(ways[turn])
    return 255 - pixels if inverted else pixels


def decode(path: Path) -> Decoded:
    """Decode a PNG or JPEG (grey, RGB, palette, alpha, 1 to 16 bits) to grey levels 0..255, shape (h, w).

    An alpha channel is ignored. 16 bits are scaled by the range of their levels, see ``robust_range``. Raises
    ImageError if the file is missing, truncated or no image; a JPEG that was truncated and ended properly again
    goes unnoticed. Pillow may warn of odd metadata or of size; the caller sets filters for warnings, since they act
    on the whole process.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ImageError(f"{image.width} x {image.height} pixels: a decompression bomb")
            raw_mode = str(image.tile[0][3]) if image.tile else ""
            deep = np.asarray(image).astype(np.uint16) if image.mode in _DEEP_MODES else None
            pixels = np.zeros((1, 1), np.uint8) if deep is not None else _grey(image)
            is_simple = image.mode in ("L", "RGB") and not image.info.get("interlace")
            # A simple PNG whose last line is not black was read to its end.
            if image.format == "PNG" and not (is_simple and raw_mode not in _DEEP_COLOURS and pixels[-1].any()):
                _require_every_line(path.read_bytes())
            if raw_mode in _DEEP_COLOURS:
                deep = _deep_luma(path.read_bytes())
            pixels, levels = (pixels, None) if deep is None else scaled(deep)
            return Decoded(pixels, exif_orientation(image), levels)
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    # Pillow raises SyntaxError, EOFError, ValueError and errors of its own for broken files.
    except _BROKEN as error:
        raise ImageError(_reason(path, error)) from error


def _grey(image: Image.Image) -> Grey:
    """The pixels of an image of 8 bits or less; of 16-bit colours the upper 8 bits."""
    if image.mode in ("RGBA", "P", "LA", "PA", "CMYK"):
        return np.asarray(image.convert("RGB").convert("L"))
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def pixel_digest(image: Grey) -> str:
    """SHA-256 of an image's size and pixels: equal if and only if both are equal."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def resize_longest(image: Grey, size_px: int) -> Grey:
    """Resize so that the longer side is ``size_px``, keeping the aspect ratio (rounded); the input if it fits."""
    import cv2  # on use: a stored cache needs no resizing

    height, width = image.shape
    new_width, new_height = fitted_size(width, height, size_px)
    if (new_width, new_height) == (width, height):
        return image
    method = cv2.INTER_AREA if size_px < max(width, height) else cv2.INTER_LINEAR
    return cv2.resize(image, (new_width, new_height), interpolation=method)


def fitted_size(width_px: int, height_px: int, size_px: int) -> tuple[int, int]:
    """Width and height after a resize whose longer side is ``size_px``; both at least one pixel."""
    scale = size_px / max(width_px, height_px)
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def _require_every_line(data: bytes) -> None:
    """Raise ImageError for a PNG with fewer lines than in its header: Pillow fills them with black."""
    chunks = list(_chunks(data))
    header = next(body for kind, body in chunks if kind == b"IHDR")
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", header)
    lines = [
        (-(-(height - y) // dy), -(-(width - x) // dx) * depth * _CHANNELS[colour])
        for x, y, dx, dy in (_INTERLACED if interlaced else _WHOLE)
    ]
    missing = sum(count * (1 + -(-bits // 8)) for count, bits in lines if count > 0 and bits > 0)
    inflated = zlib.decompressobj()
    for kind, body in chunks:
        if kind == b"IDAT" and missing > 0:  # never inflate more than is missing: a stream may hold gigabytes
            missing -= len(inflated.decompress(body, missing))
    if missing:
        raise ImageError(f"truncated: {missing} bytes are missing of {width} x {height} pixels")
    if colour == _PALETTE and not any(kind == b"PLTE" for kind, _ in chunks):
        raise ImageError("a palette's indices without the palette")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = len(_SIGNATURE)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        yield kind, data[start + 8 : start + 8 + length]
        start += 12 + length


def _deep_luma(data: bytes) -> Deep:
    """The luma of a PNG of 16-bit colours, or its grey levels beside an alpha; Pillow has decoded it before."""
    import cv2  # on use: such files are rare

    # Only what the pixels need: libpng would warn of odd metadata, and apply some.
    body = b"".join(body for kind, body in _chunks(data) if kind == b"IDAT")
    header = next(body for kind, body in _chunks(data) if kind == b"IHDR")
    pieces = [(b"IDAT", body[start : start + _PIECE_BYTES]) for start in range(0, len(body), _PIECE_BYTES)]
    bare = _SIGNATURE + b"".join(_chunk(*one) for one in ((b"IHDR", header), *pieces, (b"IEND", b"")))
    try:
        colours = cv2.imdecode(np.frombuffer(bare, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"colours of 16 bits that cannot be decoded: {reason(error)}") from error
    if colours is None or colours.dtype != np.uint16 or colours.ndim != len("hwc"):
        raise ImageError("colours of 16 bits that cannot be decoded")
    if colours.shape[2] < len(_LUMA_BGR):
        return np.ascontiguousarray(colours[..., 0])
    luma = colours[..., : len(_LUMA_BGR)].astype(np.uint32) @ np.array(_LUMA_BGR, dtype=np.uint32)
    return ((luma + (1 << _LUMA_BITS - 1)) >> _LUMA_BITS).astype(np.uint16)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def scaled(deep: Deep) -> tuple[Grey, Levels]:
    """Levels of 16 bits as grey levels 0..255, shape (h, w), by their own range (``robust_range``)."""
    counts = np.bincount(deep.ravel(), minlength=_DEEP_LEVELS)
    present = np.flatnonzero(counts)
    low, high = robust_range(counts)
    outside = int(counts[:low].sum() + counts[high + 1 :].sum())
    levels = Levels(int(present[0]), int(present[-1]), low, high, outside)
    if high <= low:
        return np.zeros(deep.shape, dtype=np.uint8), levels
    table = np.round((np.clip(np.arange(_DEEP_LEVELS), low, high) - low) * (255 / (high - low))).astype(np.uint8)
    return table[deep], levels


def robust_range(counts: Int64[np.ndarray, " levels"]) -> tuple[int, int]:
    """The levels that become black and white, given the number of pixels of every level (at least one pixel).

    They are the lowest and the highest level, unless a few pixels lie far away (a marker, a burnt-in letter, dead
    pixels): less than a hundredth farther from the middle 98% of the pixels than these are wide, or up to a
    twentieth beyond a gap as wide as the others. Such pixels are left out, so that the others keep at least 85 of
    the 255 grey levels. The gap cuts nothing from 738 radiographs made 16-bit in four ways (NIH and FracAtlas).
    """
    present, up_to = np.flatnonzero(counts), np.cumsum(counts)
    few = int(_FEW * up_to[-1])
    low, high = (int(np.searchsorted(up_to, rank)) for rank in (few + 1, up_to[-1] - few))
    width = high - low
    if not width:
        return int(present[0]), int(present[-1])
    near = present[(present >= low - width) & (present <= high + width)]
    last, first = _end_before_gap(counts), len(counts) - 1 - _end_before_gap(counts[::-1])
    low, high = max(int(near[0]), first), min(int(near[-1]), last)
    return (low, high) if low < high else (int(near[0]), int(near[-1]))


def _end_before_gap(counts: Int64[np.ndarray, " levels"]) -> int:
    """The last level before a gap that parts up to a twentieth of the pixels; without such a gap the highest."""
    levels = np.flatnonzero(counts)
    up_to = np.cumsum(counts[levels])
    pixels = int(up_to[-1])
    start = levels[np.searchsorted(up_to, int(_FEW * pixels) + 1)]
    ends = np.arange(np.searchsorted(up_to, pixels - int(_GROUP * pixels)), len(levels) - 1)
    beyond = np.searchsorted(up_to, up_to[ends] + int(_BETWEEN * pixels), side="right")
    widths = levels[ends] - start
    wide = (widths > 0) & (levels[np.minimum(beyond, len(levels) - 1)] - levels[ends] >= widths)
    if not wide.any():
        return int(levels[-1])
    # The gap may begin some pixels before the others end, since it may hold some: the last level near it counts.
    near = levels[ends[wide][0]] + widths[wide][0] // 4
    return int(levels[np.searchsorted(levels, near, side="right") - 1])


def _reason(path: Path, error: Exception) -> str:
    return reason(error).replace(repr(str(path)), "the file").replace(str(path), "the file")
