"""`invoke download` with the real client: it ends with the right files or says why not, whatever goes wrong."""

import ctypes
import dataclasses
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import stat
import time
import zipfile

import pytest
from command_line import PATIENCE_SECONDS
from kaggle_server import FOREVER, KEY, TOKEN, USERNAME, Competition, KaggleServer, zipped
from kaggle_user import QUICK, User
from repository import KILLER
from toy import TOY_TEST_IMAGES, copied, toy_config

from kit.config import Config
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.progress import silent
from kit.data.provenance import NAME, downloaded_slug, has_own_table
from kit.kaggle.competition_api import Kaggle
from kit.kaggle.download import FILE_LIST, _accept, _fetch, _require_no_other_form, download
from kit.schemas.file_names import COMPETITION_FILES
from kit.schemas.image_headers import image_headers

SLUG = "toy-competition"
KNOBS = ("--set", f"competition.expected_ids={TOY_TEST_IMAGES}", *QUICK)
WORDS = ("download", "--competition", SLUG, *KNOBS)


@pytest.fixture(scope="module")
def running(toy_source):
    with KaggleServer() as server:
        yield server
        assert server.errors == []


@pytest.fixture
def server(running, toy_source):
    running.forget()
    running.competitions.clear()
    running.add_competition(SLUG, toy_source / "data", toy_source / "test_truth.csv")
    return running


@pytest.fixture
def user(server, tmp_path):
    made = User(server, tmp_path)
    (made.workspace / "data").mkdir()
    (made.workspace / "data" / "README.md").write_text("keep me")
    return made


def contents(folder):
    """Every file under train/, test/ and the tables, with its bytes."""
    pieces = [path for name in COMPETITION_FILES for path in [folder / name, *(folder / name).rglob("*")]]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in pieces if path.is_file()}


def assert_whole(user, source, origin="kaggle"):
    data = user.workspace / "data"
    assert contents(data) == contents(source / "data")
    assert (data / "README.md").read_text() == "keep me"
    marker = json.loads((data / NAME).read_text())
    assert (marker["slug"], marker["origin"]) == (SLUG, origin)
    assert marker["table_sha256"] == sha256(source / "data" / "train.csv")
    assert {path.name for path in data.iterdir()} == {*COMPETITION_FILES, "README.md", NAME, ".download.lock"}


# In this process, without a network: the data as Kaggle's own machines mount it.


@pytest.fixture
def mounted(toy_source, tmp_path):
    copied(toy_source / "data", tmp_path / "input" / SLUG)
    config = toy_config()
    kaggle = dataclasses.replace(config.kaggle, input_root=str(tmp_path / "input"))
    return dataclasses.replace(config, kaggle=kaggle)


def test_without_a_download_there_is_no_slug(tmp_path):
    assert downloaded_slug(tmp_path) is None


@pytest.mark.parametrize("place", ["", "competitions"])
def test_on_kaggle_the_mounted_data_is_linked_and_judged(place, mounted, tmp_path):
    root = tmp_path / "input"
    if place:
        (root / place).mkdir()
        (root / SLUG).rename(root / place / SLUG)
    found, already = download(tmp_path / "work", mounted, SLUG)
    assert (found.slug, found.origin, already) == (SLUG, "mounted", False)
    assert (tmp_path / "work" / "data" / "train").readlink() == root / place / SLUG / "train"
    assert contents(tmp_path / "work" / "data") == contents(root / place / SLUG)
    assert downloaded_slug(tmp_path / "work") == SLUG
    assert has_own_table(tmp_path / "work" / "data")
    assert download(tmp_path / "work", mounted) == (found, True)
    assert download(tmp_path / "work", mounted, f"https://www.kaggle.com/competitions/{SLUG}/data?x=1")[1]
    assert download(tmp_path / "work", mounted, f"competitions/{SLUG}") == (found, True)
    assert download(tmp_path / "work", mounted, force=True) == (found, False)


