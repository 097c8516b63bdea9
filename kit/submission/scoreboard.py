"""The submissions side by side: a table, and a plot of what was expected against what the leaderboard said.

Negative results stay, with their reason. Reading is light; only drawing loads matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kit.core.files import make_folder
from kit.core.locks import locked
from kit.submission.folders import LOCK_NAME, MANIFEST_NAME, Submission, read_submissions

PLOT_NAME = "scores.png"
COLUMNS = ("number", "message", "run", "local", "expected", "public", "status")
Row = tuple[str, ...]


def best(submissions: Sequence[Submission]) -> Submission | None:
    """The submission with the highest public score, the first of equals; None where none has one."""
    scored = [one for one in submissions if one.public_score is not None]
    return max(scored, key=lambda one: one.public_score or 0.0, default=None)


def rows(submissions: Sequence[Submission]) -> list[Row]:
    """One row of texts per submission, under ``COLUMNS``; the best public score carries a star."""
    winner = best(submissions)
    return [
        (
            f"{one.number:04d}",
            one.origin.message,
            one.origin.run,
            _decimal(one.origin.local_score),
            _expected(one),
            _decimal(one.public_score) + (" *" if one is winner else ""),
            f"{one.status}: {one.reason}" if one.reason else one.status,
        )
        for one in submissions
    ]


def plot_is_stale(folder: Path) -> bool:
    """Whether a public score may be missing in the plot: it is older than a manifest that has one."""
    plot = folder / PLOT_NAME
    scored = [one for one in read_submissions(folder) if one.public_score is not None]
    newest = max(((one.folder / MANIFEST_NAME).stat().st_mtime_ns for one in scored), default=0)
    return bool(scored) and (not plot.exists() or plot.stat().st_mtime_ns < newest)


def draw(folder: Path) -> Path:
    """Write ``scores.png`` beside the submissions, atomically."""
    from kit.reports import comparison_charts, figures

    submissions = read_submissions(folder)
    points = [
        comparison_charts.ScorePoint(one.number, *_across(one), one.public_score)
        for one in submissions
        if one.public_score is not None and (one.origin.expected or one.origin.local_score is not None)
    ]
    winner = best(submissions)
    figure = comparison_charts.local_against_public(points, winner.number if winner else None)
    with locked(make_folder(folder) / LOCK_NAME):  # who files a submission clears away what looks half written
        figures.save(figure, folder / PLOT_NAME)
    return folder / PLOT_NAME


def _across(submission: Submission) -> tuple[float, float, float]:
    """What was expected on the leaderboard, else the local score; with its range (its own value if unknown)."""
    origin = submission.origin
    if origin.expected:
        return origin.expected["mean"], origin.expected["low"], origin.expected["high"]
    score = origin.local_score or 0.0
    low, high = origin.local_interval or (score, score)
    return score, low, high


def _expected(submission: Submission) -> str:
    expected = submission.origin.expected
    return f"{expected['mean']:.3f} ({expected['low']:.3f}-{expected['high']:.3f})" if expected else ""


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
