"""The page of a submission before it is sent: each test image's box and runners-up, the most doubtful first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.choosing.one_box import SCORED_COLUMNS, Decision, answers_to_detections, decide
from kit.config import load
from kit.core.errors import KitError
from kit.core.progress import Track, silent
from kit.data.competition import TestData, load_test, load_training, patients
from kit.data.groups import read_groups
from kit.evaluation.joined_folds import candidates_by_report
from kit.evaluation.report import current_report
from kit.evaluation.run_view import OF_RUNS, OF_VIEWS, disagreement, prior_images
from kit.reports.view_data import SUBMISSION, ScoredPath, Side, View, ViewedImage
from kit.reports.view_page import write_view
from kit.runs.detections import read_detections
from kit.runs.folder import Run, names, read_finished, read_split
from kit.runs.image_scores import scores_of_test
from kit.runs.locks import using_results
from kit.runs.members import members
from kit.runs.own_rows import asked_rows, require_own_rows
from kit.schemas.detections import with_categories
from kit.schemas.file_names import TABLE
from kit.schemas.image_headers import image_sizes
from kit.schemas.tables import annotation_labels, read_submission
from kit.submission.folders import BY_HAND, Submission
from kit.submission.preview import knobs_of, local_score_text, require_unchanged, trained_on_lines

DOUBT, CONFIDENCE = "doubt", "confidence of the answer"
OF_FOLDS = "disagreement of the folds"


@dataclass(frozen=True)
class _RunnersUp:
    """The candidates (with confidence and value) that the answers were chosen from, and the prior's images.

    ``order`` names what the candidates disagree about: the views of one fold, or the folds. ``missing`` says why
    there are none.
    """

    candidates: pd.DataFrame
    prior: frozenset[str]
    order: str = ""
    missing: str = ""


def view_submission(
    workspace: Path, submission: Submission, track: Track = silent, expected_ids: int | None = None
) -> tuple[Path, ...]:
    """Write ``submissions/N-.../view.html``: its CSV's boxes on the test images, and the candidates; its paths.

    ``expected_ids`` is the number of rows, by default that of its competition. Without its run, or if that answers
    otherwise by now, the page has no candidates, and says why. Raises KitError if the CSV was changed, and
    TableError if it is not valid.
    """
    require_unchanged(submission)
    config = knobs_of(workspace, submission)
    if expected_ids is not None:
        config = config.replace({"competition.expected_ids": expected_ids})
    data = load_test(workspace, config, track)
    labels = annotation_labels(workspace / "data" / TABLE, config.data.orientation)
    table = read_submission(submission.csv, data.mapping, labels, data.pixels.facts)
    answers = answers_to_detections(table)
    runners_up = _runners_up(workspace, submission, data, answers, track)
    rivals = runners_up.candidates.assign(score=runners_up.candidates["confidence"])[SCORED_COLUMNS]
    rivals = rivals.astype({"image_id": object, "label": object})
    side = Side(
        f"{submission.number:04d}", ScoredPath(answers, data.image_ids), ScoredPath(rivals, data.image_ids),
        runners_up.prior,
    )  # fmt: skip
    orders = {DOUBT: doubt(answers, runners_up.candidates, runners_up.prior), CONFIDENCE: _lowest(answers)}
    if len(runners_up.candidates):
        orders[runners_up.order] = disagreement(runners_up.candidates)
    patient_of = patients(data.image_ids, config.data.patient_pattern, read_groups(workspace / "data"))
    view = View(
        SUBMISSION,
        f"Submission {submission.number:04d}: the test images",
        _lead(submission, table, runners_up),
        sorted({*answers["label"], *rivals["label"]}),
        {name: ViewedImage(data.pixels, name, patient_of[name]) for name in data.image_ids},
        answers.iloc[:0],
        (side,),
        orders,
    )
    return write_view(submission.folder / "view.html", view, track)


def doubt(answers: pd.DataFrame, candidates: pd.DataFrame, prior: frozenset[str]) -> dict[str, float]:
    """By image, how near the best candidate that is not sent comes to the worst that is: the ratio of their values.

    1 for an image that the location prior answers, 0 without a runner-up. Without any candidates at all: 1 less the
    lowest confidence of the image's answers.

    Args:
        answers: The boxes that are sent: image_id, score. An image with several has its k best candidates.
        candidates: image_id, value; may have zero rows.
        prior: The images that the prior answers.
    """
    if candidates.empty:
        return {name: 1 - value for name, value in _lowest(answers).items()}
    values = (
        candidates.astype({"image_id": object})
        .groupby("image_id")["value"]
        .apply(lambda of_image: np.sort(of_image.to_numpy(np.float64))[::-1])
    )
    doubts = {}
    for name, sent in answers.groupby("image_id").size().items():
        ranked = values.get(name, np.zeros(0))
        has_rival = len(ranked) > sent and ranked[sent - 1] > 0
        doubts[str(name)] = 1.0 if name in prior else float(ranked[sent] / ranked[sent - 1]) if has_rival else 0.0
    return doubts


def _lowest(answers: pd.DataFrame) -> dict[str, float]:
    return {str(name): float(value) for name, value in answers.groupby("image_id")["score"].min().items()}


def _runners_up(
    workspace: Path, submission: Submission, data: TestData, answers: pd.DataFrame, track: Track
) -> _RunnersUp:
    """The candidates of the submission's run, if they are still those that the answers were chosen from."""
    name = submission.origin.run
    if name == BY_HAND or name not in names(workspace):
        return _without("it was made by hand" if name == BY_HAND else f"its run {name} is gone")
    run = Run(workspace, name)
    try:
        with using_results(run):
            if read_finished(run).weights != submission.origin.weights:
                return _without(f"run {name} was trained anew since")
            if not run.detections(data.detections_name).exists():
                return _without(f"run {name} has no stored detections of the test images")
            candidates, decision, folds = _judged(run, data, track)
    except KitError as error:
        return _without(f"run {name} cannot be read: {error.found}")
    columns = ["image_id", "label", *CORNERS]
    if not _same_rows(answers_to_detections(decision.table)[columns], answers[columns]):
        return _without(f"run {name} answers otherwise by now: its knobs or its rule have changed")
    order = OF_RUNS if run.ensemble.exists() else OF_FOLDS if folds > 1 else OF_VIEWS
    return _RunnersUp(candidates, frozenset(prior_images(decision)), order)