def test_links_of_a_killed_call_are_completed_and_files_of_the_user_are_not_replaced(mounted, tmp_path):
    data = tmp_path / "work" / "data"
    data.mkdir(parents=True)
    (data / "train").symlink_to(tmp_path / "input" / SLUG / "train")
    assert download(tmp_path / "work", mounted, SLUG)[0].origin == "mounted"
    (data / NAME).unlink()
    (data / "train.csv").unlink()
    (data / "train.csv").write_text("mine")
    with pytest.raises(KitError, match=r"train\.csv") as error:
        download(tmp_path / "work", mounted, SLUG)
    assert (data / "train.csv").read_text() == "mine"
    assert error.value.do == "move these away, then call again"
    (data / "train.csv").rename(tmp_path / "mine.csv")
    assert download(tmp_path / "work", mounted, SLUG)[0].origin == "mounted"


def test_a_mapping_of_another_edition_is_refused_with_the_flag_that_reads_it(mounted, tmp_path):
    other = dataclasses.replace(mounted, competition=Config().competition)
    with pytest.raises(KitError, match=f"--set competition.expected_ids={TOY_TEST_IMAGES}"):
        download(tmp_path / "work", other, SLUG)
    assert downloaded_slug(tmp_path / "work") is None
    assert not download(tmp_path / "work", mounted, SLUG)[1]


def test_a_changed_file_is_found_by_the_next_call(mounted, tmp_path):
    download(tmp_path / "work", mounted, SLUG)
    table = tmp_path / "input" / SLUG / "train.csv"
    text = table.read_text()
    table.write_text(text.replace("Mass", "Moss").replace("Nodule", "Module"))
    with pytest.raises(KitError, match=r"train\.csv: other content"):
        download(tmp_path / "work", mounted)
    table.write_text(text)
    next((tmp_path / "input" / SLUG / "test").glob("*.png")).unlink()
    with pytest.raises(KitError, match=r"test/.*png: missing"):
        download(tmp_path / "work", mounted)


@pytest.mark.parametrize("name", ["train.csv", "ID_to_Image_Mapping.csv"])
def test_a_table_that_another_editor_has_saved_is_the_same_table(name, mounted, tmp_path):
    table = tmp_path / "input" / SLUG / name
    text = table.read_text()
    table.write_bytes(text.replace("\n", "\r\n").encode())
    record, _ = download(tmp_path / "work", mounted, SLUG)
    for encoding, end in (("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\r\n"), ("utf-16", "\n")):
        table.write_bytes(text.replace("\n", end).encode(encoding))
        assert download(tmp_path / "work", mounted) == (record, True)
        assert has_own_table(tmp_path / "work" / "data")
    table.write_bytes(text.replace("\n", "\n\n", 1).encode())
    with pytest.raises(KitError, match=name):
        download(tmp_path / "work", mounted)


def test_a_set_that_is_mounted_in_a_folder_more_is_linked(mounted, tmp_path):
    root = tmp_path / "input" / SLUG
    root.rename(tmp_path / "whole")
    root.mkdir()
    (tmp_path / "whole").rename(root / "chest-xray")
    found, _ = download(tmp_path / "work", mounted, SLUG)
    assert len(found.files) == 42
    assert contents(tmp_path / "work" / "data") == contents(root / "chest-xray")


def test_companions_of_desktops_are_neither_images_nor_changes(mounted, tmp_path):
    for name in ("train/._a.png", "test/Thumbs.db", "test/.DS_Store", "train/desktop.ini"):
        (tmp_path / "input" / SLUG / name).write_bytes(b"x")
    found, _ = download(tmp_path / "work", mounted, SLUG)
    (tmp_path / "input" / SLUG / "test" / "Thumbs.db").unlink()
    assert download(tmp_path / "work", mounted) == (found, True)


def test_another_competition_is_not_mixed_in_and_both_ways_out_work(mounted, tmp_path):
    download(tmp_path / "work", mounted, SLUG)
    (tmp_path / "input" / "another-one").symlink_to(tmp_path / "input" / SLUG)
    with pytest.raises(KitError, match="--workspace") as error:
        download(tmp_path / "work", mounted, "another-one")
    assert f"or move what {tmp_path / 'work' / 'data'} holds away, {NAME} too" in error.value.do
    assert download(tmp_path / "other", mounted, "another-one")[0].slug == "another-one"
    (tmp_path / "work" / "data").rename(tmp_path / "away")
    assert download(tmp_path / "work", mounted, "another-one")[0].slug == "another-one"


