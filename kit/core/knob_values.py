"""A knob's value: its line of documentation and range, its check, and its text behind ``--set KEY=``."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from kit.core.errors import KitError, closest_names, shortened

_MOST = 1_000_000  # of whatever has no smaller bound: far below what torch, numpy and the clock can count


def knob(
    default: Any, doc: str, *, low: float = -math.inf, high: float = _MOST, choices: tuple[str, ...] = ()
) -> Any:
    """A dataclass field with its line of documentation, and its closed range ``low..high`` or its ``choices``."""
    return dataclasses.field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


def as_text(value: Any) -> str:
    """A value as it is written behind ``--set KEY=``."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def value_from_text(key: str, spec: dataclasses.Field[Any], text: str) -> Any:
    """The value of a knob from text, in the type of its default. Raises KitError for another type."""
    default: Any = spec.default
    try:
        if isinstance(default, tuple):
            return tuple(name.strip() for name in text.split(",") if name.strip())
        kind: Any = type(default)
        if text in spec.metadata["choices"]:
            return text  # a word in place of a number
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is not str and ("_" in text or not text.isascii()):
            raise ValueError(text)  # Python reads 1_000 and the digits of other scripts; kit's tables do not
        return kind(text)
    except (ValueError, KeyError) as error:
        raise KitError(
            f"{key} to be {_kind(spec)} ({spec.metadata['doc']})", repr(text),
            f"write --set {key}={as_text(default)}, for example",
        ) from error  # fmt: skip


def check_value(key: str, spec: dataclasses.Field[Any], value: Any) -> None:
    """Raise KitError for a value outside the range or the choices of a knob."""
    low, high, choices = spec.metadata["low"], spec.metadata["high"], spec.metadata["choices"]
    doc = spec.metadata["doc"]
    if isinstance(value, (int, float)) and not (low <= value <= high and math.isfinite(value)):
        found = shortened(value)
        raise KitError(f"{key} between {low} and {high} ({doc})", found, f"the default is {spec.default}")
    chosen = value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ()
    wrong = [choice for choice in chosen if choices and choice not in choices]
    if wrong:
        raise KitError(
            f"{key} to be {_kind(spec)} ({doc})"
            if isinstance(spec.default, float)
            else f"{key} among {', '.join(choices)} ({doc})",
            repr(wrong[0]),
            f"nearest: {closest_names(wrong[0], choices)}",
        )
    if isinstance(value, tuple) and (not value or len(set(value)) != len(value)):
        raise KitError(
            f"{key} to have one or more different values", repr(as_text(value)), f"the choices: {choices}"
        )


def _kind(spec: dataclasses.Field[Any]) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", tuple: "names separated by commas"}
    kind, choices = kinds.get(type(spec.default), "text"), spec.metadata["choices"]
    return " or ".join([kind, *choices]) if type(spec.default) is float else kind
