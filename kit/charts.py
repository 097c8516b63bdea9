"""The charts of both reports, from tables to figures; none of them reads an image or writes a file.

A chart of nothing is still a chart: it says that there is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from kit import canvas
from kit.canvas import BLUE, GREY, INK, ORANGE, Axes, Figure

SCORES_COUNTED = (0.0, 0.05, 0.25)
_HEAT_CELLS = 48
_COUNT_BARS = 25
_BINS = [count / 40 for count in range(41)]
_ROW_IN, _MARGIN_IN = 0.27, 0.75
_MANY_BOX, _ONE_BOX = "many boxes per image", "one box per image"

_SCORE_MARGIN = 0.12  # of the scores' range, around them
_NUMBERED_POINTS = 8  # with more of them only the best carries its number

Curves = Mapping[str, tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]]


def classes(table: pd.DataFrame) -> Figure:
    """Boxes per class, the commonest on top, with their share. ``table``: label, boxes, share."""
    figure, (axes,) = canvas.blank(_MARGIN_IN + _ROW_IN * max(len(table), 2))
    axes.barh(range(len(table)), table["boxes"], height=0.66, color=BLUE)
    canvas.names_down(axes, list(table["label"]))
    for place, (boxes, share) in enumerate(zip(table["boxes"], table["share"], strict=True)):
        canvas.beside(axes, boxes, place, f"{boxes} · {share:.0%}")
    axes.set_xlim(0, 1.15 * table["boxes"].max() if len(table) else 1)
    canvas.titles(axes, "Boxes per class", "boxes")
    return figure


def boxes_per_image(table: pd.DataFrame) -> Figure:
    """How many training images have 0, 1, 2 ... boxes. ``table``: boxes, images."""
    figure, (axes,) = canvas.blank(2.4)
    axes.bar(table["boxes"], table["images"], width=0.66, color=BLUE)
    for boxes, images in zip(table["boxes"], table["images"], strict=True):
        canvas.beside(axes, boxes, images, str(images), points=(0, 2))
    axes.set_xticks(table["boxes"])
    axes.locator_params(axis="y", integer=True, nbins=5)
    axes.margins(y=0.14)
    axes.grid(visible=False, axis="x")
    canvas.titles(axes, "Boxes per training image", "boxes on one image", "images")
    return figure


def sizes(shares: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Every box's width and height as a share of its image, with the quartiles and the median per class."""
    figure, panels = canvas.blank(_MARGIN_IN + _ROW_IN * max(len(labels), 2), 1, 2, sharex=True, sharey=True)
    for axes, side in zip(panels, ("width", "height"), strict=True):
        for place, label in enumerate(labels):
            values = shares.loc[shares["label"] == label, side].to_numpy()
            low, middle, high = np.percentile(values, [25, 50, 75])
            axes.plot(values, np.full(len(values), place), "|", color=BLUE, alpha=0.3, markersize=9)
            axes.plot([low, high], [place, place], color=INK, linewidth=2.2, solid_capstyle="butt")
            axes.plot([middle], [place], "o", color="white", markeredgecolor=INK, markersize=5)
        canvas.names_down(axes, labels)
        axes.set_xlim(0, 1)
        canvas.titles(axes, f"Box {side}", f"share of the image {side}")
    return figure


