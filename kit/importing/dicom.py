"""DICOM files to grey pixels: the only module that loads pydicom (the extra ``dicom``).

Nothing but pixels, their size and the patient's ID is read; the ID leaves ``patient_mark`` as a hash.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from kit.core.errors import KitError, reason
from kit.data.images import Grey, ImageError, scaled

DICOM_SUFFIXES = (".dcm", ".dicom")
_INSTALL = "pip install -e '.[dicom]' brings pydicom and its plug-ins"
_FACTS = ("PatientID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
          "BitsAllocated", "BurnedInAnnotation")  # fmt: skip
_PIXELS = (
    *_FACTS, "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction",
)  # fmt: skip
_OVERLAYS = tuple((group << 16) | 0x0102 for group in range(0x6000, 0x6020, 2))  # OverlayBitPosition of each plane
_NOBODY = {"", "0", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "patient"}
_INVERTED, _GREY = "MONOCHROME1", ("MONOCHROME1", "MONOCHROME2")
_BITS = (8, 16)
_LEVELS = 2**16 - 1


def require_pydicom() -> None:
    """Raise KitError if pydicom is not installed."""
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise KitError("pydicom, which reads DICOM files", "it is not installed", _INSTALL) from None


def dicom_facts(path: Path) -> tuple[int, int, str]:
    """Width and height in pixels, and the patient's ID ("" if the file names nobody), from the header alone.

    Raises ImageError for a file that is no DICOM image of one grey frame, or one with burnt-in letters.
    """
    dataset = _read(path, _FACTS, pixels=False)
    patient = str(dataset.get("PatientID") or "").strip()
    height, width = _whole(dataset, "Rows", 0), _whole(dataset, "Columns", 0)
    if not height or not width:
        raise ImageError("a DICOM file without an image, or cut off before it (no Rows, no Columns)")
    frames, samples = _whole(dataset, "NumberOfFrames", 1), _whole(dataset, "SamplesPerPixel", 1)
    kind, bits = str(dataset.get("PhotometricInterpretation") or ""), _whole(dataset, "BitsAllocated", 0)
    if frames > 1:
        raise ImageError(f"{frames} frames, not one")
    if samples != 1 or kind not in _GREY:
        raise ImageError(f"colours ({kind or 'unnamed'}, {samples} per pixel), not {' or '.join(_GREY)}")
    if bits not in _BITS:
        raise ImageError(f"{bits} bits a pixel, not 8 or 16")
    if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
        raise ImageError("letters burnt into the pixels (BurnedInAnnotation is YES), which may name the patient")
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise ImageError(f"{width} x {height} pixels: a decompression bomb")
    return width, height, "" if patient.casefold() in _NOBODY else patient


def decode_dicom(path: Path) -> Grey:
    """The grey levels 0..255 of a DICOM image, shape (h, w), black where air is.

    Stored values pass the rescale or modality LUT, then the VOI LUT or the first window (DICOM PS3.3 C.11.1 and
    C.11.2), then the range of their levels becomes 0..255 as for PNGs of 16 bits. MONOCHROME1 is inverted. Bits of
    overlays are cut off. Raises ImageError if the pixels are missing, truncated, or of a kind that no installed
    plug-in decodes.
    """
    width, height, patient = dicom_facts(path)
    dataset = _read(path, [*_PIXELS, *_OVERLAYS], pixels=True)
    if not dataset.get("PixelData"):
        raise ImageError("no pixels: PixelData is missing, empty or cut off")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of odd elements
            stored = _without_overlays(dataset, dataset.pixel_array)
            if stored.shape != (height, width):
                raise ImageError(f"its header says {width} x {height} pixels, it holds {stored.shape}")
            grey, _ = scaled(_shown_levels(dataset, stored))
    except ImageError:
        raise
    # pydicom and its plug-ins raise errors of many kinds for broken pixels, and for a plug-in that is missing.
    except Exception as error:
        text = reason(error).replace(patient, "...") if patient else reason(error)
        if "missing dependencies" in text:
            raise ImageError(f"pixels that no installed plug-in decodes: {_INSTALL}") from None
        if text.startswith("Unable to decode"):
            text = "truncated or broken, say all plug-ins"
        raise ImageError(f"pixels that cannot be decoded: {text}") from None
    return 255 - grey if dataset.PhotometricInterpretation == _INVERTED else grey


def patient_mark(patient: str, salt: bytes) -> str:
    """A patient's ID as 32 hexadecimal digits, which without the salt say nothing of it; "" for nobody."""
    return hashlib.blake2b(patient.encode(), key=salt, digest_size=16).hexdigest() if patient else ""


def _read(path: Path, tags: Any, pixels: bool) -> Any:
    """The elements of a file that are named. Raises ImageError, in words that never quote an element."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it would write values of elements to the terminal
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=list(tags))
            list(dataset)  # reads every value now, where errors and warnings are caught
            return dataset
    except InvalidDicomError as error:
        raise ImageError("no DICOM file" if path.stat().st_size else "an empty file") from error
    except OSError as error:  # EOFError is none
        raise ImageError(reason(error)) from error
    except Exception as error:
        raise ImageError(f"a truncated or broken DICOM file ({type(error).__name__})") from None


def _whole(dataset: Any, name: str, missing: int) -> int:
    """The whole number of an element, ``missing`` if it is not there or empty."""
    try:
        return int(dataset.get(name) or missing)
    except (TypeError, ValueError):
        raise ImageError(f"a DICOM file whose {name} is no whole number") from None


def _without_overlays(dataset: Any, stored: Shaped[np.ndarray, ...]) -> Shaped[np.ndarray, ...]:
    """The stored values without the bits above BitsStored, if an overlay lies there."""
    bits = _whole(dataset, "BitsStored", stored.itemsize * 8)
    unused = stored.itemsize * 8 - bits
    if not unused or not any(dataset[tag].value for tag in _OVERLAYS if tag in dataset):
        return stored
    return (stored << unused) >> unused  # of signed values the shift keeps the sign


def _shown_levels(dataset: Any, stored: Shaped[np.ndarray, ...]) -> np.ndarray:
    """What the values stand for after modality and VOI, as 16-bit levels from the lowest to the highest."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    low = int(stored.min())
    index = stored.astype(np.int32) - low
    counts = np.bincount(index.ravel())
    # Each value that can occur is shown once: a table of thousands of levels, not an image of millions.
    values = apply_modality_lut(np.arange(low, low + len(counts)).astype(stored.dtype), dataset)
    if values.dtype.kind == "f" and (values == np.rint(values)).all():
        values = values.astype(np.int64)  # a VOI LUT is looked up by whole numbers
    shown = np.asarray(apply_voi_lut(values, dataset), dtype=np.float64)
    present = shown[counts > 0]
    if not np.isfinite(present).all():
        raise ImageError("a rescale, LUT or window that makes no finite levels")
    darkest, range_ = present.min(), max(float(np.ptp(present)), 1e-30)
    levels = np.rint((np.clip(shown, darkest, present.max()) - darkest) * (_LEVELS / range_))
    return levels.astype(np.uint16)[index]
