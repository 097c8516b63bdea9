"""Whoever follows the advice of a refused push, status or pull gets on: each step is taken as it is written."""

import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from kaggle_server import USERNAME

from kit.config import KaggleConfig
from kit.core.errors import KitError
from kit.kaggle.client import Connection, Guard
from kit.kaggle.credentials import Credentials
from kit.kaggle.errors import Refused
from kit.kaggle.kernels.api import Kernels, Pushed, Session, Version, not_mounted
from kit.kaggle.kernels.output import pull
from kit.kaggle.kernels.push import plan_push, push, require_hours, require_idle
from kit.kaggle.kernels.push_log import (
    Push,
    last_push,
    read_push,
    record_arrived,
    record_open,
    require_pushed,
    settle,
)
from kit.kaggle.kernels.session import Manifest
from kit.runs.folder import Run

KERNEL = f"{USERNAME}/kit-mine"
FIRST = Push("first", KERNEL, 1, "", "demo", {})
NOW = KaggleConfig(deadline_seconds=0.1, settle_seconds=0, score_pause_seconds=0.01)


class Account(Kernels):
    """A connection to one account: the states of its kernel's versions, the names in an output's manifest."""

    username = USERNAME

    def __init__(self, *states, names=(), pushed=None):
        self.states, self.names, self.pushed = list(states), names, pushed

    def version(self, kernel, number=None):
        number = number or len(self.states)
        return Version(number, "") if 0 < number <= len(self.states) else None

    def session(self, kernel, version):
        return Session(self.states[version - 1], "", "") if version <= len(self.states) else None

    def output(self, kernel, version, folder):
        manifest = Manifest(self.pushed or "first", "mine", "finished", dict.fromkeys(self.names, "0"))
        (folder / "kit-manifest.json").write_text(json.dumps(asdict(manifest)))

    def push(self, folder, kernel):
        self.states.append("queued")
        return Pushed(kernel, len(self.states), "")


def planned(workspace):
    return plan_push(workspace, "mine", "demo", ("competition.slug=a-slug",), None)


def pushes(account, workspace, again=False):
    """`invoke kernel.push`, without its preview and its question."""
    run = Run(workspace, "mine")
    assert settle(account, run, NOW) is None
    require_idle(account, planned(workspace), again)
    return push(account, planned(workspace), "next", again)


def advised(call):
    """The advice of a refusal."""
    with pytest.raises(KitError) as error:
        call()
    return error.value.do


@pytest.fixture
def run(tmp_path):
    """A run whose first push is recorded."""
    made = Run(tmp_path, "mine")
    record_arrived(made, FIRST)
    return made


def test_a_run_that_was_never_pushed_is_pushed_by_the_command_of_the_advice(tmp_path):
    run = Run(tmp_path, "mine")
    assert "`invoke kernel.push --run mine` pushes it" in advised(lambda: require_pushed(run))
    pushes(Account(), tmp_path)
    require_pushed(run)


def test_a_damaged_record_of_the_last_push_is_deleted_and_pushed_again(run):
    path = run.workspace / "kernels" / "mine.json"
    path.write_text("{}")
    assert advised(lambda: read_push(run)) == f"delete {path} and push again"
    path.unlink()
    assert pushes(Account("error"), run.workspace).version == 2


def test_a_damaged_record_of_an_open_push_is_deleted(run):
    path = run.workspace / "kernels" / ".mine.open"
    path.write_text("{}")
    assert advised(lambda: settle(Account("error"), run, NOW)).endswith(f"then delete {path}")
    path.unlink()
    assert pushes(Account("error"), run.workspace).version == 2


def test_a_kernel_that_was_deleted_on_kaggle_is_pushed_anew(run):
    record_open(run, replace(FIRST, id="second", version=0))
    path = run.workspace / "kernels" / ".mine.open"
    assert advised(lambda: settle(Account(), run, NOW)).endswith(f"if it was deleted there, delete {path}")
    path.unlink()
    assert pushes(Account(), run.workspace).version == 1


