"""The stored scores of whole images: what a classifier made elsewhere holds of them, as probabilities.

They are evidence for the detections of an ensemble, which reads them where its classifiers keep them.
"""

from __future__ import annotations

import shlex

import pandas as pd

from kit.core.errors import KitError, first_few
from kit.runs.detections import KEY, read_parquet
from kit.runs.folder import Run, read_split
from kit.runs.members import read_adopted, read_ensemble
from kit.schemas.file_names import TEST, TRAIN

STORED = "image_scores"  # beside the detections of a half
COLUMNS = ("part", "fold", "image_id", "label", "score")


def read_image_scores(run: Run) -> pd.DataFrame:
    """A run's image scores: part (train, test), fold, image_id, label, score (0..1); one row for each of them.

    Raises KitError if they are missing, broken, or not those that were adopted.
    """
    path, adopted = run.detections(STORED), read_adopted(run)
    command = f"invoke adopt --run {run.name} --image-scores {shlex.quote(adopted.file)}"
    do = f"`{command}`, with the flags that it was adopted with, writes them anew"
    if not path.exists():
        raise KitError(f"the image scores {path}", "no such file", do)
    do = f"restore the file, or delete it: {do}"
    table = read_parquet(path, "image scores", do)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        found = f"no column {', '.join(missing)}"
    elif table["fold"].dtype.kind not in "iu" or table["score"].dtype.kind != "f":
        found = "no numbers in fold or score"
    else:
        found = _fault(table, read_split(run).labels, adopted.folds)
    if not found and table.attrs.get(KEY) != adopted.sha256:
        found = f"those of another file than {adopted.file}, which was adopted"
    if found:
        raise KitError(f"{path} to hold the image scores of run {run.name!r}", found, do)
    return table


def held_out_scores(run: Run) -> dict[str, pd.DataFrame]:
    """By classifier of an ensemble its scores of the images of ``train/``; none of any other run."""
    return {name: table[table["part"] == TRAIN] for name, table in _scores(run).items()}


def scores_of_test(run: Run) -> dict[str, pd.DataFrame]:
    """By classifier of an ensemble its scores of the test images, of all its folds; none of any other run."""
    return {name: table[table["part"] == TEST] for name, table in _scores(run).items()}


def scores_by_fold(scores: pd.DataFrame, index: int) -> pd.DataFrame:
    """The scores of a fold index; a classifier with fewer folds is reused cyclically, as a detector is."""
    folds = 1 + int(scores["fold"].max()) if len(scores) else 1
    return scores[scores["fold"] == index % folds]


def _scores(run: Run) -> dict[str, pd.DataFrame]:
    classifiers = read_ensemble(run).classifiers if run.ensemble.exists() else {}
    return {name: read_image_scores(Run(run.workspace, name)) for name in classifiers}


def _fault(table: pd.DataFrame, labels: tuple[str, ...], folds: int) -> str:
    """What is wrong with a table of the right columns, in words; empty if nothing is."""
    others = sorted({str(label) for label in table["label"].unique()} - set(labels))
    if others:
        return f"rows of another label ({first_few(others)})"
    if not table["part"].isin([TRAIN, TEST]).all():
        return "rows that are neither of train nor of test"
    if not table["score"].between(0, 1).all():
        return "scores outside 0..1"
    if not table.loc[table["part"] == TEST, "fold"].between(0, folds - 1).all():
        return f"folds that are not 0 to {folds - 1}"
    return "rows that repeat others" if table.duplicated(["part", "fold", "image_id", "label"]).any() else ""
