"""Figures in one quiet look, and radiographs with boxes on them; the only matplotlib import.

Figures are objects, never pyplot's: nothing global changes, no display is needed, and a ``$`` in a label
stays a ``$``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kit.core.files import replacing
from kit.core.progress import Track
from kit.data.images import ImageError, read_picture, resize_longest
from kit.schemas.image_headers import ImageFacts

TRUTH, PREDICTION = "#178a52", "#d92d3a"
BLUE, ORANGE, GREY, INK, PALE = "#2f6db5", "#c96f14", "#818994", "#262b33", "#dfe3e8"
WIDTH_IN, TEXT_PT = 7.2, 8.0
ROW_IN, MARGIN_IN = 0.27, 0.75  # a row of a chart with one row per class, and what is around them
COLUMNS = 4
_DPI = 140
_BOX_TEXT_PT = 6.0
_LETTER_EM, _LINE_EM = 0.62, 1.5
_LABEL_LETTERS = 22
_SHOWN_PX = 512
_POINTS_PER_INCH = 72
_AROUND_IN = 0.5


@dataclass(frozen=True)
class Mark:
    """A box to draw: corners in pixels of the original image, text, colour, and line width in points."""

    corners: tuple[float, float, float, float]
    text: str
    colour: str
    line_pt: float


Drawings = Mapping[str, Callable[[], Figure]]  # by file name, without .png
Picture = tuple[str, ImageFacts, list[Mark]]  # title, image and marks


def blank(
    height_in: float, rows: int = 1, columns: int = 1, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width, and its panels row by row.

    Args:
        height_in: Height of the figure in inches.
        rows: Panels one below the other.
        columns: Panels side by side.
        sharex: Whether all panels have the same horizontal scale.
        sharey: Whether all panels have the same vertical scale.
    """
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=_DPI, layout="constrained", facecolor="white")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel())
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(PALE)
        axes.tick_params(colors=INK, labelsize=TEXT_PT, color=PALE)
        axes.grid(axis="both", color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure, panels


def small_panels(count: int, height_in: float) -> tuple[Figure, list[Axes]]:
    """``count`` panels of one scale, four in a row, ``height_in`` inches high; without panels a note."""
    rows = max(1, math.ceil(count / COLUMNS))
    figure, panels = blank(height_in * rows + _AROUND_IN, rows, COLUMNS, sharex=True, sharey=True)
    hide(panels[count:])
    if not count:
        figure.text(0.5, 0.5, "no boxes", ha="center", va="center", fontsize=TEXT_PT, color=GREY)
    return figure, panels[:count]


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically. Drawn once: ``savefig`` draws a figure with a layout twice, for the same picture."""
    with replacing(path) as partial, warnings.catch_warnings():
        # A letter that the font lacks is drawn as an empty square; the page shows the letter itself.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasAgg(figure).print_png(partial)


def save_all(folder: Path, drawings: Drawings, track: Track) -> dict[str, Path]:
    """Draw each figure and save it as ``folder/NAME.png``; returns the paths by name."""
    paths = {name: folder / f"{name}.png" for name in drawings}
    for name, draw in track(drawings.items(), "drawing figures", len(drawings)):
        save(draw(), paths[name])
    return paths


def hide(axes: Iterable[Axes]) -> None:
    """Hide empty panels."""
    for panel in axes:
        panel.set_axis_off()


def titles(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Set title and axis labels as plain text: a ``$`` begins no formula."""
    axes.set_title(_printable(title), loc="left", fontsize=TEXT_PT, color=INK, parse_math=False)
    axes.set_xlabel(x, fontsize=TEXT_PT, color=INK, parse_math=False)
    axes.set_ylabel(y, fontsize=TEXT_PT, color=INK, parse_math=False)


def note(axes: Axes, text: str) -> None:
    """Write in the middle of a panel why it is empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=TEXT_PT,
              color=GREY, parse_math=False)  # fmt: skip


def beside(axes: Axes, x: float, y: float, text: str, colour: str = INK, points: tuple[int, int] = (4, 0)) -> None:
    """Write a value next to the point that it belongs to.

    Args:
        axes: The panel.
        x: The point's horizontal value.
        y: The point's vertical value.
        text: The value as text.
        colour: Colour of the text.
        points: Distance of the text to the right and upwards, in points; (0, N) centres the text above the point.
    """
    across, along = ("center", "bottom") if points[0] == 0 else ("left", "center")
    axes.annotate(_printable(text), (x, y), xytext=points, textcoords="offset points", ha=across, va=along,
                  fontsize=TEXT_PT, color=colour, parse_math=False)  # fmt: skip


def legend(axes: Axes, colours: Mapping[str, str]) -> None:
    """Write what each colour means above the panel, in that colour."""
    for index, (text, colour) in enumerate(colours.items()):
        axes.text(index * 0.3, 1.03, text, transform=axes.transAxes, fontsize=TEXT_PT, color=colour)


def interval(axes: Axes, row: float, value: float, low: float, high: float, colour: str) -> None:
    """Draw a dot with its interval.

    Args:
        axes: The panel.
        row: Height of the dot, in units of the vertical scale.
        value: Horizontal value of the dot.
        low: Lower end of the interval; NaN if there is none.
        high: Upper end of the interval.
        colour: Colour of both.
    """
    if not math.isnan(low):
        axes.plot([low, high], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt", alpha=0.45)
    axes.plot([value], [row], "o", color=colour, markersize=5)


def names_down(axes: Axes, labels: Sequence[str], counts: Sequence[int] | None = None) -> None:
    """Write class names down the vertical axis, the first on top, with their ``counts`` in brackets if given."""
    names = [short(label) for label in labels]
    if counts is not None:
        names = [f"{name} ({count})" for name, count in zip(names, counts, strict=True)]
    axes.set_yticks(range(len(labels)), labels=names, parse_math=False)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def short(text: str, letters: int = _LABEL_LETTERS) -> str:
    """A text in one line of at most ``letters`` letters."""
    line = _printable(text)
    return line if len(line) <= letters else line[: letters - 1] + "…"


def picture(axes: Axes, image: ImageFacts, title: str, marks: Sequence[Mark], panel_in: float) -> None:
    """Draw a radiograph with boxes; if the image cannot be read, a note says why.

    Args:
        axes: The panel.
        image: The image's file, and how it is read.
        title: Title of the panel.
        marks: Boxes to draw, the lowest first.
        panel_in: Side of the panel in inches.
    """
    titles(axes, title)
    axes.set(xticks=[], yticks=[], anchor="N")
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    try:
        grey = read_picture(image)
    except ImageError as error:
        note(axes, f"cannot be read: {error}")
        return
    height, width = grey.shape
    resized = resize_longest(grey, min(_SHOWN_PX, max(width, height)))
    axes.imshow(resized, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="nearest")
    for mark in marks:
        x_min, y_min, x_max, y_max = mark.corners
        axes.add_patch(Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, fill=False,
                                 edgecolor=mark.colour, linewidth=mark.line_pt))  # fmt: skip
    _write_labels(axes, marks, (width, height), max(width, height) / (panel_in * _POINTS_PER_INCH))
    axes.set(xlim=(0, width), ylim=(height, 0))


def sheet(pictures: Sequence[Picture], columns: int) -> Figure:
    """Radiographs with their titles and marks, row by row; zero pictures are an empty figure."""
    rows = max(1, -(-len(pictures) // columns))
    side_in = WIDTH_IN / columns
    figure, panels = blank((side_in + 0.2) * rows, rows, columns)
    for axes, (title, image, marks) in zip(panels, pictures, strict=False):
        picture(axes, image, title, marks, side_in)
    hide(panels[len(pictures) :])
    return figure


def _write_labels(axes: Axes, marks: Sequence[Mark], size: tuple[int, int], pixels_per_point: float) -> None:
    """Write each mark's text at its box, inside the picture, at the first position that covers no other text."""
    em = _BOX_TEXT_PT * pixels_per_point
    line = em * _LINE_EM
    taken: list[tuple[float, float, float]] = []
    for mark in reversed(marks):
        x_min, y_min, x_max, y_max = mark.corners
        wide = em * _LETTER_EM * (len(mark.text) + 1)
        near = [(x_min, y_min - line), (x_min, y_max), (x_max, y_min), (x_min - wide, y_min)]
        steps = [step * line for step in range(len(marks) + 1)]
        far = [(x_min, y_min + step) for step in steps] + [(x_min, y_min - line - step) for step in steps]
        positions = [(max(0.0, min(x, size[0] - wide)), max(0.0, min(y, size[1] - line))) for x, y in near + far]
        free = (
            (x, y) for x, y in positions
            if not any(abs(y - other) < line and x < right and left < x + wide for left, right, other in taken)
        )  # fmt: skip
        x, y = next(free, positions[0])
        taken.append((x, x + wide, y))
        box = {"facecolor": mark.colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
        axes.text(x + em * 0.15, y + line / 2, mark.text, fontsize=_BOX_TEXT_PT, color="white", va="center",
                  ha="left", bbox=box, parse_math=False)  # fmt: skip


def _printable(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
