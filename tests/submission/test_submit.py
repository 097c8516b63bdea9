"""`invoke submit` and `invoke submissions` with the real client against the test server: every way it may go."""

import csv
import ctypes
import datetime
import json
import os
import resource
import signal
import subprocess
import time

import pandas as pd
import pytest
from command_line import PATIENCE_SECONDS
from kaggle_server import FOREVER, KaggleServer
from kaggle_user import User
from repository import KILLER
from toy import TOY_TEST_IMAGES, copied, toy_config

from kit.choosing import one_box
from kit.config import override, save
from kit.metrics import average_precision
from kit.runs.folder import Run, mark_finished
from kit.schemas.tables import SUBMISSION_COLUMNS, validate_submission
from kit.submission.folders import Origin, read_submissions, write_submission

SLUG = "toy-competition"
QUICK = (
    f"competition.slug={SLUG}",
    "kaggle.attempts=2",
    "kaggle.pause_seconds=0.05",
    "kaggle.deadline_seconds=8",
    "kaggle.score_pause_seconds=0.1",
    "kaggle.settle_seconds=1",
)
NOWHERE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}  # nobody listens there
DROP_FROM_BOUNDING_SET, CAP_DAC_OVERRIDE = 24, 1  # prctl(2), capabilities(7)
WRITABLE_BYTES = 1000  # less than a manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def filed_source(toy_source, tmp_path_factory):
    """A workspace whose finished run has filed submission 0001; every second answer is right."""
    workspace = copied(toy_source, tmp_path_factory.mktemp("filed") / "toy")
    run = Run(workspace, "demo")
    config = override(toy_config(), QUICK)
    save(config, run.config)
    finished = mark_finished(run, "best", (1,), (2,), {run.name: "0" * 64})
    origin = Origin(
        "first answers", run.name, 0.4, finished.weights, config.as_dict(),
        local_interval=(0.3, 0.5), expected={"mean": 0.35, "low": 0.2, "high": 0.5},
    )  # fmt: skip
    truth = pd.read_csv(workspace / "test_truth.csv").set_index("image_id")
    mapping = pd.read_csv(workspace / "data" / "ID_to_Image_Mapping.csv").set_index("ID")["image_id"]
    answers = truth.loc[mapping].reset_index().assign(ID=mapping.index, confidence=0.5)
    answers.loc[::2, ["x_max", "y_max"]] = answers[["x_min", "y_min"]].to_numpy()[::2] + 1
    write_submission(
        workspace / "submissions", answers[list(SUBMISSION_COLUMNS)].to_csv(index=False), origin,
        check=lambda path: validate_submission(path, workspace / "data", TOY_TEST_IMAGES),
    )  # fmt: skip
    return workspace


@pytest.fixture(scope="module")
def running(filed_source):
    with KaggleServer() as server:
        server.add_competition(SLUG, filed_source / "data", filed_source / "test_truth.csv")
        yield server
        assert server.errors == []