def test_images_that_were_deleted_come_back_as_the_refusal_says(mounted, tmp_path):
    data = tmp_path / "work" / "data"
    download(tmp_path / "work", mounted, SLUG)
    (data / "train").unlink()
    with pytest.raises(KitError, match="hidden files too, and `invoke download` brings all files"):
        image_headers(data / "train")
    data.rename(tmp_path / "away")
    download(tmp_path / "work", mounted, SLUG)
    assert len(image_headers(data / "train")) == 32


def test_a_folder_that_was_renamed_is_named_and_right_once_renamed_back(mounted, tmp_path):
    data = tmp_path / "work" / "data"
    download(tmp_path / "work", mounted, SLUG)
    (data / "train").unlink()
    shutil.copytree(tmp_path / "input" / SLUG / "train", data / "Train")
    with pytest.raises(KitError, match=f"do:       rename {data / 'Train'} to {data / 'train'}; or "):
        download(tmp_path / "work", mounted)
    (data / "Train").rename(data / "train")
    assert download(tmp_path / "work", mounted)[1]


def test_a_set_that_is_mounted_in_another_case_is_linked(mounted, tmp_path):
    root = tmp_path / "input" / SLUG
    for name, other in (("train", "Train"), ("train.csv", "Train.csv"), ("test", "TEST")):
        (root / name).rename(root / other)
    found, _ = download(tmp_path / "work", mounted, SLUG)
    assert len(found.files) == 42
    assert (tmp_path / "work" / "data" / "train").readlink() == root / "Train"
    assert download(tmp_path / "work", mounted) == (found, True)


class Sends(Kaggle):
    """A connection that sends one archive."""

    def __init__(self, archive):
        self.archive = archive

    def download(self, slug, folder, track):
        (folder / f"{slug}.zip").write_bytes(self.archive)
        return folder / f"{slug}.zip"


LISTS = {  # how Kaggle's list may differ from a whole archive
    "another size": lambda sizes: sizes | {"train.csv": 1},
    "one more": lambda sizes: sizes | {"sample_submission.csv": 7},
    "other sizes in a folder more": lambda sizes: {f"x/{name}": size + 1 for name, size in sizes.items()},
    "far too large": lambda sizes: sizes | {"train.csv": 10**15},
}


@pytest.mark.parametrize("differs", LISTS)
def test_a_list_that_is_wrong_stops_neither_an_archive_nor_files_of_the_user_if_it_is_allowed(
    differs, toy_source, tmp_path, caplog
):
    files, data = contents(toy_source / "data"), copied(toy_source / "data", tmp_path / "data")
    listed = LISTS[differs]({name: len(content) for name, content in files.items()})
    words = (listed, toy_config(), SLUG)

    def fetched(allow):
        return _fetch(Sends(zipped(files)), tmp_path / "staging", *words, silent, allow)

    def accepted(allow):
        return _accept(data, *words, COMPETITION_FILES, False, allow).files

    for way in (fetched, accepted):
        if way is fetched or differs != "one more":  # beside the competition's files
            with pytest.raises(KitError) as refused:
                way(())
            assert "--allow file-list" in refused.value.expected + refused.value.do
        assert way((FILE_LIST,)) == {name: len(content) for name, content in files.items()}
    assert "Kaggle's list differs, which is allowed: " in caplog.text


def test_another_name_after_allow_is_refused_with_the_right_one(mounted, tmp_path):
    with pytest.raises(KitError, match="nearest: file-list") as refused:
        download(tmp_path / "work", mounted, SLUG, allow=("filelist",))
    assert download(tmp_path / "work", mounted, SLUG, allow=(refused.value.do.split()[-1],))[0].slug == SLUG


def test_an_archive_of_the_user_is_seen_before_anything_is_downloaded(toy_source, tmp_path, caplog):
    data = tmp_path / "data"
    data.mkdir()
    (data / "toy.zip").write_bytes(zipped(contents(toy_source / "data")))
    (data / "scans.tar.gz").write_bytes(b"x")
    with pytest.raises(KitError, match=r"found:    scans\.tar\.gz, toy\.zip") as refused:
        _require_no_other_form(data)
    assert f"unpack toy.zip in {data}; then call again" in refused.value.do
    (data / "toy.zip").write_bytes(b"cut")  # whatever it was
    _require_no_other_form(data)
    assert "if scans.tar.gz, toy.zip" in caplog.text


