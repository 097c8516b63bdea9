"""Charts that compare: one run against another, and local against public scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kit.reports import figures
from kit.reports.figures import BLUE, GREY, INK, ORANGE, Figure
from kit.reports.report_file import Comparison

_VERDICTS = {"better": BLUE, "worse": ORANGE, "noise": GREY, "unknown": GREY}


def differences(comparison: Comparison) -> Figure:
    """The paired differences of two runs with their 95% intervals, of the mean and of each class."""
    first, second = comparison.runs
    labels = list(comparison.many_box.per_class)
    figure, panels = figures.blank(1.2 + figures.ROW_IN * (1 + len(labels)), 1, 2, sharex=True, sharey=True)
    sides = (
        ("many boxes", comparison.many_box, comparison.images.many_box),
        ("one box", comparison.one_box, comparison.images.one_box),
    )
    for axes, (title, scores, images) in zip(panels, sides, strict=True):
        verdicts = [scores, *(scores.per_class.get(label) for label in labels)]
        axes.axvline(0, color=INK, linewidth=0.8)
        for row, gap in enumerate(verdicts):
            if gap is not None and not math.isnan(gap.difference):
                figures.interval(axes, row, gap.difference, gap.low, gap.high, _VERDICTS[gap.verdict])
        figures.names_down(axes, ["mean", *labels])
        figures.titles(axes, f"{title}: {scores.verdict}, {images} images", "difference in AP at IoU 0.5")
    figure.suptitle(
        f"{figures.short(first, 40)} minus {figures.short(second, 40)}: right of 0 the first is better",
        fontsize=figures.TEXT_PT, color=INK, parse_math=False,
    )  # fmt: skip
    return figure


_SCORE_MARGIN = 0.12  # around the points, as a share of their range
_NUMBERED_POINTS = 8  # with more points only the best has its number


@dataclass(frozen=True)
class ScorePoint:
    """A submission in the plot: its expected score with its range, and its public score."""

    number: int
    expected: float
    low: float
    high: float
    public: float


def local_against_public(points: Sequence[ScorePoint], best: int | None) -> Figure:
    """Public scores over expected scores (equal on the dashed line), and both over the submissions' numbers.

    Bars are the expected ranges. ``best`` is the number of the submission with the best public score.
    """
    figure, (against, along) = figures.blank(3.7, 1, 2, sharey=True)
    ends = [value for point in points for value in (point.low, point.high, point.public)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = _SCORE_MARGIN * (high - low or 0.1)
    limits = (max(0.0, low - room), min(1.0, high + room))
    for point in points:
        colour = ORANGE if point.number == best else BLUE
        against.plot([point.low, point.high], [point.public] * 2, color=colour, linewidth=1, alpha=0.3)
        against.plot([point.expected], [point.public], "o", color=colour, markersize=4)
        along.plot([point.number] * 2, [point.low, point.high], color=GREY, linewidth=2.5, alpha=0.4)
        along.plot([point.number], [point.expected], "_", color=GREY, markersize=7)
        along.plot([point.number], [point.public], "o", color=colour, markersize=4)
        if point.number == best or len(points) <= _NUMBERED_POINTS:
            figures.beside(against, point.expected, point.public, f"{point.number:04d}", colour, points=(0, 4))
    against.set(xlim=limits, ylim=limits)
    if points:
        along.set_xlim(points[0].number - 0.7, points[-1].number + 0.7)
        along.locator_params(axis="x", integer=True)
        against.axline((0, 0), slope=1, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    else:
        figures.note(against, "no public score yet")
        along.set_xticks([])
    figures.titles(against, "", "expected on the leaderboard (else local score)", "public score")
    figures.titles(along, "", "submission")
    figures.legend(against, {"public": BLUE, "best public": ORANGE})
    figures.legend(along, {"public": BLUE, "expected, 95%": GREY})
    return figure
