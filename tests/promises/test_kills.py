"""A soak: training, evaluation and prediction are killed at random points and go on by the same command."""

import json
import random
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from toy import TOY, copied

from kit.detectors.checkpoints import load_checkpoint
from kit.runs.folder import Run, read_finished
from kit.submission.folders import newest

KILLS = 30
AGREES = 1e-6
STOPS_WITHIN_SECONDS = 60  # a few on a quiet machine
pytestmark = pytest.mark.slow


def road(workspace):
    """The command lines from nothing to a submission."""
    knobs = [word for assignment in (*TOY, "training.max_epochs=3") for word in ("--set", assignment)]
    place = ("--workspace", workspace)
    return (
        ("train", "--preset", "demo", *knobs, *place),
        ("evaluate", *place),
        ("predict", "--message", "soak", *place),
    )


def assert_same_end(one, other):
    """Weights, history, scores and submission of two workspaces agree; nothing temporary is left."""
    first, second = Run(one, "demo"), Run(other, "demo")
    for path, again in ((first.best, second.best), (first.last, second.last)):
        mine, theirs = (load_checkpoint(each, "")["state_dict"] for each in (path, again))
        assert all(torch.allclose(mine[name], theirs[name], rtol=0, atol=AGREES) for name in theirs)
    histories = [pd.read_csv(run.history).drop(columns="seconds") for run in (first, second)]
    assert np.allclose(histories[0], histories[1], rtol=0, atol=AGREES)
    assert read_finished(first).epochs == read_finished(second).epochs
    scores = [json.loads(run.report.read_text()) for run in (first, second)]
    for part in ("many_box", "one_box"):
        assert scores[0][part] == pytest.approx(scores[1][part], abs=AGREES)
    answers = [pd.read_csv(newest(workspace / "submissions").csv) for workspace in (one, other)]
    words, numbers = ["ID", "image_id", "label"], ["x_min", "y_min", "x_max", "y_max", "confidence"]
    assert answers[0][words].equals(answers[1][words])
    assert np.allclose(answers[0][numbers], answers[1][numbers], rtol=0, atol=AGREES)
    for pattern in ("*.partial", "*.parts", "*.tmp"):
        assert not list(one.rglob(pattern)), pattern


def test_thirty_kills_at_random_points_change_nothing(warm, toy, tmp_path):
    straight = copied(toy, tmp_path / "straight")
    durations = []
    for words in road(straight):
        status, seconds = warm.run(words)
        assert status == 0, warm.said()
        durations.append(seconds)
    drawn = random.Random(20)
    kills = life = 0
    while kills < KILLS:
        life += 1
        workspace = copied(toy, tmp_path / f"life-{life}")
        for words, seconds in zip(road(workspace), durations, strict=True):
            # Nearly always within the command's own time; what is left of it grows shorter from kill to kill.
            for _ in range(4):
                if kills == KILLS:
                    break
                status, _ = warm.run(words, signal.SIGKILL, drawn.uniform(0, seconds))
                if status == 0:
                    break
                assert status == -signal.SIGKILL, warm.said()
                kills += 1
            if status != 0 or kills == KILLS:
                assert warm.run(words)[0] == 0, warm.said()
        assert_same_end(workspace, straight)
    assert "Traceback" not in warm.said()
    assert list(warm.temporary.iterdir()) == []


def result_of(workspace, verb):
    """What a command writes last."""
    run = Run(workspace, "demo")
    return {"train": run.finished, "evaluate": run.report, "predict": workspace / "submissions" / "index.csv"}[verb]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_every_command_stops_within_seconds_and_says_how_to_go_on(how, warm, toy):
    for words in road(toy):
        began = time.monotonic()
        status, seconds = warm.run(words, how, 0.7)
        if status == -how:  # Python itself was ending, and what there was to do had been done
            assert result_of(toy, words[0]).exists()
            continue
        assert status == 130 or (status == 0 and words[0] != "train"), warm.said()
        assert seconds < STOPS_WITHIN_SECONDS + 0.7, time.monotonic() - began
        if status:
            assert "stopped; the same command goes on from here" in warm.said()
        assert warm.run(words)[0] == 0, warm.said()
    assert "Traceback" not in warm.said()
    assert list(warm.temporary.iterdir()) == []
