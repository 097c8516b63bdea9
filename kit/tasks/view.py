"""The task that writes a page of images: of a run, of two runs, of a submission, of the data."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from invoke import Context

from kit.core.errors import KitError
from kit.tasks.command import RUN, WORKSPACE, chosen_run, command
from kit.tasks.console import progress_bar


@command(
    help=WORKSPACE
    | RUN
    | {
        "against": "name of a second run: both runs' boxes on the images that both held out",
        "open": "open the page in a browser, if there is a desktop (default: it does)",
    },
)
def view(
    context: Context,
    run: str | None = None,
    against: str | None = None,
    open: bool = True,
    workspace: str = ".",
) -> None:
    """Write a page on which every image, error and answer can be opened: view.html; needs no server."""
    pages = _pages(Path(workspace), run, against)
    if len(pages) > 1:
        print(f"{len(pages)} pages: the images are too many for one")
    if open:
        _show(pages[0])
    print(f"page: {pages[0]}")


def _pages(workspace: Path, run: str | None, against: str | None) -> Sequence[Path]:
    from kit.evaluation import run_view
    from kit.runs.folder import existing

    first = chosen_run(workspace, run)
    if against is None:
        return run_view.view_run(first, progress_bar)
    if against == first.name:
        raise KitError("two different runs", f"{against!r} twice", "name another run with --against")
    return run_view.view_two_runs(first, existing(workspace, against), progress_bar)


def _show(page: Path) -> None:
    """Open a page in the browser if a person sits at a desktop; a pipe or a bare server shows nothing."""
    has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if has_screen and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
