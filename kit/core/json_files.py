"""JSON files of the kit as the frozen dataclasses that they were written from: every field, each of its own type.

A dataclass takes whatever it is given; a list where a text belongs would surface far away, as something else.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from kit.core.errors import KitError
from kit.core.files import write_text

_SHOWN_LETTERS = 80
_WORDS = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false", type(None): "null"}
T = TypeVar("T")


def read_record(path: Path, kind: type[T], do: str, known: Mapping[str, Any] | None = None) -> T:
    """The dataclass ``kind`` from a JSON file of its fields; those with a default may be missing.

    ``known`` are fields that the file does not hold. Raises KitError naming the file, the field and what
    stands there, where a field is missing, unknown or of another type, or where the dataclass itself refuses
    the values (ValueError).
    """
    content = read_json(path, do)
    try:
        return _record(kind, content, "", known or {})
    except ValueError as error:
        raise KitError(f"{path} to hold a {kind.__name__.lower()}", str(error), do) from error


def _record(kind: type[T], content: Any, place: str, known: Mapping[str, Any]) -> T:
    if not isinstance(content, dict):
        raise _wrong(place or "the file", "an object", content)
    specs = {spec.name: spec for spec in fields(kind) if spec.name not in known}  # type: ignore[arg-type]
    unknown = sorted(set(content) - set(specs))
    missing = sorted(
        name
        for name, spec in specs.items()
        if name not in content and spec.default is MISSING and spec.default_factory is MISSING
    )
    if unknown or missing:
        says = f"no {', '.join(missing)}" if missing else f"also {_shown(unknown[0])}"
        raise ValueError(f"{place or 'the file'} has {says}")
    hints = get_type_hints(kind)
    return kind(
        **known, **{name: _value(hints[name], value, _below(place, name)) for name, value in content.items()}
    )


def _value(hint: Any, value: Any, place: str) -> Any:
    """The value as its annotation has it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        rest = next(part for part in parts if part is not type(None))
        return None if value is None and type(None) in parts else _value(rest, value, place)
    if origin is tuple:
        return _tuple(parts, value, place)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _wrong(place, "an object", value)
        return {name: _value(parts[1], one, _below(place, name)) for name, one in value.items()}
    return _record(hint, value, place, {}) if is_dataclass(hint) else _plain(hint, value, place)  # type: ignore[arg-type]


def _tuple(parts: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    """JSON has lists for tuples, of any length or of as many values as there are parts."""
    any_length = parts[-1] is Ellipsis
    if not isinstance(value, list) or not (any_length or len(value) == len(parts)):
        raise _wrong(place, "a list" if any_length else f"a list of {len(parts)}", value)
    kinds = parts[:1] * len(value) if any_length else parts
    return tuple(_value(kind, one, f"{place}[{i}]") for i, (kind, one) in enumerate(zip(kinds, value, strict=True)))


def _plain(hint: Any, value: Any, place: str) -> Any:
    """JSON may write 1 for 1.0."""
    plain = _as_float(value) if hint is float and type(value) is int else value
    if hint is not Any and (type(plain) is not hint or (hint is float and not math.isfinite(plain))):
        raise _wrong(place, _WORDS[hint], value)
    return plain


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _wrong(place: str, expected: str, value: Any) -> ValueError:
    return ValueError(f"{place} is {_shown(value)}, not {expected}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN is refused (no JSON reader agrees on it)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def fingerprint(value: Any) -> str:
    """The SHA-256 of a value's JSON, as 64 hexadecimal digits; a tuple and a list of the same values are equal."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def without_nan(value: Any) -> Any:
    """The same nested values with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_json(path: Path, do: str) -> Any:
    """Read a JSON file of the kit; ``do`` says in the error what to do where it is missing or broken.

    Stricter than Python: a key that stands twice, NaN, numbers beyond float64 and half characters are refused,
    since each reader of JSON makes something else of them.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except FileNotFoundError as error:
        raise KitError(f"the file {path}", "no such file", do) from error
    except (OSError, ValueError, RecursionError) as error:
        raise KitError(f"{path} to be readable JSON", str(error), do) from error
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return content