@pytest.mark.parametrize("text", ["", "two words", "https://example.com/competitions/x", "../x"])
def test_what_is_no_competition_is_refused(text, mounted, tmp_path):
    with pytest.raises(KitError, match="--competition SLUG"):
        download(tmp_path / "work", mounted, text)


def test_without_credentials_the_places_are_named_before_anything_else(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("KAGGLE", "XDG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(KitError, match="KAGGLE_API_TOKEN"):
        download(tmp_path / "work", toy_config(), SLUG)


# The real client.


@pytest.mark.slow
def test_the_files_arrive_whole_and_a_second_call_says_so(user, server, toy_source):
    (user.workspace / "data" / "notes.txt").write_text("mine")
    done = user.invoke(*WORDS)
    assert done.returncode == 0, done.stderr
    assert f"competition {SLUG}: checked, 42 files" in done.stdout
    assert "download" in done.stderr
    assert "unpack" in done.stderr
    assert (user.workspace / "data" / "notes.txt").read_text() == "mine"
    (user.workspace / "data" / "notes.txt").unlink()
    assert_whole(user, toy_source)
    before = len(server.seen)
    again = user.invoke("download")
    assert "all is there" in again.stdout
    assert len(server.seen) == before


@pytest.mark.slow
def test_force_fetches_anew_and_follows_the_server(user, server, toy_source, toy, tmp_path):
    assert user.invoke(*WORDS).returncode == 0
    lines = (toy / "data" / "train.csv").read_text().splitlines(keepends=True)
    (toy / "data" / "train.csv").write_text("".join([lines[0], *lines[:0:-1]]))
    server.add_competition(SLUG, toy / "data")
    done = user.invoke("download", "--force", *KNOBS)
    assert done.returncode == 0, done.stderr
    assert_whole(user, toy)


@pytest.mark.slow
def test_force_refuses_to_delete_what_the_user_added_or_changed(user, server, toy_source):
    data = user.workspace / "data"
    assert user.invoke(*WORDS).returncode == 0
    server.forget()
    for name in ("train/mine.txt", "test/.mine"):
        (data / name).write_text("mine")
        user.refused(*WORDS, "--force", says=[name, "move these away"])
        assert (data / name).read_text() == "mine"
        (data / name).unlink()
    text = (data / "train.csv").read_text()
    for changed in (text + "\n", text[::-1]):  # another size, and the same size
        (data / "train.csv").write_text(changed)
        user.refused(*WORDS, "--force", says=["train.csv", "move these away"])
        assert (data / "train.csv").read_text() == changed
    assert "storage" not in server.names()
    (data / "train.csv").unlink()
    assert user.invoke(*WORDS, "--force").returncode == 0
    assert_whole(user, toy_source)


@pytest.mark.slow
def test_hidden_files_of_an_archive_are_not_missed_and_not_the_users(user, server, toy):
    (toy / "data" / "train" / ".DS_Store").write_text("of the organisers")
    server.add_competition(SLUG, toy / "data")
    assert user.invoke(*WORDS).returncode == 0
    assert "all is there" in user.invoke("download").stdout
    assert user.invoke(*WORDS, "--force").returncode == 0
    assert_whole(user, toy)


@pytest.mark.slow
def test_refused_data_are_fetched_anew_by_force_and_not_the_organisers_once_corrected(
    user, server, toy, toy_source
):
    data = user.workspace / "data"
    text = (toy / "data" / "train.csv").read_text()
    (toy / "data" / "train.csv").write_text(text + "broken\n")
    server.add_competition(SLUG, toy / "data")
    user.refused(*WORDS, says=["train.csv"])
    (data / "train.csv").write_text(text)
    user.refused(*WORDS, "--force", says=["train.csv", "move these away"])
    assert "put there by hand" in user.invoke(*WORDS).stdout
    assert not has_own_table(data)
    assert "all is there" in user.invoke("download").stdout

    (data / NAME).unlink()
    for name in COMPETITION_FILES:
        shutil.move(data / name, user.home / name)
    user.refused(*WORDS, says=["train.csv"])
    server.add_competition(SLUG, toy_source / "data")
    assert user.invoke(*WORDS, "--force").returncode == 0
    assert_whole(user, toy_source)


@pytest.mark.slow
def test_refused_credentials_name_their_source(server, tmp_path):
    stranger = User(server, tmp_path / "1", token="KGAT_unknown")
    said = stranger.refused(*WORDS, says=["the variable KAGGLE_API_TOKEN", "kaggle auth login"])
    assert "KGAT_unknown" not in said
    stranger = User(server, tmp_path / "2", token=None, KAGGLE_USERNAME=USERNAME, KAGGLE_KEY="wrong-key")
    said = stranger.refused(*WORDS, says=["KAGGLE_USERNAME and KAGGLE_KEY", "401"])
    assert "wrong-key" not in said
    both = User(server, tmp_path / "4", token="KGAT_unknown", KAGGLE_USERNAME=USERNAME, KAGGLE_KEY=KEY)
    both.refused(*WORDS, says=["the variable KAGGLE_API_TOKEN", "unknown or expired"])  # no other account is taken
    User(server, tmp_path / "3", token=None).refused(*WORDS, says=["1. the variable KAGGLE_API_TOKEN", "5. "])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["CR", "UTF-16"])
def test_credentials_that_the_client_would_misread_are_used_and_never_shown(form, server, tmp_path, toy_source):
    user = User(server, tmp_path, token=f"{TOKEN}\r\n" if form == "CR" else None)
    if form == "UTF-16":
        path = user.home / ".kaggle" / "kaggle.json"
        path.parent.mkdir()
        path.write_bytes(json.dumps({"username": USERNAME, "key": KEY}).encode("utf-16"))
        path.chmod(0o600)
    done = user.invoke(*WORDS)
    assert done.returncode == 0, done.stderr
    assert ("the variable KAGGLE_API_TOKEN" in done.stderr) == (form == "CR")
    assert contents(user.workspace / "data") == contents(toy_source / "data")


@pytest.mark.slow
def test_a_key_that_others_can_read_is_warned_of_and_used(server, tmp_path):
    user = User(server, tmp_path, token=None)
    path = user.home / ".kaggle" / "kaggle.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"username": USERNAME, "key": KEY}))
    path.chmod(0o644)
    done = user.invoke(*WORDS)
    assert done.returncode == 0, done.stderr
    assert f"chmod 600 {path}" in done.stderr


@pytest.mark.slow
def test_rules_and_names_are_refused_with_the_servers_reason(user, server):
    server.competitions[SLUG].rules_accepted = False
    user.refused(*WORDS, says=["You must accept", f"https://www.kaggle.com/competitions/{SLUG}/rules"])
    user.refused("download", "--competition", "no-such", *QUICK, says=["not found: no-such", "--competition SLUG"])
    assert not list((user.workspace / "data").glob("train*"))


@pytest.mark.slow
def test_a_busy_server_is_waited_for_as_it_asks(user, server, toy_source):
    server.fail("IntrospectToken", status=503)
    server.fail("ListDataFiles", status=429, headers={"Retry-After": "0.2"}, times=2)
    server.fail("DownloadDataFiles", status=500)
    server.fail("ListDataFiles", drop="before")
    done = user.invoke(*WORDS, "--set", "kaggle.attempts=4")
    assert done.returncode == 0, done.stderr
    assert "Kaggle answered 429; trying again in 0.2 s" in done.stderr
    assert_whole(user, toy_source)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"status": 429, "headers": {"Retry-After": "3600"}}, ["429", "wait 3600 s"]),
        ({"status": 502, "body": b"<html><h1>Bad gateway</h1></html>"}, ["502: Bad gateway", "later"]),
        ({"drop": "before"}, ["no answer", "network"]),
        ({"slow_seconds": 30}, ["to list the files", "no answer within 8 s"]),
    ],
)
def test_a_server_that_stays_away_is_given_up(fault, says, user, server):
    server.fail("ListDataFiles", times=FOREVER, **fault)
    seconds = 8 if "slow_seconds" in fault else 60  # a client that is slow to begin is not yet the server's fault
    patience = ("--set", f"kaggle.deadline_seconds={seconds}", "--set", "kaggle.attempts=1")
    user.refused(*WORDS, *patience, says=says)


