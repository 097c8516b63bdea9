"""Training on Kaggle's machines: the test server runs what is pushed, and the result is a run like any other.

The road is gone once, with a session that stops itself on the way; what may go wrong is tried on its remains.
"""

import ast
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from dataclasses import asdict, replace

import pytest
from kaggle_server import FOREVER, USERNAME, KaggleServer
from kaggle_user import User
from toy import TOY, TOY_TEST_IMAGES

from kit.config import Config, KaggleConfig, load, override, preset
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.source_tree import git_state, pack_source, requirements
from kit.data.groups import read_groups
from kit.detectors.checkpoints import load_checkpoint
from kit.kaggle.errors import Refused, Unanswered
from kit.kaggle.kernels import push_log
from kit.kaggle.kernels.api import Kernels, Pushed, Session, Version, _plain_log
from kit.kaggle.kernels.output import current_session, pull
from kit.kaggle.kernels.push import is_repeated, plan_push, push, require_idle, script
from kit.kaggle.kernels.push_log import (
    Push,
    close,
    last_push,
    pushing,
    read_push,
    record_arrived,
    record_open,
    settle,
    slug_of,
)
from kit.kaggle.kernels.session import Manifest, _Steps, assignments, run_session
from kit.runs.folder import Run
from kit.submission.folders import read_submissions

SLUG, KERNEL = "toy-competition", f"{USERNAME}/kit-mine"
EPOCHS = 6  # of a fold; it is stopped once the other has had one, whoever is the faster
KNOBS = (*TOY, f"training.max_epochs={EPOCHS}", f"competition.slug={SLUG}")
# The server runs a kernel beside its inputs, and has no GPU.
INPUT = ("--set", "kaggle.input_root=../input", "--set", "trainer.accelerator=cpu")
QUICK = ("--set", "kaggle.pause_seconds=0.05", "--set", "kaggle.attempts=2")
LOOK = ("--set", "kernel.poll_seconds=0.5", *QUICK)
NEW = ("--preset", "demo", "--folds", "2", *(word for knob in KNOBS for word in ("--set", knob)), *INPUT, *QUICK)


def planned(workspace, *knobs, folds=None):
    return plan_push(workspace, "mine", "demo", (*KNOBS, *knobs), folds)


def test_every_knob_of_a_training_can_be_said_again_as_text():
    config = override(preset("demo"), [*TOY, "training.learning_rate=3e-4", "decision.threshold=0.05"])
    assert override(preset("seed"), assignments(config)) == config


def test_the_script_says_what_it_is_has_the_knobs_in_clear_and_the_package_below(tmp_path):
    text = script(planned(tmp_path, folds=2), "abcd")
    tree = ast.parse(text)
    names = [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)]
    assert names == ["CONFIG", "PUSH", "REQUIREMENTS", "PACKAGE"]
    assert "run mine" in ast.get_docstring(tree)
    assert not git_state() or git_state()["commit"] in ast.get_docstring(tree)
    values = {
        node.targets[0].id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
    }
    assert json.loads(values["CONFIG"])["data"]["folds"] == 2
    assert values["PUSH"] == {"id": "abcd", "run": "mine", "preset": "demo", "continues": ""}
    assert values["REQUIREMENTS"] == requirements()
    assert len(pack_source()) < len(text) < 1_000_000  # Kaggle's limit for a script


def test_a_run_that_has_finished_is_not_pushed(trained):
    with pytest.raises(KitError, match="has not finished"):
        plan_push(trained, "demo", None, (), None)


def test_a_run_is_pushed_with_the_knobs_that_it_was_started_with(trained):
    Run(trained, "demo").finished.unlink()
    planned = plan_push(trained, "demo", None, ("kernel.max_hours=2",), None)
    assert planned.continues == Run(trained, "demo").last
    assert f'"continues": "{sha256(Run(trained, "demo").last)}"' in script(planned, "abcd")
    with pytest.raises(KitError, match=r"training\.seed"):
        plan_push(trained, "demo", None, ("training.seed=7",), None)


def test_a_log_is_read_in_kaggles_form_and_as_plain_text():
    assert _plain_log(json.dumps([{"stream_name": "stdout", "time": 1, "data": "a\n"}, {"data": "b"}])) == "a\nb"
    assert _plain_log("plain") == "plain"
    assert _plain_log("") == ""


class Complete(Kernels):
    """A connection whose only kernel is complete, with an output of these names."""

    def __init__(self, *names):
        self.names = names

    def session(self, kernel, version):
        return Session("complete", "", "")

    def output(self, kernel, version, folder):
        manifest = Manifest("abcd", "mine", "finished", dict.fromkeys(self.names, "0"))
        (folder / "kit-manifest.json").write_text(json.dumps(asdict(manifest)))


def first_push(workspace):
    """A run whose first push, from the start, is recorded."""
    made = Push("abcd", KERNEL, 1, "", "demo", {})
    (workspace / "kernels").mkdir()
    (workspace / "kernels" / "mine.json").write_text(json.dumps(asdict(made)))
    return Run(workspace, "mine")


