"""The last steps of the scored path for test images: from detections to one box per ID, and a submission."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from kit.choosing import one_box
from kit.config import load
from kit.core.progress import Track, silent
from kit.core.source_tree import git_state
from kit.data.competition import load_test, load_training
from kit.evaluation.joined_folds import candidates_by_report
from kit.evaluation.report import current_report
from kit.reports.seen_images import require_unseen
from kit.runs.ensemble import refresh
from kit.runs.folder import Run, read_split
from kit.runs.guards import require_detector, require_same_data
from kit.runs.image_scores import scores_of_test
from kit.runs.knobs import adjust
from kit.runs.locks import using_results
from kit.runs.members import members, stages_of
from kit.runs.out_of_fold import detections
from kit.schemas.detections import with_categories
from kit.schemas.image_headers import image_sizes
from kit.schemas.tables import read_submission
from kit.submission.folders import Origin, Submission, write_submission
from kit.submission.messages import require_message

log = logging.getLogger("kit")


def predict(
    run: Run,
    message: str | None = None,
    track: Track = silent,
    assignments: Sequence[str] = (),
    allow: Sequence[str] = (),
) -> Submission:
    """Detect on the test images, choose one box per ID, check and file the next numbered submission.

    ``assignments`` (KEY=VALUE) change knobs that act on stored detections first. Raises KitError for other knobs,
    a message that could not be uploaded, and for test or held-out images that an earlier stage of the weights saw
    unless ``allow`` names it.
    """
    require_detector(run)
    if message:
        require_message(message)
    with using_results(run):
        adjust(run, assignments)
        refresh(run)
        require_unseen(run, allow, track)
        return _predicted(run, message, track)


def _predicted(run: Run, message: str | None, track: Track) -> Submission:
    finished = require_detector(run)
    config, split = load(run.config), read_split(run)
    training = load_training(run.workspace, config, track)
    require_same_data(run, split, training)
    data = load_test(run.workspace, config, track)  # first: a fault in it leaves the report as it is
    report = current_report(run, track, training)
    sizes = image_sizes(data.pixels.facts)
    scores = scores_of_test(run)
    _warn_of_missing(scores, set(data.mapping["image_id"]))
    rows = with_categories(detections(run, data, track))
    candidates = candidates_by_report(report, rows, members(run), sizes, scores)
    answers = one_box.decide(candidates, data.mapping, report.prior, sizes, config.decision.fallback_confidence)
    if answers.fallback_ids:
        log.info("%d of %d IDs got the location prior's box", len(answers.fallback_ids), len(answers.table))
    score, expected = report.one_box, report.expected_on_leaderboard
    origin = Origin(
        message=message or f"run {run.name}",
        run=run.name,
        local_score=None if math.isnan(score.map50) else score.map50,
        weights=finished.weights,
        config=config.as_dict(),
        git=git_state(),
        fallbacks=len(answers.fallback_ids),
        local_interval=None if math.isnan(score.low) else (score.low, score.high),
        expected=(
            {} if math.isnan(expected.mean) else {"mean": expected.mean, "low": expected.low, "high": expected.high}
        ),
        stages=stages_of(run),
    )
    return write_submission(
        run.workspace / "submissions",
        one_box.submission_text(answers.table),
        origin,
        check=lambda path: read_submission(path, data.mapping, split.labels, data.pixels.facts),
    )


def _warn_of_missing(scores: Mapping[str, pd.DataFrame], tested: set[str]) -> None:
    """Log how many test images lack scores: the report was made on images that mostly have them."""
    for name, table in scores.items():
        lacking = len(tested - set(table["image_id"]))
        if lacking:
            log.warning(
                "%d of %d test images have no image scores of %s: they are judged without, so the report's score "
                "may not hold for them", lacking, len(tested), name,
            )  # fmt: skip