@pytest.mark.slow
def test_no_network_is_said(user):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"  # it is held, and nobody listens there
        user.environment |= {"http_proxy": nobody, "https_proxy": nobody}
        user.refused(*WORDS, says=["Connection refused", "check the network"])


@pytest.mark.slow
def test_a_cut_download_goes_on_where_it_was_cut(user, server, toy_source):
    server.fail("storage", cut_after=50_000)
    done = user.invoke(*WORDS)
    assert done.returncode == 0, done.stderr
    assert server.names().count("storage") == 2
    assert [one.status for one in server.seen if one.name == "storage"] == [200, 206]
    assert_whole(user, toy_source)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_download_that_is_stopped_goes_on_by_the_same_command(how, code, user, server, toy):
    (toy / "data" / "more.bin").write_bytes(random.Random(1).randbytes(3_000_000))  # the client writes MiB by MiB
    server.add_competition(SLUG, toy / "data")
    server.fail("storage", bytes_per_second=500_000)
    process = user.start(*WORDS, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    archive = user.workspace / "data" / ".download" / f"{SLUG}.zip"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not archive.exists() or archive.stat().st_size < 1_000_000:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    done = user.ended(process)
    assert done.returncode == code
    assert ("the same command goes on" in done.stderr) == (how == signal.SIGINT)
    server.forget()
    assert user.invoke(*WORDS).returncode == 0
    assert [one.status for one in server.seen if one.name == "storage"] == [200, 206]
    (user.workspace / "data" / "more.bin").unlink()
    assert_whole(user, toy)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [{"wrong_byte": 10_000}, {"status": 200, "body": b"<html>Sign in</html>"}], ids=["byte", "page"]
)
def test_wrong_bytes_are_fetched_anew_once_and_never_kept(fault, user, server, toy_source):
    server.fail("storage", times=2, **fault)
    user.refused(*WORDS, says=["fetches it anew"])
    assert not list((user.workspace / "data").glob("t*"))
    server.forget()
    server.fail("storage", **fault)
    assert user.invoke(*WORDS).returncode == 0
    assert server.names().count("storage") == 2
    assert_whole(user, toy_source)


