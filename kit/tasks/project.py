"""Tasks for the kit itself: its demo, its benchmarks, the page of its knobs, its tests."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from invoke import Context, Exit, task

from kit.tasks.command import WORKSPACE, command
from kit.tasks.console import progress_bar
from kit.tasks.submissions import show_dry_run

_MOST_WORKERS = 8  # of the tests: each loads torch
_MOST_SLOW_WORKERS = 2  # of the slow tests: they measure time and memory, and start processes of their own


@command(
    help={"workspace": "folder of the demo (default: demo)", "fresh": "delete an earlier demo and start again"}
)
def demo(context: Context, fresh: bool = False, workspace: str = "demo") -> None:
    """Run every step on a synthetic competition: two to four minutes on two cores, no account, no GPU."""
    from kit.demo import clear_demo, finished_demo, holding_demo, run_demo
    from kit.submission.folders import read_submissions

    folder = Path(workspace)
    with holding_demo(folder):
        if fresh:
            clear_demo(folder)
        result = finished_demo(folder) or run_demo(folder, time.monotonic, progress_bar)
    filed = [past for past in read_submissions(folder / "submissions") if past.csv == Path(result.submission)]
    print(
        f"one-box mAP@0.5 on the {result.test_images} test images: {result.score:.3f} "
        f"(location prior alone: {result.prior_score:.3f}; on the validation images: {result.local_score:.3f})\n"
        f"submission: {result.submission}\nreport:     {result.report}\nfigures:    {result.figures}\n"
        f"`invoke submit --dry-run --workspace {shlex.quote(workspace)}` shows what would be sent to Kaggle:"
    )
    show_dry_run(folder, filed[-1].number if filed else None, None)


@command(
    help=WORKSPACE
    | {
        "json": "file to write (default: WORKSPACE/bench.json)",
        "only": "name of one benchmark (default: all); gpu: what needs one, saved row by row",
        "long": "also the benchmarks of more than a minute",
        "device": "of the benchmark gpu: cuda, or cpu to try it without a GPU (default: cuda)",
    }
)
def bench(
    context: Context,
    json: str | None = None,
    only: str | None = None,
    long: bool = False,
    device: str | None = None,
    workspace: str = ".",
) -> None:
    """Measure speed against the usual alternatives: one table, also as JSON; takes minutes."""
    path = Path(json) if json else Path(workspace) / "bench.json"
    flags = [*(["--only", only] if only else []), *(["--long"] if long else [])]
    flags += ["--device", device] if device else []
    _run_module("tests.benchmarks", "--json", str(path.resolve()), *flags)


@command()
def knobs(context: Context) -> None:
    """Write docs/knobs.md from kit/config.py."""
    from kit.core.files import write_text
    from kit.core.source_tree import ROOT
    from kit.reports.knobs_page import knobs_page

    write_text(ROOT / "docs" / "knobs.md", knobs_page())


@task(help={"slow": "run the slow tests instead of the fast ones"})
def test(context: Context, slow: bool = False) -> None:
    """Run the fast tests (a few minutes), or the slow ones."""
    workers = str(min(os.cpu_count() or 1, _MOST_SLOW_WORKERS if slow else _MOST_WORKERS))
    parallel = ("-n", workers, "--dist", "loadfile", "--no-loadscope-reorder")
    _run_module("pytest", "-m", *(("slow", "--durations=30") if slow else ("not slow",)), *parallel)


@task
def lint(context: Context) -> None:
    """Check format, style and types."""
    _run_module("ruff", "format", "--check", ".")
    _run_module("ruff", "check", ".")
    _run_module("mypy")


def _run_module(name: str, *arguments: str) -> None:
    """Run a Python module in the checkout's root. Raises Exit with its exit code if it fails."""
    from kit.core.source_tree import ROOT

    code = subprocess.run([sys.executable, "-m", name, *arguments], check=False, cwd=ROOT).returncode
    if code:
        raise Exit(code=code)
