"""Zips from outside: what is whole is unpacked, what would do harm is refused before a byte is written."""

import io
import stat
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaggle_server import zipped

from kit.core.errors import KitError
from kit.kaggle.zip_archive import Corrupt, unpack

LARGE = 1 << 30


def written(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    return path


def with_entry(name, mode=0, content=b"x"):
    goal = io.BytesIO()
    with zipfile.ZipFile(goal, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content)
    return goal.getvalue()


def test_an_empty_archive_unpacks_to_an_empty_folder(tmp_path):
    assert unpack(written(tmp_path, zipped({})), tmp_path / "out", LARGE) == {}
    assert list((tmp_path / "out").iterdir()) == []


def test_files_keep_their_paths_and_bytes(tmp_path):
    files = {"train/a.png": b"abc", "train.csv": b"", "test/deep/b.png": b"\0" * 100_000}
    sizes = unpack(written(tmp_path, zipped(files)), tmp_path / "out", LARGE)
    assert sizes == {"train/a.png": 3, "train.csv": 0, "test/deep/b.png": 100_000}
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (with_entry("../out.txt"), "would leave"),
        (with_entry("/etc/passwd"), "would leave"),
        (with_entry("a/../../b"), "would leave"),
        (with_entry("a\\..\\..\\b"), "would leave"),
        (with_entry("C:/b"), "would leave"),
        (with_entry("link", stat.S_IFLNK | 0o777, b"/etc/passwd"), "is a link"),
        (with_entry("pipe", stat.S_IFIFO | 0o644), "special file"),
    ],
)
def test_an_entry_that_would_do_harm_is_refused_and_nothing_is_written(content, fault, tmp_path):
    with pytest.raises(KitError, match=fault):
        unpack(written(tmp_path, content), tmp_path / "in" / "out", LARGE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_archive_with_a_password_is_refused_in_one_line_and_whoever_has_it_unpacks_by_hand(tmp_path):
    content = bytearray(zipped({"train.csv": b"x"}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of the entry, written twice
        content[content.find(mark) + place] |= 1
    with pytest.raises(KitError, match=r"'train\.csv' is encrypted; nothing was unpacked") as refused:
        unpack(written(tmp_path, bytes(content)), tmp_path / "out", LARGE)
    assert refused.value.do.startswith(f"unpack {tmp_path / 'a.zip'} by hand with its password, put train")
    assert not (tmp_path / "out").exists()


def test_an_entry_that_stands_there_twice_is_refused(tmp_path):
    goal = io.BytesIO()
    with zipfile.ZipFile(goal, "w") as archive:
        archive.writestr("a.png", b"1")
        archive.writestr("A.png", b"2")
    with pytest.raises(KitError, match="twice"):
        unpack(written(tmp_path, goal.getvalue()), tmp_path / "out", LARGE)


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path):
    bomb = written(tmp_path, zipped({"a": b"\0" * 5_000_000}))
    assert bomb.stat().st_size < 10_000
    with pytest.raises(KitError, match=r"unpack\w* to"):
        unpack(bomb, tmp_path / "out", 4_999_999)
    assert unpack(bomb, tmp_path / "out", 5_000_000) == {"a": 5_000_000}


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>Sign in</html>", zipped({"a": b"abc" * 99})[:-30]])
def test_what_is_no_whole_archive_is_corrupt(content, tmp_path):
    with pytest.raises(Corrupt, match="fetches it anew"):
        unpack(written(tmp_path, content), tmp_path / "out", LARGE)


RANDOM = bytes(zlib.crc32(bytes([i, j])) % 256 for i in range(20) for j in range(50))
WHOLE = zipped({"train/a.png": RANDOM, "train.csv": RANDOM[:300]})


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_never_gives_other_files_silently(tmp_path_factory, place, change):
    changed = bytearray(WHOLE)
    changed[place] ^= change
    folder = tmp_path_factory.mktemp("zip")
    try:
        sizes = unpack(written(folder, bytes(changed)), folder / "out", LARGE)
    except KitError:
        return
    # What no checksum covers: the time of a file, its attributes, its name (compared with Kaggle's list later).
    contents = sorted(path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file())
    assert contents == sorted([RANDOM, RANDOM[:300]])
    assert sorted(sizes.values()) == [300, 1000]
