"""JSON files: read strictly, as plain values or as a frozen dataclass whose fields are checked; written atomically.

A dataclass alone takes any value: a list for a text would surface far away, as another error.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from kit.core.errors import KitError
from kit.core.files import write_text

_LETTERS_SHOWN = 80
_WORDS = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false", type(None): "null"}
T = TypeVar("T")
FloatOrNaN = Annotated[float, "null in JSON"]  # a field that may be NaN, for which JSON has null


def read_record(path: Path, kind: type[T], do: str, known: Mapping[str, Any] | None = None) -> T:
    """Read a JSON object as the dataclass ``kind``; a field with a default may be missing.

    ``known`` holds the values of fields that are not in the file. Raises KitError with the file, the field, its
    value and the advice ``do`` if a field is missing, unknown or of another type, or if the dataclass raises
    ValueError.
    """
    content = read_json(path, do)
    try:
        return _record(kind, content, "", known or {})
    except ValueError as error:
        raise KitError(f"{path} to hold a {kind.__name__.lower()}", str(error), do) from error


def read_json(path: Path, do: str) -> Any:
    """Read a JSON file. Raises KitError with the advice ``do`` if it is missing or broken.

    Stricter than Python: repeated keys, NaN, numbers beyond float64 and lone surrogates are refused, because
    readers of JSON disagree about them.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except FileNotFoundError as error:
        raise KitError(f"the file {path}", "no such file", do) from error
    except (OSError, ValueError, RecursionError) as error:
        raise KitError(f"{path} to be readable JSON", str(error), do) from error
    return value


def write_record(path: Path, record: Any) -> None:
    """Write a dataclass as ``read_record`` reads it: every field under its name, null for NaN; atomically."""
    write_json(path, _without_nan(asdict(record)))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. Raises ValueError for NaN, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def fingerprint(value: Any) -> str:
    """The SHA-256 of a value's JSON, as 64 hexadecimal digits; a tuple and a list of the same values are equal."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _record(kind: type[T], content: Any, field: str, known: Mapping[str, Any]) -> T:
    if not isinstance(content, dict):
        raise _wrong(field or "the file", "an object", content)
    specs = {spec.name: spec for spec in fields(kind) if spec.name not in known}  # type: ignore[arg-type]
    unknown = sorted(set(content) - set(specs))
    missing = sorted(
        name
        for name, spec in specs.items()
        if name not in content and spec.default is MISSING and spec.default_factory is MISSING
    )
    if unknown or missing:
        problem = f"no {', '.join(missing)}" if missing else f"also {_shown(unknown[0])}"
        raise ValueError(f"{field or 'the file'} has {problem}")
    hints = get_type_hints(kind, include_extras=True)
    return kind(
        **known, **{name: _value(hints[name], value, _subfield(field, name)) for name, value in content.items()}
    )


def _value(hint: Any, value: Any, field: str) -> Any:
    """The value, checked against its annotation. Raises ValueError with the name of the field."""
    if hint == FloatOrNaN:
        return math.nan if value is None else _plain(float, value, field)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        rest = next(argument for argument in arguments if argument is not type(None))
        return None if value is None and type(None) in arguments else _value(rest, value, field)
    if origin is tuple:
        return _tuple(arguments, value, field)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _wrong(field, "an object", value)
        return {name: _value(arguments[1], item, _subfield(field, name)) for name, item in value.items()}
    return _record(hint, value, field, {}) if is_dataclass(hint) else _plain(hint, value, field)  # type: ignore[arg-type]


def _tuple(arguments: tuple[Any, ...], value: Any, field: str) -> tuple[Any, ...]:
    """A JSON list as a tuple of any length, or of as many items as the annotation has."""
    any_length = arguments[-1] is Ellipsis
    if not isinstance(value, list) or not (any_length or len(value) == len(arguments)):
        raise _wrong(field, "a list" if any_length else f"a list of {len(arguments)}", value)
    kinds = arguments[:1] * len(value) if any_length else arguments
    return tuple(
        _value(kind, item, f"{field}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _plain(hint: Any, value: Any, field: str) -> Any:
    """A number, text, bool or null; JSON may write 1 for 1.0."""
    plain = _as_float(value) if hint is float and type(value) is int else value
    if hint is not Any and (type(plain) is not hint or (hint is float and not math.isfinite(plain))):
        raise _wrong(field, _WORDS[hint], value)
    return plain


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _subfield(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _wrong(field: str, expected: str, value: Any) -> ValueError:
    return ValueError(f"{field} is {_shown(value)}, not {expected}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LETTERS_SHOWN else f"{text[:_LETTERS_SHOWN]}..."


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is repeated")
    return content
