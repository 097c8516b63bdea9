"""JSON files: read strictly, as plain values or as a frozen dataclass whose fields are checked; written atomically.

A dataclass alone takes any value: a list for a text would surface far away, as another error.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import keyword
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from kit.core.errors import KitError, closest_names
from kit.core.files import write_text
from kit.core.text_files import decoded

_LETTERS_SHOWN = 80
_WORDS = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a finite number",
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "mapping_type": "an object",
    "tuple_type": "a list",
    "none_required": "null",
    "finite_number": "a finite number",
}
T = TypeVar("T")


class _NullForNaN:
    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            lambda value: math.nan if value is None else value, core_schema.nullable_schema(handler(source))
        )


FloatOrNaN = Annotated[float, _NullForNaN]  # a field that may be NaN, for which JSON has null


def read_record(path: Path, kind: type[T], do: str, known: Mapping[str, Any] | None = None) -> T:
    """Read a JSON object as the dataclass ``kind``; a field with a default may be missing.

    ``known`` holds the values of fields that are not in the file. Raises KitError with the file, the field, its
    value and the advice ``do`` if a field is missing, unknown or of another type, or if the dataclass raises
    ValueError or KitError.
    """
    content = read_json(path, do)
    known = known or {}
    if isinstance(content, dict):
        if repeated := sorted(set(content) & set(known)):
            raise KitError(_expected(str(path), kind), f"the file has also {_shown(repeated[0])}", do)
        content |= known
    return as_record(content, kind, str(path), do)


def as_record(content: Any, kind: type[T], source: str, do: str) -> T:
    """A JSON value as the dataclass ``kind``, as `read_record` checks it; ``source`` says where it stands."""
    from pydantic import ValidationError

    try:
        record: T = _adapter(kind).validate_json(json.dumps([content], default=str))[0]  # type: ignore[arg-type]
    except ValidationError as error:
        found = _problem(kind, error.errors(include_url=False))
        raise KitError(_expected(source, kind), found, do) from error
    except KitError as error:
        raise KitError(f"{error.expected}, in {source}", error.found, f"{error.do}; or {do}") from error
    return record


def read_json(path: Path, do: str, finite: bool = True) -> Any:
    """Read a JSON file. Raises KitError with the advice ``do`` if it is missing or broken.

    Stricter than Python: repeated keys, NaN, numbers beyond float64 and lone surrogates are refused, because
    readers of JSON disagree about them. Without ``finite`` the caller checks the numbers, and can say where one is.
    """
    try:
        value = json.loads(decoded(path.read_bytes()), object_pairs_hook=_unique_keys)
        json.dumps(value, ensure_ascii=False, allow_nan=not finite).encode("utf-8")
    except FileNotFoundError as error:
        raise KitError(f"the file {path}", "no such file", do) from error
    except (OSError, ValueError, RecursionError) as error:
        raise KitError(f"{path} to be readable JSON", str(error), do) from error
    return value


def write_record(path: Path, record: Any) -> None:
    """Write a dataclass as ``read_record`` reads it: every field under its name, null for NaN; atomically."""
    write_json(path, record_content(record))


def record_content(record: Any) -> dict[str, Any]:
    """A dataclass as the JSON object that `write_record` writes."""
    content: dict[str, Any] = _without_nan(asdict(record, dict_factory=_by_key))
    return content


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. Raises ValueError for NaN, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def fingerprint(value: Any) -> str:
    """The SHA-256 of a value's JSON, as 64 hexadecimal digits; a tuple and a list of the same values are equal."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def require_moment(text: str) -> None:
    """Raise ValueError unless a text is a date and time with its distance from UTC (ISO 8601)."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{_shown(text)} is no date and time such as 2025-01-31T12:00:00+00:00")


def _key(field: str) -> str:
    """The key of a dataclass's field: ``with_`` is ``with`` in JSON, a word that Python keeps for itself."""
    return field[:-1] if field.endswith("_") and keyword.iskeyword(field[:-1]) else field


def _by_key(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {_key(name): value for name, value in fields}


def _expected(source: str, kind: type) -> str:
    return f"{source} to have the fields of a record {kind.__name__!r}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@functools.cache
def _adapter(kind: Hashable) -> Any:
    """pydantic hands its configuration down from a list, but not from a dataclass."""
    from pydantic import TypeAdapter

    strict: Any = {"strict": True, "extra": "forbid", "allow_inf_nan": False, "alias_generator": _key}
    return TypeAdapter(list[kind], config=strict)  # type: ignore[valid-type]


def _problem(record: Any, errors: Sequence[Any]) -> str:
    """The first of pydantic's errors in kit's words; of a key that is missing and one too many, the latter."""
    unknown = [error for error in errors if error["type"] == "unexpected_keyword_argument"]
    beside = [error for error in unknown if error["loc"][:-1] == errors[0]["loc"][:-1]]
    error = beside[0] if beside and errors[0]["type"] == "missing" else errors[0]
    kind, path = error["type"], list(error["loc"][1:])
    name = path.pop() if kind in ("missing", "unexpected_keyword_argument") else None
    names = _field_names(record, path)
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    field = field or "the file"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if isinstance(name, int):
        return f"{field} is {_shown(error['input'])}, not a list of {errors[-1]['loc'][-1] + 1}"
    if kind == "too_long":
        return f"{field} is {_shown(error['input'])}, not a list of {error['ctx']['max_length']}"
    if kind == "missing":
        return f"{field} has no {name}"
    if name is not None:
        return f"{field} has also {_shown(name)}" + (f"; nearest: {closest_names(name, names)}" if names else "")
    return f"{field} is {_shown(error['input'])}, not {_WORDS.get(kind, error['msg'])}"


def _field_names(kind: Any, path: Sequence[Any]) -> tuple[str, ...]:
    """The fields of the dataclass at a path into a record; none if there is no dataclass."""
    for step in path:
        kind = get_type_hints(kind).get(step) if is_dataclass(kind) else _item_kind(kind)
        if NoneType in get_args(kind):
            kind = get_args(kind)[0]
    return tuple(map(_key, get_type_hints(kind))) if is_dataclass(kind) else ()


def _item_kind(kind: Any) -> Any:
    """The type of the values of a mapping, or of the items of a tuple of any length."""
    kinds = [inner for inner in get_args(kind) if inner is not Ellipsis]
    return kinds[-1] if kinds else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LETTERS_SHOWN else f"{text[:_LETTERS_SHOWN]}..."


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is repeated")
    return content