class Submitter(User):
    """A user with a filed submission in the workspace."""

    def __init__(self, server, folder, filed):
        copied(filed, folder / "workspace")
        super().__init__(server, folder)
        self.server = server

    @property
    def competition(self):
        return self.server.competitions[SLUG]

    @property
    def creations(self):
        return self.server.names().count("CreateSubmission")

    def says(self, *words, answer="", code=0, **options):
        """Run a verb to its end, which must have this code; what it wrote on both streams."""
        done = self.ended(self.start(*words, stdin=subprocess.PIPE, **options), answer)
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert code != 1 or ("expected:" in said and "do: " in said), said
        return said

    def submit(self, *words, **how):
        """`invoke submit`, with a yes to its question."""
        return self.says("submit", "--message", "first try", *words, answer="y\n", **how)

    def submission(self, number=1):
        return read_submissions(self.workspace / "submissions")[number - 1]

    def manifest(self):
        return json.loads((self.submission().folder / "manifest.json").read_text())

    def index(self):
        with (self.workspace / "submissions" / "index.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def user(running, filed_source, tmp_path):
    """A user of a fresh copy of the workspace, and a server that has forgotten the last one."""
    running.forget()
    running.competitions[SLUG].submissions.clear()
    vars(running.competitions[SLUG]).update(rules_accepted=True, daily_limit=5, pending_polls=1)
    running.competitions[SLUG].truth = filed_source / "test_truth.csv"
    return Submitter(running, tmp_path, filed_source)


def assert_scored_once(user, attempts=1):
    """The server has it a single time, and the manifest and the index have its score."""
    (remote,) = user.competition.submissions
    assert remote["content"] == user.submission().csv.read_bytes()
    now = user.submission()
    assert (now.status, now.ref, now.public_score) == ("complete", remote["ref"], round(remote["score"], 5))
    assert len(now.attempts) == attempts
    assert remote["description"] == f"first try [kit 0001 {now.attempts[-1].id}]"
    row = user.index()[0]
    assert (row["ref"], row["status"]) == (str(remote["ref"]), "complete")
    assert not list((user.workspace / "submissions").rglob("*.partial"))


def test_one_submission_from_the_question_to_its_score_in_table_and_plot(user):
    before = user.manifest()
    said = user.submit()
    for text in ("0001, 8 rows", "competitions/toy-competition", "first try [kit 0001 <id>]", "left today:  5",
                 "send it? [y/N]", "public score 0.", "local score 0."):  # fmt: skip
        assert text in said
    assert_scored_once(user)
    page = user.submission().folder / "view.html"  # made and named before the question
    assert said.index(str(page)) < said.index("send it?")
    assert '"source":"submission"' in page.read_text(encoding="utf-8")
    truth = pd.read_csv(user.workspace / "test_truth.csv")
    answers = one_box.answers_to_detections(pd.read_csv(user.submission().csv))
    score = average_precision.score_detections(truth, answers, sorted(set(truth["image_id"]))).map50
    assert f"public score {score:.3f}" in said
    after = user.manifest()
    upload = {"status", "public_score", "ref", "reason", "attempts"}
    assert {key for key in after if after[key] != before[key]} <= upload
    listed = user.says("submissions")
    assert "first answers" in listed
    assert "complete" in listed
    assert f"{score:.3f} *" in listed
    assert (user.workspace / "submissions" / "scores.png").read_bytes().startswith(b"\x89PNG")

    again = user.submit()
    assert "uploaded before" in again
    assert f"public score {score:.3f}" in again
    said = user.says("submit", "--message", "other words", answer="y\n", code=1)
    assert "--again" in said
    assert user.creations == 1
    user.submit("--again")
    assert user.creations == 2


def test_an_edited_submission_is_refused_and_then_sent_by_its_file_once(user):
    path = user.submission().csv
    path.write_text(path.read_text().replace(",0.5,", ",0.75,"))
    said = user.submit(code=1)
    assert user.creations == 0
    assert "as it was filed" in user.says("validate", code=1)
    assert f"invoke submit --file {path}" in said
    assert f"invoke submit --file {path}" in user.says("validate", "--file", path)
    said = user.submit("--file", path)
    for text in ("0002, 8 rows", "run:         by hand", "local score: unknown", "public score 0."):
        assert text in said
    assert user.competition.submissions[0]["content"] == path.read_bytes()
    assert "uploaded before" in user.submit("--file", path)
    assert user.creations == 1
    assert "by hand" in user.says("submissions")
    assert "--file and --submission" in user.submit("--file", path, "--submission", "1", code=1)


@pytest.mark.parametrize("answer", ["", "n\n", "yes please\n"])
def test_without_a_yes_nothing_is_sent_and_yes_is_named(user, answer):
    said = user.says("submit", "--message", "first try", answer=answer, code=1)
    assert "nothing was sent" in said
    assert "--yes" in said
    assert "StartSubmissionUpload" not in user.server.names()
    assert user.submission().attempts == ()


def test_a_dry_run_needs_neither_an_account_nor_a_network(user):
    del user.environment["KAGGLE_API_TOKEN"]
    user.environment |= NOWHERE
    said = user.submit("--dry-run")
    for text in ("first try [kit 0001 <id>]", "left today:  unknown", "dry run: nothing was sent"):
        assert text in said
    assert user.server.names() == []
    assert user.submission().attempts == ()


@pytest.mark.parametrize("number", ["1", "0001"])
def test_a_submission_is_chosen_by_its_number(number, user):
    assert "first try [kit 0001 <id>]" in user.submit("--submission", number, "--dry-run")


def test_a_number_that_is_none_is_refused(user):
    for number in ("0", "first"):
        assert "--submission to be a whole number, counted from 1" in user.submit("--submission", number, code=1)


def test_without_credentials_or_a_network_nothing_is_begun(user):
    token = user.environment.pop("KAGGLE_API_TOKEN")
    assert "KAGGLE_API_TOKEN" in user.submit(code=1)
    user.environment |= {"KAGGLE_API_TOKEN": token, **NOWHERE}
    assert "network" in user.submit(code=1)
    assert user.submission().attempts == ()


def test_rules_that_were_not_accepted_are_named_with_their_address(user):
    user.competition.rules_accepted = False
    said = user.submit(code=1)
    assert f"https://www.kaggle.com/competitions/{SLUG}/rules" in said
    assert "You must accept this competition's rules" in said
    assert user.creations == 0


def test_the_daily_limit_is_said_with_the_servers_reason_and_the_hours(user, monkeypatch):
    noon = datetime.datetime.now(datetime.UTC).replace(hour=12)  # the day does not end between two commands
    monkeypatch.setattr(user.server, "now", lambda: noon)
    user.competition.daily_limit = 1
    user.submit()
    said = user.submit("--again", code=1)
    assert "none: 1 were made today" in said
    assert "hours, at 00:00 UTC" in said
    assert user.creations == 1
    user.competition.daily_limit = 2  # and one more is made elsewhere after the limit was read
    user.server.fail("CreateSubmission", status=400, message="You have used all 2 submissions. Wait 5 hours.")
    said = user.submit("--again", code=1)
    assert "You have used all 2 submissions. Wait 5 hours." in said
    assert [one.status for one in user.submission().attempts] == ["complete", "failed"]
    assert user.submission().status == "complete"


def test_a_create_that_is_refused_as_too_much_is_not_repeated(user):
    user.server.fail("CreateSubmission", status=429, headers={"Retry-After": "7"})
    said = user.submit(code=1)
    assert "wait 7 s" in said
    assert user.creations == 1
    assert user.submission().status == "failed"
    user.submit()
    assert_scored_once(user, attempts=2)


def test_a_server_that_broke_down_is_asked_whether_it_has_it(user):
    user.server.fail("CreateSubmission", status=503, message="backend is down")
    said = user.submit(code=1)
    assert "backend is down" in said
    assert "the server does not have it" in said
    user.server.fail("ListSubmissions", status=502, times=1)  # a look that fails is repeated
    user.submit()
    assert_scored_once(user, attempts=2)


def test_a_create_whose_answer_was_lost_is_found_and_not_repeated(user):
    user.server.fail("CreateSubmission", drop="after")
    said = user.submit()
    assert "answer was lost" in said
    assert user.creations == 1
    assert_scored_once(user)


def test_a_lost_create_on_a_broken_line_stays_open_and_is_settled_first(user):
    user.server.fail("CreateSubmission", drop="after")
    user.server.fail("ListSubmissions", drop="before", times=4)
    said = user.submit(code=1)
    assert "whether it arrived is not known" in said
    assert user.submission().status == "open"
    assert "network" in user.submit("--again", code=1)  # two looks more fail; nothing is sent
    assert "open" in user.says("submissions")
    user.submit()
    assert user.creations == 1
    assert_scored_once(user)


def test_an_upload_that_failed_silently_is_an_error_and_nothing_was_submitted(user):
    user.server.fail("upload", status=400)
    said = user.submit(code=1)
    assert "ref 0" in said
    assert user.creations == 0
    assert "ref 0" in user.submission().reason
    user.submit()
    assert_scored_once(user, attempts=2)


def test_a_submission_that_ended_in_error_shows_the_servers_reason_and_stays_in_the_list(user, tmp_path):
    rows = (user.workspace / "test_truth.csv").read_text().splitlines(keepends=True)
    user.competition.truth = tmp_path / "truth.csv"
    user.competition.truth.write_text("".join(row for row in rows if row[:12] != rows[1][:12]))
    said = user.submit(code=1)
    assert "Submission contains an unknown image_id" in said
    assert user.submission().status == "error"
    assert "unknown image_id" in user.index()[0]["reason"]
    assert "unknown" in user.says("submissions")
    assert "unknown image_id" in user.submit(code=1)
    assert user.creations == 1


def wait_until(happened):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["submit", "refresh"])
def test_an_interrupted_wait_goes_on_by_the_same_command_or_a_refresh(user, how):
    user.competition.pending_polls = FOREVER
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background suite ignores it, and its children
    try:
        process = user.start("submit", "--message", "first try", "--yes")
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: user.server.names().count("ListSubmissions") > 1)
    os.kill(process.pid, signal.SIGINT)
    assert "the same command goes on" in user.ended(process).stderr
    assert process.returncode == 130
    assert user.submission().status == "pending"
    user.competition.submissions[0]["polls"] = 0
    said = user.submit() if how == "submit" else user.says("submissions", "--refresh")
    assert ("uploaded before" if how == "submit" else "1 of the uploads changed") in said
    assert user.creations == 1
    assert_scored_once(user)


