"""`python -m tests.benchmarks [--json FILE] [--only NAME]`: the table of `invoke bench`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kit.core.errors import KitError, closest_names
from kit.core.json_files import write_json

from .measure import Row, machine
from .sizes import FULL, TINY, Sizes

_PRINTED_WIDTH = 180  # letters, where no terminal has its own
# One module each, in the order of the table.
BENCHMARKS = ("samples", "epoch", "scores", "views", "fusion", "resamples", "startup", "growth", "memory")


def measured(sizes: Sizes, names: Iterable[str]) -> Iterator[Row]:
    """The rows of the named benchmarks, each as it comes."""
    for name in names:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            module = importlib.import_module(f".{name}", __package__)  # heavy: only those that are asked for
            yield from module.rows(sizes, Path(folder) / name)


def chosen(only: str | None) -> tuple[str, ...]:
    """The benchmarks to run. Raises KitError for a name that is none."""
    if only is None:
        return BENCHMARKS
    if only not in BENCHMARKS:
        raise KitError(f"one of {', '.join(BENCHMARKS)}", repr(only), f"--only {closest_names(only, BENCHMARKS)}")
    return (only,)


def shown(rows: Iterable[Row], title: str) -> Table:
    """The table as it is printed."""
    table = Table(title=title, show_lines=False)
    for name in ("what", "against", "unit", "ours", "other", "ratio", "limit", "verdict"):
        table.add_column(name, justify="right" if name in ("ours", "other", "ratio") else "left")
    for row in rows:
        cells = (row.what, row.against, row.unit, *map(_figure, (row.ours, row.other, row.ratio)))
        table.add_row(*map(Text, (*cells, row.limits, row.verdict)))
    return table


def markdown(measured_before: Path) -> str:
    """The table of docs/speed.md, from the JSON of an earlier measurement."""
    found = json.loads(measured_before.read_text(encoding="utf-8"))
    fields = {spec.name for spec in dataclasses.fields(Row)}
    rows = [Row(**{name: value for name, value in row.items() if name in fields}) for row in found["rows"]]
    lines = ["| what | against | ours | other | ratio | limit | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        ours, other = (f"{_figure(value)} {row.unit}" for value in (row.ours, row.other))
        cells = (row.what, row.against, ours, other, _figure(row.ratio), row.limits, row.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join((_about(found["machine"]), "", *lines))


def _about(machine: dict[str, Any]) -> str:
    return "{processor}, {cores} cores, torch {torch} with {torch_threads} threads".format(**machine)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument("--only")
    parser.add_argument("--tiny", action="store_true", help="see that every row comes; its numbers mean nothing")
    parser.add_argument(
        "--markdown", type=Path, help="measure nothing: print this JSON as the table of docs/speed.md"
    )
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(arguments.markdown))
        return
    warnings.simplefilter("ignore")
    started = time.monotonic()
    on, console = machine(), Console(width=None if sys.stdout.isatty() else _PRINTED_WIDTH)
    rows = []
    try:
        for row in measured(TINY if arguments.tiny else FULL, chosen(arguments.only)):
            rows.append(row)
            Console(stderr=True).print(Text(f"{row.what}: {_figure(row.ratio)} {row.verdict}"), style="dim")
    except KitError as error:
        raise SystemExit(str(error)) from None
    seconds = round(time.monotonic() - started)
    write_json(arguments.json, {"machine": on, "seconds": seconds, "rows": [row.as_dict() for row in rows]})
    console.print(shown(rows, _about(on)))
    console.print(Text(f"{seconds} s; written to {arguments.json}"))


if __name__ == "__main__":
    main()
