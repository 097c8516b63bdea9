"""How many changed copies of radiographs the audit finds, and whether it takes two of them for one picture.

`python -m tests.benchmarks.copies FOLDER ...` measures every PNG and JPEG below the folders.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from kit.data.duplicates import Prints, common_pictures, duplicate_groups, take_prints
from kit.data.images import Grey, read_grey
from kit.schemas.file_names import IMAGE_SUFFIXES

Change = Callable[[Grey], Grey]


def main(folders: Sequence[str]) -> None:
    """Print the table, and the groups of images that are taken for one picture."""
    files = sorted(p for folder in folders for p in Path(folder).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    prints = changed_prints(files, lambda image: image)
    for group in duplicate_groups(prints):
        print("one picture:", *(prints.names[index] for index in group))
    print(f"| change of {len(files)} images | not found |\n|---|---|")
    for name, change in CHANGES.items():
        print(f"| {name} | {missed_share(prints, changed_prints(files, change)):.1%} |", flush=True)


def changed_prints(files: Sequence[Path], change: Change) -> Prints:
    """The prints of the files' images after a change; all have digests of their own."""
    paths = {str(number): path for number, path in enumerate(files)}
    prints = take_prints(dict.fromkeys(paths, ""), lambda name: change(read_grey(paths[name])))
    return Prints(tuple(path.name for path in files), tuple(str(path) for path in files), prints.copies)


def missed_share(originals: Prints, copies: Prints) -> float:
    """The share of the originals whose copy is not found among all of them."""
    of_copies = Prints(copies.names, tuple(f"copy {digest}" for digest in copies.digests), copies.copies)
    pairs = common_pictures(originals, of_copies)
    return 1 - len(set(pairs[pairs[:, 0] == pairs[:, 1], 0].tolist())) / len(originals.names)


def _jpeg(image: Grey, quality: int) -> Grey:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _cut(image: Grey, left: float, top: float, right: float, bottom: float) -> Grey:
    height, width = image.shape
    rows = slice(round(top * height), height - round(bottom * height))
    return np.ascontiguousarray(image[rows, round(left * width) : width - round(right * width)])


def _brighter(image: Grey, factor: float) -> Grey:
    return np.clip(image * factor, 0, 255).astype(np.uint8)


def _shrunk(image: Grey, size_px: int) -> Grey:
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)


def _several(image: Grey) -> Grey:
    return _jpeg(_brighter(_shrunk(_cut(image, 0.02, 0.02, 0.02, 0.02), 300)[:, ::-1], 1.3), 40)


CHANGES: dict[str, Change] = {
    "JPEG quality 10": lambda image: _jpeg(image, 10),
    "shrunk to 128 px": lambda image: _shrunk(image, 128),
    "brightened by 1.2": lambda image: _brighter(image, 1.2),
    "brightened by 1.5": lambda image: _brighter(image, 1.5),
    "gamma 1.3": lambda image: (255 * (image / 255) ** 1.3).astype(np.uint8),
    "inverted": lambda image: 255 - image,
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "1% cut off at each border": lambda image: _cut(image, 0.01, 0.01, 0.01, 0.01),
    "2% cut off at each border": lambda image: _cut(image, 0.02, 0.02, 0.02, 0.02),
    "3.5% cut off at each border": lambda image: _cut(image, 0.035, 0.035, 0.035, 0.035),
    "5% cut off at each border": lambda image: _cut(image, 0.05, 0.05, 0.05, 0.05),
    "5% cut off at the left": lambda image: _cut(image, 0.05, 0, 0, 0),
    "5% cut off at the bottom": lambda image: _cut(image, 0, 0, 0, 0.05),
    "2% cut off, 300 px, mirrored, brightened by 1.3, JPEG 40": _several,
    "turned by 3 degrees": lambda image: cv2.warpAffine(
        image, cv2.getRotationMatrix2D((image.shape[1] / 2, image.shape[0] / 2), 3, 1), image.shape[::-1]
    ),
}

if __name__ == "__main__":
    main(sys.argv[1:])
