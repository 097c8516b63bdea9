"""What the terminal shows: tables, progress bars, the log, a question. Text from files is never markup."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kit.core.errors import KitError
from kit.core.number_text import decimal

if TYPE_CHECKING:
    import pandas as pd


_NUMBERS = re.compile(r"(?:[-+0-9.,%*()/: ]|to|nan|inf|e[-+]?[0-9])*")  # an interval and a time too
_LEAST_LETTERS = 12  # of a text beside numbers, on a narrow terminal


def show_log() -> None:
    """Write what the kit logs to standard error, as plain lines."""
    log = logging.getLogger("kit")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def progress_bar(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
    """The ``Track`` of the terminal: a bar on standard error while the items are consumed."""
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description, total, console=Console(stderr=True))


def show_frame(title: str, table: pd.DataFrame) -> None:
    """Print a data frame without its index."""
    show_table(title, tuple(map(str, table.columns)), table.itertuples(index=False))


def show_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table: None and NaN as an empty cell, a float with three decimals.

    On a narrow terminal a label in the first column is cut and other texts are wrapped; numbers never are. In a
    pipe nothing is.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names, cells = list(columns), [[_cell(value) for value in row] for row in rows]
    by_column = [[row[index] for row in cells] for index in range(len(names))]
    console = Console()
    widths = _column_widths(names, by_column, console.width if console.is_terminal else None)
    shown = Table(title=Text(title))  # Text: what came from a file is no markup
    for index, (name, column, width) in enumerate(zip(names, by_column, widths, strict=True)):
        whole = index == 0 or _are_numbers(column)
        shown.add_column(Text(name), width=width, no_wrap=whole, overflow="ellipsis" if whole else "fold")
    for row in cells:
        shown.add_row(*map(Text, row))
    # With a height too: without one, rich takes any terminal that cannot move its cursor for 80 columns.
    Console(width=_table_width(widths), height=console.height).print(shown)


def _column_widths(names: Sequence[str], by_column: Sequence[Sequence[str]], most: int | None) -> list[int]:
    """The columns' widths in letters, in a table of ``most`` letters (None: any) if its numbers fit in.

    What is missing is taken from the widest text again and again, down to ``_LEAST_LETTERS``.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, (name, *column))) for name, column in zip(names, by_column, strict=True)]
    texts = [index for index, column in enumerate(by_column) if not _are_numbers(column)]
    while most is not None and _table_width(widths) > most:
        widest = max(texts, key=lambda index: widths[index], default=0)
        if not texts or widths[widest] <= _LEAST_LETTERS:
            break
        widths[widest] -= 1
    return widths


def _table_width(widths: Sequence[int]) -> int:
    """With a border and two blanks for each column, and the last border."""
    return sum(widths) + 3 * len(widths) + 1


def _are_numbers(column: Iterable[str]) -> bool:
    return all(_NUMBERS.fullmatch(cell) for cell in column)


def confirm(question: str, yes: bool) -> None:
    """Ask on standard input, unless ``yes``. Raises KitError for any answer but y or yes."""
    if yes:
        return
    print(f"{question} [y/N] ", end="", flush=True)
    answer = _answer()
    if answer.lower() not in ("y", "yes"):
        raise KitError(
            "y on standard input",
            "another answer, or none",
            "nothing was sent; repeat the command and answer y, or add --yes",
        )


def _answer() -> str:
    """A line of standard input; "" if it is closed or no text."""
    if sys.stdin is None:
        return ""
    try:
        answer = sys.stdin.readline().strip()
    except (OSError, ValueError):
        return ""
    if not sys.stdin.isatty():
        print(answer)  # as a terminal does
    return answer


def _cell(value: Any) -> str:
    return decimal(value) if value is None or isinstance(value, float) else str(value)
