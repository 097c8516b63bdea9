"""Two at once: each gets its own number, or the second is told who was first."""

import csv
import multiprocessing
import os
import signal
import time

import pandas as pd
import pytest
from command_line import PATIENCE_SECONDS, started
from filelock import Timeout
from toy import TOY, TOY_TEST_IMAGES, second_run

from kit.core.errors import KitError
from kit.core.locks import locked
from kit.evaluation.comparison import compare
from kit.evaluation.predict import predict
from kit.runs.adoption import adopt
from kit.runs.detections import read_detections
from kit.runs.ensemble import ensemble
from kit.runs.folder import Run
from kit.runs.locks import training_lock, using_results
from kit.schemas.tables import validate_submission
from kit.submission.folders import read_submissions
from kit.training.train import train

AT_ONCE = 8
context = multiprocessing.get_context("fork")


def _predict(workspace, number):
    predict(Run(workspace, "demo"), f"number {number}")


def assert_eight_numbers_and_one_index(workspace):
    submissions = read_submissions(workspace / "submissions")
    assert [one.number for one in submissions] == list(range(1, AT_ONCE + 1))
    with (workspace / "submissions" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["number"]) for row in rows] == list(range(1, AT_ONCE + 1))
    assert [row["message"] for row in rows] == [one.origin.message for one in submissions]
    assert {one.origin.message for one in submissions} == {f"number {number}" for number in range(AT_ONCE)}
    assert len({one.csv_sha256 for one in submissions}) == 1
    validate_submission(submissions[0].csv, workspace / "data", 8)
    assert not list(workspace.rglob("*.partial"))
    assert not list(workspace.rglob("*.parts"))


@pytest.mark.slow
def test_eight_predictions_at_once_from_the_command_line(trained):
    """Without a report and without test detections: all eight find that they must be made."""
    words = [("predict", "--message", f"number {number}", "--workspace", trained) for number in range(AT_ONCE)]
    processes = [started(*each) for each in words]
    for process in processes:
        said = "".join(process.communicate(timeout=PATIENCE_SECONDS))
        assert process.returncode == 0, said
        assert "Traceback" not in said
    assert_eight_numbers_and_one_index(trained)


def _hold(run, begun):
    with training_lock(run):
        begun.set()
        time.sleep(PATIENCE_SECONDS)


@pytest.fixture
def holder(trained):
    begun = context.Event()
    process = context.Process(target=_hold, args=(Run(trained, "demo"), begun))
    process.start()
    assert begun.wait(PATIENCE_SECONDS)
    yield process
    process.kill()
    process.join()


def test_a_second_training_is_refused_with_the_first_ones_number(trained, holder):
    with pytest.raises(KitError, match=f"process {holder.pid} is at work"):
        train(trained, None, "demo", TOY)


def test_a_holder_that_has_not_written_its_name_yet_is_another_process(trained, holder):
    (Run(trained, "demo").home / ".holder").unlink()
    with pytest.raises(KitError, match="another process is at work"):
        train(trained, None, "demo", TOY)


def test_the_lock_of_a_dead_process_is_taken_over(trained, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert train(trained, None, "demo", TOY).already


def _write(order, name):
    with order.open("a") as file:
        file.write(f"{name}\n")


def _note(run, order, name, begun):
    with using_results(run):
        begun.set()
        time.sleep(0.2)
        _write(order, name)


def test_work_on_a_finished_runs_results_waits_for_its_turn(trained, tmp_path):
    # A file and not a queue: what two processes put into a queue may arrive in either order.
    run, order, begun = Run(trained, "demo"), tmp_path / "order.txt", context.Event()
    process = context.Process(target=_note, args=(run, order, "first", begun))
    process.start()
    assert begun.wait(PATIENCE_SECONDS)
    with using_results(run):
        _write(order, "second")
    process.join()
    assert order.read_text().split() == ["first", "second"]


def test_what_a_killed_process_left_in_a_finished_run_is_removed_before_the_next_work(trained):
    run = Run(trained, "demo")
    left = [run.folder / ".report.json.x.partial", run.folder / "figures" / ".grid.png.x.partial"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    with using_results(run):
        assert not any(path.exists() for path in left)


def _outcome(work, ready, path):
    ready.wait(PATIENCE_SECONDS)
    try:
        path.write_text(str(work()))
    except KitError as error:
        path.write_text(f"refused: {error}")


def outcomes(folder, *works):
    """What each of some functions returned, or its KitError, called in processes that start together."""
    ready = context.Barrier(len(works))
    paths = [folder / f"outcome-{number}.txt" for number in range(len(works))]
    processes = [
        context.Process(target=_outcome, args=(work, ready, path)) for work, path in zip(works, paths, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0
    return [path.read_text() for path in paths]


@pytest.fixture
def theirs(toy, tmp_path):
    """Two files of detections of the toy competition: one with scores of .5, one of .25."""
    paths = tmp_path / "half.csv", tmp_path / "quarter.csv"
    for path, score in zip(paths, (0.5, 0.25), strict=True):
        pd.read_csv(toy / "data" / "train.csv").assign(score=score).to_csv(path, index=False)
    return paths


def adopted(workspace, path, name="theirs"):
    return adopt(Run(workspace, name), path, None, (f"competition.expected_ids={TOY_TEST_IMAGES}",)).already


def test_of_two_adoptions_of_one_name_one_is_told_of_the_other(toy, theirs, tmp_path):
    said = outcomes(tmp_path, *(lambda path=path: adopted(toy, path) for path in theirs))
    assert sorted(text[:7] for text in said) == ["False", "refused"]
    assert "choose another --run NAME" in " ".join(said)
    winner = theirs[said.index("False")]
    assert adopted(toy, winner)  # as advised, the other under another name
    assert not adopted(toy, theirs[1 - said.index("False")], "others")
    assert len(set(read_detections(Run(toy, "theirs").detections("validation"))["score"])) == 1


def test_the_same_file_adopted_twice_at_once_is_adopted_once(toy, theirs, tmp_path):
    assert sorted(outcomes(tmp_path, *[lambda: adopted(toy, theirs[0])] * 3)) == ["False", "True", "True"]


def test_of_two_ensembles_of_one_name_one_is_told_of_the_other(toy, theirs, tmp_path):
    for name, path in zip("abc", (*theirs, theirs[0]), strict=True):
        adopted(toy, path, name)
    works = [lambda of=of: ensemble(Run(toy, "both"), of).members[1].run for of in (("a", "b"), ("c", "b"))]
    said = outcomes(tmp_path, *works)
    assert sorted(text[:7] for text in said) == ["b", "refused"]
    assert "an ensemble of" in " ".join(said)
    assert not list(Run(toy, "both").folder.rglob("*.partial"))


class Enough(Exception):
    """Ends a comparison that has shown its locks."""


def test_a_comparison_holds_both_runs_while_it_reads_them(evaluated):
    first = Run(evaluated, "demo")
    runs = first, second_run(first, "again")
    for path in (evaluated / ".cache").glob("*.json"):
        path.unlink()

    def track(items, description, total):
        for run in runs:
            with pytest.raises(Timeout), locked(run.folder / ".work", seconds=0):
                pass
        raise Enough

    with pytest.raises(Enough):
        compare(*runs, track)
    for run in runs:
        with locked(run.folder / ".work", seconds=0):
            pass
