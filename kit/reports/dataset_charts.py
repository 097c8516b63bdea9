"""Charts of the data: classes, boxes per image, sizes, positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.reports import figures
from kit.reports.figures import BLUE, GREY, INK, Figure

_HEAT_CELLS = 48


def classes(table: pd.DataFrame) -> Figure:
    """Boxes of each class with their share, in the order of ``table`` (label, boxes, share)."""
    figure, (axes,) = figures.blank(figures.MARGIN_IN + figures.ROW_IN * max(len(table), 2))
    axes.barh(range(len(table)), table["boxes"], height=0.66, color=BLUE)
    figures.names_down(axes, list(table["label"]))
    for row, (boxes, share) in enumerate(zip(table["boxes"], table["share"], strict=True)):
        figures.beside(axes, boxes, row, f"{boxes} · {share:.0%}")
    axes.set_xlim(0, 1.15 * table["boxes"].max() if len(table) else 1)
    figures.titles(axes, "Boxes per class", "boxes")
    return figure


def boxes_per_image(table: pd.DataFrame) -> Figure:
    """How many training images have 0, 1, 2 ... boxes, from ``table`` (boxes, images)."""
    figure, (axes,) = figures.blank(2.4)
    axes.bar(table["boxes"], table["images"], width=0.66, color=BLUE)
    for boxes, images in zip(table["boxes"], table["images"], strict=True):
        figures.beside(axes, boxes, images, str(images), points=(0, 2))
    axes.set_xticks(table["boxes"])
    axes.locator_params(axis="y", integer=True, nbins=5)
    axes.margins(y=0.14)
    axes.grid(visible=False, axis="x")
    figures.titles(axes, "Boxes per training image", "boxes on one image", "images")
    return figure


def sizes(shares: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Width and height of every box as a share of its image's, with the quartiles and the median of each class."""
    figure, panels = figures.blank(
        figures.MARGIN_IN + figures.ROW_IN * max(len(labels), 2), 1, 2, sharex=True, sharey=True
    )
    for axes, side in zip(panels, ("width", "height"), strict=True):
        for row, label in enumerate(labels):
            values = shares.loc[shares["label"] == label, side].to_numpy()
            low, median, high = np.percentile(values, [25, 50, 75])
            axes.plot(values, np.full(len(values), row), "|", color=BLUE, alpha=0.3, markersize=9)
            axes.plot([low, high], [row, row], color=INK, linewidth=2.2, solid_capstyle="butt")
            axes.plot([median], [row], "o", color="white", markeredgecolor=INK, markersize=5)
        figures.names_down(axes, labels)
        axes.set_xlim(0, 1)
        figures.titles(axes, f"Box {side}", f"share of the image {side}")
    return figure


def positions(shares: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """For each class: the centres of its boxes as dots, over the share of its boxes that cover a point."""
    figure, panels = figures.small_panels(len(labels), 1.75)
    cells = (np.arange(_HEAT_CELLS) + 0.5) / _HEAT_CELLS
    for axes, label in zip(panels, labels, strict=True):
        boxes = shares[shares["label"] == label]
        across, down = (
            np.abs(cells - boxes[[centre]].to_numpy()) <= boxes[[side]].to_numpy() / 2
            for centre, side in (("centre_x", "width"), ("centre_y", "height"))
        )
        covered = down.T.astype(np.float64) @ across / len(boxes)
        axes.grid(visible=False)
        # The square root keeps classes with scattered boxes visible beside Cardiomegaly.
        axes.imshow(np.sqrt(covered), extent=(0, 1, 1, 0), cmap="Blues", vmin=0, vmax=1.5)
        axes.plot(boxes["centre_x"], boxes["centre_y"], ".", color=INK, markersize=2.5, alpha=0.6)
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        figures.titles(axes, f"{figures.short(label)} · {len(boxes)}")
    figure.supxlabel("x from the left / image width", fontsize=figures.TEXT_PT, color=INK)
    figure.supylabel("y from the top / image height", fontsize=figures.TEXT_PT, color=INK)
    return figure


def co_occurrence(table: pd.DataFrame) -> Figure:
    """How many images show both of two classes, from ``table`` (label, then a column for each label)."""
    labels = list(table.iloc[:, 0])
    counts = table.iloc[:, 1:].to_numpy(np.int64)
    figure, (axes,) = figures.blank(1.6 + 0.42 * max(len(labels), 2))
    pairs = np.where(np.eye(len(labels), dtype=bool), 0, counts)
    axes.imshow(pairs if labels else [[0]], cmap="Blues", vmin=0, vmax=2 * max(pairs.max(initial=0), 1))
    figures.names_down(axes, labels)
    axes.set_xticks(range(len(labels)), labels=[figures.short(label) for label in labels], rotation=40,
                    ha="right", rotation_mode="anchor", parse_math=False)  # fmt: skip
    axes.grid(visible=False)
    for row, column in np.ndindex(counts.shape):
        colour = GREY if row == column else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=figures.TEXT_PT,
                  color=colour)  # fmt: skip
    figures.titles(axes, "Images with both classes (grey: with the one class)")
    return figure
