"""A write is whole or has not happened."""

import json
import os
import stat
from pathlib import Path

import pytest
from filelock import Timeout

from kit.core.errors import KitError, closest_names, first_few, reason
from kit.core.files import remove_partials, replacing, require_existing, sha256, write_text
from kit.core.json_files import read_json, write_json
from kit.core.locks import exclusive, locked, locked_folder


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_written_file_is_readable_as_any_other_new_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize(
    ("typed", "near"),
    [("detectons.csv", "detections.csv"), ("DETECTIONS.CSV", "detections.csv"), ("preds/a.json", "pred"),
     ("pred/b.json", "a.json"), ("pred/x/a.json", "a.json")],
)  # fmt: skip
def test_a_path_that_is_not_there_has_the_nearest_names(typed, near, tmp_path, monkeypatch):
    (tmp_path / "pred").mkdir()
    for name in ("detections.csv", "pred/a.json", ".hidden"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / typed, Path(typed)):
        with pytest.raises(KitError) as caught:
            require_existing(path, "--detections")
        assert caught.value.found == f"no such file or folder: {path}"
        assert caught.value.do.startswith("name another --detections; in ")
        assert near in caught.value.do
        assert ".hidden" not in caught.value.do
    require_existing(
        tmp_path / near if near != "a.json" else tmp_path / "pred" / near, "--detections"
    )  # as advised


def test_a_path_that_no_system_takes_is_said_with_its_reason(tmp_path):
    with pytest.raises(KitError, match="too long"):
        require_existing(tmp_path / ("x" * 5000), "--file")


def test_line_ends_are_written_as_they_are(tmp_path):
    write_text(tmp_path / "a", "1\n2\n")
    assert (tmp_path / "a").read_bytes() == b"1\n2\n"


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KitError, match=r"file/a\.txt"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_nan_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"\x00"])
def test_a_broken_json_file_is_an_error_that_says_what_to_do(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(KitError, match="restore it"):
        read_json(tmp_path / "a.json", "restore it")


def test_json_goes_through_a_file(tmp_path):
    write_json(tmp_path / "a.json", {"ä": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json", "") == {"ä": [1, 2.5, None]}
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ä": [1, 2.5, None]}


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".a.txt.x.partial").write_text("half")
    (tmp_path / ".b.1.partial").mkdir()
    (tmp_path / ".b.1.partial" / "c").write_text("")
    (tmp_path / "kept.partial").write_text("whole")
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.partial"]


def test_sha256_of_nothing_is_the_known_one(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert sha256(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_nearest_names_all_where_none_is_near():
    assert closest_names("zzz", ["seed", "demo"]) == "demo, seed"
    assert closest_names("sead", ["seed", "demo"]) == "seed"
    assert closest_names("x", []) == "(none)"


def test_a_long_list_is_cut_and_says_how_many_more_there_are():
    assert first_few([]) == ""
    assert first_few("ab", 2) == "a, b"
    assert first_few([1, 2, 3, 4], 1, "; ") == "1; and 3 more"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n one"), "one"),
        (PermissionError(13, "Permission denied", "a.txt"), "Permission denied"),
        (OSError("cut off"), "cut off"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_the_reason_of_an_error_is_one_line_and_never_empty(error, words):
    assert reason(error) == words


def test_a_folder_of_results_is_cleared_of_half_written_files_and_held(tmp_path):
    with locked_folder(tmp_path / "new") as folder:
        assert folder.is_dir()
        with pytest.raises(Timeout), locked(folder / ".lock", seconds=0):
            raise AssertionError("two hold it")
    (folder / ".report.json.x.partial").write_text("half")
    (folder / "report.json").write_text("whole")
    with locked_folder(folder):
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "report.json"]


def test_a_second_holder_is_refused_with_the_number_of_the_first_and_nothing_but_the_lock_stays(tmp_path):
    path = tmp_path / ".upload.lock"
    with exclusive(path, "one at a time"):
        assert (tmp_path / ".upload.holder").read_text() == str(os.getpid())
        refused = pytest.raises(KitError, match=f"process {os.getpid()} is at work")
        with refused as caught, exclusive(path, "one at a time"):
            raise AssertionError("two hold it")
    assert (caught.value.expected, caught.value.do) == ("one at a time", "wait for it to end")
    assert [path.name for path in tmp_path.iterdir()] == [".upload.lock"]
