"""Scores as text: three decimals, the same on pages, in charts and in the terminal."""

from __future__ import annotations

import math

DASH = "–"  # for what is unknown, on pages and in charts


def decimal(value: float | None, unknown: str = "") -> str:
    """A number with three decimals; ``unknown`` for None, NaN and infinities."""
    return unknown if value is None or not math.isfinite(value) else f"{value:.3f}"


def between(low: float, high: float, unknown: str = "") -> str:
    """An interval as "0.123 to 0.456"; ``unknown`` if one of its ends is NaN."""
    return unknown if math.isnan(low) or math.isnan(high) else f"{low:.3f} to {high:.3f}"
