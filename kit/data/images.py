"""Files to grey pixels: only this module decodes and resizes radiographs.

A 16-bit PNG is scaled by its own range; Pillow's conversion would saturate it to white.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kit.core.errors import reason

Grey = UInt8[np.ndarray, "_ _"]  # (height, width), any size
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I", "F")
_BROKEN = (OSError, SyntaxError, EOFError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)
_SIGNATURE, _PALETTE = b"\x89PNG\r\n\x1a\n", 3
_CHANNELS = {0: 1, 2: 3, _PALETTE: 1, 4: 2, 6: 4}  # by a PNG's colour type
_WHOLE = ((0, 0, 1, 1),)
_INTERLACED = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class ImageError(Exception):
    """A file is no readable radiograph; the text is the reason, without the path."""


def read_grey(path: Path) -> Grey:
    """Decode a PNG or JPEG (grey, RGB, RGBA, palette, 16-bit) to grey levels 0..255, shape (h, w).

    An alpha channel is ignored. Raises ImageError if the file is missing, truncated or no image; a JPEG that was
    truncated and ended properly again goes unnoticed. Pillow may warn of odd metadata or of size; the caller sets
    filters for warnings, since they act on the whole process.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise ImageError(f"{image.width} x {image.height} pixels: a decompression bomb")
            pixels = _grey(image)
            is_simple = image.mode in ("L", "RGB") and not image.info.get("interlace")
            # A simple PNG whose last line is not black was read to its end.
            if image.format == "PNG" and not (is_simple and pixels[-1].any()):
                _require_every_line(path.read_bytes())
            return pixels
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    # Pillow raises SyntaxError, EOFError, ValueError and errors of its own for broken files.
    except _BROKEN as error:
        raise ImageError(_reason(path, error)) from error


def _grey(image: Image.Image) -> Grey:
    if image.mode in _DEEP_MODES:
        return _scaled(np.asarray(image, dtype=np.float64))
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


def _scaled(levels: np.ndarray) -> Grey:
    low, high = float(levels.min()), float(levels.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("non-finite pixels")
    if high <= low:
        return np.zeros(levels.shape, dtype=np.uint8)
    return np.round((levels - low) * (255 / (high - low))).astype(np.uint8)


def _reason(path: Path, error: Exception) -> str:
    return reason(error).replace(repr(str(path)), "the file").replace(str(path), "the file")
