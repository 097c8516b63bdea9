"""The report on the data: its tables, its figures and its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.config import Config
from kit.core.locks import locked_folder
from kit.core.progress import Track, silent
from kit.data.competition import has_test, load_test, load_training, patients
from kit.data.groups import read_groups
from kit.data.patient_pattern import knows_patients
from kit.data.statistics import box_fractions, dataset_tables
from kit.reports import dataset_charts
from kit.reports.figures import Drawings, save_all
from kit.reports.html import write_page
from kit.reports.pictures import samples
from kit.schemas.image_headers import ImageFacts
from kit.schemas.tables import MAPPING_COLUMNS


@dataclass(frozen=True)
class DatasetReport:
    """The tables on the data by title, the PNG files, and the page that shows both."""

    tables: dict[str, pd.DataFrame]
    figures: tuple[Path, ...]
    page: Path


def dataset_report(
    annotations: pd.DataFrame,
    mapping: pd.DataFrame,
    train_images: Mapping[str, ImageFacts],
    test_images: Mapping[str, ImageFacts],
    patients: Mapping[str, str] | None,
    folder: Path,
    seed: int,
    track: Track = silent,
) -> DatasetReport:
    """Describe a competition's data in ``folder``: PNG figures and one self-contained ``explore.html``.

    Args:
        annotations: True boxes (image_id, corners in pixels, label); may have zero rows.
        mapping: The test's ID and image_id.
        train_images: Size and file of every image of ``train/``, by image_id.
        test_images: The same for the images of the mapping.
        patients: The patient of every training and test image, by image_id; None if they are not known.
        folder: Where figures and page are written.
        seed: Draws the samples.
        track: Reports progress.
    """
    tables = dataset_tables(annotations, mapping, train_images, test_images, patients)
    shares = box_fractions(annotations, train_images)
    labels = list(tables["classes"]["label"])
    drawings: Drawings = {
        "classes": lambda: dataset_charts.classes(tables["classes"]),
        "boxes-per-image": lambda: dataset_charts.boxes_per_image(tables["boxes per image"]),
        "box-size": lambda: dataset_charts.sizes(shares, labels),
        "box-position": lambda: dataset_charts.positions(shares, labels),
        "co-occurrence": lambda: dataset_charts.co_occurrence(tables["co-occurrence"]),
        "samples": lambda: samples(annotations, labels, train_images, seed),
    }
    figures = save_all(folder, drawings, track)
    counts = tables["counts"].set_index("what")["count"]
    values = {"tables": tables, "figures": figures, "counts": counts}
    page = write_page(folder / "explore.html", "dataset_report.html", values)
    return DatasetReport(tables, tuple(figures.values()), page)


def describe(workspace: Path, config: Config, track: Track = silent) -> DatasetReport:
    """Write the dataset report to ``WORKSPACE/explore``, also without a test part.

    Raises KitError if the data are missing or have faults.
    """
    training_data, pattern = load_training(workspace, config, track), config.data.patient_pattern
    test = load_test(workspace, config, track) if has_test(workspace) else None
    test_images = {image_id: test.pixels.facts[image_id] for image_id in test.image_ids} if test else {}
    groups = read_groups(workspace / "data")
    known = all(knows_patients(half, pattern, groups) for half in (training_data.image_ids, test_images))
    with locked_folder(workspace / "explore") as folder:
        return dataset_report(
            training_data.annotations,
            test.mapping if test else pd.DataFrame(columns=list(MAPPING_COLUMNS)),
            training_data.pixels.facts,
            test_images,
            patients([*training_data.image_ids, *test_images], pattern, groups) if known else None,
            folder,
            config.training.seed,
            track,
        )
