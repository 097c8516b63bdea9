"""Adopting detections that another tool made: CSV, parquet or COCO results become a run like any other.

Detections on images of ``train/`` are assumed to be out of fold; kit cannot check this.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.config import Config, load, override, save
from kit.core.errors import KitError, reason
from kit.core.files import make_folder, sha256
from kit.core.json_files import write_json
from kit.core.progress import Track, silent
from kit.data.competition import TestData, TrainingData, has_test, load_test, load_training, patients
from kit.data.splits import cross_fits
from kit.runs.detections import write_detections
from kit.runs.folder import Run, Split, mark_finished, read_split, workspace_config
from kit.runs.knobs import require_same_knobs
from kit.runs.members import Adopted, read_adopted
from kit.schemas.coco import coco_cells
from kit.schemas.csv_text import LINE, Cells, Fault, TableError, read_cells
from kit.schemas.detections import DETECTION_COLUMNS
from kit.schemas.image_headers import ImageFacts
from kit.schemas.row_checks import AREA, IMAGE_CHECKS, INSIDE, PLAIN_VIEW, RowCheck, clip_to_image, failed_checks
from kit.schemas.tables import parse_numbers, raise_faults, with_image_facts

KEPT = "adopted"  # instead of best, ema or last
_NEEDED = ("image_id", *CORNERS, "score", "label")
_OPTIONAL = {"fold": "0", "view": "plain", "run": ""}
_DO = "correct these lines and adopt the file again"
log = logging.getLogger("kit")


@dataclasses.dataclass(frozen=True)
class Arrival:
    """What was adopted: rows on held-out and on test images, and the held-out images without any."""

    validation_rows: int
    test_rows: int
    images: int
    without: int
    already: bool


def adopt(
    run: Run, path: Path, held_out: Path | None = None, assignments: Sequence[str] = (), track: Track = silent
) -> Arrival:
    """Make a run of the detections in ``path``; the same file again changes nothing.

    Args:
        run: The new run.
        path: A CSV, parquet or COCO results file.
        held_out: A text file of the images of ``train/`` that were held out, one per line; by default all were. A
            held-out image without a row has no detections.
        assignments: Knobs, as ``KEY=VALUE``.
        track: Reports progress.

    Returns:
        What was adopted. Without a column ``fold`` every row has fold 0, without ``view`` the view "plain".

    Raises:
        TableError: All faults of the file.
        KitError: Another run has the name.
    """
    everywhere = workspace_config(run.workspace)
    config = override(dataclasses.replace(Config(), data=everywhere.data, competition=everywhere.competition),
                      assignments)  # fmt: skip
    data = load_training(run.workspace, config, track)
    test = load_test(run.workspace, config, track) if has_test(run.workspace) else None
    held = read_image_list(held_out, data.image_ids) if held_out else data.image_ids
    table = read_foreign(path, data, test, held)
    trained = table["image_id"].isin(data.image_ids)
    split = _split(data, held, table[trained], config)
    digest = sha256(path)
    arrival = Arrival(int(trained.sum()), int((~trained).sum()), len(held),
                      len(held) - table.loc[trained, "image_id"].nunique(), run.config.exists())  # fmt: skip
    if run.config.exists():
        _require_this(run, digest, split)
        stored = load(run.config)
        require_same_knobs(run, stored, override(stored, assignments), every_knob=True)
        return arrival
    make_folder(run.folder)
    table = table.assign(run=run.name)[list(DETECTION_COLUMNS)]
    write_detections(table[trained].reset_index(drop=True), run.detections(TrainingData.detections_name), digest)
    run.detections(TestData.detections_name).unlink(missing_ok=True)  # of an attempt that was killed
    if arrival.test_rows:
        write_detections(table[~trained].reset_index(drop=True), run.detections(TestData.detections_name), digest)
    folds = int(table.loc[~trained, "fold"].max()) + 1 if arrival.test_rows else len(split.folds)
    views = tuple(sorted(table["view"].unique())) or (_OPTIONAL["view"],)
    split.save(run.split)
    write_json(run.adopted, dataclasses.asdict(Adopted(path.name, digest, views, folds)))
    mark_finished(run, KEPT, (), (), {run.name: digest})
    save(config, run.config)
    return arrival


def read_foreign(path: Path, data: TrainingData, test: TestData | None, held: Sequence[str]) -> pd.DataFrame:
    """The file's rows with all columns of stored detections but ``run``; boxes less than a pixel over are clipped.

    Raises TableError with every fault: unknown images and labels, images that were not held out, corners,
    scores outside 0..1, an image of train in two folds, folds that are not counted from 0.
    """
    cells = _cells(path, data.labels)
    unknown = [name for name in cells.header if name not in (*_NEEDED, *_OPTIONAL)]
    missing = [name for name in _NEEDED if name not in cells.header]
    if unknown or missing:
        header = f"the columns {','.join(_NEEDED)} and, if wanted, {','.join(_OPTIONAL)}"
        raise TableError(path, [Fault(path, cells.header_line, ",".join(cells.header), header)], _DO)
    raw = cells.table.assign(**{name: value for name, value in _OPTIONAL.items() if name not in cells.table})
    table, faults = parse_numbers(cells, raw, ("image_id", "label", "view"), (*CORNERS, "score"), ("fold",))
    testing: Mapping[str, ImageFacts] = test.pixels.facts if test else {}
    table = with_image_facts(table, {**data.pixels.facts, **testing})
    faults += failed_checks(path, table, (*IMAGE_CHECKS, AREA, INSIDE, PLAIN_VIEW, *_rules(data, testing, held)))
    if not faults:
        faults += _fold_faults(path, table, table["image_id"].isin(data.image_ids))
    raise_faults(path, table, faults, _DO)
    return clip_to_image(table).drop(columns=["width_px", "height_px", "image_fault", LINE])


def read_image_list(path: Path, known: Sequence[str]) -> tuple[str, ...]:
    """The images of ``train/`` that a text file names, one per line, sorted. Raises TableError for any other."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(
            f"{path}, a text file with an image_id a line", str(error), "name another --held-out"
        ) from error
    named = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    faults = [
        Fault(path, number, name, "the file name of an image of train/")
        for number, name in named
        if name not in set(known)
    ]
    if faults or not named:
        raise TableError(
            path, faults or [Fault(path, None, "no lines", "an image_id a line")], "correct these lines"
        )
    return tuple(sorted({name for _, name in named}))


