"""All submissions in a table, and a plot of their expected scores against their public scores.

Failed submissions are listed too, with their reason. Only drawing loads matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kit.core.files import make_folder
from kit.core.locks import locked
from kit.core.number_text import decimal
from kit.submission.folders import LOCK_NAME, MANIFEST_NAME, Submission, read_submissions

PLOT_NAME = "scores.png"
COLUMNS = ("number", "message", "run", "local", "expected", "public", "status")
Row = tuple[str, ...]


def best(submissions: Sequence[Submission]) -> Submission | None:
    """The submission with the highest public score, the first of equals; None if no submission has one."""
    scored = [submission for submission in submissions if submission.public_score is not None]
    return max(scored, key=lambda submission: submission.public_score or 0.0, default=None)


def rows(submissions: Sequence[Submission]) -> list[Row]:
    """A row of texts for each submission, under ``COLUMNS``; the best public score has a star."""
    winner = best(submissions)
    return [
        (
            f"{submission.number:04d}",
            submission.origin.message,
            submission.origin.run,
            decimal(submission.origin.local_score),
            _expected(submission),
            decimal(submission.public_score) + (" *" if submission is winner else ""),
            f"{submission.status}: {submission.reason}" if submission.reason else submission.status,
        )
        for submission in submissions
    ]


def plot_is_stale(folder: Path) -> bool:
    """Whether a public score may be missing in the plot: it is older than a manifest with a public score."""
    plot = folder / PLOT_NAME
    scored = [submission for submission in read_submissions(folder) if submission.public_score is not None]
    newest = max(((submission.folder / MANIFEST_NAME).stat().st_mtime_ns for submission in scored), default=0)
    return bool(scored) and (not plot.exists() or plot.stat().st_mtime_ns < newest)


def draw(folder: Path) -> Path:
    """Write ``scores.png`` beside the submissions, atomically."""
    from kit.reports import comparison_charts, figures

    # Read under the lock too: a score recorded meanwhile would be older than a plot that does not show it.
    with locked(make_folder(folder) / LOCK_NAME):
        submissions = read_submissions(folder)
        points = [
            comparison_charts.ScorePoint(submission.number, *_expected_range(submission), submission.public_score)
            for submission in submissions
            if submission.public_score is not None
            and (submission.origin.expected or submission.origin.local_score is not None)
        ]
        winner = best(submissions)
        figure = comparison_charts.local_against_public(points, winner.number if winner else None)
        figures.save(figure, folder / PLOT_NAME)
    return folder / PLOT_NAME


def _expected_range(submission: Submission) -> tuple[float, float, float]:
    """The expected score on the leaderboard, else the local score; with its low and high (itself if unknown)."""
    origin = submission.origin
    if origin.expected:
        return origin.expected["mean"], origin.expected["low"], origin.expected["high"]
    score = origin.local_score or 0.0
    low, high = origin.local_interval or (score, score)
    return score, low, high


def _expected(submission: Submission) -> str:
    expected = submission.origin.expected
    return f"{expected['mean']:.3f} ({expected['low']:.3f}-{expected['high']:.3f})" if expected else ""
