"""A dataclass comes back from its file as it was, or the message names the field."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pytest

from kit.core.errors import KitError
from kit.core.files import write_text
from kit.core.json_files import (
    FloatOrNaN,
    as_record,
    fingerprint,
    read_json,
    read_record,
    require_moment,
    write_json,
    write_record,
)


@dataclass(frozen=True)
class Leg:
    name: str
    metres: float | None = None


@dataclass(frozen=True)
class Trip:
    legs: tuple[Leg, ...]
    span: tuple[float, float] = (0.0, 1.0)
    notes: Mapping[str, int] = field(default_factory=dict)
    fast: bool = False

    def __post_init__(self) -> None:
        if self.span[0] > self.span[1]:
            raise ValueError("a span ends where it begins or later")


@dataclass(frozen=True)
class Climb:
    metres: FloatOrNaN
    by_leg: Mapping[str, FloatOrNaN]


@dataclass(frozen=True)
class Way:
    climb: Climb | None = None


@dataclass(frozen=True)
class Journey:
    legs: tuple[Leg, ...] = ()
    best: Mapping[str, Way] = field(default_factory=dict)


@dataclass(frozen=True)
class Fork:
    with_: float
    if_: Mapping[str, float]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_that_an_editor_saved_is_read_alike(encoding, tmp_path):
    path = tmp_path / "trip.json"
    path.write_bytes('{"legs": [],\r\n "fast": true}\r\n'.encode(encoding))
    assert read_record(path, Trip, "restore it") == Trip((), fast=True)


def read(path, content):
    write_json(path / "trip.json", content)
    return read_record(path / "trip.json", Trip, "restore it")


def test_a_record_without_parts_is_one_with_its_defaults(tmp_path):
    assert read(tmp_path, {"legs": []}) == Trip(())


def test_a_record_goes_through_its_file(tmp_path):
    trip = Trip((Leg("a", 1.5), Leg("b")), (2.0, 3.0), {"x": 1}, fast=True)
    assert read(tmp_path, asdict(trip)) == trip


def test_a_score_that_is_unknown_is_nan_here_and_null_there(tmp_path):
    write_record(tmp_path / "climb.json", Climb(math.nan, {"a": math.nan, "b": 0.5}))
    assert read_json(tmp_path / "climb.json", "") == {"metres": None, "by_leg": {"a": None, "b": 0.5}}
    climb = read_record(tmp_path / "climb.json", Climb, "")
    assert math.isnan(climb.metres) and math.isnan(climb.by_leg["a"]) and climb.by_leg["b"] == 0.5


def test_a_whole_number_is_a_number(tmp_path):
    metres = read(tmp_path, {"legs": [{"name": "a", "metres": 2}]}).legs[0].metres
    assert (metres, type(metres)) == (2.0, float)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], r"the file is \[\], not an object"),
        ({}, "the file has no legs"),
        ({"legs": [], "x": 1}, "the file has also 'x'"),
        ({"legs": "ab"}, "legs is 'ab', not a list"),
        ({"legs": [{"name": "a"}, {"name": 3}]}, r"legs\[1\].name is 3, not a text"),
        ({"legs": [], "span": [1]}, r"span is \[1\], not a list of 2"),
        ({"legs": [], "span": []}, r"span is \[\], not a list of 2"),
        ({"legs": [], "span": [1, 2, 3]}, r"span is \[1, 2, 3\], not a list of 2"),
        ({"legs": [], "": 1}, "the file has also ''"),
        ({"legs": [], "span": [1, None]}, r"span\[1\] is None, not a finite number"),
        ({"legs": [], "span": [1, "2"]}, r"span\[1\] is '2', not a finite number"),
        ({"legs": [], "span": [1, 10**400]}, r"span\[1\] is 1000.*, not a finite number"),
        ({"legs": [], "span": [2, 1]}, "a span ends where it begins or later"),
        ({"legs": [], "notes": {"x": True}}, "notes.x is True, not a whole number"),
        ({"legs": [], "fast": 1}, "fast is 1, not true or false"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content, said, tmp_path):
    with pytest.raises(KitError, match=said) as caught:
        read(tmp_path, content)
    assert "trip.json" in caught.value.expected
    assert caught.value.do == "restore it"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"leg": []}, "the file has also 'leg'; nearest: legs"),
        ({"legs": [{"name": "a", "meters": 1}]}, r"legs\[0\] has also 'meters'; nearest: metres"),
        ({"legs": [], "best": {"a": {"climb": {"metre": 1}}}}, r"best\.a\.climb has also 'metre'; nearest: metres"),
    ],
)
def test_a_mistyped_key_is_told_the_nearest(content, said):
    with pytest.raises(KitError, match=said):
        as_record(content, Journey, "journey.json", "correct it")


def test_a_value_in_memory_is_checked_as_a_file_is():
    assert as_record({"name": "a"}, Leg, "here", "") == Leg("a")
    with pytest.raises(KitError, match="here to have the fields of a record 'Leg'"):
        as_record({"name": 3}, Leg, "here", "")


@pytest.mark.parametrize(
    "text", ["", "now", "2025-01-31", "2025-01-31T12:00:00", "1e400", "2025-13-01T00:00:00+00:00"]
)
def test_a_moment_has_a_date_a_time_and_its_distance_from_utc(text):
    require_moment("2025-01-31T12:00:00.5+00:00")
    with pytest.raises(ValueError, match="no date and time"):
        require_moment(text)


def test_text_that_utf_8_cannot_hold_is_refused_and_the_file_stays(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KitError, match="no UTF-8, after 'in the name x") as caught:
        write_text(path, "in the name x\udcff.png")
    assert str(path) in caught.value.expected
    str(caught.value).encode()
    assert path.read_text() == "old"


def test_a_field_that_is_known_already_is_not_in_the_file(tmp_path):
    write_json(tmp_path / "leg.json", {"metres": 1})
    assert read_record(tmp_path / "leg.json", Leg, "", {"name": "a"}) == Leg("a", 1.0)
    write_json(tmp_path / "leg.json", {"name": "b"})
    with pytest.raises(KitError, match="also 'name'"):
        read_record(tmp_path / "leg.json", Leg, "", {"name": "a"})


def test_a_fingerprint_is_of_the_json_and_tells_values_apart():
    assert fingerprint([1, "a"]) == fingerprint((1, "a"))
    assert fingerprint(["a"]) == hashlib.sha256(b'["a"]').hexdigest()
    assert len({fingerprint(value) for value in (1, "1", [1], {"1": 1}, None)}) == 5


def test_a_field_that_is_a_word_of_python_has_no_underscore_in_json(tmp_path):
    path = tmp_path / "fork.json"
    fork = Fork(0.5, {"with_": 1.0})
    write_record(path, fork)
    assert read_json(path, "") == {"with": 0.5, "if": {"with_": 1.0}}  # the key of a user's mapping stays
    assert read_record(path, Fork, "") == fork
    write_json(path, {"witf": 0.5, "if": {}})
    with pytest.raises(KitError, match="the file has also 'witf'; nearest: with, if"):
        read_record(path, Fork, "")
