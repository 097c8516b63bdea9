"""A competition's files, read and checked: images with their tables, and the patients of images."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pandas as pd

from kit.config import Config
from kit.core.errors import KitError
from kit.core.progress import Track, silent
from kit.core.text_files import text_sha256
from kit.data.groups import read_groups, warn_of_missing
from kit.data.inversion import listed_images
from kit.data.pixel_cache import PixelCache, open_cache
from kit.data.repeated_boxes import fuse_repeated
from kit.schemas.file_names import MAPPING, TABLE, TEST, TRAIN
from kit.schemas.misplaced import misplaced_files
from kit.schemas.tables import mapped_images, read_annotations, read_mapping

AUDIT = "audit"  # the folder of the audit in a workspace
_HOW_TO_GET = "run `invoke download`, put the competition's files there, or run `invoke demo` for a synthetic one"
log = logging.getLogger("kit")


@dataclass(frozen=True)
class TrainingData:
    """The checked training half: every image of ``train/`` and every row of ``train.csv``."""

    detections_name: ClassVar = "validation"  # only held-out images have detections
    pixels: PixelCache
    annotations: pd.DataFrame
    labels: tuple[str, ...]
    table_sha256: str
    groups: Mapping[str, str] = field(default_factory=dict)  # groups.csv: who is on an image, before any pattern

    @property
    def image_ids(self) -> tuple[str, ...]:
        """All images, those without a box too, sorted by name."""
        return tuple(sorted(self.pixels.facts))


@dataclass(frozen=True)
class TestData:
    """The checked test half: the mapping's rows and their images."""

    __test__ = False  # not a test class, whatever pytest thinks of its name
    detections_name: ClassVar = "test"
    pixels: PixelCache
    mapping: pd.DataFrame

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images that have an ID, without repetition, sorted by name."""
        return tuple(sorted(set(self.mapping["image_id"])))


@dataclass(frozen=True)
class OpenedData:
    """What a command has opened already: pixel caches, and the rows of train.csv."""

    pixels: Mapping[str, PixelCache]  # by folder: train/, and test/ if it exists
    annotations: pd.DataFrame | None = None  # None: not read yet; may name images of test/ as well


def data_folder(workspace: Path) -> Path:
    """``WORKSPACE/data``. Raises KitError if it holds no competition."""
    folder = workspace / "data"
    if not (folder / TABLE).exists() and not (folder / MAPPING).exists():
        raise KitError(f"a competition in {folder}", f"no {TABLE} there", misplaced_files(folder) or _HOW_TO_GET)
    return folder


def open_files(workspace: Path, folder: str, config: Config, track: Track = silent) -> PixelCache:
    """The pixels of the images in ``WORKSPACE/data/FOLDER`` (train or test) as they lie in their files."""
    return open_cache(data_folder(workspace) / folder, workspace / ".cache", config.data.cache_max_gib, track)


def open_all_files(workspace: Path, config: Config, track: Track = silent) -> dict[str, PixelCache]:
    """``open_files`` of ``train/``, and of ``test/`` if it exists, by folder."""
    data = data_folder(workspace)
    parts = [part for part in (TRAIN, TEST) if part == TRAIN or (data / part).is_dir()]
    return {part: open_files(workspace, part, config, track) for part in parts}


def open_pixels(workspace: Path, folder: str, config: Config, track: Track = silent) -> PixelCache:
    """The images in ``WORKSPACE/data/FOLDER`` (train or test), turned and inverted as the knobs say.

    Every image is decoded once. Raises KitError if data.invert=listed lacks the audit's list.
    """
    files = open_files(workspace, folder, config, track)
    listed = config.data.invert == "listed"
    inverted = listed_images(workspace / AUDIT, folder, files.digests) if listed else ()
    return files.treated(config.data.orientation, inverted)


def load_training(
    workspace: Path, config: Config, track: Track = silent, opened: OpenedData | None = None
) -> TrainingData:
    """Read and check ``train/`` and ``train.csv``, except what is ``opened`` already.

    With ``data.repeated_boxes=fuse`` the boxes of several readers are one box per finding. Raises TableError with
    all faults of the table together.
    """
    pixels = opened.pixels[TRAIN] if opened else open_pixels(workspace, TRAIN, config, track)
    table = data_folder(workspace) / TABLE
    annotations = opened.annotations if opened else None
    fuse = config.data.repeated_boxes == "fuse"
    if annotations is None or not annotations["image_id"].isin(pixels.facts).all():
        annotations = read_annotations(table, pixels.facts, every_image=True, repeats=fuse)
    if fuse:
        fused = fuse_repeated(annotations)
        if len(fused) < len(annotations):
            log.info("%s: %d boxes of several readers were fused to %d", table.name, len(annotations), len(fused))
        annotations = fused
    groups = read_groups(table.parent)
    warn_of_missing(groups, pixels.facts)
    labels = tuple(sorted(set(annotations["label"])))
    return TrainingData(pixels, annotations, labels, text_sha256(table), groups)


def load_test(workspace: Path, config: Config, track: Track = silent, opened: OpenedData | None = None) -> TestData:
    """Read and check ``test/`` and ``ID_to_Image_Mapping.csv``, except what is ``opened`` already.

    Raises KitError for a workspace without a test part.
    """
    if not has_test(workspace):
        raise KitError(
            f"a test part in {data_folder(workspace)}: {TEST}/ and {MAPPING}", f"no {MAPPING}",
            "put both there (`invoke download` fetches the competition's); training, evaluate, compare and the "
            "report need none",
        )  # fmt: skip
    pixels = opened.pixels.get(TEST) if opened else None
    if pixels is None:
        pixels = open_pixels(workspace, TEST, config, track)
    mapping = read_mapping(data_folder(workspace) / MAPPING, pixels.facts, config.competition.expected_ids)
    return TestData(pixels, mapping)


def has_test(workspace: Path) -> bool:
    """Whether there is a mapping of IDs to test images; training alone needs none."""
    return (workspace / "data" / MAPPING).exists()


def asks_twice(workspace: Path) -> bool:
    """Whether there is a mapping in which an image has several IDs: then there is one ID per true box."""
    return has_test(workspace) and bool(mapped_images(workspace / "data" / MAPPING).duplicated().any())


def patients(image_ids: Sequence[str], pattern: str, groups: Mapping[str, str]) -> dict[str, str]:
    """The patient of each image: its group of groups.csv, else what the pattern finds in its name, else the name.

    That is the pattern's first group (or match) at the start of the name.
    """
    matches = {image_id: re.match(pattern, image_id) for image_id in image_ids}
    return {
        image_id: groups.get(image_id) or (match and (match[1] if match.re.groups else match[0])) or image_id
        for image_id, match in matches.items()
    }
