"""The task that writes a page of images: of a run, of two runs, of a submission, of the data."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from invoke import Context

from kit.core.errors import KitError
from kit.tasks.command import RUN, WORKSPACE, chosen_run, command, whole_number, workspace_knobs
from kit.tasks.console import progress_bar

_FLAGS = {"--data": {"--set"}, "--submission": set(), "--run": {"--against"}}  # by source, what goes with it


@command(
    iterable=["set_"],
    help=WORKSPACE
    | RUN
    | {
        "against": "name of a second run: both runs' boxes on the images that both held out",
        "submission": "number of a submission: the boxes that are sent, on the test images",
        "data": "all annotated images, with the audit's findings",
        "open": "open the page in a browser, if there is a desktop (default: it does)",
        "set": "KEY=VALUE, a knob of the section data., with --data; may be repeated",
    },
)
def view(
    context: Context,
    run: str | None = None,
    against: str | None = None,
    submission: str | None = None,
    data: bool = False,
    open: bool = True,
    set_: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Write a page on which every image, error and answer can be opened: view.html; needs no server."""
    given = {"--run": run, "--against": against, "--submission": submission, "--data": data or None, "--set": set_}
    _require_one_source({flag for flag, value in given.items() if value})
    folder, number = Path(workspace), whole_number("--submission", submission, first=1)
    if data:
        pages = _of_data(folder, set_ or ())
    elif number is not None:
        pages = _of_submission(folder, number)
    else:
        pages = _of_runs(folder, run, against)
    if len(pages) > 1:
        print(f"{len(pages)} pages: the images are too many for one")
    if open:
        _show(pages[0])
    print(f"page: {pages[0]}")


def _require_one_source(flags: Collection[str]) -> None:
    """Raise KitError for flags of two sources, or knobs without the data."""
    source = next((flag for flag in _FLAGS if flag in flags), "--run")
    others = sorted(set(flags) - {source} - _FLAGS[source])
    if others:
        raise KitError(
            "the flags of one source: --run, or --run and --against, or --submission, or --data with --set",
            " and ".join(sorted(flags)), f"leave out {', '.join(others)}",
        )  # fmt: skip


def _of_runs(workspace: Path, run: str | None, against: str | None) -> Sequence[Path]:
    from kit.evaluation import run_view
    from kit.runs.folder import existing

    first = chosen_run(workspace, run)
    if against is None:
        return run_view.view_run(first, progress_bar)
    if against == first.name:
        raise KitError("two different runs", f"{against!r} twice", "name another run with --against")
    return run_view.view_two_runs(first, existing(workspace, against), progress_bar)


def _of_submission(workspace: Path, number: int) -> Sequence[Path]:
    from kit.evaluation.submission_view import view_submission
    from kit.submission.preview import numbered

    return view_submission(workspace, numbered(workspace, number), progress_bar)


def _of_data(workspace: Path, assignments: Sequence[str]) -> Sequence[Path]:
    config = workspace_knobs(workspace, assignments)
    from kit.reports.data_view import view_data

    return view_data(workspace, config, progress_bar)


def _show(page: Path) -> None:
    """Open a page in the browser if a person sits at a desktop; a pipe or a bare server shows nothing."""
    has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if has_screen and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
