"""JSON files: read strictly, as plain values or as a frozen dataclass whose fields are checked; written atomically.

A dataclass alone takes any value: a list for a text would surface far away, as another error.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from kit.core.errors import KitError
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
    from pydantic import ValidationError

    content = read_json(path, do)
    known = known or {}
    expected = f"{path} to hold a {kind.__name__.lower()}"
    if isinstance(content, dict):
        if repeated := sorted(set(content) & set(known)):
            raise KitError(expected, f"the file has also {_shown(repeated[0])}", do)
        content |= known
    try:
        record: T = _adapter(kind).validate_json(json.dumps([content], default=str))[0]  # type: ignore[arg-type]
    except ValidationError as error:
        raise KitError(expected, _problem(error.errors(include_url=False)), do) from error
    except KitError as error:
        raise KitError(f"{error.expected}, in {path}", error.found, f"{error.do}; or {do}") from error
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


@functools.cache
def _adapter(kind: Hashable) -> Any:
    """pydantic hands its configuration down from a list, but not from a dataclass."""
    from pydantic import TypeAdapter

    return TypeAdapter(list[kind], config={"strict": True, "extra": "forbid", "allow_inf_nan": False})  # type: ignore[valid-type]


def _problem(errors: Sequence[Any]) -> str:
    """The first of pydantic's errors in kit's words."""
    error = errors[0]
    kind, path = error["type"], list(error["loc"][1:])
    name = path.pop() if kind in ("missing", "unexpected_keyword_argument") else None
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    field = field or "the file"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if isinstance(name, int):
        return f"{field} is {_shown(error['input'])}, not a list of {errors[-1]['loc'][-1] + 1}"
    if kind == "too_long":
        return f"{field} is {_shown(error['input'])}, not a list of {error['ctx']['max_length']}"
    if name is not None:
        return f"{field} has {'no' if kind == 'missing' else 'also'} {name if kind == 'missing' else _shown(name)}"
    return f"{field} is {_shown(error['input'])}, not {_WORDS.get(kind, error['msg'])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LETTERS_SHOWN else f"{text[:_LETTERS_SHOWN]}..."


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is repeated")
    return content
