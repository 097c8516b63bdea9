"""The newcomer's command: it reaches its score, survives a Ctrl-C and a kill, and files one submission."""

import json
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from command_line import PATIENCE_SECONDS, started
from toy import TOY, copied

from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.json_files import write_json
from kit.demo import DemoResult, clear_demo, finished_demo
from kit.detectors.checkpoints import load_checkpoint
from kit.runs.folder import Run
from kit.submission.folders import read_submissions


def stopped_after_an_epoch(words, history, how):
    """Start a command, stop it as soon as the history has a row; its exit code and what it said."""
    process = started(*words)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not history.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, how)
    try:
        said = "".join(process.communicate(timeout=60))
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.slow
def test_the_demo_goes_on_after_ctrl_c_reaches_its_score_and_files_one_submission(tmp_path):
    words = ("demo", "--workspace", tmp_path / "demo")
    code, said = stopped_after_an_epoch(words, Run(tmp_path / "demo", "demo").history, signal.SIGINT)
    assert code == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said

    finished = started(*words)
    out, err = finished.communicate(timeout=PATIENCE_SECONDS)
    assert finished.returncode == 0, err
    assert "going on from epoch" in err
    result = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert result["test_images"] == 170
    assert result["score"] >= 0.5
    assert result["score"] >= 5 * result["prior_score"] > 0
    assert f"{result['score']:.3f}" in out
    assert f"{result['prior_score']:.3f}" in out
    for path in (result["submission"], result["report"], result["figures"]):
        assert Path(path).exists()
        assert path in out
    for text in ("demo [kit 0001 <id>]", "170 rows", "dry run: nothing was sent"):
        assert text in out

    before = time.monotonic()
    again = started(*words)
    shown = again.communicate(timeout=60)[0].splitlines()
    assert shown
    assert shown == out.splitlines()[-len(shown) :]
    assert time.monotonic() - before < 30
    assert len(read_submissions(tmp_path / "demo" / "submissions")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(how, toy, tmp_path):
    knobs = [word for assignment in (*TOY, "training.max_epochs=4") for word in ("--set", assignment)]
    straight = copied(toy, tmp_path / "straight")
    words = ("train", "--preset", "demo", *knobs, "--workspace")
    code, said = stopped_after_an_epoch((*words, toy), Run(toy, "demo").history, how)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130), said
    for workspace in (toy, straight):
        process = started(*words, workspace)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, err
    one, other = Run(toy, "demo"), Run(straight, "demo")
    first, second = load_checkpoint(one.last, "")["state_dict"], load_checkpoint(other.last, "")["state_dict"]
    assert all(bool((first[name] == second[name]).all()) for name in second)
    tables = [pd.read_parquet(run.detections("validation")) for run in (one, other)]
    assert tables[0].equals(tables[1])
    assert not list(toy.rglob("*.partial"))


def test_a_result_counts_only_while_its_submission_is_as_it_was_filed(tmp_path):
    assert finished_demo(tmp_path) is None
    submission = tmp_path / "submission.csv"
    submission.write_text("ID\n")
    result = DemoResult(0.6, 0.02, 0.6, 170, 1.0, str(submission), sha256(submission), "r", "f")
    write_json(tmp_path / "result.json", vars(result))
    assert finished_demo(tmp_path) == result
    submission.write_text("other\n")
    assert finished_demo(tmp_path) is None


def test_a_fresh_demo_clears_what_a_killed_one_had_begun(tmp_path):
    (tmp_path / "demo" / ".phantoms.partial" / "train").mkdir(parents=True)
    clear_demo(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_demo_deletes_only_a_demos_folder(tmp_path):
    clear_demo(tmp_path / "nothing")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(KitError, match="--workspace"):
        clear_demo(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