def _cells(path: Path, labels: Sequence[str]) -> Cells:
    readers = {".csv": lambda: read_cells(path, _DO), ".parquet": lambda: _parquet_cells(path),
               ".json": lambda: coco_cells(path, labels, _DO)}  # fmt: skip
    if path.suffix.lower() not in readers:
        raise KitError(
            f"a file that ends in {', '.join(readers)}", path.name, "name another with --detections FILE"
        )
    return readers[path.suffix.lower()]()


def _parquet_cells(path: Path) -> Cells:
    try:
        table = pd.read_parquet(path)
    # pyarrow and pandas raise ArrowInvalid, OSError, TypeError and others for a broken file.
    except Exception as error:
        raise TableError(path, [Fault(path, None, reason(error), "a parquet file")], _DO) from error
    texts = {str(name): [str(value) for value in table[name].astype(object)] for name in table.columns}
    rows = pd.DataFrame(texts, index=pd.RangeIndex(len(table)), dtype=object)
    return Cells(path, tuple(texts), 0, rows.assign(**{LINE: np.arange(1, len(table) + 1)}), ())


def _rules(data: TrainingData, testing: Mapping[str, ImageFacts], held: Sequence[str]) -> tuple[RowCheck, ...]:
    training = set(data.image_ids)
    both, left_out = training & set(testing), training - set(held)
    return (
        RowCheck(
            "an image that was held out (--held-out)", ("image_id",), lambda rows: ~rows["image_id"].isin(left_out)
        ),
        RowCheck(
            "an image of train/ or of test/, not of both", ("image_id",), lambda rows: ~rows["image_id"].isin(both)
        ),
        RowCheck(
            f"one of the labels {', '.join(data.labels)}", ("label",), lambda rows: rows["label"].isin(data.labels)
        ),
        RowCheck("a score between 0 and 1", ("score",), lambda rows: rows["score"].between(0, 1)),
        RowCheck("a fold, counted from 0", ("fold",), lambda rows: rows["fold"] >= 0),
    )


def _fold_faults(path: Path, table: pd.DataFrame, trained: pd.Series) -> list[Fault]:
    first = table[trained].groupby("image_id")["fold"].transform("first")
    moved = table.loc[trained, "fold"] != first
    faults = [
        Fault(path, line, f"{name}, fold {fold}", "the fold that its earlier rows name: one fold held it out")
        for line, name, fold in table[trained][moved][[LINE, "image_id", "fold"]].itertuples(index=False, name=None)
    ]
    if len(table) and not trained.any():
        faults.append(
            Fault(path, None, "no row of an image of train/", "out-of-fold detections, to score and calibrate")
        )
    train_views, test_views = (sorted(set(rows["view"])) for rows in (table[trained], table[~trained]))
    if train_views and test_views and train_views != test_views:
        views = f"views {', '.join(train_views)} of train images, {', '.join(test_views)} of test images"
        faults.append(Fault(path, None, views, "the same views of both: what is scored is what is submitted"))
    for words, rows in (("train", table[trained]), ("test", table[~trained])):
        folds = sorted(rows["fold"].unique().tolist())
        if folds != list(range(len(folds))):
            listed = ", ".join(map(str, folds))
            faults.append(
                Fault(path, None, f"folds {listed}", f"the folds of {words} images counted from 0, none left out")
            )
    return faults


def _split(data: TrainingData, held: Sequence[str], rows: pd.DataFrame, config: Config) -> Split:
    """The held-out images by fold; an image without a row is in its patient's fold, or in fold 0.

    If one fold holds all images, new folds by patient are made: priors and calibrations are cross-fitted on them.
    """
    fold_of = dict(zip(rows["image_id"], rows["fold"], strict=True))
    folds: list[list[str]] = [[] for _ in range(1 + max(fold_of.values(), default=0))]
    people = patients(data.image_ids, config.data.patient_pattern)
    of_patient = {people[image_id]: fold for image_id, fold in fold_of.items()}
    for image_id in held:
        folds[fold_of.get(image_id, of_patient.get(people[image_id], 0))].append(image_id)
    parts = tuple(map(tuple, folds))
    if parts == (data.image_ids,):
        parts = cross_fits(data, config.data, config.training.seed)
    return Split(data.labels, data.image_ids, parts, data.table_sha256)


def _require_this(run: Run, digest: str, split: Split) -> None:
    same = run.adopted.exists() and read_adopted(run).sha256 == digest and read_split(run) == split
    if not same:
        found = (
            "another file or other held-out images" if run.adopted.exists() else f"a run {run.name!r} that did not"
        )
        raise KitError(f"a new name, or the file that run {run.name!r} adopted", found, "choose another --run NAME")
