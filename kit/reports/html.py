"""A report as one HTML file without script or outside reference.

Every text that came from a file is escaped, and the page's own policy forbids whatever might slip through.
"""

from __future__ import annotations

import base64
import html
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kit.core.files import write_text
from kit.core.number_text import DASH, decimal

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color: #262b33; background: #f6f7f9; font: 16px/1.55 system-ui, sans-serif }
body { margin: 0 }
main { max-width: 1040px; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 0 0 .4rem }
p { max-width: 72ch; margin: 0 0 1rem; color: #4a515c; overflow-wrap: anywhere }
section { background: #fff; border: 1px solid #e3e6ea; border-radius: 10px; padding: 1.2rem 1.4rem;
  margin: 1.2rem 0 }
figure { margin: 0 0 1rem; overflow-x: auto }
img { display: block; width: 100%; max-width: 1008px; min-width: 620px; height: auto }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; margin: 1.2rem 0 }
.cards div { background: #fff; border: 1px solid #e3e6ea; border-radius: 10px; padding: .8rem 1rem; color: #4a515c;
  font-size: .9rem }
.cards b { display: block; font-size: 1.6rem; line-height: 1.3; color: #262b33; font-variant-numeric: tabular-nums }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #edeff2; vertical-align: top;
  min-width: 7.5em; max-width: 22rem; overflow-wrap: anywhere }
th { overflow-wrap: normal; font-weight: 600; color: #4a515c; vertical-align: bottom }
.n { text-align: right; white-space: nowrap; padding: .3rem .9rem; min-width: 0 }
th.n { white-space: normal }
@media (max-width: 600px) { main { padding: 1rem .6rem } section { padding: 1rem .8rem } }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: what it shows, how to read it, then its figures and its table."""

    title: str
    text: str
    figures: Sequence[Path] = ()
    table: pd.DataFrame | None = None


def write_page(path: Path, title: str, lead: str, headline: Mapping[str, str], sections: Sequence[Section]) -> Path:
    """Write one self-contained page: title, a lead, numbers in large, then the sections; returns ``path``."""
    cards = "".join(f"<div><b>{_text(value)}</b>{_text(name)}</div>" for name, value in headline.items())
    body = "".join(map(_section, sections))
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body><main>"
        f'<h1>{_text(title)}</h1><p class="lead">{_text(lead)}</p><div class="cards">{cards}</div>'
        f"{body}</main></body></html>\n",
    )
    return path


def _section(section: Section) -> str:
    pictures = "".join(
        f'<figure><img alt="{_text(section.title)}" src="data:image/png;base64,{_base64(figure)}"></figure>\n'
        for figure in section.figures
    )
    table = "" if section.table is None else _table(section.table)
    return f"<section><h2>{_text(section.title)}</h2><p>{_text(section.text)}</p>\n{pictures}{table}</section>\n"


def _table(table: pd.DataFrame) -> str:
    """Numbers stand right; a column is one of numbers if all its cells are (missing ones left out)."""
    numeric = {name: all(isinstance(value, numbers.Number) for value in table[name].dropna()) for name in table}
    sides = [' class="n"' if numeric[name] else "" for name in table]
    head = "".join(f"<th{side}>{_text(str(name))}</th>" for side, name in zip(sides, table, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{side}>{_text(cell(value))}</td>" for side, value in zip(sides, row, strict=True))
        + "</tr>\n"
        for row in table.itertuples(index=False, name=None)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>'


def cell(value: Any) -> str:
    """Whole numbers with thousands, others with three decimals, a dash for what is missing."""
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return decimal(value, DASH) if value is None or isinstance(value, float) else str(value)


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
