"""What the tasks share: the decorator that turns errors into exits, the flags that many of them have."""

from __future__ import annotations

import atexit
import functools
import re
import secrets
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Exit, task

from kit.core.errors import KitError, closest_names
from kit.core.files import is_utf8, with_escapes
from kit.tasks.console import show_log
from kit.tasks.streams import guard_streams, require_written

if TYPE_CHECKING:
    from kit.config import Config, KaggleConfig
    from kit.runs.folder import Run

INTERRUPTED = 130
_ID_BYTES = 4
WORKSPACE = {"workspace": "folder that holds data/, runs/ and submissions/ (default: the current one)"}
RUN = {"run": "name of a run (default: the run that finished last)"}
SET = {"set": "KEY=VALUE, a knob of kit/config.py; may be repeated"}
SET_AFTERWARDS = {
    "set": "KEY=VALUE, a knob that acts on stored detections (competition., fusion. or decision.); may be repeated"
}
ALLOW_SEEN = {
    "allow": "seen-test-images or seen-held-out-images: such images that an earlier stage was trained on; may be "
    "repeated, and the run keeps it"
}
SET_UPLOAD = {"set": "KEY=VALUE, a knob of the section kaggle. or competition.expected_ids; may be repeated"}


def command(**options: Any) -> Callable[[Callable[..., None]], Any]:
    """A task whose KitError is an exit without a traceback, and whose interruption says how to go on.

    The options are those of Invoke's ``task``.
    """

    def decorate(body: Callable[..., None]) -> Any:
        @functools.wraps(body)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                guard_streams()
                show_log()
                _protect_secrets()
                _require_utf8(kwargs)
                body(*args, **kwargs)
                require_written()
            except KitError as error:
                raise Exit(f"{error}{_without_workspace(kwargs.get('workspace'))}", code=1) from None
            except KeyboardInterrupt:
                raise Exit("stopped; the same command goes on from here", code=INTERRUPTED) from None
            finally:
                atexit.unregister(_ignore_signals)
                atexit.register(_ignore_signals)  # what is registered last runs first

        return task(**options)(guarded)

    return decorate


def _ignore_signals() -> None:
    """While Python ends there is nothing left to stop: Ctrl-C would only be a library's traceback."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


def _protect_secrets() -> None:
    from kit.kaggle.credentials import protect_secrets

    protect_secrets()


def _without_workspace(workspace: str | None) -> str:
    """More advice for any error of a verb whose workspace is not there: its name may be mistyped."""
    path = Path(workspace or ".")
    if workspace is None or path.exists() or not path.name:
        return ""
    near = closest_names(
        path.name, [entry.name for entry in path.parent.glob("*/") if not entry.name.startswith(".")]
    )
    return f"\n          (--workspace names no folder that is there: {path}; nearest in {path.parent}: {near})"


def _require_utf8(values: Mapping[str, Any]) -> None:
    """Raise KitError for a flag with bytes that are no UTF-8: no table, record or page could hold it."""
    for name, value in values.items():
        texts = value if isinstance(value, list) else [value]
        strange = next((text for text in texts if isinstance(text, str) and not is_utf8(text)), None)
        if strange is not None:
            raise KitError(
                f"--{name.strip('_').replace('_', '-')} in UTF-8", with_escapes(strange),
                "rename the file or folder, or name a link to it that you make with `ln -s`; write anything else "
                "in letters",
            )  # fmt: skip


def workspace_knobs(workspace: Path, assignments: Sequence[str]) -> Config:
    """The knobs of a workspace, with those of ``--set``."""
    from kit.config import override
    from kit.runs.folder import workspace_config

    return override(workspace_config(workspace), assignments)


def upload_knobs(workspace: Path, assignments: Sequence[str]) -> tuple[KaggleConfig, int | None]:
    """The section kaggle of a workspace's knobs, and ``competition.expected_ids`` if ``--set`` has it.

    Raises KitError if ``--set`` has another knob.
    """
    from kit.config import knobs

    ids = "competition.expected_ids"
    keys = [text.partition("=")[0].strip() for text in assignments]
    others = [key for key in keys if key != ids and not key.startswith("kaggle.")]
    if others:
        near = closest_names(others[0], [ids, *(key for key in knobs() if key.startswith("kaggle."))])
        is_known = others[0] in knobs()
        raise KitError(
            f"--set with a knob of the section kaggle., or {ids}",
            repr(others[0]),
            "leave it out, or give it to `invoke train`" if is_known else f"nearest: {near}",
        )
    config = workspace_knobs(workspace, assignments)
    return config.kaggle, config.competition.expected_ids if ids in keys else None


def chosen_run(workspace: Path, name: str | None) -> Run:
    """The run of ``--run``; without a name the one that finished last, which is printed."""
    from kit.runs.folder import existing, newest_finished

    if name:
        return existing(workspace, name)
    run = newest_finished(workspace)
    print(f"run {run.name}: the one that finished last")
    return run


def view_command(workspace: str | Path, *flags: object) -> str:
    """The command that writes a page of images of a workspace, as a shell takes it from the folder of the call."""
    place = () if Path(workspace) == Path() else ("--workspace", workspace)
    return shlex.join(map(str, ("invoke", "view", *flags, *place)))


def new_id() -> str:
    """The random mark by which an upload is found again on Kaggle."""
    return secrets.token_hex(_ID_BYTES)


def whole_number(flag: str, text: str | None, first: int = 0) -> int | None:
    """The value of a flag, None if it is not given. Raises KitError below ``first`` and for any other text."""
    if text is not None and (not re.fullmatch("[0-9]{1,9}", text) or int(text) < first):
        expected = f"{flag} to be a whole number, counted from {first}"
        raise KitError(expected, repr(text), f"write {flag} {first}, for example")
    return None if text is None else int(text)


def number(flag: str, text: str) -> float:
    """The value of a flag. Raises KitError if it is no number."""
    try:
        if "_" in text or not text.isascii():
            raise ValueError(text)  # Python reads 1_000 and the digits of other scripts; kit does not
        return float(text)
    except ValueError:
        raise KitError(f"{flag} to be a number", repr(text), f"write {flag} 1, for example") from None
