"""Tasks for training on Kaggle's GPUs: push a run, show its session, pull its output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context, Exit

from kit.tasks.command import SET, WORKSPACE, command, new_id
from kit.tasks.console import confirm

if TYPE_CHECKING:
    from kit.kaggle.kernels.api import Kernels
    from kit.kaggle.kernels.push import PushPlan
    from kit.kaggle.kernels.push_log import Push

_PUSHED = {"run": "name of a run that was pushed"}


@command(
    iterable=["set_", "allow"],
    help=WORKSPACE
    | SET
    | {
        "run": "name of the run to train there",
        "preset": "recipe: seed, laptop, demo, dfine, rfdetr (default: the last push's, or seed)",
        "folds": "number of folds to train, each held out once",
        "allow": "a fault found by the audit that does not stop the training there; may be repeated",
        "dry_run": "write the script that would be pushed, and stop",
        "yes": "push without asking",
        "again": "push again although the last session's output was not pulled, and upload the run's state anew",
    },
)
def push(
    context: Context,
    run: str,
    preset: str | None = None,
    set_: Sequence[str] | None = None,
    folds: int | None = None,
    allow: Sequence[str] | None = None,
    dry_run: bool = False,
    yes: bool = False,
    again: bool = False,
    workspace: str = ".",
) -> None:
    """Train a run on Kaggle's GPUs: upload kit and the run's knobs as one private script."""
    from kit.core.files import write_text
    from kit.kaggle.kernels.api import connect_kernels
    from kit.kaggle.kernels.push import is_repeated, plan_push, script
    from kit.kaggle.kernels.push_log import pushing, settle

    plan = plan_push(Path(workspace), run, preset, tuple(set_ or ()), folds, tuple(allow or ()))
    if dry_run:
        path = Path(workspace) / "kernels" / f"{plan.run.name}.py"
        write_text(path, script(plan, "dry-run"))
        print("\n".join([*plan.lines(None, again), f"script:      {path}", "dry run: nothing was sent"]))
        return
    kernels = connect_kernels(plan.config.kaggle)
    with pushing(plan.run):
        pushed = settle(kernels, plan.run, plan.config.kaggle)
        if pushed is None or not is_repeated(plan, pushed):  # else it is the same command once more
            pushed = _confirm_and_push(kernels, plan, again, yes)
    print(f"version {pushed.version}: {pushed.url}\n`invoke kernel.status --run {run} --wait`, then kernel.pull")


@command(iterable=["set_"], help=WORKSPACE | SET | _PUSHED | {"wait": "check again until the session ends"})
def status(
    context: Context, run: str, wait: bool = False, set_: Sequence[str] | None = None, workspace: str = "."
) -> None:
    """Show a pushed run: its state, its last metrics, the end of its log."""
    from kit.config import Config, override
    from kit.kaggle.kernels import output
    from kit.kaggle.kernels.api import connect_kernels
    from kit.kaggle.kernels.push_log import last_push, require_pushed
    from kit.runs.folder import Run

    knobs, local = override(Config(), set_ or ()), Run(Path(workspace), run)
    require_pushed(local)
    kernels, shown = connect_kernels(knobs.kaggle), ""
    for session in output.poll_session(kernels, last_push(kernels, local), knobs.kernel.poll_seconds):
        is_working = session.status in (output.QUEUED, output.RUNNING)
        if not (wait and is_working):
            break
        text = "\n".join(output.session_lines(session, tail=0))
        if text != shown:
            print(text, flush=True)
        shown = text
    print("\n".join(output.session_lines(session)))
    if not is_working and session.status != output.COMPLETE:
        raise Exit(code=1)


@command(iterable=["set_"], help=WORKSPACE | SET | _PUSHED)
def pull(context: Context, run: str, set_: Sequence[str] | None = None, workspace: str = ".") -> None:
    """Download a pushed run into runs/NAME, every file verified against the kernel's manifest."""
    from kit.config import Config, override
    from kit.kaggle.kernels import output
    from kit.kaggle.kernels.api import connect_kernels
    from kit.kaggle.kernels.push_log import last_push, pushing, require_pushed
    from kit.kaggle.kernels.session import FINISHED, STOPPED
    from kit.runs.folder import Run

    knobs, local = override(Config(), set_ or ()), Run(Path(workspace), run)
    require_pushed(local)
    kernels = connect_kernels(knobs.kaggle)
    with pushing(local):
        manifest = output.pull(kernels, local, last_push(kernels, local), print)
    next_steps = {
        FINISHED: "it is finished: `invoke evaluate`, `invoke predict`, `invoke submit`",
        STOPPED: f"it stopped itself in time: `invoke kernel.push --run {run}` goes on with it",
    }
    print(f"run {run}: {len(manifest.files)} files in {local.folder}; {next_steps[manifest.ended]}")


def _confirm_and_push(kernels: Kernels, plan: PushPlan, again: bool, yes: bool) -> Push:
    from kit.kaggle.kernels.push import push, require_hours, require_idle

    require_idle(kernels, plan, again)
    hours = kernels.gpu_hours()
    print("\n".join(plan.lines(hours, again)))
    require_hours(hours)
    confirm("push it?", yes)
    return push(kernels, plan, new_id(), again)