@pytest.mark.parametrize("name", ["best.ckpt", "finished.json"])
def test_a_local_run_without_a_state_is_not_overwritten(name, tmp_path):
    run = first_push(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / name).write_text("mine")
    with pytest.raises(KitError, match="move that folder away"):
        pull(Complete(), run, read_push(run), print)
    assert (run.folder / name).read_text() == "mine"


def test_a_local_run_that_was_made_while_its_output_came_is_not_overwritten(tmp_path):
    run = first_push(tmp_path)

    class Slow(Complete):
        def output(self, kernel, version, folder):
            super().output(kernel, version, folder)
            run.folder.mkdir(parents=True)
            run.last.write_text("mine")

    with pytest.raises(KitError, match="move that folder away"):
        pull(Slow(), run, read_push(run), print)
    assert run.last.read_text() == "mine"


def test_a_pull_that_was_killed_at_its_end_is_tidied_by_the_next(tmp_path):
    run = first_push(tmp_path)
    pull(Complete(), run, read_push(run), print)
    (tmp_path / "kernels" / ".mine.output" / "abcd").mkdir(parents=True)
    pull(Complete(), run, read_push(run), print)
    assert kernels_folder(run) == ["mine.json"]


def test_a_finished_local_run_is_not_overwritten_by_what_went_on_from_its_state(tmp_path):
    run = first_push(tmp_path)
    run.folder.mkdir(parents=True)
    run.last.write_text("state")
    run.finished.write_text("{}")
    path = tmp_path / "kernels" / "mine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"continues_sha256": sha256(run.last)}))
    with pytest.raises(KitError, match="move that folder away"):
        pull(Complete(), run, read_push(run), print)
    assert run.last.read_text() == "state"


@pytest.mark.parametrize("name", ["../mine", "runs/../../../mine", "{root}/kernels/mine.json", "."])
def test_a_manifest_that_names_a_file_outside_deletes_nothing(name, tmp_path):
    run = first_push(tmp_path)
    (tmp_path / "kernels" / ".mine.output").mkdir()
    (tmp_path / "kernels" / ".mine.output" / "mine").write_text("mine")
    with pytest.raises(KitError, match="of the output only"):
        pull(Complete(name.format(root=tmp_path)), run, read_push(run), print)
    assert (tmp_path / "kernels" / "mine.json").exists()
    assert (tmp_path / "kernels" / ".mine.output" / "mine").read_text() == "mine"


@pytest.mark.parametrize("hours", ["0", "1"])
def test_a_signal_before_training_listens_is_a_stop_only_after_the_time_is_up(hours, tmp_path):
    process = "time.sleep(60)" if hours == "0" else "signal.raise_signal(signal.SIGTERM)"
    (tmp_path / "invoke.py").write_text(f"import signal, time\n{process}\n")
    run = Run(tmp_path, "mine")
    run.folder.mkdir(parents=True)
    run.last.write_text("state")
    config = override(preset("demo"), [f"kernel.max_hours={hours}"])
    train = lambda: _Steps(tmp_path, tmp_path).train(run, ("train",), config, time.monotonic(), 2)  # noqa: E731
    if hours == "0":
        assert train() == "stopped"
    else:
        with pytest.raises(SystemExit, match=str(-signal.SIGTERM)):
            train()


STEPS = """
import pathlib, sys
(pathlib.Path(__file__).parent / "steps").open("a").write(sys.argv[1] + "\\n")
(pathlib.Path(__file__).parent / "words").open("a").write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "train":
    run = pathlib.Path(sys.argv[sys.argv.index("--workspace") + 1]) / "runs" / "mine"
    run.mkdir(parents=True, exist_ok=True)
    (run / "finished.json").write_text("{}")
sys.exit(sys.argv[1] == "FAILING")
"""


def session_of(folder, failing, continues="", weights=None, allow="", knobs=(), groups=None):
    """A session whose verbs only note that they were called; one of them fails."""
    package, output = folder / "package", folder / "output"
    package.mkdir()
    output.mkdir()
    (package / "invoke.py").write_text(STEPS.replace("FAILING", failing))
    config = override(preset("demo"), [f"kaggle.input_root={folder / 'input'}", "trainer.accelerator=cpu", *knobs])
    push = {"id": "abcd", "run": "mine", "preset": "demo", "continues": continues}
    if weights is not None:
        source, content = weights
        config = override(config, [f"model.weights={source}"])
        push |= {"weights": hashlib.sha256(content).hexdigest()}
    if allow:
        push |= {"allow": allow}
    if groups is not None:
        push |= {"groups": hashlib.sha256(groups).hexdigest()}
    ended = run_session(config, push, package, output)
    return ended, (package / "steps").read_text().split(), json.loads((output / "kit-manifest.json").read_text())


