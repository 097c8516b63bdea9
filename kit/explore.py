"""The report on the data and the report on a run: which figures they have and what each one draws.

Everything is a function of (inputs, seed): the same call writes the same files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import canvas, charts, score_charts
from kit.boxes.geometry import CORNERS
from kit.canvas import PREDICTION, TRUTH, Figure, Mark
from kit.core.progress import Track, silent
from kit.data.statistics import box_fractions, dataset_tables
from kit.metrics.average_precision import precision_recall
from kit.pages import dataset_page
from kit.run_page import run_page
from kit.schemas.image_headers import ImageFacts

_SAMPLES_PER_CLASS = 2
_GRID_IMAGES, _PAIR_IMAGES = 4, 6
_PAIR_PREDICTIONS, _GRID_PREDICTIONS = 5, 2
_SAME_BOX_PX = 1.0
_TITLE_LETTERS = 36
_TRUTH_PT, _CANDIDATE_PT, _ANSWER_PT = 1.4, 0.7, 2.6

Drawings = Mapping[str, Callable[[], Figure]]


@dataclass(frozen=True)
class DatasetReport:
    """What was found in the data: tables by title, PNG files, and the page that shows both."""

    tables: dict[str, pd.DataFrame]
    figures: tuple[Path, ...]
    page: Path


@dataclass(frozen=True)
class RunReport:
    """The PNG files of an evaluated run and the page that shows them."""

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
        "classes": lambda: charts.classes(tables["classes"]),
        "boxes-per-image": lambda: charts.boxes_per_image(tables["boxes per image"]),
        "box-size": lambda: charts.sizes(shares, labels),
        "box-position": lambda: charts.positions(shares, labels),
        "co-occurrence": lambda: charts.co_occurrence(tables["co-occurrence"]),
        "samples": lambda: samples(annotations, labels, paths, seed),
    }
    figures = _saved(folder, drawings, track)
    page = dataset_page(folder / "explore.html", tables, figures)
    return DatasetReport(tables, tuple(figures.values()), page)


def run_report(
    report: dict[str, Any],
    truth: pd.DataFrame,
    candidates: pd.DataFrame,
    answers: pd.DataFrame,
    histories: Sequence[pd.DataFrame],
    image_paths: Mapping[str, Path],
    folder: Path,
    seed: int,
) -> RunReport:
    """Show an evaluated run: PNG files in ``folder/figures`` and one self-contained ``folder/report.html``.

    ``report`` is the content of ``report.json``; ``image_paths`` names every validation image; ``truth``,
    ``candidates`` (with score), ``answers`` (with confidence) and each fold's history may have zero rows.
    ``seed`` draws the images that are shown.
    """
    drawn = drawn_images(image_paths, seed)

    def true(image_id: str) -> list[Mark]:
        return _marks(_on(truth, image_id), TRUTH)

    def predicted(image_id: str, most: int) -> list[Mark]:
        return prediction_marks(_on(candidates, image_id), _on(answers, image_id), most)

    def shown(image_id: str, marks: list[Mark], part: str = "") -> tuple[str, Path, list[Mark]]:
        return canvas.short(image_id, _TITLE_LETTERS) + part, image_paths[image_id], marks

    def pair(image_id: str) -> Figure:
        found = predicted(image_id, _PAIR_PREDICTIONS)
        return canvas.sheet(
            [shown(image_id, true(image_id), " · truth"), shown(image_id, found, " · predictions")], 2
        )

    def grid() -> Figure:
        chosen = drawn[:_GRID_IMAGES]
        return canvas.sheet([shown(name, predicted(name, _GRID_PREDICTIONS) + true(name)) for name in chosen], 2)

    drawings: Drawings = {
        "per-class": lambda: charts.per_class(report["per_class"]),
        "rules": lambda: score_charts.rules(report["decision"]),
        "losses": lambda: score_charts.losses(report["losses"]),
        "threshold": lambda: charts.threshold(report["threshold"]),
        "precision-recall": lambda: charts.precision_recall(precision_recall(truth, candidates, drawn)),
        "confidences": lambda: charts.confidences(candidates, answers),
        "detections-per-image": lambda: charts.detections_per_image(candidates, drawn),
        **{
            "history" if len(histories) == 1 else f"history-fold-{fold}": functools.partial(
                charts.history, history, report["training"][fold]["epoch"]
            )
            for fold, history in enumerate(histories)
        },
        "grid": grid,
        **{
            f"image-{number}": functools.partial(pair, name)
            for number, name in enumerate(drawn[-_PAIR_IMAGES:], start=1)
        },
    }
    figures = _saved(folder / "figures", drawings, silent)
    return RunReport(tuple(figures.values()), run_page(folder / "report.html", report, figures))


def samples(annotations: pd.DataFrame, labels: Sequence[str], paths: Mapping[str, Path], seed: int) -> Figure:
    """Up to two images per class that show it, drawn by the seed, with all their boxes."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in labels:
        ids = sorted(annotations.loc[annotations["label"] == label, "image_id"].unique())
        places = rng.permutation(len(ids))[:_SAMPLES_PER_CLASS]
        chosen += [(label, ids[place]) for place in places]
    return canvas.sheet(
        [(canvas.short(label), paths[name], _marks(_on(annotations, name), TRUTH)) for label, name in chosen],
        canvas.COLUMNS,
    )


def drawn_images(image_ids: Iterable[str], seed: int) -> list[str]:
    """The images in an order that depends on the seed and on nothing else, such as the order given."""
    ids = sorted(image_ids)
    return [ids[place] for place in np.random.default_rng(seed).permutation(len(ids))]


def prediction_marks(candidates: pd.DataFrame, answers: pd.DataFrame, most: int) -> list[Mark]:
    """One image's best ``most`` candidates in thin lines with their scores, its answers above in thick ones.

    A candidate that an answer repeats (same label, corners within a pixel) is drawn once, as the answer.
    """
    best = candidates.sort_values("score", ascending=False, kind="stable").head(most)
    for _, answer in answers.iterrows():
        apart = np.abs(best[CORNERS].to_numpy(np.float64) - answer[CORNERS].to_numpy(np.float64))
        same = (best["label"] == answer["label"]).to_numpy() & (apart <= _SAME_BOX_PX).all(axis=1)
        best = best[~same]
    return _marks(best[::-1], PREDICTION, "score", _CANDIDATE_PT) + _marks(
        answers, PREDICTION, "confidence", _ANSWER_PT
    )


def _saved(folder: Path, drawings: Drawings, track: Track) -> dict[str, Path]:
    paths = {name: folder / f"{name}.png" for name in drawings}
    for name, draw in track(drawings.items(), "drawing figures", len(drawings)):
        canvas.save(draw(), paths[name])
    return paths


def _on(table: pd.DataFrame, image_id: str) -> pd.DataFrame:
    return table[table["image_id"] == image_id]


def _marks(table: pd.DataFrame, colour: str, score: str = "", line_pt: float = _TRUTH_PT) -> list[Mark]:
    said = [f" {value:.2f}" for value in table[score]] if score else [""] * len(table)
    return [
        Mark((x_min, y_min, x_max, y_max), canvas.short(label) + text, colour, line_pt)
        for (x_min, y_min, x_max, y_max), label, text in zip(
            table[CORNERS].to_numpy(np.float64).tolist(), table["label"], said, strict=True
        )
    ]