def offered(server, files, listed=None):
    """Let the server offer these files, and list others."""
    sizes = [(name, len(content)) for name, content in files.items()]
    server.competitions[SLUG] = Competition(SLUG, zipped(files), sizes if listed is None else listed)


@pytest.mark.slow
def test_a_list_that_breaks_off_is_a_warning_and_a_longer_one_keeps_the_archive(user, server, toy_source):
    files = contents(toy_source / "data")
    sizes = [(name, len(content)) for name, content in files.items()]
    offered(server, files, [*sizes, ("test/more.png", 7)])
    for _ in range(2):
        said = user.refused(*WORDS, says=["test/more.png: missing", "without fetching"])
    assert server.names().count("storage") == 1 + 1  # the second one only looks at the archive's date
    archive = user.workspace / "data" / ".download" / f"{SLUG}.zip"
    assert str(archive) in said
    assert archive.read_bytes() == server.competitions[SLUG].archive
    offered(server, files, sizes[:20])
    done = user.invoke(*WORDS)
    assert done.returncode == 0, done.stderr
    assert "Kaggle's list lacks 22 of 42 files" in done.stderr
    assert "42 files" in done.stdout
    assert_whole(user, toy_source)


@pytest.mark.slow
def test_a_missing_file_is_added_by_hand_as_the_refusal_says(user, server, toy_source):
    files = contents(toy_source / "data")
    *others, last = files
    offered(server, {name: files[name] for name in others}, [(name, len(files[name])) for name in files])
    user.refused(*WORDS, says=[f"{last}: missing", "put train, test"])
    shutil.copytree(toy_source / "data", user.workspace / "data", dirs_exist_ok=True)
    (user.workspace / "data" / "README.md").write_text("keep me")
    done = user.invoke(*WORDS)
    assert "checked, 42 files" in done.stdout, done.stderr
    assert "all is there, 42 files" in user.invoke("download").stdout
    assert_whole(user, toy_source, "hand")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folder", "zips"])
