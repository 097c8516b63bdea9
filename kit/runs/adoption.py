"""Adopting detections that another tool made: CSV, parquet or COCO results become a run like any other.

Detections on images of ``train/`` are assumed to be out of fold; kit cannot check this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pandas as pd

from kit.config import Config, load, override, save
from kit.core.errors import KitError
from kit.core.files import require_existing, sha256
from kit.core.json_files import fingerprint, write_json
from kit.core.progress import Track, silent
from kit.core.text_files import has_sha256, text_sha256
from kit.data.competition import TestData, TrainingData, has_test, load_test, load_training, patients
from kit.data.splits import cross_fits
from kit.runs.detections import write_detections
from kit.runs.folder import Run, Split, mark_finished, read_finished, read_split, workspace_config
from kit.runs.foreign_rows import read_rows
from kit.runs.image_list import read_image_list
from kit.runs.knobs import require_same_knobs
from kit.runs.locks import starting_or_finishing, using_results
from kit.runs.members import Adopted, read_adopted
from kit.schemas.detections import DETECTION_COLUMNS
from kit.schemas.file_names import TABLE, TRAIN
from kit.schemas.foreign.content import OPTIONAL

KEPT = "adopted"  # instead of best, ema or last
_DIFFERING = "another file, other held-out images, another --images or --clip"


@dataclasses.dataclass(frozen=True)
class Arrival:
    """What was adopted: rows on held-out and on test images, and the held-out images without any."""

    validation_rows: int
    test_rows: int
    images: int
    without: int
    already: bool
    label_map: str  # the label that each number was taken for, in words; empty if the file names its labels


def adopt(
    run: Run,
    path: Path,
    held_out: Path | None = None,
    assignments: Sequence[str] = (),
    track: Track = silent,
    images_file: Path | None = None,
    clip: bool = False,
) -> Arrival:
    """Make a run of the detections in ``path``; the same file again only restores tables that were lost.

    Args:
        run: The new run.
        path: A file or folder of detections, in one of the forms of docs/ensembles.md.
        held_out: A text file of the images of ``train/`` that were held out, one per line; by default all were. A
            held-out image without a row has no detections.
        assignments: Knobs, as ``KEY=VALUE``.
        track: Reports progress.
        images_file: A COCO data set whose ids of images and categories the detections use.
        clip: Cut off any box at the border whose centre is inside its image; without it only boxes that are less
            than a pixel over are.

    Returns:
        What was adopted. Without a column ``fold`` every row has fold 0, without ``view`` the view "plain".

    Raises:
        TableError: All faults of the file.
        KitError: Another run has the name, there is no such file, or one fold would hold all images with a box.
    """
    for named, flag in ((path, "--detections"), (held_out, "--held-out"), (images_file, "--images")):
        if named is not None:
            require_existing(named, flag)
    config = override(usual_knobs(run), assignments)
    data = load_training(run.workspace, config, track)
    test = load_test(run.workspace, config, track) if has_test(run.workspace) else None
    held = read_image_list(held_out, data.image_ids, run.workspace / "data" / TRAIN) if held_out else data.image_ids
    rows = read_rows(path, data, test, held, images_file, clip)
    table, trained = rows.table, rows.held_out
    split = split_of(data, held, table[trained], config)
    if _holds_all_boxes(split.folds, data):
        raise KitError(
            "boxes of several patients: what answers an image's detections is learned on those of others",
            "all images with a box in one fold: they show one patient, copies of one picture, or too few patients",
            "correct data.patient_pattern (its first group is the patient) or data/groups.csv, or add images",
        )  # fmt: skip
    digest = _digest(path, images_file, clip, text_sha256)
    table = table.assign(run=run.name)[list(DETECTION_COLUMNS)]
    parts = {TrainingData.detections_name: table[trained], TestData.detections_name: table[~trained]}
    with starting_or_finishing(run), using_results(run):
        arrival = Arrival(int(trained.sum()), int((~trained).sum()), len(held),
                          len(held) - table.loc[trained, "image_id"].nunique(), run.config.exists(),
                          rows.label_map)  # fmt: skip
        if arrival.already:
            earlier = _digest(path, images_file, clip, sha256)  # earlier versions hashed the bytes
            if run.finished.exists():
                read_finished(run)  # raises for a copy of another run
            require_adopted(run, (digest, earlier), split, assignments, _DIFFERING)
        for part, of_part in parts.items():
            goal = run.detections(part)
            if not arrival.already:
                goal.unlink(missing_ok=True)  # of an attempt that was killed
            if len(of_part) and not goal.exists():  # of a run that was adopted before: it was lost
                key = read_adopted(run).sha256 if arrival.already else digest
                write_detections(of_part.reset_index(drop=True), goal, key)
        if arrival.already:
            return arrival
        folds = int(table.loc[~trained, "fold"].max()) + 1 if arrival.test_rows else len(split.folds)
        views = tuple(sorted(table["view"].unique())) or (OPTIONAL["view"],)
        split.save(run.split)
        write_json(run.adopted, dataclasses.asdict(Adopted(path.name, digest, views, folds)))
        mark_finished(run, KEPT, (), (), {run.name: digest})
        save(config, run.config)
        return arrival


def usual_knobs(run: Run) -> Config:
    """The knobs of a run that was adopted before; of a new one, the data are read as by the run that ended last."""
    if run.adopted.exists() and run.config.exists():
        return load(run.config)
    everywhere = workspace_config(run.workspace)
    return dataclasses.replace(Config(), data=everywhere.data, competition=everywhere.competition)


def split_of(data: TrainingData, held: Sequence[str], rows: pd.DataFrame, config: Config) -> Split:
    """The held-out images by fold; an image without a row is in its patient's fold, or in fold 0.

    If one fold holds all images with a box, new folds by patient are made: priors and calibrations are cross-fitted
    on them.
    """
    fold_of = dict(zip(rows["image_id"], rows["fold"], strict=True))
    folds: list[list[str]] = [[] for _ in range(1 + max(fold_of.values(), default=0))]
    people = patients(data.image_ids, config.data.patient_pattern, data.groups)
    of_patient = {people[image_id]: fold for image_id, fold in fold_of.items()}
    for image_id in held:
        folds[fold_of.get(image_id, of_patient.get(people[image_id], 0))].append(image_id)
    parts = tuple(map(tuple, folds))
    if _holds_all_boxes(parts, data):
        folds_of_all = cross_fits(data, config.data, config.training.seed)
        kept = set(held)
        parts = tuple(part for fold in folds_of_all if (part := tuple(name for name in fold if name in kept)))
    return Split(data.labels, data.image_ids, parts, data.table_sha256)


def _holds_all_boxes(folds: Sequence[Sequence[str]], data: TrainingData) -> bool:
    """Whether one of the folds leaves no box to learn from."""
    boxed = set(data.annotations["image_id"])
    return any(boxed <= set(fold) for fold in folds)


def _digest(path: Path, images_file: Path | None, clip: bool, hashed: Callable[[Path], str]) -> str:
    """The hash of the file; of all that the detections depend on, if there is more than the file."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    if files == [path] and not images_file and not clip:
        return hashed(path)
    named = [(str(file.relative_to(path)), hashed(file)) for file in files]
    return fingerprint([named, hashed(images_file) if images_file else None, clip])