@pytest.mark.parametrize(
    ("failing", "steps"),
    [
        ("none", ["download", "train", "evaluate", "predict"]),
        ("evaluate", ["download", "train", "evaluate"]),
        ("predict", ["download", "train", "evaluate", "predict"]),
    ],
)
def test_a_trained_run_is_kept_whatever_comes_of_scoring_it(failing, steps, tmp_path):
    ended, called, manifest = session_of(tmp_path, failing)
    assert (ended, called) == ("finished", steps)
    assert set(manifest["files"]) == {"runs/mine/finished.json"}


def test_a_step_that_must_work_ends_the_session_without_a_manifest(tmp_path):
    with pytest.raises(SystemExit):
        session_of(tmp_path, "download")
    assert not (tmp_path / "output" / "kit-manifest.json").exists()


WEIGHTS, GROUPS = b"weights", b"image_id,group\na.png,1\n"


@pytest.mark.parametrize("where", ["w.pth", "../my weights/w.pth", "/{folder}/w.pth"])
def test_a_session_starts_from_the_weights_that_were_sent_under_the_name_that_the_run_has(where, tmp_path):
    (tmp_path / "input" / "kit-mine-run").mkdir(parents=True)
    (tmp_path / "input" / "kit-mine-run" / "weights.kit").write_bytes(WEIGHTS)
    source = where.format(folder=str(tmp_path / "home").lstrip("/"))
    session_of(tmp_path, "none", weights=(source, WEIGHTS))
    assert (tmp_path / "package" / source).read_bytes() == WEIGHTS
    words = (tmp_path / "package" / "words").read_text()
    assert f"--set model.weights={source} " in words


@pytest.mark.parametrize("fault", ["none", "another", "in the way"])
def test_a_session_without_the_weights_that_were_sent_ends_before_it_does_anything(fault, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "input" / "kit-mine-run").mkdir(parents=True)
    if fault != "none":
        mounted = WEIGHTS if fault == "in the way" else b"another"
        (tmp_path / "input" / "kit-mine-run" / "weights.kit").write_bytes(mounted)
    if fault == "in the way":
        (tmp_path / "w.pth").write_bytes(b"mine")
    source = str(tmp_path / "w.pth") if fault == "in the way" else "w.pth"
    with pytest.raises(SystemExit):
        session_of(tmp_path, "none", weights=(source, WEIGHTS))
    assert ("with a relative path" if fault == "in the way" else "push with --again") in caplog.text
    assert not (tmp_path / "package" / "steps").exists()
    if fault == "in the way":  # as the log says
        for name in ("package", "output", "workspace"):
            shutil.rmtree(tmp_path / name)
        assert session_of(tmp_path, "none", weights=("w.pth", WEIGHTS))[0] == "finished"


