"""Small grey JPEG copies of images, as text for a page: equal pictures once, the quality chosen for their size."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from kit.core.progress import Track, silent
from kit.data.images import Grey, fitted_size, resize_longest
from kit.reports.view_data import ViewedImage

THUMB_PX = 384
TOTAL_BYTES = 26_000_000  # of a page's thumbnails as text, if the quality can be chosen for it
QUALITIES = (85, 75, 65, 50, 35)
_SAMPLE = 24
_AT_ONCE = 64


def thumbnails(images: Sequence[ViewedImage], at_most: int, track: Track = silent) -> dict[str, str]:
    """By digest, a JPEG of at most 384 px in base64. Equal pictures have one digest.

    The quality is the best of ``QUALITIES`` at which ``at_most`` images like a sample of these fit on a page.
    """
    different = list({image.pixels.digests[image.image_id]: image for image in images}.items())
    quality = _quality([image for _, image in different], at_most)

    def encoded(pair: tuple[str, ViewedImage]) -> tuple[str, str]:
        digest, image = pair
        return digest, jpeg_text(thumbnail(image), quality)

    made: dict[str, str] = {}
    blocks = [different[start : start + _AT_ONCE] for start in range(0, len(different), _AT_ONCE)]
    with ThreadPoolExecutor() as pool:  # resizing and encoding let go of Python's lock
        for block in track(blocks, "drawing thumbnails", len(blocks)):
            made |= dict(pool.map(encoded, block))
    return made


def thumbnail(image: ViewedImage) -> Grey:
    """The image as it is read, its longer side 384 px at most."""
    pixels = image.pixels.read(image.image_id)
    return np.ascontiguousarray(resize_longest(pixels, min(THUMB_PX, max(pixels.shape))))


def thumbnail_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Width and height of the thumbnail of an image."""
    return fitted_size(width_px, height_px, min(THUMB_PX, max(width_px, height_px)))


def _quality(images: Sequence[ViewedImage], at_most: int) -> int:
    sample = [thumbnail(image) for image in images[:: 1 + len(images) // _SAMPLE]]
    count = min(len(images), at_most)
    for quality in QUALITIES:
        letters = sum(len(jpeg_text(pixels, quality)) for pixels in sample)
        if letters * count <= TOTAL_BYTES * max(1, len(sample)):
            return quality
    return QUALITIES[-1]


def jpeg_text(pixels: Grey, quality: int) -> str:
    """A picture as JPEG in base64."""
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=quality)
    return base64.b64encode(jpeg.getbuffer()).decode("ascii")
