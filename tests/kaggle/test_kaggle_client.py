"""The wire to Kaggle with the real client: one connection, what comes back, and what is never done twice."""

import datetime
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from kaggle_server import FOREVER, KEY, TOKEN, USERNAME, KaggleServer
from repository import ROOT

from kit.config import KaggleConfig
from kit.core.errors import KitError
from kit.kaggle.client import Connection, Guard
from kit.kaggle.competition_api import Kaggle
from kit.kaggle.credentials import Credentials
from kit.kaggle.errors import Refused, Unanswered

SLUG = "toy-competition"
QUICK = "KaggleConfig(pause_seconds=0.01, attempts=3, deadline_seconds=60)"
CSV = "ID,image_id,x_min,y_min,x_max,y_max,confidence,label\n"


@pytest.fixture(scope="module")
def running(toy_source):
    with KaggleServer() as server:
        server.add_competition(SLUG, toy_source / "data", toy_source / "test_truth.csv")
        yield server
        assert server.errors == []


@pytest.fixture
def server(running):
    running.forget()
    running.competitions[SLUG].submissions.clear()
    return running


def asked(server, home, expression, token=TOKEN, **variables):
    """Evaluate an expression of ``kaggle`` (a connection) in a process of its own; (value, what was said)."""
    code = f"""
import json, dataclasses, pathlib, sys, logging
logging.basicConfig(format="%(message)s", level=logging.INFO)
from kit.config import KaggleConfig
from kit.core.errors import KitError
from kit.kaggle.competition_api import connect
try:
    kaggle = connect({QUICK})
    value = {expression}
except KitError as error:
    sys.exit(f"{{type(error).__name__}}\\n{{error}}")
plain = lambda one: dataclasses.asdict(one) if dataclasses.is_dataclass(one) else one
print(json.dumps([plain(one) for one in value] if isinstance(value, list) else plain(value), default=str))
"""
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
        env=server.environment(home, token) | variables,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return (json.loads(done.stdout) if done.returncode == 0 else None), done.stderr


@pytest.mark.slow
def test_every_file_is_listed_over_all_pages(server, tmp_path):
    files, _ = asked(server, tmp_path / "home", f"kaggle.files({SLUG!r})")
    assert [(one["name"], one["size_bytes"]) for one in files] == server.competitions[SLUG].files
    assert server.names().count("ListDataFiles") == 3  # 42 files, 20 at a time


@pytest.mark.slow
def test_a_submission_is_uploaded_listed_and_scored(server, toy, tmp_path, monkeypatch):
    noon = datetime.datetime.now(datetime.UTC).replace(hour=12, microsecond=0)  # the day does not end meanwhile
    monkeypatch.setattr(server, "now", lambda: noon)
    home, path = tmp_path / "home", tmp_path / "s.csv"
    path.write_text(CSV + (toy / "test_truth.csv").read_text().split("\n", 1)[1])
    rows = (toy / "test_truth.csv").read_text().splitlines()[1:]
    answers = [",".join([str(i), *row.split(",")[:5], "0.9", row.split(",")[5]]) for i, row in enumerate(rows)]
    path.write_text(CSV + "\n".join(answers) + "\n")
    ref, _ = asked(server, home, f"kaggle.submit({SLUG!r}, pathlib.Path({str(path)!r}), 'mine [kit 0001 abcd]')")
    assert server.competitions[SLUG].submissions[0]["content"] == path.read_bytes()
    lists = f"[kaggle.submissions({SLUG!r})[0] for _ in range(2)]"
    pending, complete = asked(server, home, lists)[0]
    assert (pending["ref"], pending["status"], pending["public_score"]) == (ref, "pending", None)
    assert pending["description"] == "mine [kit 0001 abcd]"
    assert (complete["status"], complete["public_score"]) == ("complete", 1.0)
    at = datetime.datetime.fromisoformat(complete["submitted_at"])
    assert at.tzinfo is not None
    assert at == noon
    limits, _ = asked(server, home, f"kaggle.limits({SLUG!r})")
    assert limits == {"today": 1, "total": 1, "allowed_now": 4, "limited_by_total": False}