def test_a_session_has_the_groups_that_were_sent_and_without_them_ends_before_it_does_anything(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(SystemExit):
        session_of(tmp_path, "none", groups=GROUPS)
    assert "groups.kit is not mounted: found no file; push with --again" in caplog.text
    assert not (tmp_path / "package" / "steps").exists()
    for name in ("package", "output", "workspace"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "input" / "kit-mine-run").mkdir(parents=True)
    (tmp_path / "input" / "kit-mine-run" / "groups.kit").write_bytes(GROUPS)
    assert session_of(tmp_path, "none", groups=GROUPS)[0] == "finished"
    assert read_groups(tmp_path / "workspace" / "data") == {"a.png": "1"}


def test_the_download_of_a_session_takes_as_valid_what_the_training_takes(tmp_path):
    sent = ("data.repeated_boxes=fuse", "data.orientation=exif", "data.cache_max_gib=40.0")
    session_of(tmp_path, "none", knobs=sent)
    download, train = (tmp_path / "package" / "words").read_text().splitlines()[:2]
    for line in (download, train):
        assert all(f"--set {text} " in f"{line} " for text in sent)
    words = download.split()
    given = [text for word, text in itertools.pairwise(words) if word == "--set"]
    assert override(Config(), given).data == override(preset("demo"), sent).data


def test_the_faults_to_allow_reach_the_download_and_the_training(tmp_path):
    session_of(tmp_path, "none", allow="box-units,labels-alike")
    for line in (tmp_path / "package" / "words").read_text().splitlines():
        is_judged = line.split()[0] in ("download", "train")
        assert ("--allow box-units --allow labels-alike" in line) == is_judged


@pytest.mark.parametrize("mounted", [None, b"an older state"])
def test_a_session_goes_on_from_exactly_the_state_that_was_pushed(mounted, tmp_path, caplog):
    if mounted is not None:
        (tmp_path / "input" / "kit-mine-run").mkdir(parents=True)
        with zipfile.ZipFile(tmp_path / "input" / "kit-mine-run" / "run.kit", "w") as archive:
            archive.writestr("last.ckpt", mounted)
    caplog.set_level("INFO")
    with pytest.raises(SystemExit):
        session_of(tmp_path, "none", continues=hashlib.sha256(b"the state").hexdigest())
    assert "the run to continue is not mounted" in caplog.text
    assert not (tmp_path / "package" / "steps").exists()


class Account(Kernels):
    """A connection to one account, whose only kernel has these scripts, the first version first.

    ``late`` is one more from the third look on; ``newest`` what Kaggle calls the newest version.
    """

    username = USERNAME

    def __init__(self, *scripts, late="", outcome=None, newest=None):
        self.scripts, self.late, self.outcome, self.newest, self.asked = list(scripts), late, outcome, newest, 0
        self.states, self.sent = {}, None

    def version(self, kernel, number=None):
        if number is None:
            self.asked += 1
            if self.late and self.asked == 3:
                self.scripts.append(self.late)
        number = number or self.newest or len(self.scripts)
        return Version(number, self.scripts[number - 1]) if 0 < number <= len(self.scripts) else None

    def session(self, kernel, version):
        state = self.states.get(version)
        return state and Session(state, "", "")

    def push(self, folder, kernel):
        self.sent = (folder / "kernel.py").read_text()
        assert f'"id": "{json.loads(self.open.read_text())["id"]}"' in self.sent  # recorded before it is sent
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


OURS, THEIRS = '{"id": "abcd"}', '{"id": "before"}'
OPEN = Push("abcd", KERNEL, 0, "", "demo", {})
NOW = KaggleConfig(deadline_seconds=0.1, settle_seconds=0, score_pause_seconds=0.01)


class Clock:
    """Time that passes only while one sleeps, in place of the module ``time``."""

    def __init__(self):
        self.seconds = 1e9

    def time(self):
        return self.seconds

    monotonic = time

    def sleep(self, seconds):
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(push_log, "time", made)
    return made


def kernels_folder(run):
    return sorted(path.name for path in (run.workspace / "kernels").iterdir() if path.suffix != ".lock")


def recorded(run, push):
    record_open(run, push)
    return record_arrived(run, push)


def test_nothing_is_open_and_nothing_is_asked(tmp_path):
    account = Account()
    assert settle(account, Run(tmp_path, "mine"), NOW) is None
    assert account.asked == 0


@pytest.mark.parametrize(
    ("account", "version"),
    [
        (Account(THEIRS, OURS), 2),
        (Account(THEIRS, late=OURS), 2),
        (Account(THEIRS, OURS, "saved on the site", "and again"), 2),  # newer ones came after it
        (Account(THEIRS, OURS, newest=1), 2),  # "the newest" is one that has ended, ours still runs
    ],
    ids=["newest", "late", "older", "newer than the newest"],
)
def test_a_push_whose_answer_was_not_seen_is_found_by_its_id_among_the_versions(account, version, clock, tmp_path):
    run = Run(tmp_path, "mine")
    record_open(run, replace(OPEN, at=clock.time()))
    found = settle(account, run, NOW)
    assert (found.version, found.url) == (version, f"https://www.kaggle.com/code/{KERNEL}")
    assert read_push(run) == found
    assert kernels_folder(run) == ["mine.json"]
    assert settle(Account(), run, NOW) is None


@pytest.mark.parametrize("scripts", [(), (THEIRS,), (THEIRS, "saved on the site")])
def test_a_push_that_did_not_arrive_is_forgotten_and_the_last_one_stays(scripts, tmp_path):
    run, before = Run(tmp_path, "mine"), replace(OPEN, id="before", version=1)
    with pytest.raises(KitError, match=r"kernel\.push --run mine"):
        last_push(Account(*scripts), run)
    if scripts:
        recorded(run, before)
    record_open(run, OPEN)
    assert settle(Account(*scripts), run, NOW) is None
    assert kernels_folder(run) == ["mine.json"] * bool(scripts)
    if scripts:
        assert last_push(Account(*scripts), run) == before


def test_a_status_never_decides_that_a_push_did_not_arrive(tmp_path, caplog):
    run, before = Run(tmp_path, "mine"), replace(OPEN, id="before", version=1)
    recorded(run, before)
    record_open(run, OPEN)
    assert last_push(Account(THEIRS), run) == before
    assert "is not on Kaggle, or not yet" in caplog.text
    assert kernels_folder(run) == [".mine.open", "mine.json"]
    assert last_push(Account(THEIRS, OURS), run).version == 2


@pytest.mark.parametrize(
    ("own", "began", "waits"),
    [
        ({}, 0.0, True),
        ({}, -1.0, False),
        ({"deadline_seconds": 0.5, "settle_seconds": 0.7}, -1.0, True),  # its own patience was longer
        ({}, 1e6, True),  # the clock was set back
    ],
)
def test_a_push_is_looked_for_until_it_cannot_be_under_way_any_more(own, began, waits, clock, tmp_path):
    run, account, started = Run(tmp_path, "mine"), Account(THEIRS), clock.time()
    record_open(run, replace(OPEN, at=started + began, config={"kaggle": own}))
    assert settle(account, run, NOW) is None
    assert (account.asked > 1) is waits
    assert clock.time() - started < 1  # and not as long as the clock was set back


def test_another_accounts_view_does_not_lose_a_push(tmp_path):
    run = Run(tmp_path, "mine")
    recorded(run, replace(OPEN, id="before", version=1))
    record_open(run, OPEN)
    with pytest.raises(KitError, match="version 1 is on record"):
        settle(Account(), run, NOW)
    assert kernels_folder(run) == [".mine.open", "mine.json"]


def test_a_kill_between_the_record_and_its_end_asks_nothing(tmp_path):
    run, account = Run(tmp_path, "mine"), Account()
    made = recorded(run, replace(OPEN, version=3))
    record_open(run, OPEN)
    assert settle(account, run, NOW) == made
    assert (account.asked, kernels_folder(run)) == (0, ["mine.json"])


def test_what_another_process_is_about_to_send_is_not_forgotten_with_ones_own(tmp_path):
    run = Run(tmp_path, "mine")
    record_open(run, replace(OPEN, id="younger"))
    close(run, OPEN)
    assert kernels_folder(run) == [".mine.open"]


def sent(workspace, outcome, *scripts):
    account = Account(*scripts, outcome=outcome)
    account.open = workspace / "kernels" / ".mine.open"
    return push(account, planned(workspace), "abcd"), account


def test_a_push_is_recorded_under_the_name_that_kaggle_gave_it(tmp_path):
    made, _ = sent(tmp_path, Pushed("ada/kit-mine-2", 1, "https://www.kaggle.com/code/ada/kit-mine-2"))
    assert (made.kernel, made.version, made.id) == ("ada/kit-mine-2", 1, "abcd")
    assert read_push(Run(tmp_path, "mine")) == made


def test_a_refused_push_is_recorded_nowhere_and_a_lost_one_stays_open_until_it_is_found(tmp_path):
    run = Run(tmp_path, "mine")
    with pytest.raises(Refused):
        sent(tmp_path, Refused("to push", "no", "do"))
    assert kernels_folder(run) == []
    with pytest.raises(KitError, match="whether it arrived is not known"):
        sent(tmp_path, Unanswered("to push", "no answer", "do"))
    assert kernels_folder(run) == [".mine.open"]
    found, _ = sent(tmp_path, Unanswered("to push", "no answer", "do"), OURS)
    assert (found.version, kernels_folder(run)) == (1, ["mine.json"])


def test_a_version_that_runs_without_its_data_is_recorded_and_said(tmp_path):
    made = Pushed(KERNEL, 4, f"https://www.kaggle.com/code/{KERNEL}", (f"{KERNEL}-run",))
    with pytest.raises(Refused, match=f"mounts no {KERNEL}-run.*; version 4 runs without it") as error:
        sent(tmp_path, made)
    assert "data set is ready" in error.value.do
    assert read_push(Run(tmp_path, "mine")).version == 4


def test_the_same_push_again_is_told_from_another(tmp_path):
    one = planned(tmp_path)
    made, _ = sent(tmp_path, Pushed(KERNEL, 1, ""))
    assert is_repeated(one, read_push(Run(tmp_path, "mine")))
    assert is_repeated(planned(tmp_path, "kaggle.deadline_seconds=60"), made)
    assert not is_repeated(planned(tmp_path, "training.seed=9"), made)
    assert not is_repeated(planned(tmp_path, folds=2), made)
    assert not is_repeated(one, replace(made, continues_sha256="another"))
    assert not is_repeated(one, replace(made, weights_sha256="another"))
    assert not is_repeated(one, replace(made, groups_sha256="another"))
    assert not is_repeated(one, replace(made, allow=("box-units",)))
    older = {name: dict(values) for name, values in made.config.items()}
    for knob in ("decay_norms", "backbone_rate", "layer_decay", "decay_embeddings"):
        del older["training"][knob]
    assert is_repeated(one, replace(made, config=older)), "a push of a version without these knobs"
    assert not is_repeated(planned(tmp_path, "training.decay_norms=false"), replace(made, config=older))


@pytest.mark.parametrize(
    ("state", "said"), [("running", "is running"), ("queued", "is queued"), ("complete", "was not pulled")]
)
def test_a_session_that_works_or_waits_to_be_pulled_is_not_followed_by_another(state, said, tmp_path):
    made, account = sent(tmp_path, Pushed(KERNEL, 1, ""))
    account.states[1] = state
    with pytest.raises(KitError, match=said):
        require_idle(account, planned(tmp_path), again=False)
    if state == "complete":
        require_idle(account, planned(tmp_path), again=True)
        home = Run(tmp_path, "mine").folder
        home.mkdir(parents=True)
        (home / "kernel.json").write_text(json.dumps(asdict(Manifest(made.id, "mine", "stopped", {}))))
        require_idle(account, planned(tmp_path), again=False)


@pytest.mark.parametrize("state", ["error", "cancelled", None])
def test_a_session_that_failed_or_is_gone_may_be_followed_by_another(state, tmp_path):
    made, account = sent(tmp_path, Pushed(KERNEL, 1, ""))
    account.states[1] = state
    require_idle(account, planned(tmp_path), again=False)
    assert current_session(account, made).status == (state or "gone")


def test_two_pushes_of_one_run_at_once_are_one_and_an_error(tmp_path):
    mine, other = Run(tmp_path, "mine"), Run(tmp_path, "other")
    with (
        pushing(mine),
        pushing(other),
        pytest.raises(KitError, match=f"process {os.getpid()} is at work"),
        pushing(mine),
    ):
        raise AssertionError("the second push began")


def test_runs_whose_names_lose_letters_have_kernels_of_their_own():
    assert slug_of("mine") == "mine"
    names = ["a-b", "a_b", "A-b", "a.b", "x" * 40, "x" * 41, "x" * 42, "___"]
    slugs = [slug_of(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9](-?[a-z0-9])*", slug) and len(slug) <= 40 for slug in slugs)


# The server runs what is pushed.


class Scene:
    """A user who has gone the whole road once, and what was said on it."""

    def __init__(self, server, toy, folder):
        self.server, self.said = server, {}
        self.user = User(server, folder)
        shutil.copytree(toy / "data", self.user.workspace / "data")
        self.run = Run(self.user.workspace, "mine")
        self.go("first push", "kernel.push", "--run", "mine", "--yes", "--set", "kernel.max_hours=0", *NEW)
        self.go("first end", "kernel.status", "--run", "mine", "--wait", *LOOK)
        self.go("first pull", "kernel.pull", "--run", "mine", *QUICK)
        histories = [self.run.folder / f"fold-{fold}" / "history.csv" for fold in range(2)]
        self.stopped_after = [len(history.read_text().splitlines()) - 1 for history in histories]  # epochs
        self.go("second push", "kernel.push", "--run", "mine", "--yes", *INPUT, *QUICK)
        self.go("second end", "kernel.status", "--run", "mine", "--wait", *LOOK)
        self.go("second pull", "kernel.pull", "--run", "mine", *QUICK)

    def go(self, name, *words):
        done = self.user.invoke(*words)
        self.said[name] = done.stdout
        assert done.returncode == 0, (name, done.stdout, done.stderr, self.logs())

    def logs(self):
        return [kernel.log()[-3000:] for kernel in self.server.kernels.get(KERNEL, [])]

    def forget_the_run(self):
        shutil.rmtree(self.run.folder, ignore_errors=True)
        shutil.rmtree(self.user.workspace / "kernels" / ".mine.output", ignore_errors=True)


@pytest.fixture(scope="module")
def scene(toy_source, tmp_path_factory):
    with KaggleServer() as server:
        server.add_competition(SLUG, toy_source / "data", toy_source / "test_truth.csv")
        yield Scene(server, toy_source, tmp_path_factory.mktemp("kernel"))
        assert server.errors == []


@pytest.fixture
def again(scene):
    """The scene before its second pull, with a server that works."""
    scene.server.forget()
    scene.forget_the_run()
    return scene


@pytest.mark.slow
def test_a_run_is_pushed_stops_itself_goes_on_and_comes_home_to_a_public_score(scene, toy_source, tmp_path):
    first, second = scene.server.kernels[KERNEL]
    for kernel in (first, second):
        assert kernel.request["competitionDataSources"] == [SLUG]
        assert kernel.request["machineShape"] == "NvidiaTeslaT4"
        assert (
            kernel.request["isPrivate"] is kernel.request["enableGpu"] is kernel.request["enableInternet"] is True
        )
    assert "datasetDataSources" not in first.request
    assert second.request["datasetDataSources"] == [f"{KERNEL}-run"]
    assert "30.0 left this week" in scene.said["first push"]
    assert "last metrics: fold" in scene.said["first end"]
    assert "stopped itself in time" in scene.said["first pull"]
    assert 1 <= min(scene.stopped_after) < EPOCHS, scene.stopped_after
    assert "it is finished" in scene.said["second pull"]
    assert "it was pulled before" in scene.user.invoke("kernel.pull", "--run", "mine", *QUICK).stdout

    straight = User(scene.server, tmp_path / "straight")
    shutil.copytree(toy_source / "data", straight.workspace / "data")
    done = straight.invoke("train", "--run", "mine", *NEW[: -len(QUICK)])
    assert done.returncode == 0, done.stderr
    for fold in range(2):
        one, other = (
            load_checkpoint(run.folder / f"fold-{fold}" / "last.ckpt", "")["state_dict"]
            for run in (scene.run, Run(straight.workspace, "mine"))
        )
        assert all(bool((one[name] == other[name]).all()) for name in other)

    user = scene.user
    assert user.invoke("evaluate", "--run", "mine").returncode == 0
    assert user.invoke("predict", "--run", "mine", "--message", "from Kaggle").returncode == 0
    sent = user.invoke("submit", "--message", "from Kaggle", "--yes", "--set", "kaggle.score_pause_seconds=0.1")
    assert sent.returncode == 0, sent.stderr
    assert re.search(r"public score \d", sent.stdout)
    (remote,) = scene.server.competitions[SLUG].submissions
    (filed,) = read_submissions(user.workspace / "submissions")
    assert filed.public_score == round(remote["score"], 5)
    assert len(filed.csv.read_text().splitlines()) == 1 + TOY_TEST_IMAGES


@pytest.mark.slow
def test_a_dry_run_needs_no_account_and_shows_the_script(scene, tmp_path):
    stranger = User(scene.server, tmp_path, token=None)
    done = stranger.invoke("kernel.push", "--run", "mine", "--dry-run", *NEW)
    assert done.returncode == 0, done.stderr
    assert "nothing was sent" in done.stdout
    assert ast.get_docstring(ast.parse((stranger.workspace / "kernels" / "mine.py").read_text()))


@pytest.mark.slow
def test_what_kaggle_refuses_is_refused_and_recorded_nowhere(scene, tmp_path):
    server, user = scene.server, User(scene.server, tmp_path)
    patience = ("--set", "kaggle.settle_seconds=0", "--set", "kaggle.deadline_seconds=5")
    push = ("kernel.push", "--run", "other", "--yes", *NEW, *patience)
    server.fail("SaveKernel", answer={"error": "Your account is not verified by phone"})
    user.refused(*push, says=["not verified by phone"])
    server.fail("SaveKernel", answer={"invalidCompetitionSources": [SLUG]})
    user.refused(*push, says=["mounts no toy-competition", f"competitions/{SLUG}/rules"])
    server.fail("SaveKernel", status=503)
    user.refused(*push, says=["503", "the same command looks for it on Kaggle"])
    server.gpu_seconds = 0
    user.refused(*push, says=["none left this week"])
    server.gpu_seconds = 30 * 3600
    user.refused("kernel.push", "--run", "other", *NEW, says=["--yes"])
    user.refused("kernel.pull", "--run", "other", says=["kernel.push --run other"])
    assert not list(user.workspace.glob("kernels/.*.open"))
    assert not list(user.workspace.glob("kernels/*.json"))
    assert f"{USERNAME}/kit-other" not in server.kernels


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["lost", "killed before", "killed after"])
def test_a_push_that_was_cut_is_found_by_the_same_command_and_never_repeated(cut, scene, tmp_path):
    user, name = User(scene.server, tmp_path), f"cut-{cut[-6:].strip()}"
    kernel = f"{USERNAME}/kit-{name}"
    wrong = ("--set", "competition.expected_ids=9")  # so that the session ends soon
    push = ("kernel.push", "--run", name, "--yes", *NEW, *wrong)
    if cut == "lost":
        scene.server.fail("SaveKernel", drop="after")
    else:
        slow = {"slow_seconds": 6.0} if cut == "killed before" else {"bytes_per_second": 2.0}
        scene.server.fail("SaveKernel", **slow)
        process = user.start(*push)
        while "SaveKernel" in scene.server.waiting():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(0.5)  # it waits for the answer
        process.kill()
        process.communicate()
        assert not (user.workspace / "kernels" / f"{name}.json").exists()
    done = user.invoke(*push)
    assert done.returncode == 0, done.stderr
    assert "version 1: https://www.kaggle.com/code/" in done.stdout
    assert len(scene.server.kernels[kernel]) == 1
    assert user.invoke("kernel.status", "--run", name, "--wait", *LOOK).returncode == 1  # as it is wrong
    assert len(scene.server.kernels[kernel]) == 1
    assert sorted(path.suffix for path in user.workspace.glob("kernels/*") if path.suffix != ".lock") == [".json"]


@pytest.mark.slow
def test_a_pull_that_is_killed_anywhere_is_gone_on_with_by_the_same_command(again):
    pull = ("kernel.pull", "--run", "mine", *QUICK)
    for number in range(FOREVER):
        again.server.fail("storage", bytes_per_second=4e6, times=FOREVER)
        process = again.user.start(*pull)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5 + 0.5 * number)
        ended = process.poll()
        process.kill()
        process.communicate()
        if ended is not None:
            break
        assert not again.run.folder.exists() or (again.run.folder / "kernel.json").exists()
    assert ended == 0
    assert number > 3
    manifest = json.loads((again.run.folder / "kernel.json").read_text())
    home = again.user.workspace
    assert all(sha256(home / name) == digest for name, digest in manifest["files"].items())
    assert not (home / "kernels" / ".mine.output").exists()


