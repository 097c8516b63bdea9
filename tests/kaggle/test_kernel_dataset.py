"""The state that a push continues from is uploaded once, however often the command is repeated."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kaggle_server import USERNAME

from kit.config import KaggleConfig, override, preset, save
from kit.core.errors import KitError
from kit.kaggle.errors import Refused, Unanswered
from kit.kaggle.kernels.api import Kernels, Pushed
from kit.kaggle.kernels.dataset import is_uploaded, provide
from kit.kaggle.kernels.push import plan_push, push
from kit.kaggle.kernels.push_log import read_push
from kit.runs.folder import Run

SET = f"{USERNAME}/kit-mine-run"
NO_PAUSE = KaggleConfig(pause_seconds=0)


class Sets(Kernels):
    """A connection to one account with one data set: its uploads, its status, what becomes of the next uploads."""

    username = USERNAME

    def __init__(self):
        self.uploads, self.status, self.outcomes, self.pushes = [], "ready", [], 0
        self.next_status = None  # of the next version

    def dataset_version(self, ref):
        return len(self.uploads)

    def dataset_status(self, ref):
        return self.status if self.uploads else None

    def save_dataset(self, folder, ref, notes, is_new):
        assert is_new == (not self.uploads)
        outcome = self.outcomes.pop(0) if self.outcomes else "taken"
        if outcome in ("taken", "taken, answer lost"):
            self.uploads.append(notes)
            self.status = self.next_status or self.status
        if outcome == "refused":
            raise Refused(f"to upload {ref}", "no", "follow Kaggle's message, then repeat the command")
        if outcome != "taken":
            raise Unanswered(f"to upload {ref}", "no answer", "repeat the command")

    def push(self, folder, kernel):
        self.pushes += 1
        return Pushed(kernel, self.pushes, "")


def stopped_run(workspace):
    run = Run(workspace, "mine")
    run.folder.mkdir(parents=True)
    run.last.write_text("state")
    save(override(preset("demo"), ["model.norm=batch", "model.norm_eps=1e-5"]), run.config)
    return run


def pushed(sets, workspace, again=False):
    plan = plan_push(workspace, "mine", None, ("kaggle.pause_seconds=0",), None)
    return push(sets, plan, "abcd", again)


def test_a_data_set_that_is_processed_for_long_is_uploaded_once_and_the_repeated_command_goes_on(tmp_path, caplog):
    caplog.set_level("INFO")
    sets, run = Sets(), stopped_run(tmp_path)
    sets.status = "not_yet_persisted"
    for _ in range(3):
        with pytest.raises(Unanswered, match="still processes it") as error:
            pushed(sets, tmp_path)
    assert (len(sets.uploads), sets.pushes) == (1, 0)
    assert error.value.do.startswith("repeat the command")
    assert [text for text in caplog.messages if text.startswith("waiting until Kaggle")] == [
        f"waiting until Kaggle has processed the data set {SET}"
    ] * 3  # once a command
    sets.status = "ready"
    assert pushed(sets, tmp_path) == read_push(run)
    assert (len(sets.uploads), sets.pushes) == (1, 1)


@pytest.mark.parametrize("status", ["failed", "deleted"])
def test_a_data_set_that_failed_is_uploaded_again_only_with_the_flag_of_the_advice(status, tmp_path):
    sets, _ = Sets(), stopped_run(tmp_path)
    sets.status = status
    for _ in range(3):
        with pytest.raises(Refused, match=f"Kaggle says: {status}") as error:
            pushed(sets, tmp_path)
    assert len(sets.uploads) == 1
    assert "the same command with --again uploads it anew" in error.value.do
    sets.next_status = "ready"
    pushed(sets, tmp_path, again=True)
    assert (len(sets.uploads), sets.pushes) == (2, 1)


def test_a_state_that_was_uploaded_is_not_uploaded_for_the_next_session_and_another_state_is(tmp_path):
    sets, run = Sets(), stopped_run(tmp_path)
    pushed(sets, tmp_path)
    pushed(sets, tmp_path)
    assert len(sets.uploads) == 1
    run.last.write_text("a later state")
    pushed(sets, tmp_path)
    assert (len(sets.uploads), len(set(sets.uploads))) == (2, 2)


def test_again_uploads_a_used_state_once_more_and_its_repeats_only_wait(tmp_path):
    """A session that found another state in the data set says to push with --again."""
    sets, _ = Sets(), stopped_run(tmp_path)
    pushed(sets, tmp_path)
    sets.status = "blobs_received"
    for _ in range(3):
        with pytest.raises(Unanswered, match="still processes it"):
            pushed(sets, tmp_path, again=True)
    sets.status = "ready"
    pushed(sets, tmp_path, again=True)
    assert (len(sets.uploads), sets.pushes) == (2, 2)


def test_a_file_of_weights_is_uploaded_once_with_the_state_or_alone_and_another_one_anew(tmp_path):
    class Keeping(Sets):
        def save_dataset(self, folder, ref, notes, is_new):
            self.files = {path.name for path in folder.iterdir()} - {"dataset-metadata.json"}
            super().save_dataset(folder, ref, notes, is_new)

    sets, path = Keeping(), tmp_path / "w.pth"
    torch.save({"head": torch.zeros(1)}, path)
    knobs = ("kaggle.pause_seconds=0", "competition.slug=a-slug", f"model.weights={path}")

    def sends():
        push(sets, plan_push(tmp_path, "mine", "demo", knobs, 2), "abcd")
        return len(sets.uploads), sets.files

    assert sends() == sends() == (1, {"weights.kit"})
    assert "is there already" in "\n".join(plan_push(tmp_path, "mine", "demo", knobs, 2).lines(None))
    torch.save({"head": torch.ones(1)}, path)
    assert sends() == (2, {"weights.kit"})
    run = stopped_run(tmp_path)
    save(
        override(preset("demo"), ["model.norm=batch", "model.norm_eps=1e-5", "data.folds=2", knobs[-1]]), run.config
    )
    first = run.in_folds(2)[0]
    first.home.mkdir()
    run.last.rename(first.last)
    assert sends() == (3, {"run.kit", "weights.kit"})
    (tmp_path / "data").mkdir()
    for number in (1, 2):
        (tmp_path / "data" / "groups.csv").write_text(f"image_id,group\na.png,{number}\n")
        assert sends() == sends() == (3 + number, {"run.kit", "weights.kit", "groups.kit"})


def test_the_preview_says_whether_the_run_is_uploaded(tmp_path):
    sets, _ = Sets(), stopped_run(tmp_path)

    def line(again=False):
        lines = plan_push(tmp_path, "mine", None, (), None).lines(None, again)
        return next(text for text in lines if text.startswith("data set:"))

    assert line().endswith("it is uploaded")
    pushed(sets, tmp_path)
    assert line().endswith("it is there already")
    assert line(again=True).endswith("it is uploaded")


def test_a_data_set_that_was_deleted_on_kaggle_is_uploaded_anew(tmp_path):
    sets, _ = Sets(), stopped_run(tmp_path)
    pushed(sets, tmp_path)
    sets.uploads.clear()
    pushed(sets, tmp_path)
    assert len(sets.uploads) == 1


def test_a_damaged_record_is_named_and_the_advice_works(tmp_path):
    sets, run = Sets(), stopped_run(tmp_path)
    pushed(sets, tmp_path)
    path = tmp_path / "kernels" / ".mine.dataset"
    path.write_text("{}")
    with pytest.raises(KitError, match=r"\.mine\.dataset") as error:
        provide(sets, run, SET, "state", NO_PAUSE, again=False)
    assert error.value.do.startswith(f"delete {path}")
    path.unlink()
    provide(sets, run, SET, "state", NO_PAUSE, again=False)
    assert json.loads(path.read_text())["confirmed"]


OUTCOMES = st.sampled_from(["taken", "taken, answer lost", "lost", "refused"])


@settings(max_examples=30)
@given(outcomes=st.lists(OUTCOMES, max_size=6), slow=st.integers(0, 3))
def test_whatever_is_lost_or_refused_a_state_is_taken_once(outcomes, slow, tmp_path_factory):
    workspace = tmp_path_factory.mktemp("sets")
    sets, run = Sets(), stopped_run(workspace)
    sets.outcomes = list(outcomes)
    sets.status = "blobs_received" if slow else "ready"
    for _ in range(len(outcomes) + slow + 1):
        try:
            provide(sets, run, SET, "state", NO_PAUSE, again=False)
            break
        except KitError:
            slow -= bool(sets.uploads)
            sets.status = "blobs_received" if slow > 0 else "ready"
    assert len(sets.uploads) == 1
    provide(sets, run, SET, "state", NO_PAUSE, again=False)
    assert len(sets.uploads) == 1
    assert is_uploaded(run, "state") or "taken, answer lost" in outcomes
