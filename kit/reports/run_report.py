"""The report on an evaluated run: its figures and its page."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.core.progress import silent
from kit.metrics.average_precision import precision_recall
from kit.reports import run_charts
from kit.reports.figures import TRUTH, Drawings, Figure, Mark, Picture, save_all, sheet, short
from kit.reports.html import write_page
from kit.reports.pictures import drawn_images, marks, on_image, prediction_marks
from kit.reports.report_file import Report
from kit.schemas.image_headers import ImageFacts

_GRID_IMAGES, _PAIR_IMAGES = 4, 6
_PAIR_PREDICTIONS, _GRID_PREDICTIONS = 5, 2
_TITLE_LETTERS = 36


@dataclass(frozen=True)
class RunReport:
    """The PNG files of an evaluated run and the page that shows them."""

    figures: tuple[Path, ...]
    page: Path


def run_report(
    report: Report,
    truth: pd.DataFrame,
    candidates: pd.DataFrame,
    answers: pd.DataFrame,
    histories: Sequence[pd.DataFrame],
    images: Mapping[str, ImageFacts],
    folder: Path,
    seed: int,
) -> RunReport:
    """Show an evaluated run: PNG files in ``folder/figures`` and one self-contained ``folder/report.html``.

    Args:
        report: The scores.
        truth: True boxes of the validation images (image_id, corners, label); may have zero rows.
        candidates: Fused candidates of these images (with score); may have zero rows.
        answers: The one box per ID (with confidence); may have zero rows.
        histories: For each fold the epochs of its training; none if nothing was trained.
        images: The facts of every validation image, by image_id.
        folder: The run's folder.
        seed: Draws the images that are shown.
    """
    drawn = drawn_images(images, seed)

    def true(image_id: str) -> list[Mark]:
        return marks(on_image(truth, image_id), TRUTH)

    def predicted(image_id: str, most: int) -> list[Mark]:
        return prediction_marks(on_image(candidates, image_id), on_image(answers, image_id), most)

    def picture(image_id: str, boxes: list[Mark], title_end: str = "") -> Picture:
        return short(image_id, _TITLE_LETTERS) + title_end, images[image_id], boxes

    def pair(image_id: str) -> Figure:
        boxes = predicted(image_id, _PAIR_PREDICTIONS)
        return sheet([picture(image_id, true(image_id), " · truth"), picture(image_id, boxes, " · predictions")], 2)

    def grid() -> Figure:
        chosen = drawn[:_GRID_IMAGES]
        return sheet([picture(name, predicted(name, _GRID_PREDICTIONS) + true(name)) for name in chosen], 2)

    drawings: Drawings = {
        "per-class": lambda: run_charts.per_class(report.per_class),
        "rules": lambda: run_charts.rules(report.decision),
        "ceiling": lambda: run_charts.ceiling(report.ceiling),
        "losses": lambda: run_charts.losses(report.losses),
        "threshold": lambda: run_charts.threshold(report.threshold),
        "precision-recall": lambda: run_charts.precision_recall(precision_recall(truth, candidates, drawn)),
        "confidences": lambda: run_charts.confidences(candidates, answers),
        "detections-per-image": lambda: run_charts.detections_per_image(candidates, drawn),
        **{
            "history" if len(histories) == 1 else f"history-fold-{fold}": functools.partial(
                run_charts.history, history, report.training[fold].epoch
            )
            for fold, history in enumerate(histories)
        },
        "grid": grid,
        **{
            f"image-{number}": functools.partial(pair, name)
            for number, name in enumerate(drawn[-_PAIR_IMAGES:], start=1)
        },
    }
    figures = save_all(folder / "figures", drawings, silent)
    page = write_page(folder / "report.html", "run_report.html", {"report": report, "figures": figures})
    return RunReport(tuple(figures.values()), page)
