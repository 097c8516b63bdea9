"""The charts of what was measured: the rules with floor and ceiling, what was lost, and one run against another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kit import canvas
from kit.canvas import BLUE, GREY, INK, ORANGE, Axes, Figure

_ROW_IN, _MARGIN_IN = 0.27, 0.75
_VERDICTS = {"better": BLUE, "worse": ORANGE, "noise": GREY}


def rules(part: Mapping[str, Any]) -> Figure:
    """One-box mAP of every rule with its 95% interval, between floors and ceiling; ``part`` is report.json's."""
    rows = [(name, scores["map50"], scores["low"], scores["high"]) for name, scores in part["rules"].items()]
    marks = [(name, part[key]["map50"]) for name, key in _BOUNDS.items()]
    figure, (axes,) = canvas.blank(_MARGIN_IN + _ROW_IN * (len(rows) + len(marks)) + 0.1)
    for place, (name, value, low, high) in enumerate(rows):
        colour = BLUE if name == part["chosen"] else INK
        _spread(axes, place, value, low, high, colour)
        canvas.beside(axes, _number(high, value), place, canvas.decimal(_number(value)), colour)
    for place, (_, value) in enumerate(marks, start=len(rows)):
        axes.plot([_number(value)], [place], "D", color=GREY, markersize=5)
        canvas.beside(axes, _number(value), place, canvas.decimal(_number(value)), GREY)
    names = [f"{name} ◂" if name == part["chosen"] else name for name, *_ in rows]
    canvas.names_down(axes, names + [name for name, _ in marks])
    axes.set_xlim(0, 1.1)
    canvas.titles(axes, "", "one-box mAP at IoU 0.5, with its 95% interval")
    return figure


def losses(part: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The mAP that the repair of each cause alone would bring; ``part`` is report.json's."""
    figure, panels = canvas.blank(2.3, 1, 2, sharey=True)
    shown = (("many_box", "many boxes per image", BLUE), ("one_box", "one box per image", ORANGE))
    for axes, (key, title, colour) in zip(panels, shown, strict=True):
        causes = part[key]["causes"]
        gains = np.array([_number(cause["gain"]) for cause in causes.values()])
        axes.barh(range(len(causes)), np.nan_to_num(gains), height=0.66, color=colour)
        for place, (gain, cause) in enumerate(zip(gains, causes.values(), strict=True)):
            canvas.beside(axes, np.nan_to_num(gain), place, f"{canvas.decimal(gain)} · {cause['count']:,}")
        canvas.names_down(axes, list(causes))
        axes.set_xlim(0, max(0.05, 1.45 * float(np.nan_to_num(gains).max())))
        axes.locator_params(axis="x", nbins=4)
        canvas.titles(axes, title, "mAP gained if it alone were repaired · how many")
    return figure


def differences(result: Mapping[str, Any]) -> Figure:
    """The paired differences of two runs with their 95% intervals, overall and per class."""
    first, second = result["runs"]
    labels = list(result["many_box"]["per_class"])
    figure, panels = canvas.blank(1.2 + _ROW_IN * (1 + len(labels)), 1, 2, sharex=True, sharey=True)
    for axes, key, title in zip(panels, ("many_box", "one_box"), ("many boxes", "one box"), strict=True):
        part = result[key]
        rows = [part, *(part["per_class"].get(label) for label in labels)]
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, row in enumerate(rows):
            if row is not None and row["difference"] is not None:
                colour = _VERDICTS[row["verdict"]]
                _spread(axes, place, row["difference"], row["low"], row["high"], colour)
        canvas.names_down(axes, ["mean", *labels])
        canvas.titles(
            axes, f"{title}: {part['verdict']}, {result['images'][key]} images", "difference in AP at IoU 0.5"
        )
    figure.suptitle(
        f"{canvas.short(first, 40)} minus {canvas.short(second, 40)}: right of 0 the first is better",
        fontsize=canvas.TEXT_PT, color=INK, parse_math=False,
    )  # fmt: skip
    return figure


_BOUNDS = {"oracle": "oracle", "random candidate": "random", "location prior": "prior"}


def _spread(
    axes: Axes, place: float, value: float | None, low: float | None, high: float | None, colour: str
) -> None:
    """A dot with its interval, if it has one."""
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt", alpha=0.45)
    axes.plot([_number(value)], [place], "o", color=colour, markersize=5)


def _number(value: float | None, otherwise: float | None = None) -> float:
    """NaN, which no chart draws, for what JSON has as null."""
    known = otherwise if value is None else value
    return float("nan") if known is None else known
