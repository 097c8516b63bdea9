"""Two processes train as one (gloo, CPU), whoever is missing boxes, stops early or is killed.

Gradients are compared where the loss is a mean over images: RetinaNet with fixed norms. FCOS divides by the
foreground of its own batch, and batch norm looks at its own batch, so that there only the outcome is compared.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import PATIENCE_SECONDS, started
from interruption import interrupted_after_one_epoch
from PIL import Image
from toy import TOY, copied

from kit.config import load
from kit.detectors.checkpoints import load_checkpoint
from kit.runs.detecting import bare_detector
from kit.runs.folder import Run, read_split
from kit.training.train import train

TWO = ("trainer.accelerator=cpu", "trainer.devices=2")
pytestmark = pytest.mark.slow


def words(workspace, assignments):
    knobs = [word for assignment in assignments for word in ("--set", assignment)]
    return ("train", "--preset", "demo", *knobs, "--workspace", workspace)


def trained_by_two(workspace, assignments):
    process = started(*words(workspace, (*assignments, *TWO)))
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert "MEMBER: 2/2" in err
    assert out.count("is finished") == 1
    return Run(workspace, "demo")


def with_images_without_boxes(workspace):
    """Many steps of one image per process then have a box in one process alone, or in none.

    The images to validate on become 17, an odd number: one process has one less.
    """
    drawn = np.random.default_rng(1)
    for number in range(24):
        noise = Image.fromarray(drawn.integers(0, 255, (96, 96), dtype=np.uint8))
        noise.save(workspace / "data" / "train" / f"9{number:07d}_000.png")


def last_loss(run):
    return pd.read_csv(run.history)["train_loss"].iloc[-1]


def until_the_first_epoch_has_ended(process, run):
    """The second process, as its folder under /proc, when both train."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not run.history.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (second,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return Path("/proc", second)


def has_ended(process):
    """Whether a process, as its folder under /proc, is gone or waits to be read by its parent."""
    try:
        return ") Z " in (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def second_gets(how, run, recipe):
    """Two processes train until the first epoch has ended, then the second gets a signal; how the first ends."""
    process = started(*words(run.workspace, (*recipe, *TWO)))
    os.kill(int(until_the_first_epoch_has_ended(process, run).name), how)
    said = "".join(process.communicate(timeout=PATIENCE_SECONDS))
    assert "Traceback" not in said
    return process.returncode, said


def test_two_processes_take_the_steps_of_one_where_the_loss_is_a_mean_over_images(toy, tmp_path):
    recipe = (
        *TOY, "model.detector=retinanet_resnet50_fpn_v2", "model.norm=frozen", "training.max_epochs=1",
        "training.optimizer=sgd", "training.effective_batch=4", "training.learning_rate=1e-3",
        "training.warmup_epochs=0", "training.clip_norm=0", "inference.views=plain",
    )  # fmt: skip
    alone = copied(toy, tmp_path / "alone")
    train(alone, None, "demo", (*recipe, "training.batch_size=4"))
    two = trained_by_two(toy, (*recipe, "training.batch_size=2"))
    one, other = (load_checkpoint(run.last, "")["state_dict"] for run in (Run(alone, "demo"), two))
    start = bare_detector(load(two.config), read_split(two)).state_dict()
    steps = {name: (one[name] - start[name], other[name] - start[name]) for name in start}
    assert all(step.abs().max() > 0 for name, (step, _) in steps.items() if name.endswith("conv.weight"))
    for name, (step, same) in steps.items():
        rounding = 1e-7 * start[name].norm()
        assert (step - same).norm() <= 1e-2 * step.norm() + rounding, name
    assert last_loss(two) == pytest.approx(last_loss(Run(alone, "demo")), rel=1e-3)


def test_a_killed_process_ends_the_other_with_a_message_and_one_goes_on_after_two(toy, tmp_path):
    recipe = (*TOY, "training.max_epochs=8", "training.batch_size=1", "training.effective_batch=2")
    with_images_without_boxes(toy)
    straight = copied(toy, tmp_path / "straight")
    run = Run(toy, "demo")
    code, said = second_gets(signal.SIGKILL, run, recipe)
    assert code == 1, said
    assert "expected: every process of this training to run" in said
    assert len(pd.read_csv(run.history)) < 8

    train(toy, None, "demo", recipe)
    train(straight, None, "demo", recipe)
    assert len(pd.read_csv(run.history)) == 8
    assert last_loss(run) == pytest.approx(last_loss(Run(straight, "demo")), rel=0.1)


def test_a_second_process_that_is_asked_to_stop_ends_the_first_with_a_message(toy):
    code, said = second_gets(signal.SIGTERM, Run(toy, "demo"), (*TOY, "training.max_epochs=8"))
    assert code == 1, said
    assert "expected: every process of this training to run" in said
    assert len(pd.read_csv(Run(toy, "demo").history)) < 8


def test_a_killed_first_process_does_not_leave_the_second_behind(toy):
    process = started(*words(toy, (*TOY, "training.max_epochs=200", *TWO)))
    second = until_the_first_epoch_has_ended(process, Run(toy, "demo"))
    process.kill()
    said = "".join(process.communicate(timeout=PATIENCE_SECONDS))  # ends when the second has let go of the pipes
    assert "expected: every process of this training to run" in said
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not has_ended(second):  # a moment after its pipes were closed
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_go_on_after_one_and_end_where_one_would(toy, tmp_path):
    recipe = (*TOY, "training.max_epochs=8")
    straight = copied(toy, tmp_path / "straight")
    interrupted_after_one_epoch(toy, recipe)
    before = len(pd.read_csv(Run(toy, "demo").history))
    assert before < 8
    run = trained_by_two(toy, recipe)
    train(straight, None, "demo", recipe)
    assert len(pd.read_csv(run.history)) == 8
    assert last_loss(run) == pytest.approx(last_loss(Run(straight, "demo")), rel=0.1)


def test_both_stop_early_at_once(toy):
    recipe = (*TOY, "training.max_epochs=9", "training.patience=1", "training.learning_rate=1e-9",
              "training.warmup_epochs=0", "training.final_rate=0")  # fmt: skip
    assert len(pd.read_csv(trained_by_two(toy, recipe).history)) < 9