def test_a_session_that_works_is_waited_for_and_then_pulled_and_pushed(run):
    account = Account("running")
    assert "kernel.status --run mine --wait" in advised(lambda: pushes(account, run.workspace))
    assert "kernel.status --run mine --wait" in advised(lambda: pull(account, run, FIRST, print))
    account.states = ["complete"]  # as status --wait says
    assert "kernel.pull --run mine" in advised(lambda: pushes(account, run.workspace))
    pull(account, run, FIRST, print)
    assert pushes(account, run.workspace).version == 2


def test_a_session_that_was_not_pulled_is_followed_by_another_with_again(run):
    account = Account("complete")
    assert "--again pushes a new version" in advised(lambda: pushes(account, run.workspace))
    assert pushes(account, run.workspace, again=True).version == 2


def test_a_session_that_failed_is_pushed_again_as_the_pull_says(run):
    account = Account("error")
    assert "or push it again if it failed" in advised(lambda: pull(account, run, FIRST, print))
    assert pushes(account, run.workspace).version == 2


@pytest.mark.parametrize("wrong", [{"names": ("../mine",)}, {"pushed": "another"}], ids=["outside", "another push"])
def test_output_that_cannot_be_taken_is_made_anew_with_again(wrong, run):
    account = Account("complete", **wrong)
    assert "--again" in advised(lambda: pull(account, run, FIRST, print))
    assert pushes(account, run.workspace, again=True).version == 2


def test_a_local_run_in_the_way_is_moved_and_the_pull_succeeds(run):
    run.folder.mkdir(parents=True)
    run.last.write_text("mine")
    assert advised(lambda: pull(Account("complete"), run, FIRST, print)) == "move that folder away, then pull again"
    run.folder.rename(run.workspace / "mine")
    assert pull(Account("complete"), run, FIRST, print).push_id == "first"


def test_a_pulled_run_with_a_damaged_manifest_is_moved_and_pulled_again(run):
    account = Account("complete")
    pull(account, run, FIRST, print)
    (run.folder / "kernel.json").write_text("{}")
    for call in (lambda: pull(account, run, FIRST, print), lambda: pushes(account, run.workspace)):
        assert advised(call) == f"move {run.folder} away, then pull again"
    shutil.move(run.folder, run.workspace / "away")
    assert pull(account, run, FIRST, print).push_id == "first"
    assert pushes(account, run.workspace).version == 2


def test_a_status_that_cannot_settle_a_push_names_the_command_that_can(run, caplog):
    record_open(run, replace(FIRST, id="second", version=0))
    assert last_push(Account("error"), run) == FIRST
    assert "repeat its `invoke kernel.push` to settle it" in caplog.text
    assert pushes(Account("error"), run.workspace).version == 2


def test_what_is_not_mounted_says_how_it_is_mounted():
    assert "join at https://www.kaggle.com/competitions/a-slug/rules" in not_mounted(["a-slug"], "").do
    assert "repeat the command" in not_mounted(["ada/kit-mine-run"], "").do


def test_without_gpu_hours_nothing_is_pushed_and_with_some_it_is():
    assert "wait for the new week" in advised(lambda: require_hours(0.0))
    require_hours(0.1)
    require_hours(None)


class NoLog(OSError):
    response = SimpleNamespace(status_code=404, json=dict, text="no log yet", reason="", headers={})


def test_a_session_that_waits_and_has_no_log_yet_has_a_status():
    def no_log(name):
        raise NoLog

    state = SimpleNamespace(status=SimpleNamespace(name="QUEUED"), failure_message="")
    client = SimpleNamespace(
        kernels_status=lambda name: state, kernels_logs=no_log, config_values={"username": USERNAME}
    )
    kernels = Kernels(Connection(client, {}, Guard(KaggleConfig(attempts=1), Credentials("a test"))))
    assert kernels.session(KERNEL, 1) == Session("queued", "", "")


def test_a_refusal_of_kaggle_says_what_it_is_about_and_the_same_command_works_later(tmp_path):
    class Unverified(Account):
        def push(self, folder, kernel):
            if not self.states:
                self.states.append("error")
                raise Refused("to push", "Kaggle refused: verify your phone", "verify, then repeat the command")
            return super().push(folder, kernel)

    account = Unverified()
    assert advised(lambda: pushes(account, tmp_path)).endswith("then repeat the command")
    assert pushes(account, tmp_path).version == 2
