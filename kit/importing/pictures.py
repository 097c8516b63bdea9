"""A set's image files to small grey PNGs, on all cores; here processes work, since decoders of DICOM share no time.

A PNG holds grey levels and, if there was one, the EXIF orientation: no other tag of the source.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags, Image

from kit.core.errors import KitError
from kit.core.files import replacing
from kit.core.progress import Track
from kit.data.images import Grey, ImageError, decode, fitted_size, resize_longest
from kit.importing.dicom import DICOM_SUFFIXES, decode_dicom, dicom_facts
from kit.schemas.image_headers import UPRIGHT, image_header

_FEW, _FEW_HEADERS = 32, 1000  # images and headers that are not worth the start of processes
_AT_ONCE = 4  # of them, handed to a process
_PNG_EFFORT = 1  # of zlib, 0 to 9: more costs more time than decoding, for files a tenth smaller
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class PictureFacts:
    """What an image file says of itself: its size, its EXIF orientation, who is on it, why it cannot be used."""

    width_px: int
    height_px: int
    tag: int = UPRIGHT
    patient: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Job:
    """One image to convert: its longer side becomes at most ``size_px`` pixels."""

    source: Path
    goal: Path
    size_px: int


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its ending."""
    return path.name.lower().endswith(DICOM_SUFFIXES)


def picture_facts(path: Path) -> PictureFacts:
    """The facts of an image file, from its header alone."""
    if not is_dicom(path):
        facts = image_header(path, every_chunk=False)  # else every PNG would be decoded twice
        return PictureFacts(facts.width_px, facts.height_px, facts.tag, fault=facts.fault)
    try:
        width, height, patient = dicom_facts(path)
    except ImageError as error:
        return PictureFacts(0, 0, fault=str(error))
    return PictureFacts(width, height, patient=patient)


def size_after(facts: PictureFacts, size_px: int) -> tuple[int, int]:
    """Width and height of the converted image: no image is enlarged."""
    longest = max(facts.width_px, facts.height_px)
    return fitted_size(facts.width_px, facts.height_px, min(size_px, longest))


def convert(job: Job) -> str:
    """Write the PNG of an image with the time of its source, for ``is_converted``; returns the fault, or ""."""
    try:
        time_ns = job.source.stat().st_mtime_ns
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata
            if is_dicom(job.source):
                pixels, tag = decode_dicom(job.source), UPRIGHT
            else:
                decoded = decode(job.source)
                pixels, tag = decoded.pixels, decoded.orientation
    except ImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    if max(pixels.shape) > job.size_px:
        pixels = resize_longest(pixels, job.size_px)
    with replacing(job.goal) as partial:
        _write_png(pixels, tag, partial)
        os.utime(partial, ns=(time_ns, time_ns))
    return ""


def is_converted(job: Job) -> bool:
    """Whether ``convert`` has written the image from its source as it is now."""
    with contextlib.suppress(OSError):
        return job.goal.stat().st_mtime_ns == job.source.stat().st_mtime_ns
    return False


def on_all_cores(function: Callable[[T], R], items: Sequence[T], what: str, track: Track) -> list[R]:
    """The results of a function of this package for all items, in their order.

    Raises KitError if a process dies, as a decoder may in broken files.
    """
    if len(items) < (_FEW_HEADERS if function is picture_facts else _FEW):
        return list(track(map(function, items), what, len(items)))
    try:
        with _processes() as pool:
            return list(track(pool.map(function, items, chunksize=_AT_ONCE), what, len(items)))
    except BrokenProcessPool as error:
        raise KitError(
            "every process to live until its images are decoded",
            "one died: of too little memory, or of a broken file",
            "run the same command again: it goes on with the images that are left; a file that ends it each time "
            "is broken",
        ) from error  # fmt: skip


@contextlib.contextmanager
def _processes() -> Iterator[ProcessPoolExecutor]:
    """A process per core; after Ctrl-C or an error nothing new is begun."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(os.cpu_count(), context, initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In a new process: Ctrl-C is the parent's, and the parent's death its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _write_png(pixels: Grey, tag: int, path: Path) -> None:
    exif = Image.Exif()
    if tag != UPRIGHT:
        exif[ExifTags.Base.Orientation] = tag
    Image.fromarray(pixels).save(path, "PNG", compress_level=_PNG_EFFORT, exif=exif if len(exif) else b"")
