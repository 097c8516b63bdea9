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
from kit.data.synthetic.generator import TRUTH
from kit.demo import DemoResult, clear_demo, finished_demo, holding_demo, run_demo
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
        said = "".join(process.communicate(timeout=PATIENCE_SECONDS))
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

    result_file = tmp_path / "demo" / "result.json"
    before = result_file.stat().st_mtime_ns
    again = started(*words)
    shown = again.communicate(timeout=PATIENCE_SECONDS)[0].splitlines()
    assert shown
    assert shown == out.splitlines()[-len(shown) :]
    assert result_file.stat().st_mtime_ns == before  # nothing was done again
    assert len(read_submissions(tmp_path / "demo" / "submissions")) == 1


def training(workspace):
    """The words of a training of four epochs."""
    knobs = [word for assignment in (*TOY, "training.max_epochs=4") for word in ("--set", assignment)]
    return ("train", "--preset", "demo", *knobs, "--workspace", workspace)


def trained_to_its_end(workspace):
    process = started(*training(workspace))
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err


@pytest.fixture(scope="module")
def straight(toy_source, made_once):
    """The workspace of a training that nobody stopped."""
    return made_once("straight", lambda workspace: trained_to_its_end(copied(toy_source, workspace)))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(how, toy, straight):
    code, said = stopped_after_an_epoch(training(toy), Run(toy, "demo").history, how)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130), said
    trained_to_its_end(toy)
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


def test_a_result_whose_submission_is_no_path_is_none(tmp_path):
    result = DemoResult(0.6, 0.02, 0.6, 170, 1.0, "\0", "a" * 64, "r", "f")
    write_json(tmp_path / "result.json", vars(result))
    assert finished_demo(tmp_path) is None


def test_the_result_of_a_copied_folder_does_not_point_to_the_first_one(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "submission.csv").write_text("ID\n")
    submission = tmp_path / "one" / "submission.csv"
    result = DemoResult(0.6, 0.02, 0.6, 170, 1.0, str(submission), sha256(submission), "r", "f")
    for name in ("one", "two"):
        write_json(tmp_path / name / "result.json", vars(result))
    assert finished_demo(tmp_path / "one") == result
    assert finished_demo(tmp_path / "two") is None


@pytest.fixture
def small_demo(evaluated, monkeypatch):
    """A folder whose run 'demo' is trained, with the knobs of the toy for those of the demo."""
    from kit import config

    monkeypatch.setitem(config.PRESETS, "demo", config.PRESETS["demo"] | dict(_toy_knobs()))
    return evaluated


def _toy_knobs():
    from kit.config import parse

    return [(text.partition("=")[0], parse(*text.split("="))) for text in TOY]


def test_an_edited_or_lost_submission_is_not_scored_but_predicted_anew(small_demo, caplog):
    latest = first = run_demo(small_demo, time.monotonic)
    filed = Path(first.submission).read_bytes()
    assert finished_demo(small_demo) == first
    for content in (filed.replace(b"Mass", b"Nodule").replace(b"0.", b"0.0"), None):
        csv = Path(latest.submission)
        csv.unlink() if content is None else csv.write_bytes(content)
        assert finished_demo(small_demo) is None
        latest = run_demo(small_demo, time.monotonic)
        assert (latest.score, latest.submission_sha256) == (first.score, first.submission_sha256)
        assert f"submission {csv.parent.name[:4]} is passed over" in caplog.text
    assert [one.number for one in read_submissions(small_demo / "submissions")] == [1, 2, 3]
    assert Path(latest.submission).read_bytes() == filed


@pytest.mark.parametrize(
    "content", [None, "", "image_id\n", "image_id,x_min,y_min,x_max,y_max,label\na.png,1,2,x,4,Mass\n"]
)
def test_a_broken_truth_is_refused_with_the_way_to_a_fresh_demo(content, small_demo):
    (small_demo / TRUTH).unlink()
    if content is not None:
        (small_demo / TRUTH).write_text(content)
    with pytest.raises(KitError, match="invoke demo --fresh --workspace") as caught:
        run_demo(small_demo, time.monotonic)
    assert TRUTH in str(caught.value)


def test_a_fresh_demo_in_the_current_folder_deletes_what_the_demo_made_and_nothing_else(toy, monkeypatch):
    for name in ("data/README.md", "thesis.txt", "submissions/README.md", "runs/demo/config.json"):
        (toy / name).parent.mkdir(parents=True, exist_ok=True)
        (toy / name).write_text("x")
    monkeypatch.chdir(toy)
    with holding_demo(Path()):
        clear_demo(Path())
    left = {str(path) for path in Path().rglob("*") if path.is_file()}
    assert left - {".demo.lock"} == {"data/README.md", "thesis.txt", "submissions/README.md"}
    clear_demo(toy / "nothing")


def test_a_demo_neither_trains_on_other_data_nor_runs_twice_at_once(toy):
    with holding_demo(toy), pytest.raises(KitError, match="one `invoke demo` at a time"), holding_demo(toy):
        pass
    (toy / TRUTH).unlink()
    with pytest.raises(KitError, match=r"data/train\.csv in it, and no test_truth\.csv"), holding_demo(toy):
        pass
    with holding_demo(toy / "another"):
        assert (toy / "another").is_dir()


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