def require_adopted(
    run: Run,
    digests: Collection[str],
    split: Split,
    assignments: Sequence[str],
    differing: str,
    do: str = "choose another --run NAME",
) -> None:
    """Raise KitError, with the advice ``do``, unless a run was adopted from a file of these hashes, as it is now.

    ``differing`` is what it was adopted with if it was not with these, in words; ``assignments`` are the knobs.
    """
    expected = f"a new name, or the file that run {run.name!r} adopted"
    if not run.adopted.exists():
        raise KitError(expected, f"a run {run.name!r} that did not", do)
    stored = load(run.config)
    require_same_knobs(run, stored, override(stored, assignments), every_knob=True)
    if read_adopted(run).sha256 not in digests or not _is_stored(run, split):
        raise KitError(expected, differing, do)


def _is_stored(run: Run, split: Split) -> bool:
    """Whether a run was adopted with these held-out images, its train.csv saved by another editor or not."""
    stored = read_split(run)
    is_same_table = stored.table_sha256 == split.table_sha256 or has_sha256(
        run.workspace / "data" / TABLE, stored.table_sha256
    )
    # Not the folds: those of the file are in its hash, and others were made when it was adopted, and stay.
    ours, theirs = ((one.labels, one.images, set(one.validation)) for one in (stored, split))
    return is_same_table and ours == theirs