def positions(shares: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Per class: box centres as dots, over the share of its boxes that cover each place, 0 to 1."""
    figure, panels = canvas.small_panels(len(labels), 1.75)
    cells = (np.arange(_HEAT_CELLS) + 0.5) / _HEAT_CELLS
    for axes, label in zip(panels, labels, strict=True):
        part = shares[shares["label"] == label]
        across, down = (
            np.abs(cells - part[[centre]].to_numpy()) <= part[[side]].to_numpy() / 2
            for centre, side in (("centre_x", "width"), ("centre_y", "height"))
        )
        covered = down.T.astype(np.float64) @ across / len(part)
        axes.grid(visible=False)
        # The root lets the thin cover of the scattered classes be seen beside Cardiomegaly's.
        axes.imshow(np.sqrt(covered), extent=(0, 1, 1, 0), cmap="Blues", vmin=0, vmax=1.5)
        axes.plot(part["centre_x"], part["centre_y"], ".", color=INK, markersize=2.5, alpha=0.6)
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        canvas.titles(axes, f"{canvas.short(label)} · {len(part)}")
    figure.supxlabel("x from the left / image width", fontsize=canvas.TEXT_PT, color=INK)
    figure.supylabel("y from the top / image height", fontsize=canvas.TEXT_PT, color=INK)
    return figure


def co_occurrence(table: pd.DataFrame) -> Figure:
    """How many images show both classes; ``table`` has a column label and one per label."""
    labels = list(table.iloc[:, 0])
    counts = table.iloc[:, 1:].to_numpy(np.int64)
    figure, (axes,) = canvas.blank(1.6 + 0.42 * max(len(labels), 2))
    apart = np.where(np.eye(len(labels), dtype=bool), 0, counts)
    axes.imshow(apart if labels else [[0]], cmap="Blues", vmin=0, vmax=2 * max(apart.max(initial=0), 1))
    canvas.names_down(axes, labels)
    axes.set_xticks(range(len(labels)), labels=[canvas.short(label) for label in labels], rotation=40,
                    ha="right", rotation_mode="anchor", parse_math=False)  # fmt: skip
    axes.grid(visible=False)
    for row, column in np.ndindex(counts.shape):
        colour = GREY if row == column else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=canvas.TEXT_PT,
                  color=colour)  # fmt: skip
    canvas.titles(axes, "Images with both classes (grey: with the one class)")
    return figure


def per_class(scores: Mapping[str, Mapping[str, Any]]) -> Figure:
    """AP at IoU .5 per class, many-box above one-box; a class without truth has no bar."""
    rows = [(label, part["ap50"], part["one_box_ap50"], part["boxes"]) for label, part in scores.items()]
    table = pd.DataFrame(rows, columns=["label", "ap50", "one_box_ap50", "boxes"])
    table = table.astype({"ap50": float, "one_box_ap50": float})
    table = table.sort_values("ap50", ascending=False, kind="stable")
    places = np.arange(len(table))
    figure, (axes,) = canvas.blank(_MARGIN_IN + 0.1 + 0.36 * max(len(table), 2))
    for column, offset, colour in (("ap50", -0.19, BLUE), ("one_box_ap50", 0.19, ORANGE)):
        axes.barh(places + offset, table[column], height=0.34, color=colour)
        for place, value in zip(places, table[column], strict=True):
            canvas.beside(axes, np.nan_to_num(value), place + offset, canvas.decimal(value), colour)
    canvas.names_down(axes, list(table["label"]), list(table["boxes"]))
    axes.set_xlim(0, 1.1)
    canvas.titles(axes, "", "average precision at IoU 0.5 (in brackets: true boxes)")
    _key(axes, {_MANY_BOX: BLUE, _ONE_BOX: ORANGE})
    return figure


def threshold(part: Mapping[str, Any]) -> Figure:
    """mAP at IoU .5 if only detections of at least that score were kept; ``part`` is report.json's."""
    curve = pd.DataFrame(part["curve"], columns=["threshold", "map50", "one_box_map50"]).astype(float)
    figure, (axes,) = canvas.blank(2.8)
    for column, colour in (("map50", BLUE), ("one_box_map50", ORANGE)):
        axes.plot(curve["threshold"], curve[column], "o-", color=colour, linewidth=1.8, markersize=4)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.axvline(part["applied"], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    canvas.beside(axes, part["applied"], 0, f"applied {part['applied']:.2f}", GREY, points=(4, 8))
    if curve[["map50", "one_box_map50"]].isna().all(axis=None):
        canvas.note(axes, "not measured")
    canvas.titles(axes, "", "score threshold", "mAP at IoU 0.5")
    _key(axes, {_MANY_BOX: BLUE, _ONE_BOX: ORANGE})
    return figure


def precision_recall(curves: Curves) -> Figure:
    """One panel per class with truth: precision against recall, walking down the scores."""
    figure, panels = canvas.small_panels(len(curves), 1.7)
    for axes, (label, (recall, precision)) in zip(panels, curves.items(), strict=True):
        if recall.any():
            # The curve starts at recall 0 with the precision of the first detection.
            across, up = np.append(0, recall), np.append(precision[0], precision)
            axes.fill_between(across, up, color=BLUE, alpha=0.15, linewidth=0)
            axes.plot(across, up, color=BLUE, linewidth=1.4)
        else:
            canvas.note(axes, "none found")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.05), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        canvas.titles(axes, canvas.short(label))
    figure.supxlabel("recall", fontsize=canvas.TEXT_PT, color=INK)
    figure.supylabel("precision", fontsize=canvas.TEXT_PT, color=INK)
    return figure


def confidences(candidates: pd.DataFrame, answers: pd.DataFrame) -> Figure:
    """Histograms of the candidates' score (logarithmic counts) and of the answers' confidence."""
    figure, panels = canvas.blank(3.2, 2, 1, sharex=True)
    shown = (
        (candidates["score"], "candidates", "score", BLUE),
        (answers["confidence"], "answers", "confidence", ORANGE),
    )
    panels[0].set_yscale("symlog", linthresh=1)
    for axes, (values, name, kind, colour) in zip(panels, shown, strict=True):
        axes.hist(values.to_numpy(np.float64), bins=_BINS, color=colour)
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.4g}")
        if not len(values):
            canvas.note(axes, f"no {name}")
        canvas.titles(axes, f"{len(values):,} {name}", kind, name)
    return figure


