"""`python -m tests.benchmarks [--json FILE] [--only NAME]`: the table of `invoke bench`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import math
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
BENCHMARKS = (
    "samples", "epoch", "scores", "views", "fusion", "resamples", "startup", "stored", "growth", "memory", "gpu",
    "importing", "pages", "cold",
)  # fmt: skip
LONG = ("growth", "stored", "memory", "importing", "pages", "cold")  # over a minute each: with --long, or by name


def measured(sizes: Sizes, names: Iterable[str]) -> Iterator[Row]:
    """The rows of the named benchmarks, each as it comes."""
    for name in names:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            module = importlib.import_module(f".{name}", __package__)  # heavy: only those that are asked for
            yield from module.rows(sizes, Path(folder) / name)


def chosen(only: str | None, long: bool = False) -> tuple[str, ...]:
    """The benchmarks to run. Raises KitError for a name that is none."""
    if only is None:
        return tuple(name for name in BENCHMARKS if long or name not in LONG)
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
    rows = [
        Row(**{name: math.nan if value is None and name in ("ours", "other") else value
               for name, value in row.items() if name in fields})
        for row in found["rows"]
    ]  # fmt: skip
    lines = ["| what | against | ours | other | ratio | limit | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        ours, other = (f"{_figure(value)} {row.unit}".strip() for value in (row.ours, row.other))
        cells = (row.what, row.against, ours, other, _figure(row.ratio), row.limits, row.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join((_about(found["machine"]), "", *lines))


def _about(machine: dict[str, Any]) -> str:
    about = "{processor}, {cores} cores, torch {torch} with {torch_threads} threads".format(**machine)
    return f"{machine['gpu']}, {about}" if machine["gpu"] else about


def _figure(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument("--only")
    parser.add_argument("--long", action="store_true", help="also the benchmarks of more than a minute")
    parser.add_argument("--device", default=FULL.device, help="of the benchmark gpu: cpu tries it without one")
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
    rows: list[Row] = []
    sizes = dataclasses.replace(TINY if arguments.tiny else FULL, device=arguments.device)

    def save() -> int:
        seconds = round(time.monotonic() - started)
        values = {"machine": on, "seconds": seconds, "rows": [row.as_dict() for row in rows]}
        write_json(arguments.json, values)
        return seconds

    try:
        for row in measured(sizes, chosen(arguments.only, arguments.long or arguments.tiny)):
            rows.append(row)
            save()  # a call that is cut leaves the rows so far
            Console(stderr=True).print(Text(f"{row.what}: {_figure(row.ratio)} {row.verdict}"), style="dim")
    except KitError as error:
        raise SystemExit(str(error)) from None
    seconds = save()
    console.print(shown(rows, _about(on)))
    console.print(Text(f"{seconds} s; written to {arguments.json}"))


if __name__ == "__main__":
    main()
