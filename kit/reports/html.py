"""A report as one HTML file without script or outside reference, from a template in ``templates/``.

Every text that came from a file is escaped, and the page's own policy forbids whatever might slip through.
"""

from __future__ import annotations

import base64
import functools
import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit.core.files import write_text
from kit.core.number_text import DASH, between, decimal

if TYPE_CHECKING:
    import jinja2


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> Path:
    """Write one self-contained page and return its path.

    ``template`` is a file in ``templates/``, ``values`` are what it names; a name without a value raises
    jinja2.UndefinedError. Texts among the values stay texts: neither markup nor templates.
    """
    write_text(path, _environment().get_template(template).render(values))
    return path


def cell(value: Any) -> str:
    """Whole numbers with thousands, others with three decimals, a dash for what is missing."""
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    return decimal(value, DASH) if value is None or isinstance(value, float) else str(value)


def numeric_columns(frame: pd.DataFrame) -> list[bool]:
    """By column, whether all its values are numbers, missing ones left out: those stand on the right."""
    columns = (column.dropna() for _, column in frame.items())
    return [all(isinstance(value, numbers.Number) for value in column) for column in columns]


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2  # on use: only a page needs it

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kit.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "numeric_columns": numeric_columns, "base64": _base64}
    environment.globals["between"] = functools.partial(between, unknown=DASH)
    environment.tests["known"] = math.isfinite
    return environment


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