def detections_per_image(candidates: pd.DataFrame, image_ids: Sequence[str]) -> Figure:
    """How many images have 0, 1, 2 ... candidates of at least a score."""
    figure, panels = canvas.blank(2.4, 1, len(SCORES_COUNTED))
    for axes, lowest in zip(panels, SCORES_COUNTED, strict=True):
        found = candidates.loc[candidates["score"] >= lowest, "image_id"].value_counts()
        counts = found.reindex(list(image_ids), fill_value=0).to_numpy(np.int64)
        most = int(counts.max(initial=0))
        step = 1 + most // _COUNT_BARS
        bins = [start - 0.5 for start in range(0, most + step + 1, step)]
        axes.hist(counts, bins=bins, color=BLUE, rwidth=0.85)
        axes.locator_params(integer=True, nbins=5)
        canvas.titles(axes, f"score ≥ {lowest:g}" if lowest else "any score", "detections on one image", "images")
    return figure


def history(table: pd.DataFrame, kept_epoch: int) -> Figure:
    """Loss, in-loop mAP and learning rate over the epochs; a line marks the epoch whose weights were kept."""
    figure, panels = canvas.blank(4.2, 3, 1, sharex=True)
    shown = (
        ("training loss", {"train_loss": BLUE}),
        ("in-loop mAP", {"map50": BLUE, "map50_95": GREY}),
        ("learning rate", {"learning_rate": BLUE}),
    )
    for axes, (name, columns) in zip(panels, shown, strict=True):
        for column, colour in columns.items():
            known = table[["epoch", column]].astype(float).dropna()
            axes.plot(known["epoch"], known[column], "o-", color=colour, linewidth=1.6, markersize=3)
            if len(known):
                epoch, value = known.to_numpy()[-1]
                canvas.beside(axes, epoch, value, f"{value:.3g}", colour)
        if table[list(columns)].isna().all(axis=None):
            canvas.note(axes, "not recorded")
        else:
            axes.axvline(kept_epoch, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        canvas.titles(axes, y=name)
    canvas.titles(panels[-1], x="epoch", y=shown[-1][0])
    _key(panels[1], {"at IoU 0.5": BLUE, "mean over IoU 0.5 to 0.95": GREY})
    return figure


@dataclass(frozen=True)
class ScorePoint:
    """A submission in the plot: what was expected of it with its range, and its public score."""

    number: int
    expected: float
    low: float
    high: float
    public: float


def local_against_public(points: Sequence[ScorePoint], best: int | None) -> Figure:
    """Public score over the expected one (on the line both agree), and both over the submissions' numbers.

    Bars are the ranges that were expected. ``best`` is the number of the best public score.
    """
    figure, (against, along) = canvas.blank(3.7, 1, 2, sharey=True)
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
            canvas.beside(against, point.expected, point.public, f"{point.number:04d}", colour, points=(0, 4))
    against.set(xlim=limits, ylim=limits)
    if points:
        along.set_xlim(points[0].number - 0.7, points[-1].number + 0.7)
        along.locator_params(axis="x", integer=True)
        against.axline((0, 0), slope=1, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    else:
        canvas.note(against, "no public score yet")
        along.set_xticks([])
    canvas.titles(against, "", "expected on the leaderboard (else local score)", "public score")
    canvas.titles(along, "", "submission")
    _key(against, {"public": BLUE, "best public": ORANGE})
    _key(along, {"public": BLUE, "expected, 95%": GREY})
    return figure


def _key(axes: Axes, colours: Mapping[str, str]) -> None:
    """What each colour means, in words of that colour above the panel."""
    for place, (text, colour) in enumerate(colours.items()):
        axes.text(place * 0.3, 1.03, text, transform=axes.transAxes, fontsize=canvas.TEXT_PT, color=colour)
