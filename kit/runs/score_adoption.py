"""Adopting scores of whole images that a classifier made elsewhere: a run that has no detections, only evidence.

Scores of images of ``train/`` are taken as out of fold; kit cannot check this, and no score shows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kit.config import override, save
from kit.core.files import require_existing
from kit.core.json_files import write_json
from kit.core.progress import Track, silent
from kit.core.text_files import text_sha256
from kit.data.competition import has_test, load_test, load_training
from kit.runs.adoption import require_adopted, split_of, usual_knobs
from kit.runs.detections import write_detections
from kit.runs.folder import IMAGE_SCORES, Run, mark_finished, read_finished
from kit.runs.image_list import read_image_list
from kit.runs.image_scores import STORED
from kit.runs.locks import starting_or_finishing, using_results
from kit.runs.members import Adopted, read_adopted
from kit.runs.score_rows import read_score_rows
from kit.schemas.file_names import TRAIN

_OTHER_NAME = "choose another --run NAME"
_DIFFERING = "another file, or other held-out images"


@dataclasses.dataclass(frozen=True)
class ScoreArrival:
    """What was adopted: images of both halves with a score, those held out without one, labels, and the scale."""

    scores: int
    images: int  # of train/, with a score
    without: int  # held out, without a score
    test_images: int
    test_without: int
    labels: tuple[str, ...]
    labels_without: tuple[str, ...]  # of the competition, which the classifier does not know
    scale: str  # probabilities or logits
    already: bool


def adopt_image_scores(
    run: Run, path: Path, held_out: Path | None = None, assignments: Sequence[str] = (), track: Track = silent
) -> ScoreArrival:
    """Make a run of the image scores in ``path``; the same file again only restores a table that was lost.

    Args:
        run: The new run.
        path: A CSV or parquet file: image_id, label, score and, if wanted, fold and part.
        held_out: A text file of the images of ``train/`` that were held out, one per line; by default all were.
        assignments: Knobs, as ``KEY=VALUE``.
        track: Reports progress.

    Raises:
        TableError: All faults of the file.
        KitError: Another run has the name, or there is no such file.
    """
    for named, flag in ((path, "--image-scores"), (held_out, "--held-out")):
        if named is not None:
            require_existing(named, flag)
    config = override(usual_knobs(run), assignments)
    data = load_training(run.workspace, config, track)
    test = load_test(run.workspace, config, track) if has_test(run.workspace) else None
    held = read_image_list(held_out, data.image_ids, run.workspace / "data" / TRAIN) if held_out else data.image_ids
    rows = read_score_rows(path, data, test, held)
    table = rows.table
    of_train = table[table["part"] == TRAIN]
    split, digest = split_of(data, held, of_train, config), text_sha256(path)
    scored, tested = (set(part["image_id"]) for part in (of_train, table.drop(index=of_train.index)))
    labels = tuple(sorted(set(table["label"])))
    with starting_or_finishing(run), using_results(run):
        arrival = ScoreArrival(
            len(table), len(scored), len(held) - len(scored), len(tested),
            len(set(test.image_ids) - tested) if test else 0, labels, tuple(sorted(set(data.labels) - set(labels))),
            rows.scale, run.config.exists(),
        )  # fmt: skip
        if arrival.already:
            if run.finished.exists():
                read_finished(run)  # raises for a copy of another run
            require_adopted(run, (digest,), split, assignments, _DIFFERING, _way_on(run))
            if not run.detections(STORED).exists():  # it was lost
                write_detections(table, run.detections(STORED), read_adopted(run).sha256)
            return arrival
        write_detections(table, run.detections(STORED), digest)
        folds = 1 + int(table.loc[table["part"] != TRAIN, "fold"].max()) if tested else len(split.folds)
        split.save(run.split)
        write_json(run.adopted, dataclasses.asdict(Adopted(path.name, digest, (), folds, rows.scale)))
        mark_finished(run, IMAGE_SCORES, (), (), {run.name: digest})
        save(config, run.config)
        return arrival


def _way_on(run: Run) -> str:
    """What to do if a run of another kind, or of other scores, has the name."""
    if not run.finished.exists() or run.ensemble.exists() or read_finished(run).kept == IMAGE_SCORES:
        return _OTHER_NAME  # no member of an ensemble
    return (
        f"{_OTHER_NAME}; then `invoke ensemble --run BOTH --of {run.name} --with NAME` uses the scores beside the "
        "detections that this run has"
    )