def test_other_layouts_arrive_whole_or_are_compared_and_recorded_by_hand(layout, user, server, toy_source):
    files, data = contents(toy_source / "data"), user.workspace / "data"
    if layout == "folder":
        packed = {f"chest-xray/{name}": content for name, content in files.items()}
        packed["__MACOSX/chest-xray/._train.csv"] = b"x"
        listed = [(name, len(content)) for name, content in files.items()]  # without the folder
    else:
        inner = {part: {} for part in ("train", "test")}
        for name, content in files.items():
            if "/" in name:
                inner[name.split("/")[0]][name.split("/")[1]] = content
        packed = {name: content for name, content in files.items() if "/" not in name}
        packed |= {f"{part}.zip": zipped(images) for part, images in inner.items()}
        listed = None
    offered(server, packed, listed)
    done = user.invoke(*WORDS)
    assert done.returncode == 0, done.stderr
    assert "checked, 42 files" in done.stdout
    assert_whole(user, toy_source)
    (data / NAME).unlink()
    done = user.invoke(*WORDS)
    assert "checked, 42 files" in done.stdout, done.stderr
    assert "put there by hand" in done.stdout
    next((data / "test").glob("*.png")).unlink()
    user.refused("download", says=["test/", "missing"])


@pytest.mark.slow
def test_the_archive_in_data_is_unpacked_or_fetched_all_the_same_as_the_refusal_says(user, server, toy_source):
    data, files = user.workspace / "data", contents(toy_source / "data")
    (data / "toy.zip").write_bytes(server.competitions[SLUG].archive)
    user.refused(*WORDS, says=["toy.zip", f"unpack toy.zip in {data}", "--force` fetches all from Kaggle"])
    assert "storage" not in server.names()
    with zipfile.ZipFile(data / "toy.zip") as archive:
        archive.extractall(data)
    assert "checked, 42 files" in user.invoke(*WORDS).stdout
    assert "storage" not in server.names()
    (data / NAME).unlink()
    for name in COMPETITION_FILES:
        shutil.move(data / name, user.home / name)
    assert "from Kaggle" in user.invoke(*WORDS, "--force").stdout
    assert contents(data) == files


@pytest.mark.slow
def test_a_list_with_other_sizes_is_allowed_as_the_refusal_says(user, server, toy_source):
    files = contents(toy_source / "data")
    offered(server, files, [(name, len(content) + (name == "train.csv")) for name, content in files.items()])
    user.refused(*WORDS, says=["train.csv: ", "--allow file-list"])
    done = user.invoke(*WORDS, "--allow", "file-list")
    assert done.returncode == 0, done.stderr
    assert "Kaggle's list differs, which is allowed: train.csv" in done.stderr
    assert_whole(user, toy_source)
    assert "all is there" in user.invoke("download").stdout


