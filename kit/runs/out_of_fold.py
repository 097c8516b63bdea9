"""The out-of-fold store: a run's raw detections, made fold by fold if they are missing, and merged to one table.

A training image is detected by the one fold that held it out, a test image by every fold. Stored detections are
reused as long as weights, knobs and pixels are the same, in a copied workspace too; then no torch is loaded.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kit.config import Config, load
from kit.core.errors import KitError, reason
from kit.core.files import sha256
from kit.core.progress import Track, silent
from kit.data.competition import TestData, TrainingData, load_test
from kit.detectors.source import Source
from kit.runs.detections import detections_key, merge_detections, read_detections, read_made_from
from kit.runs.ensemble import member_run, refresh
from kit.runs.folder import Run, Split, read_finished, read_split
from kit.runs.locks import using_results
from kit.runs.members import members
from kit.runs.own_rows import asked_rows, remake_command, require_own_rows

_RESTORE = "restore the file from a copy, or train under another --run name"
_DIGITS = 12


def stored(
    run: Run, config: Config, split: Split, data: TrainingData | TestData, track: Track = silent
) -> pd.DataFrame:
    """All folds' detections of the training or the test images, made if they are missing.

    Args:
        run: The run.
        config: Every knob of the run.
        split: The images that each fold held out.
        data: The training or the test images.
        track: Reports progress.

    Raises:
        KitError: Detections are missing and a fold's checkpoint is lost.
    """
    folds = run.in_folds(len(split.folds))
    tables = [stored_fold(fold, config, split, data, track) for fold in folds]
    return tables[0] if len(folds) == 1 else merge_detections(run.detections(data.detections_name), tables)


def stored_fold(
    run: Run, config: Config, split: Split, data: TrainingData | TestData, track: Track = silent
) -> pd.DataFrame:
    """The detections of one fold (``run`` names it), made if they are missing; arguments as in ``stored``."""
    fold = run.fold or 0
    weights_sha256 = _weights_sha256(run, run.checkpoint(config.training.keep))
    source = Source(run.name, fold, weights_sha256, split.labels, config.model.image_size_px, config.inference)
    image_ids = split.folds[fold] if isinstance(data, TrainingData) else data.image_ids
    path = run.detections(data.detections_name)
    found = read_made_from(path, detections_key(source, data.pixels, image_ids))
    if found is None:
        from kit.runs.detecting import detect_fold  # it loads torch

        found = detect_fold(run, config, split, source, path, data.pixels, image_ids, track)
    return found


def _weights_sha256(run: Run, path: Path) -> str:
    """The SHA-256 of the checkpoint at ``path``, or the recorded one if a finished run's file is gone.

    Raises KitError if a finished run's checkpoint was replaced: the scores would no longer describe it.
    """
    recorded = _recorded_sha256(run) if run.finished.exists() else None
    if recorded is not None and not path.exists():
        return recorded
    try:
        actual = sha256(path)
    except OSError as error:
        raise KitError(f"the checkpoint {path}", reason(error), _RESTORE) from error
    if recorded not in (None, actual):
        raise KitError(
            f"{path} as it was when the run was finished ({recorded[:_DIGITS]}...)",
            f"{actual[:_DIGITS]}...",
            _RESTORE,
        )
    return actual


def _recorded_sha256(run: Run) -> str:
    # By index, not by title: a run's folder may have been renamed.
    hashes, fold = list(read_finished(run).weights.values()), run.fold or 0
    return hashes[fold] if fold < len(hashes) else "no hash"


def _read_by(member: Run, ours: Config, data: TestData) -> TestData:
    """The test images as a member of an ensemble reads them: it may have another data.invert."""
    theirs = load(member.config)
    return data if theirs.data.invert == ours.data.invert else load_test(member.workspace, theirs)


def detections(run: Run, data: TrainingData | TestData, track: Track = silent) -> pd.DataFrame:
    """A run's detections of the held-out or the test images, made if they are missing.

    An adopted file may have detections on images of ``test/`` that no ID asks for: they are left out.
    Raises KitError if they cannot be made: a checkpoint or a member of an ensemble is gone, or the adopted file
    has none; and if they are not the run's own, see `require_own_rows`.
    """
    table = _all_detections(run, data, track)
    return table if isinstance(data, TrainingData) else asked_rows(table, data)


def _all_detections(run: Run, data: TrainingData | TestData, track: Track) -> pd.DataFrame:
    """``detections``, those on images of ``test/`` that no ID asks for among them."""
    split = read_split(run)
    possible = split.validation if isinstance(data, TrainingData) else tuple(data.pixels.facts)
    return require_own_rows(_stored_or_made(run, split, data, track), run, data.detections_name, split, possible)


def _stored_or_made(run: Run, split: Split, data: TrainingData | TestData, track: Track) -> pd.DataFrame:
    path = run.detections(data.detections_name)
    if run.ensemble.exists():
        refresh(run)
        if isinstance(data, TrainingData):
            return read_detections(path)
        tables = []
        for member in members(run):
            of_member = member_run(run, member.run)
            with using_results(of_member):
                tables.append(_all_detections(of_member, _read_by(of_member, load(run.config), data), track))
        return merge_detections(path, tables)
    if not run.adopted.exists():
        return stored(run, load(run.config), split, data, track)
    if not path.exists():
        part = data.detections_name
        raise KitError(
            f"detections of the {part} images in the file that run {run.name!r} adopted", f"no {path}",
            f"if the file has them, {remake_command(run, part)}; else adopt one that has, under another --run NAME",
        )  # fmt: skip
    return read_detections(path)
