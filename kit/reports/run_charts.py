"""Charts of an evaluated run, from tables to figures; none reads an image or writes a file.

A chart without data is drawn too, with a note that there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64

from kit.choosing.ceiling import Ceiling
from kit.core.number_text import DASH, decimal
from kit.reports import figures
from kit.reports.figures import BLUE, GREY, INK, ORANGE, Figure
from kit.reports.report_file import Choice, ClassScores, LossesByPath, Thresholds

SCORES_COUNTED = (0.0, 0.05, 0.25)
_BINS = [count / 40 for count in range(41)]
_COUNT_BARS = 25
_MANY_BOX, _ONE_BOX = "many boxes per image", "one box per image"


Curves = Mapping[str, tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]]


def per_class(scores: Mapping[str, ClassScores]) -> Figure:
    """AP at IoU .5 of each class, with many boxes above one box; a class without truth has no bar."""
    rows = [(label, score.ap50, score.one_box_ap50, score.boxes) for label, score in scores.items()]
    table = pd.DataFrame(rows, columns=["label", "ap50", "one_box_ap50", "boxes"])
    table = table.sort_values("ap50", ascending=False, kind="stable")
    row = np.arange(len(table))
    figure, (axes,) = figures.blank(figures.MARGIN_IN + 0.1 + 0.36 * max(len(table), 2))
    for column, offset, colour in (("ap50", -0.19, BLUE), ("one_box_ap50", 0.19, ORANGE)):
        axes.barh(row + offset, table[column], height=0.34, color=colour)
        for y, value in zip(row + offset, table[column], strict=True):
            figures.beside(axes, np.nan_to_num(value), y, decimal(value, DASH), colour)
    figures.names_down(axes, list(table["label"]), list(table["boxes"]))
    axes.set_xlim(0, 1.1)
    figures.titles(axes, "", "average precision at IoU 0.5 (in brackets: true boxes)")
    figures.legend(axes, {_MANY_BOX: BLUE, _ONE_BOX: ORANGE})
    return figure


def threshold(thresholds: Thresholds) -> Figure:
    """mAP at IoU .5 over the lowest score that is kept, and the threshold that is applied."""
    applied = thresholds.applied
    curve = pd.DataFrame(list(map(vars, thresholds.curve)), columns=["threshold", "map50", "one_box_map50"]).astype(
        float
    )
    figure, (axes,) = figures.blank(2.8)
    for column, colour in (("map50", BLUE), ("one_box_map50", ORANGE)):
        axes.plot(curve["threshold"], curve[column], "o-", color=colour, linewidth=1.8, markersize=4)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.axvline(applied, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    figures.beside(axes, applied, 0, f"applied {applied:.2f}", GREY, points=(4, 8))
    if curve[["map50", "one_box_map50"]].isna().all(axis=None):
        figures.note(axes, "not measured")
    figures.titles(axes, "", "score threshold", "mAP at IoU 0.5")
    figures.legend(axes, {_MANY_BOX: BLUE, _ONE_BOX: ORANGE})
    return figure


def precision_recall(curves: Curves) -> Figure:
    """Precision over recall from the highest score down, a panel for each class with truth."""
    figure, panels = figures.small_panels(len(curves), 1.7)
    for axes, (label, (recall, precision)) in zip(panels, curves.items(), strict=True):
        if recall.any():
            # The curve starts at recall 0 with the precision of the first detection.
            across, up = np.append(0, recall), np.append(precision[0], precision)
            axes.fill_between(across, up, color=BLUE, alpha=0.15, linewidth=0)
            axes.plot(across, up, color=BLUE, linewidth=1.4)
        else:
            figures.note(axes, "none found")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.05), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        figures.titles(axes, figures.short(label))
    figure.supxlabel("recall", fontsize=figures.TEXT_PT, color=INK)
    figure.supylabel("precision", fontsize=figures.TEXT_PT, color=INK)
    return figure


def confidences(candidates: pd.DataFrame, answers: pd.DataFrame) -> Figure:
    """Histograms of the candidates' scores (logarithmic counts) and of the answers' confidences."""
    figure, panels = figures.blank(3.2, 2, 1, sharex=True)
    histograms = (
        (candidates["score"], "candidates", "score", BLUE),
        (answers["confidence"], "answers", "confidence", ORANGE),
    )
    panels[0].set_yscale("symlog", linthresh=1)
    for axes, (values, name, kind, colour) in zip(panels, histograms, strict=True):
        axes.hist(values.to_numpy(np.float64), bins=_BINS, color=colour)
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.4g}")
        if not len(values):
            figures.note(axes, f"no {name}")
        figures.titles(axes, f"{len(values):,} {name}", kind, name)
    return figure


def detections_per_image(candidates: pd.DataFrame, image_ids: Sequence[str]) -> Figure:
    """How many images have 0, 1, 2 ... candidates, for three lowest scores."""
    figure, panels = figures.blank(2.4, 1, len(SCORES_COUNTED))
    for axes, lowest in zip(panels, SCORES_COUNTED, strict=True):
        by_image = candidates.loc[candidates["score"] >= lowest, "image_id"].value_counts()
        counts = by_image.reindex(list(image_ids), fill_value=0).to_numpy(np.int64)
        most = int(counts.max(initial=0))
        step = 1 + most // _COUNT_BARS
        bins = [start - 0.5 for start in range(0, most + step + 1, step)]
        axes.hist(counts, bins=bins, color=BLUE, rwidth=0.85)
        axes.locator_params(integer=True, nbins=5)
        figures.titles(axes, f"score ≥ {lowest:g}" if lowest else "any score", "detections on one image", "images")
    return figure


def history(table: pd.DataFrame, kept_epoch: int) -> Figure:
    """Loss, in-loop mAP and learning rate over the epochs; a line marks the epoch whose weights are kept."""
    figure, panels = figures.blank(4.2, 3, 1, sharex=True)
    quantities = (
        ("training loss", {"train_loss": BLUE}),
        ("in-loop mAP", {"map50": BLUE, "map50_95": GREY}),
        ("learning rate", {"learning_rate": BLUE}),
    )
    for axes, (name, columns) in zip(panels, quantities, strict=True):
        for column, colour in columns.items():
            known = table[["epoch", column]].astype(float).dropna()
            axes.plot(known["epoch"], known[column], "o-", color=colour, linewidth=1.6, markersize=3)
            if len(known):
                epoch, value = known.to_numpy()[-1]
                figures.beside(axes, epoch, value, f"{value:.3g}", colour)
        if table[list(columns)].isna().all(axis=None):
            figures.note(axes, "not recorded")
        else:
            axes.axvline(kept_epoch, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        figures.titles(axes, y=name)
    figures.titles(panels[-1], x="epoch", y=quantities[-1][0])
    figures.legend(panels[1], {"at IoU 0.5": BLUE, "mean over IoU 0.5 to 0.95": GREY})
    return figure


def rules(choice: Choice) -> Figure:
    """One-box mAP of every rule with its 95% interval; of the oracle, a random candidate and the prior without."""
    rows = [(name, score.map50, score.low, score.high) for name, score in choice.rules.items()]
    references = {"oracle": choice.oracle, "random candidate": choice.random, "location prior": choice.prior}
    marks = [(name, reference.map50) for name, reference in references.items()]
    figure, (axes,) = figures.blank(figures.MARGIN_IN + figures.ROW_IN * (len(rows) + len(marks)) + 0.1)
    for row, (name, value, low, high) in enumerate(rows):
        colour = BLUE if name == choice.chosen else INK
        figures.interval(axes, row, value, low, high, colour)
        figures.beside(axes, value if np.isnan(high) else high, row, decimal(value, DASH), colour)
    for row, (_, value) in enumerate(marks, start=len(rows)):
        axes.plot([value], [row], "D", color=GREY, markersize=5)
        figures.beside(axes, value, row, decimal(value, DASH), GREY)
    names = [f"{name} ◂" if name == choice.chosen else name for name, *_ in rows]
    figures.names_down(axes, names + [name for name, _ in marks])
    axes.set_xlim(0, 1.1)
    figures.titles(axes, "", "one-box mAP at IoU 0.5, with its 95% interval")
    return figure


def ceiling(found: Ceiling | None) -> Figure:
    """The one-box mAP from the chosen answers to the oracle's, with what each repair on the way gains."""
    figure, (axes,) = figures.blank(figures.MARGIN_IN + figures.ROW_IN * 5 + 0.1)
    parts = found.parts if found else {}
    names, start = ["chosen", *parts, "oracle"], 0.0
    ends = [found.chosen, *(part.gain for part in parts.values()), found.oracle] if found else []
    for row, (name, value) in enumerate(zip(names, np.nan_to_num(ends), strict=False)):
        is_part = name in parts
        left = start if is_part else 0.0
        axes.barh(row, value, left=left, height=0.66, color=ORANGE if is_part else BLUE)
        text = f"{value:+.3f} · {parts[name].answers:,} answers" if is_part else decimal(ends[row], DASH)
        start = left + value
        figures.beside(axes, max(start, left), row, text)
    if not ends or np.isnan(ends[0]):
        figures.note(axes, "not measured")
    figures.names_down(axes, [name.removesuffix(" of the right class") for name in names])
    axes.set(xlim=(0, 1.3), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    figures.titles(axes, "", "one-box mAP at IoU 0.5")
    return figure


def losses(errors: LossesByPath) -> Figure:
    """The mAP gained if each cause of errors alone were repaired, and its number of errors."""
    figure, panels = figures.blank(2.3, 1, 2, sharey=True)
    sides = ((errors.many_box.causes, _MANY_BOX, BLUE), (errors.one_box.causes, _ONE_BOX, ORANGE))
    for axes, (causes, title, colour) in zip(panels, sides, strict=True):
        gains = np.array([cause.gain for cause in causes.values()])
        axes.barh(range(len(causes)), np.nan_to_num(gains), height=0.66, color=colour)
        for row, (gain, cause) in enumerate(zip(gains, causes.values(), strict=True)):
            figures.beside(axes, np.nan_to_num(gain), row, f"{decimal(gain, DASH)} · {cause.count:,}")
        figures.names_down(axes, list(causes))
        axes.set_xlim(0, max(0.05, 1.45 * float(np.nan_to_num(gains).max())))
        axes.locator_params(axis="x", nbins=4)
        figures.titles(axes, title, "mAP gained if repaired alone · number of errors")
    return figure