@pytest.mark.slow
def test_an_archive_that_is_broken_on_the_server_is_refused(user, server):
    competition = server.competitions[SLUG]
    competition.archive = competition.archive[:-100]
    user.refused(*WORDS, says=["whole zip archive"])
    entry = zipfile.ZipInfo("train/link.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    goal = io.BytesIO()
    with zipfile.ZipFile(goal, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    competition.archive = goal.getvalue()
    user.refused(*WORDS, says=["stay in their folder", "is a link"])
    competition.archive = zipped({"train.csv": b"short"})
    user.refused(*WORDS, says=["that Kaggle lists", "and 37 more"])
    assert not list((user.workspace / "data").glob("t*"))


@pytest.mark.slow
def test_a_disk_without_room_is_said_before_and_meanwhile(user, server, toy, toy_source):
    competition = server.competitions[SLUG]
    competition.files[-1] = (competition.files[-1][0], 10**15)
    user.refused(*WORDS, says=["room for the archive", "GiB free"])
    assert "storage" not in server.names()
    (toy / "data" / "large.csv").write_bytes(b"0" * 3_000_000)
    server.add_competition(SLUG, toy / "data")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # noqa: E731
    user.refused(*WORDS, says=["large.csv", "File too large"], preexec_fn=limit)
    server.add_competition(SLUG, toy_source / "data")
    assert user.invoke(*WORDS).returncode == 0
    assert_whole(user, toy_source)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_said(server, tmp_path):
    user = User(server, tmp_path / "locked")
    user.workspace.chmod(0o555)
    user.refused(*WORDS, says=["to write", "Permission denied"], preexec_fn=_obey_permissions)
    (tmp_path / "file" / "workspace").mkdir(parents=True)
    user = User(server, tmp_path / "file")
    (user.workspace / "data").write_text("in the way")
    user.refused(*WORDS, says=["to write", "File exists"])


@pytest.mark.slow
def test_files_put_there_by_hand_are_judged_and_never_overwritten(user, server, toy_source):
    data = user.workspace / "data"
    shutil.copytree(toy_source / "data", data, dirs_exist_ok=True)
    (data / "README.md").write_text("keep me")
    (data / "train" / ".DS_Store").write_text("of a desktop")
    done = user.invoke(*WORDS)
    assert done.returncode == 0, done.stderr
    assert "put there by hand" in done.stdout
    assert "storage" not in server.names()
    assert not has_own_table(data)
    (data / "train" / ".DS_Store").unlink()
    assert_whole(user, toy_source, "hand")
    user.refused(*WORDS, "--force", says=["did not bring"])
    (data / NAME).unlink()
    image = next((data / "test").glob("*.png"))
    image.write_bytes(image.read_bytes()[:-1])
    said = user.refused(*WORDS, says=[f"test/{image.name}", "bytes instead of"])
    assert "move them away" in said
    assert contents(data) != contents(toy_source / "data")


@pytest.mark.slow
def test_tables_that_the_schemas_refuse_are_named_and_the_right_flag_goes_on_without_a_download(user, server):
    said = user.refused("download", "--competition", SLUG, *QUICK, says=["competition.expected_ids"])
    assert "ID_to_Image_Mapping.csv" in said
    server.forget()
    assert user.invoke(*WORDS).returncode == 0
    assert "storage" not in server.names()


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True], ids=["fresh", "replacing"])
def test_a_kill_at_each_step_ends_right_by_the_same_command(force, server, toy_source, tmp_path):
    """Every kind of change to data/, in order: killed there, the same command goes on to the next one."""
    trial = User(server, tmp_path / "trial")
    steps = _steps(trial, *WORDS)
    if force:
        steps = [step for step in _steps(trial, *WORDS, "--force") if step not in steps]
    assert ("os.rename train.csv" if force else "os.rename .download/files/train.csv") in steps
    words = (*WORDS, *["--force"] * force)
    user, killed = None, 0
    for step in [step for step in steps if not step.startswith("os.mkdir")]:  # a file follows each new folder
        if user is None:  # at first, and after a call that ended before the step: what it does was done already
            user = User(server, tmp_path / step.replace("/", ":"))
            (user.workspace / "data").mkdir()
            (user.workspace / "data" / "README.md").write_text("keep me")
            assert not force or user.invoke(*WORDS).returncode == 0
        done = _watched(user, *words, KILL_AT=step)
        killed += done.returncode == -signal.SIGKILL
        if done.returncode != -signal.SIGKILL:
            assert done.returncode == 0, (step, done.stderr)
            assert_whole(user, toy_source)
            user = None
    assert killed > len(steps) / 4
    if user is not None:
        assert user.invoke(*words).returncode == 0
        assert_whole(user, toy_source)


def _obey_permissions():
    """Let root be refused by a read-only folder, as everybody else is: without CAP_DAC_OVERRIDE (1) after exec."""
    pr_capbset_drop = 24
    ctypes.CDLL(None).prctl(pr_capbset_drop, 1, 0, 0, 0)


def _steps(user, *words):
    """The names of the steps that a command takes, each once, in order."""
    log = user.workspace.parent / str(len(words))
    assert _watched(user, *words, KILL_LOG=str(log)).returncode == 0
    return list(dict.fromkeys(log.with_suffix(".steps").read_text().splitlines()))


def _watched(user, *words, **how):
    kept = user.environment
    user.environment = kept | {"PYTHONPATH": str(KILLER), "KILL_UNDER": str(user.workspace / "data")} | how
    try:
        return user.invoke(*words)
    finally:
        user.environment = kept
