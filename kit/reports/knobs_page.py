"""The page `docs/knobs.md`, written from ``kit.config``: every knob with its default, its range and its meaning."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from kit.config import Config, as_text, knobs
from kit.presets import PRESETS

_INTRODUCTION = """\
# Knobs

Written by `invoke knobs` from `kit/config.py` and `kit/presets.py`; do not edit it by hand.

`--set KEY=VALUE` sets a knob and may be repeated. Defaults are those of the preset `seed`. Which knobs of a run may
change later is in [training.md](training.md#which-knobs-may-change-later).
"""


def knobs_page() -> str:
    """The page as Markdown: a table per section of the configuration, then what each preset changes."""
    sections: dict[str, list[str]] = {}
    for key, spec in knobs().items():
        name = key.partition(".")[0]
        row = (f"`{key}`", f"`{_text(spec.default)}`", spec.metadata["doc"], _allowed(spec))
        sections.setdefault(name, []).append(_row(row))
    parts = [_INTRODUCTION]
    for section in dataclasses.fields(Config):
        purpose = (section.default_factory.__doc__ or "").strip()
        head = [_row(("knob", "default", "meaning", "allowed")), _row(("---",) * 4)]
        parts.append("\n".join([f"## {section.name}", "", purpose, "", *head, *sections[section.name], ""]))
    return "\n".join([*parts, *_presets()])


def _presets() -> list[str]:
    """What the presets change: a row per knob that any of them sets, a column per preset."""
    names = list(PRESETS)
    changed = [key for key in knobs() if any(key in values for values in PRESETS.values())]
    lines = [
        "## Presets",
        "",
        "A preset sets the knobs of its column; all others keep their defaults. The preset `seed` is the defaults.",
        "",
        _row(("knob", *(f"`{name}`" for name in names))),
        _row(("---",) * (1 + len(names))),
    ]
    for key in changed:
        values = (PRESETS[name].get(key, knobs()[key].default) for name in names)
        lines.append(_row((f"`{key}`", *(f"`{_text(value)}`" for value in values))))
    return [*lines, ""]


def _allowed(spec: dataclasses.Field[Any]) -> str:
    """The choices or the closed range of a knob; empty if any value of its type is allowed."""
    low, high, choices = (spec.metadata[name] for name in ("low", "high", "choices"))
    if isinstance(spec.default, bool):
        return "`true`, `false`"
    parts = [f"`{choice}`" for choice in choices]
    if not isinstance(spec.default, (str, tuple)) and math.isfinite(low) and math.isfinite(high):
        parts.insert(0, f"{low} to {high}")
    return ", ".join(parts)


def _text(value: Any) -> str:
    return as_text(value).replace("|", "\\|") or "(empty)"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
