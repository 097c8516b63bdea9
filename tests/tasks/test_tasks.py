"""The verbs as a user types them: exit codes, no traceback, the next step in every error."""

import io
import subprocess
import sys

import pytest
from command_line import assert_refused, invoke
from invoke import Exit
from repository import ROOT

from kit.core.errors import KitError
from kit.tasks.command import command, upload_knobs


def test_a_submission_that_is_missing_names_the_next_step(toy):
    assert_refused(invoke("validate", "--workspace", toy), "invoke predict")


def test_a_broken_submission_exits_with_every_fault(toy, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("ID,image_id,x_min,y_min,x_max,y_max,confidence,label\n0,a.png,1,2,nan,4,0.5,Mass\n")
    done = invoke("validate", "--file", path, "--set", "competition.expected_ids=8", "--workspace", toy)
    assert_refused(done, "s.csv:2", "'nan'", "IDs missing")


def test_a_signal_that_comes_while_python_ends_is_no_traceback():
    """Libraries have work to do then (torch's finalizers take their time), and it is cut by nobody."""
    code = """
import atexit, os, signal
from invoke import Collection, Program
from kit.tasks.command import command
def late():
    for each in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), each)
    print("ended")
atexit.register(late)
@command()
def work(context):
    "Work."
Program(namespace=Collection(work)).run(["invoke", "work"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_two_knobs_are_two_flags(toy):
    done = invoke("train", "--workspace", toy, "--set", "training.max_epochs=1", "--set", "training.batchsize=2")
    assert_refused(done, "training.batch_size")


def test_an_upload_takes_its_own_knobs_and_the_number_of_ids(tmp_path):
    with pytest.raises(KitError, match="leave it out") as refused:
        upload_knobs(tmp_path, ["kaggle.attempts=2", "competition.slug=other"])
    assert "competition.slug" in refused.value.found
    knobs, expected = upload_knobs(tmp_path, ["kaggle.attempts=2"])  # left out, as it says
    assert (knobs.attempts, expected) == (2, None)
    assert upload_knobs(tmp_path, ["competition.expected_ids=8"])[1] == 8


@pytest.mark.parametrize(
    ("typed", "near"), [("kagle.attempts=2", "kaggle.attempts"), ("expected_ids=8", "competition.")]
)
def test_a_mistyped_knob_of_an_upload_has_the_nearest_names(typed, near, tmp_path):
    with pytest.raises(KitError) as refused:
        upload_knobs(tmp_path, [typed])
    assert refused.value.do.startswith(f"nearest: {near}")
    upload_knobs(tmp_path, ["kaggle.attempts=2", "competition.expected_ids=8"])  # as it says


def test_an_error_in_a_workspace_that_is_not_there_has_the_nearest_folders(tmp_path):
    def fail(context, workspace="."):
        """Fail."""
        raise KitError("this", "that", "so")

    (tmp_path / "chest").mkdir()
    verb = command()(fail).body
    for typed in ("chset", "chest/"):
        with pytest.raises(Exit) as caught:
            verb(None, workspace=str(tmp_path / typed))
        hint = f"(--workspace names no folder that is there: {tmp_path / typed}; nearest in {tmp_path}: chest)"
        assert (hint in caught.value.message) == (typed == "chset")  # and with the name it says, no hint
    with pytest.raises(Exit, match=r"do:       so$"):
        verb(None)


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY"])
def test_a_verb_that_needs_no_account_hides_the_password_of_a_proxy_too(name, tmp_path, monkeypatch):
    """What a download of weights quotes when a letter of the password ends the proxy's address early."""

    def fail(context):
        """Fail."""
        print("Invalid port: 'Longpassw0rd'", file=sys.stderr)

    shown = io.StringIO()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr("kit.core.redaction._protected", set())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, "http://ada:Longpassw0rd/x@proxy:3128")
    command()(fail).body(None)
    assert shown.getvalue() == "Invalid port: '***'\n"


@pytest.mark.slow
@pytest.mark.parametrize(("fold", "said"), [("first", "'first'"), ("2", "--fold between 0 and 1")])
def test_a_fold_is_a_number_below_the_number_of_folds(fold, said, toy):
    done = invoke("train", "--workspace", toy, "--preset", "demo", "--folds", "2", "--fold", fold)
    assert_refused(done, said)


@pytest.mark.parametrize("verb", ["evaluate", "eval"])
def test_an_unknown_run_names_the_nearest(verb, trained):
    assert_refused(invoke(verb, "--workspace", trained, "--run", "demmo"), "nearest: demo")


@pytest.mark.slow
def test_the_whole_road_from_the_command_line(toy, tmp_path):
    from toy import TOY

    knobs = [word for assignment in TOY for word in ("--set", assignment)]
    place = ("--workspace", toy)
    trained = invoke("train", "--run", "mine", "--preset", "demo", *knobs, *place)
    assert trained.returncode == 0, trained.stderr
    assert "epoch 2/2" in trained.stderr
    again = invoke("train", "--run", "mine", *place)
    assert "was finished before" in again.stdout
    scored = invoke("evaluate", *place)
    assert scored.returncode == 0, scored.stderr
    assert "run mine: the one that finished last" in scored.stdout
    predicted = invoke("predict", "--message", "first try", *place)
    assert predicted.returncode == 0, predicted.stderr
    assert "0001-first-try" in predicted.stdout
    checked = invoke("validate", *place)
    assert checked.returncode == 0, checked.stderr
    assert "valid, 8 IDs" in checked.stdout
    listed = invoke("submissions", *place)
    assert "first try" in listed.stdout
    described = invoke("explore", *place)
    assert described.returncode == 0, described.stderr
    assert (toy / "explore" / "explore.html").exists()