@pytest.mark.slow
def test_a_training_starts_there_from_a_file_of_weights_and_comes_home_with_its_own_knobs(
    toy_source, trained, tmp_path
):
    weights = tmp_path / "my weights.ckpt"
    made = Run(trained, "demo").last
    made.with_name("seen.parquet").rename(tmp_path / "seen.parquet")
    made.rename(weights)
    with KaggleServer() as server:
        server.add_competition(SLUG, toy_source / "data", toy_source / "test_truth.csv")
        user = User(server, tmp_path / "user")
        knobs = (*TOY, "training.max_epochs=1", f"competition.slug={SLUG}", f"model.weights={weights}")
        words = ("--preset", "demo", *(word for knob in knobs for word in ("--set", knob)), *INPUT, *QUICK)
        pushed = user.invoke("kernel.push", "--run", "mine", "--yes", "--allow", "labels-alike", *words)
        assert pushed.returncode == 0, pushed.stderr
        assert "my weights.ckpt (" in pushed.stdout
        (kernel,) = server.kernels[KERNEL]
        assert kernel.request["datasetDataSources"] == [f"{KERNEL}-run"]
        assert server.datasets[f"{KERNEL}-run"].keys() == {"seen.kit", "weights.kit"}
        ended = user.invoke("kernel.status", "--run", "mine", "--wait", *LOOK)
        assert ended.returncode == 0, kernel.log()
        assert f"run mine: starting from weights {str(weights)!r}" in kernel.log()
        assert "it is finished" in user.invoke("kernel.pull", "--run", "mine", *QUICK).stdout
        assert load(Run(user.workspace, "mine").config).model.weights == str(weights)
        assert server.errors == []