def test_pending_at_the_deadline_is_no_failure(user):
    user.competition.pending_polls = FOREVER
    said = user.submit("--set", "kaggle.score_wait_seconds=0.2")
    assert "invoke submissions --refresh" in said
    assert "pending" in user.says("submissions")


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITABLE_BYTES, WRITABLE_BYTES))


def test_a_full_disk_lets_nothing_be_sent(user):
    said = user.submit(code=1, preexec_fn=small_files)
    assert "File too large" in said
    assert "manifest.json" in said
    assert user.creations == 0
    user.submit()
    assert_scored_once(user)


def bound_by_permissions():
    # Root writes where it may not; without this capability it is a user like any other.
    ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_read_only_folder_lets_nothing_be_sent(user):
    folder = user.submission().folder
    for path in (folder.parent, folder):
        path.chmod(0o555)
        said = user.submit(code=1, preexec_fn=bound_by_permissions)
        assert "Permission denied" in said
        path.chmod(0o755)
    assert user.creations == 0
    assert user.submission().attempts == ()


# Where the first call is killed: while the server is busy with this request, which it then still does.
STEPS = ("GetSubmissionLimits", "StartSubmissionUpload", "upload", "CreateSubmission", "ListSubmissions")


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_the_same_command_ends_with_one_upload(user, step):
    user.server.fail(step, slow_seconds=2.0)
    process = user.start("submit", "--message", "first try", "--yes")
    wait_until(lambda: not user.server.waiting())
    os.kill(process.pid, signal.SIGKILL)
    user.ended(process)
    user.submit()
    assert_scored_once(user, attempts=2 if step in ("StartSubmissionUpload", "upload") else 1)
    assert user.creations == 1


@pytest.mark.parametrize("nth", [1, 2, 3])  # what is written: the attempt, its ref, its score
@pytest.mark.parametrize("step", ["os.rename #-first-answers/.manifest.json#", "os.rename .index.csv#"])
def test_killed_at_each_writing_the_same_command_ends_with_one_upload(user, step, nth):
    untouched = user.environment
    user.environment = untouched | {
        "PYTHONPATH": str(KILLER), "KILL_UNDER": str(user.workspace / "submissions"), "KILL_AT": step,
        "KILL_NTH": str(nth),
    }  # fmt: skip
    assert user.ended(user.start("submit", "--message", "first try", "--yes")).returncode == -signal.SIGKILL
    assert len(user.competition.submissions) == (nth > 1)
    user.environment = untouched
    user.submit()
    unsent = nth == 1 and "index" in step  # recorded, and the server was not reached
    assert_scored_once(user, attempts=1 + unsent)
    assert user.creations == 1