@pytest.mark.slow
def test_more_submissions_than_a_page_are_all_listed(server, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("ID\n")
    server.competitions[SLUG].daily_limit = 100
    submit = f"kaggle.submit({SLUG!r}, pathlib.Path({str(path)!r}), str(i))"
    listed = f"([{submit} for i in range(23)], kaggle.submissions({SLUG!r}))[1]"
    found, _ = asked(server, tmp_path / "home", listed)
    assert sorted(int(one["description"]) for one in found) == list(range(23))
    assert found[0]["status"] in {"pending", "error"}
    assert "ID" in found[-1]["reason"]


@pytest.mark.slow
def test_a_read_is_tried_again_and_a_create_is_not(server, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("ID\n")
    server.fail("GetSubmissionLimits", status=503, times=1)
    server.fail("GetSubmissionLimits", status=429, headers={"Retry-After": "0.02"})
    limits, said = asked(server, tmp_path / "home", f"kaggle.limits({SLUG!r})")
    assert limits["allowed_now"] > 0
    assert "answered 503" in said
    assert "trying again in 0.02 s" in said
    for fault, kind in (
        ({"status": 503}, "Unanswered"),
        ({"drop": "before"}, "Unanswered"),
        ({"drop": "after"}, "Unanswered"),
        ({"status": 429, "headers": {"Retry-After": "30"}}, "Refused"),
        ({"status": 400, "message": "You have used all 5 submissions of today"}, "Refused"),
    ):
        server.forget()
        server.competitions[SLUG].submissions.clear()
        server.fail("CreateSubmission", times=FOREVER, **fault)
        _, said = asked(server, tmp_path / "home", f"kaggle.submit({SLUG!r}, pathlib.Path({str(path)!r}), 'x')")
        assert said.startswith(kind), said
        assert server.names().count("CreateSubmission") == 1
        assert len(server.competitions[SLUG].submissions) == (fault.get("drop") == "after")


@pytest.mark.slow
def test_an_upload_that_fails_silently_is_said_and_nothing_is_created(server, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("ID\n")
    server.fail("upload", status=403)
    _, said = asked(server, tmp_path / "home", f"kaggle.submit({SLUG!r}, pathlib.Path({str(path)!r}), 'x')")
    assert said.startswith("Refused")
    assert "ref 0" in said
    assert "CreateSubmission" not in server.names()


@pytest.mark.parametrize(
    ("message", "kind"), [("the upload failed", Refused), ("try again later", Unanswered), (None, Unanswered)]
)
def test_ref_0_is_a_no_only_with_the_clients_own_words(message, kind, tmp_path):
    client = SimpleNamespace(
        COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE="the upload failed",
        competition_submit=lambda *words: SimpleNamespace(ref=0, message=message),
    )
    kaggle = Kaggle(Connection(client, {}, Guard(KaggleConfig(), Credentials("a test"))))
    with pytest.raises(KitError, match="ref 0") as error:
        kaggle.submit(SLUG, tmp_path / "s.csv", "mine")
    assert type(error.value) is kind


GUARD = Guard(KaggleConfig(attempts=1), Credentials("a test", (TOKEN,)))
SIGNED = "https://storage.googleapis.com/kaggle/blob?X-Goog-Signature=abcdef0123"


@pytest.mark.parametrize("call", [GUARD.once, GUARD.read])
@pytest.mark.parametrize("fails", [False, True])
def test_what_the_client_writes_on_standard_error_is_shown_without_secrets(call, fails, caplog, capsys):
    def work():
        print("[Errno 104] Connection reset by peer", TOKEN)
        print(f"Warning: 'TpuV232' is retired.\n  It runs on the CPU. {TOKEN} {SIGNED}", file=sys.stderr)
        if fails:
            raise ValueError("no")
        return 1

    if fails:
        with pytest.raises(KitError):
            call("to push", "", work)
    else:
        assert call("to push", "", work) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    shown = "Warning: 'TpuV232' is retired. It runs on the CPU. *** https://storage.googleapis.com/kaggle/blob?..."
    printed = "[Errno 104] Connection reset by peer *** " if call == GUARD.once else ""  # why an upload failed
    assert record.getMessage() == f"Kaggle's client: {printed}{shown}"
    assert capsys.readouterr() == ("", "")


def test_how_to_get_credentials_is_said_once_by_the_error_and_not_by_the_client(caplog):
    def work():
        print("You need a Kaggle account", file=sys.stderr)
        raise SystemExit(1)

    with pytest.raises(KitError, match="credentials that Kaggle accepts"):
        GUARD.read("to log in", "", work)
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize("way", ["token file", "kaggle.json", "variables"])
def test_every_kind_of_credentials_opens_the_door(way, server, tmp_path):
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(parents=True)
    variables = {"KAGGLE_USERNAME": USERNAME, "KAGGLE_KEY": KEY} if way == "variables" else {}
    if way == "token file":
        (folder / "access_token").write_text(TOKEN + "\n")
    elif way == "kaggle.json":
        (folder / "kaggle.json").write_text(json.dumps({"username": USERNAME, "key": KEY}))
    limits, _ = asked(server, tmp_path / "home", f"kaggle.limits({SLUG!r})", token=None, **variables)
    assert limits is not None