@pytest.mark.slow
def test_a_kernel_that_fails_shows_its_error(scene, tmp_path):
    user = User(scene.server, tmp_path)
    wrong = ("--set", "competition.expected_ids=9")
    assert user.invoke("kernel.push", "--run", "broken", "--yes", *NEW, *wrong).returncode == 0
    done = user.invoke("kernel.status", "--run", "broken", "--wait", *LOOK)
    assert done.returncode == 1
    assert "status: error (exit code 1)" in done.stdout
    assert "9: competition.expected_ids" in done.stdout
    user.refused("kernel.pull", "--run", "broken", says=["to be complete", "status: error"])


@pytest.mark.slow
def test_a_session_that_still_works_is_not_pushed_again_and_not_pulled(again):
    kernel = again.server.kernels[KERNEL][-1]
    again.server.fail("GetKernelSessionStatus", answer={"status": "RUNNING"}, times=3)
    again.user.refused("kernel.push", "--run", "mine", "--yes", *NEW, says=["version 2 is running", "--wait"])
    again.user.refused("kernel.pull", "--run", "mine", says=["status: running"])
    assert again.server.kernels[KERNEL][-1] is kernel


@pytest.mark.slow
@pytest.mark.parametrize(("theirs", "ours"), [("NEW_SCRIPT", "queued"), ("CANCEL_REQUESTED", "running")])
def test_a_session_that_has_not_begun_or_not_ended_is_waited_for(theirs, ours, again):
    again.server.fail("GetKernelSessionStatus", answer={"status": theirs})
    again.user.refused("kernel.pull", "--run", "mine", *QUICK, says=[f"status: {ours}"])


