"""What the terminal shows: tables, progress bars, the log, a question. Text from files is never markup."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kit.core.errors import KitError
from kit.core.number_text import decimal
from kit.core.redaction import redact

if TYPE_CHECKING:
    import pandas as pd


class RedactedStream:
    """A stream of text that writes to another one, without the secrets that are known by then."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its secrets; the number of letters that were given."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines without their secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redact_streams() -> None:
    """Let nothing reach the terminal with a secret in it: what is printed, logged or shown in a traceback."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, RedactedStream):
            setattr(sys, name, RedactedStream(stream))


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
    """Print a table: None and NaN as an empty cell, a float with three decimals."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=Text(title))  # Text: what came from a file is no markup
    for index, column in enumerate(columns):
        shown.add_column(Text(column), no_wrap=index == 0)  # a class's name is never cut short
    for row in rows:
        shown.add_row(*(Text(_cell(value)) for value in row))
    Console().print(shown)


def confirm(question: str, yes: bool) -> None:
    """Ask on standard input, unless ``yes``. Raises KitError for any answer but y or yes."""
    if yes:
        return
    print(f"{question} [y/N] ", end="", flush=True)
    answer = sys.stdin.readline().strip()
    if not sys.stdin.isatty():
        print(answer)  # as a terminal does
    if answer.lower() not in ("y", "yes"):
        raise KitError(
            "y on standard input",
            "another answer, or none",
            "nothing was sent; repeat the command and answer y, or add --yes",
        )


def _cell(value: Any) -> str:
    return decimal(value) if value is None or isinstance(value, float) else str(value)