def _without(reason: str) -> _RunnersUp:
    numbers = ("score", "agreement", "confidence", "value")
    nothing = pd.DataFrame(columns=[*SCORED_COLUMNS, *numbers[1:]]).astype(dict.fromkeys(numbers, float))
    return _RunnersUp(nothing, frozenset(), missing=reason)


def _judged(run: Run, data: TestData, track: Track) -> tuple[pd.DataFrame, Decision, int]:
    """A run's candidates on the test images, the answers that `predict` chooses from them, its number of folds."""
    config, split, of = load(run.config), read_split(run), members(run)
    stored = read_detections(run.detections(data.detections_name))
    own = require_own_rows(stored, run, data.detections_name, split, tuple(data.pixels.facts))
    rows = asked_rows(own, data)
    report = current_report(run, track, load_training(run.workspace, config, track))
    sizes = image_sizes(data.pixels.facts)
    candidates = candidates_by_report(report, with_categories(rows), of, sizes, scores_of_test(run))
    decision = decide(candidates, data.mapping, report.prior, sizes, config.decision.fallback_confidence)
    return candidates, decision, max(member.folds for member in of)


def _same_rows(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    tables = [
        table.astype({"image_id": object, "label": object}).sort_values(list(table.columns)).reset_index(drop=True)
        for table in (first, second)
    ]
    return tables[0].equals(tables[1])


def _lead(submission: Submission, table: pd.DataFrame, runners_up: _RunnersUp) -> list[str]:
    origin = submission.origin
    lines = [
        f"“{origin.message}”; run: {origin.run}; local score: {local_score_text(submission)}.",
        *(f"Trained on: {line}." for line in trained_on_lines(submission)),
        f"{len(table)} IDs on {table['image_id'].nunique()} test images; thick: the box that is sent.",
    ]
    if runners_up.missing:
        lines.append(f"No runners-up are shown: {runners_up.missing}.")
    elif runners_up.prior:
        lines.append(f"The location prior answers for {len(runners_up.prior)} images without a candidate.")
    return lines