@pytest.mark.slow
def test_an_older_sessions_state_is_not_taken_for_this_ones(again):
    kernels = again.server.kernels[KERNEL]
    first, second = kernels
    kernels[:] = [first, first]  # a server that answers with the first session whatever is asked
    try:
        assert "status: queued" in again.user.invoke("kernel.status", "--run", "mine", *LOOK).stdout
        again.user.refused("kernel.pull", "--run", "mine", *QUICK, says=["status: queued"])
    finally:
        kernels[:] = [first, second]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [{"status": 200, "body": b"<html>Sign in</html>"}, {"wrong_byte": 5}, {"cut_after": 100}],
    ids=["error page", "wrong byte", "cut"],
)
def test_output_that_is_not_whole_is_fetched_anew(fault, again):
    again.server.fail("storage", **fault)
    done = again.user.invoke("kernel.pull", "--run", "mine", *QUICK)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((again.run.folder / "kernel.json").read_text())
    home = again.user.workspace
    assert all(sha256(home / name) == digest for name, digest in manifest["files"].items())
    assert not (home / "kernels" / ".mine.output").exists()


@pytest.mark.slow
def test_output_that_stays_broken_is_no_run(again):
    again.server.fail("storage", status=200, body=b"<html>Sign in</html>", times=FOREVER)
    again.user.refused("kernel.pull", "--run", "mine", *QUICK, says=["kit-manifest.json: missing or broken"])
    assert not again.run.folder.exists()
    again.server.forget()
    assert again.user.invoke("kernel.pull", "--run", "mine", *QUICK).returncode == 0


@pytest.mark.slow
def test_a_local_run_of_that_name_is_not_overwritten(again):
    again.run.folder.mkdir(parents=True)
    (again.run.folder / "last.ckpt").write_text("mine")
    again.user.refused("kernel.pull", "--run", "mine", *QUICK, says=["move that folder away"])
    assert (again.run.folder / "last.ckpt").read_text() == "mine"
