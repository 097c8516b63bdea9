"""Submissions are numbered, whole and never changed."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time

import pytest
from command_line import PATIENCE_SECONDS

from kit.core.errors import KitError
from kit.core.files import sha256
from kit.submission.folders import (
    INDEX_COLUMNS,
    Origin,
    newest,
    read_submissions,
    tidy,
    write_index,
    write_submission,
)
from kit.submission.messages import slug

TEXT = "ID,image_id\n0,a.png\n"


def filed(folder, message="first try", text=TEXT, score=0.25):
    return write_submission(folder, text, Origin(message, "seed", score), lambda path: None)


def test_no_submission_is_an_error_that_names_the_next_step(tmp_path):
    assert read_submissions(tmp_path) == []
    with pytest.raises(KitError, match="invoke predict"):
        newest(tmp_path)


def test_the_first_submission_has_number_one_its_message_and_its_score(tmp_path):
    submission = filed(tmp_path)
    assert submission.folder == tmp_path / "0001-first-try"
    assert submission.csv.read_text() == TEXT
    assert submission.csv_sha256 == sha256(submission.csv)
    assert read_submissions(tmp_path) == [submission]
    with (tmp_path / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [list(INDEX_COLUMNS)]
    assert (rows[0]["number"], rows[0]["message"], rows[0]["local_score"]) == ("1", "first try", "0.2500")


def test_interval_and_expected_score_are_kept_and_older_manifests_still_read(tmp_path):
    assert filed(tmp_path).origin.local_interval is None
    expected = {"mean": 0.2, "low": 0.15, "high": 0.25}
    origin = Origin("second", "seed", 0.25, local_interval=(0.2, 0.3), expected=expected)
    second = write_submission(tmp_path, TEXT, origin, lambda path: None)
    assert read_submissions(tmp_path)[1] == second
    manifest = tmp_path / "0001-first-try" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["origin"]["local_interval"], content["origin"]["expected"]
    manifest.write_text(json.dumps(content))
    first = read_submissions(tmp_path)[0].origin
    assert (first.local_interval, first.expected) == (None, {})


def test_the_newest_is_the_highest_number_also_past_9999(tmp_path):
    filed(tmp_path)
    (tmp_path / "0001-first-try").rename(tmp_path / "9999-first-try")
    manifest = tmp_path / "9999-first-try" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"number": 1', '"number": 9999'))
    assert filed(tmp_path).number == 10000
    assert newest(tmp_path).number == 10000


def test_a_number_is_not_used_again_after_its_folder_was_deleted(tmp_path):
    filed(tmp_path)
    second = filed(tmp_path)
    for path in second.folder.iterdir():
        path.unlink()
    second.folder.rmdir()
    assert filed(tmp_path).number == 3
    with (tmp_path / "index.csv").open(newline="") as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_a_folder_without_a_manifest_is_no_submission_but_keeps_its_number(tmp_path):
    (tmp_path / "0004-half").mkdir()
    assert read_submissions(tmp_path) == []
    assert filed(tmp_path).number == 5


def test_a_refused_csv_files_nothing(tmp_path):
    def refuse(path):
        assert path.read_text() == TEXT
        raise KitError("a valid file", "none", "nothing")

    with pytest.raises(KitError):
        write_submission(tmp_path, TEXT, Origin("m", "r", None), refuse)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert filed(tmp_path).number == 1


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"origin": 1}', "\x00"])
def test_a_broken_manifest_is_an_error_that_names_it_and_both_ways_out_work(content, tmp_path):
    folder = tmp_path / "submissions"
    first = filed(folder)
    manifest = first.folder / "manifest.json"
    copy = manifest.read_text()
    manifest.write_text(content)
    with pytest.raises(KitError, match="0001-first-try/manifest") as error:
        read_submissions(folder)
    assert "from a copy, or move the folder away: its number stays taken" in error.value.do
    manifest.write_text(copy)
    assert read_submissions(folder) == [first]
    manifest.write_text(content)
    first.folder.rename(tmp_path / "away")
    assert filed(folder).number == 2


def test_a_broken_index_is_an_error_that_says_how_it_is_made_anew(tmp_path):
    filed(tmp_path)
    (tmp_path / "index.csv").write_text("number,folder\nx,y\n")
    with pytest.raises(KitError, match="delete it"):
        filed(tmp_path)
    (tmp_path / "index.csv").unlink()
    write_index(tmp_path)
    assert filed(tmp_path).number == 2


@pytest.mark.parametrize(
    ("message", "expected"),
    [("First try!", "first-try"), ("", "submission"), ("日本", "submission"), ("../../etc", "etc"),
     ("Größe × 2", "groe-2"), ("a" * 99, "a" * 40), ("x" * 39 + " y", "x" * 39)],
)  # fmt: skip
def test_a_slug_is_a_plain_folder_name(message, expected):
    assert slug(message) == expected


def _file_many(folder, count):
    for _ in range(count):
        filed(folder)


def test_processes_at_once_get_their_own_numbers_and_one_index(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_file_many, args=(tmp_path, 5)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert [one.number for one in read_submissions(tmp_path)] == list(range(1, 21))
    with (tmp_path / "index.csv").open(newline="") as file:
        assert [int(row["number"]) for row in csv.DictReader(file)] == list(range(1, 21))


def _file_and_hang(folder, started):
    def hang(path):
        started.set()
        time.sleep(PATIENCE_SECONDS)

    write_submission(folder, TEXT, Origin("killed", "r", None), hang)


def test_a_kill_before_the_folder_has_its_name_leaves_no_submission(tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    worker = context.Process(target=_file_and_hang, args=(tmp_path, started))
    worker.start()
    assert started.wait(PATIENCE_SECONDS)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert read_submissions(tmp_path) == []
    assert any(path.name.endswith(".partial") for path in tmp_path.iterdir())
    assert filed(tmp_path).number == 1
    assert not any(path.name.endswith(".partial") for path in tmp_path.iterdir())


def test_what_a_kill_left_half_written_is_tidied_and_the_index_made_whole(tmp_path):
    tidy(tmp_path / "new")
    assert read_submissions(tmp_path / "new") == []
    submission = filed(tmp_path)
    (tmp_path / "index.csv").unlink()
    for folder in (tmp_path, submission.folder):
        (folder / ".x.partial").write_text("half")
    tidy(tmp_path)
    assert not list(tmp_path.rglob("*.partial"))
    assert (tmp_path / "index.csv").read_text().splitlines()[1].startswith("1,0001-first-try")


def test_a_copied_folder_is_refused_until_it_is_moved_away(tmp_path):
    first = filed(tmp_path / "here")
    copy = shutil.copytree(first.folder, first.folder.with_name("0001-first-try-copy"))
    shutil.copytree(first.folder, first.folder.with_name("0001-first-try (copy)"))  # no submission's name
    for use in (read_submissions, newest, filed):
        with pytest.raises(KitError, match="0001-first-try and 0001-first-try-copy") as caught:
            use(tmp_path / "here")
        assert "move the copy out of" in caught.value.do
    copy.rename(tmp_path / "elsewhere")
    assert read_submissions(tmp_path / "here") == [first]
    assert filed(tmp_path / "here").number == 2


@pytest.mark.parametrize("name", ["0002-Hand_made (best)", "02", "best", "0002_by_me"])
def test_a_renamed_folder_is_refused_until_it_has_its_name_again(name, tmp_path):
    first, second = filed(tmp_path / "here"), filed(tmp_path / "here", "second try")
    second.folder.rename(second.folder.with_name(name))
    for use in (read_submissions, newest, filed):
        with pytest.raises(KitError, match="submission 0002 under the name") as caught:
            use(tmp_path / "here")
    subprocess.run(caught.value.do.removeprefix("rename it back: "), shell=True, check=True)
    assert read_submissions(tmp_path / "here") == [first, second]
    assert newest(tmp_path / "here") == second
    assert filed(tmp_path / "here").number == 3


@pytest.mark.parametrize("at", ["", "yesterday", "2025-01-31T12:00:00", "9" * 30])
def test_a_time_that_is_none_is_refused_with_its_manifest(at, tmp_path):
    path = filed(tmp_path).folder / "manifest.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"created_at": at}))
    with pytest.raises(KitError, match="no date and time") as caught:
        read_submissions(tmp_path)
    assert str(path) in caught.value.expected
    path.write_text(json.dumps(whole))  # restored, as advised
    assert len(read_submissions(tmp_path)) == 1
