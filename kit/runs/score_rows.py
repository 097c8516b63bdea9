"""The rows of adopted image scores, compared with the competition: images, halves, labels, folds, their scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.core.errors import KitError, closest_names
from kit.data.competition import TestData, TrainingData
from kit.runs.foreign_rows import (
    ADD_PART,
    NO_FOLD,
    ONE_HALF,
    fold_faults,
    half_rules,
    unknown_images,
    with_folds,
    without_fold,
)
from kit.runs.halves import Halves, with_facts, with_halves
from kit.schemas.csv_text import LINE, Fault
from kit.schemas.file_names import TEST, TRAIN
from kit.schemas.foreign.content import OPTIONAL, by_cause
from kit.schemas.foreign.tables import OF_IMAGES, read_columns
from kit.schemas.number_cells import parse_numbers
from kit.schemas.row_checks import IMAGE_CHECKS, failed_checks, repeated_rows
from kit.schemas.tables import raise_faults

PROBABILITIES, LOGITS = "probabilities", "logits"
_DO = "correct these lines and adopt the file again"
_FORMS = (".csv", ".parquet")
_FEW = 0.05  # share of scores outside 0..1 up to which they are mistakes: most logits lie outside
_MOST_LOGIT = 500  # beyond it either way the probability is 0 or 1, and exp overflows
_RENAME = "rename the label as the competition does, or leave out the rows of a label that it does not have"
_ONE_SCORE = "one score for each image and label, on test images of each fold"
_ONCE = "leave out the rows that repeat others; of several readings of an image write the mean"


@dataclass(frozen=True)
class ScoreRows:
    """Checked rows: part (train, test), fold, image_id, label, score (0..1); and what the file's scores are."""

    table: pd.DataFrame
    scale: str  # probabilities or logits


def read_score_rows(path: Path, data: TrainingData, test: TestData | None, held: Sequence[str]) -> ScoreRows:
    """The rows of a CSV or parquet file of image scores: image_id, label, score and, if wanted, fold and part.

    Scores of which more than a few lie outside 0..1, and some below 0, are logits (log-odds), and become
    probabilities.

    Args:
        path: The file.
        data: The training half.
        test: The test half, if there is one.
        held: The images of ``train/`` that were held out.

    Raises:
        TableError: Every fault: unknown images and labels, images that were not held out, several rows of one image
            and label, scores that are no numbers, an image of train in two folds.
        KitError: The file is neither CSV nor parquet.
    """
    if path.suffix.lower() not in _FORMS or path.is_dir():
        raise KitError(
            "--image-scores with a file that ends in .csv or .parquet", path.name,
            "write the scores as CSV, image_id,label,score, a row for each image and label",
        )  # fmt: skip
    cells = read_columns(path, OF_IMAGES, ("fold", "part"), _DO)
    missing = {name: value for name, value in OPTIONAL.items() if name not in cells.table}
    raw = with_folds(cells.table.assign(**missing))
    texts = ("image_id", "label", "view", "part", NO_FOLD)
    table, faults = parse_numbers(cells, raw, texts, ("score",), ("fold",))
    halves: Halves = {TRAIN: data.pixels.facts, TEST: test.pixels.facts if test else {}}
    table = with_facts(with_halves(path, table, halves), halves)
    unknown, known = unknown_images(path, table, halves)
    scale, out_of_scale = _scale(path, table)
    faults += [*unknown, *failed_checks(path, known, IMAGE_CHECKS), *out_of_scale]
    faults += _unknown_labels(path, table, data.labels)
    faults += [
        dataclasses.replace(fault, do=ADD_PART if fault.expected == ONE_HALF else "")
        for fault in failed_checks(path, table, half_rules(data, halves, held))
    ]
    faults += without_fold(path, table)
    if not faults:
        faults += fold_faults(path, table, table["part"] == TRAIN)
    if not faults:
        for part, key in ((TRAIN, ("image_id", "label")), (TEST, ("image_id", "label", "fold"))):
            faults += repeated_rows(path, table[table["part"] == part], key, _ONE_SCORE, _ONCE)
    raise_faults(path, table, by_cause(faults), _DO)
    score = table["score"].to_numpy(np.float64)
    if scale == LOGITS:
        score = 1 / (1 + np.exp(-np.clip(score, -_MOST_LOGIT, _MOST_LOGIT)))
    table = table.assign(score=score)
    return ScoreRows(table[["part", "fold", "image_id", "label", "score"]].reset_index(drop=True), scale)


def _scale(path: Path, table: pd.DataFrame) -> tuple[str, list[Fault]]:
    """What the scores are, and faults: of few outside 0..1 those, of more without any below 0 the first."""
    score = table["score"]
    outside = table[~score.between(0, 1)]
    if outside.empty:
        return PROBABILITIES, []
    if len(outside) <= _FEW * len(table):
        return PROBABILITIES, [
            Fault(
                path, line, f"{image_id}, {label}, {value:.15g}", "a probability between 0 and 1, as most are here"
            )
            for line, image_id, label, value in outside[[LINE, "image_id", "label", "score"]].itertuples(
                index=False, name=None
            )
        ]
    if (score < 0).any():
        return LOGITS, []
    row = outside.iloc[0]
    do = "divide the scores by 100 if they are percentages"
    expected = "probabilities between 0 and 1, or logits, of which those of absent findings lie below 0"
    found = f"{row['image_id']}, {row['label']}, {row['score']:.15g}; the scores reach from {score.min():.4g} to"
    return PROBABILITIES, [Fault(path, int(row[LINE]), f"{found} {score.max():.4g}", expected, do)]


def _unknown_labels(path: Path, table: pd.DataFrame, labels: Sequence[str]) -> list[Fault]:
    """One fault for each label that the competition does not have, with the nearest that it has."""
    faults = []
    for label, rows in table[~table["label"].isin(labels)].groupby("label", sort=False):
        more = f" and {len(rows) - 1} rows more" if len(rows) > 1 else ""
        near = closest_names(str(label), labels, 1)
        expected = f"one of the labels {', '.join(labels)} (nearest: {near})"
        faults.append(Fault(path, int(rows[LINE].iloc[0]), f"{label}{more}", expected, _RENAME))
    return faults
