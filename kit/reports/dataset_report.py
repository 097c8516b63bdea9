"""The report on the data: its figures, its page, and the words of each section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.config import (
    Config,
)
from kit.core.locks import locked_folder
from kit.core.progress import Track, silent
from kit.data.competition import load_test, load_training, patients
from kit.data.statistics import box_fractions, dataset_tables
from kit.reports import dataset_charts
from kit.reports.figures import Drawings, save_all
from kit.reports.html import Section, cell, write_page
from kit.reports.pictures import samples
from kit.schemas.image_headers import ImageFacts


def dataset_page(path: Path, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Path]) -> Path:
    """Write the page of the report on the data and return its path."""
    counts = tables["counts"].set_index("what")["count"]
    headline = {name: cell(counts[name]) for name in ("training images", "boxes", "test images", "test IDs")}
    sections = [
        Section(
            "Counts",
            "Patients matter more than images: two images of one patient resemble each other, so a patient must "
            "stand on one side of a split only. The last rows say how much of the test set shows patients who "
            "are also in the training set.",
            table=tables["counts"],
        ),
        Section("Image sizes", "In pixels, as the files are.", table=tables["image sizes"]),
        Section(
            "Classes",
            "The score is the mean over the classes, so a rare class counts as much as a common one.",
            [figures["classes"]],
            tables["classes"],
        ),
        Section(
            "Boxes per image",
            "Training images may carry several boxes; a submission has one box per ID.",
            [figures["boxes-per-image"]],
            tables["boxes per image"],
        ),
        Section(
            "Box size",
            "Every tick is a box. The bar spans the middle half of the boxes, the circle is the median.",
            [figures["box-size"]],
        ),
        Section(
            "Box position",
            "Dots are box centres; the darker a place, the larger the share of the class's boxes that cover it. "
            "A class whose boxes all cover one place can be guessed without looking: that is the location prior. "
            "The table gives mean and standard deviation as shares of the image's width and height.",
            [figures["box-position"]],
            tables["box size and position"],
        ),
        Section(
            "Classes that occur together",
            "Images that show both classes; in grey on the diagonal, images that show the class at all.",
            [figures["co-occurrence"]],
        ),
        Section(
            "Samples",
            "Up to two random training images per class, drawn by the seed, with all their boxes.",
            [figures["samples"]],
        ),
    ]
    return write_page(path, "The data", "What the training and test tables hold, and where the boxes lie.",
                  headline, sections)  # fmt: skip


@dataclass(frozen=True)
class DatasetReport:
    """What was found in the data: tables by title, PNG files, and the page that shows both."""

    tables: dict[str, pd.DataFrame]
    figures: tuple[Path, ...]
    page: Path


def dataset_report(
    annotations: pd.DataFrame,
    mapping: pd.DataFrame,
    train_images: Mapping[str, ImageFacts],
    test_images: Mapping[str, ImageFacts],
    patients: Mapping[str, str],
    folder: Path,
    seed: int,
    track: Track = silent,
) -> DatasetReport:
    """Describe a competition's data in ``folder``: PNG figures and one self-contained ``explore.html``.

    ``annotations`` has image_id, corners in pixels, label (zero rows are fine); ``mapping`` has ID and
    image_id; ``patients`` names the patient of every train and test image. ``seed`` draws the samples.
    """
    tables = dataset_tables(annotations, mapping, train_images, test_images, patients)
    shares = box_fractions(annotations, train_images)
    labels = list(tables["classes"]["label"])
    paths = {image_id: facts.path for image_id, facts in train_images.items()}
    drawings: Drawings = {
        "classes": lambda: dataset_charts.classes(tables["classes"]),
        "boxes-per-image": lambda: dataset_charts.boxes_per_image(tables["boxes per image"]),
        "box-size": lambda: dataset_charts.sizes(shares, labels),
        "box-position": lambda: dataset_charts.positions(shares, labels),
        "co-occurrence": lambda: dataset_charts.co_occurrence(tables["co-occurrence"]),
        "samples": lambda: samples(annotations, labels, paths, seed),
    }
    figures = save_all(folder, drawings, track)
    page = dataset_page(folder / "explore.html", tables, figures)
    return DatasetReport(tables, tuple(figures.values()), page)


def describe(workspace: Path, config: Config, track: Track = silent) -> DatasetReport:
    """The dataset report in ``WORKSPACE/explore``."""
    training_data, test = load_training(workspace, config, track), load_test(workspace, config, track)
    everyone = [*training_data.image_ids, *test.image_ids]
    with locked_folder(workspace / "explore") as folder:
        return dataset_report(
            training_data.annotations,
            test.mapping,
            training_data.pixels.facts,
            {image_id: test.pixels.facts[image_id] for image_id in test.image_ids},
            patients(everyone, config.data.patient_pattern),
            folder,
            config.training.seed,
            track,
        )
