"""Follow a pushed run: read its session's status, download its output. Both are safe to repeat.

The output is collected in ``kernels/.NAME.output/`` and renamed to ``runs/NAME`` when every file agrees with the
kernel's own manifest.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from kit.core.errors import KitError, first_few
from kit.core.files import explaining_write_errors, make_folder, sha256
from kit.core.json_files import read_record, write_json
from kit.kaggle.kernels.api import Kernels, Session
from kit.kaggle.kernels.push_log import Push
from kit.kaggle.kernels.session import MANIFEST, ORIGIN, Manifest, state_sha256
from kit.runs.folder import Run

QUEUED, RUNNING, COMPLETE, GONE = "queued", "running", "complete", "gone"
_TAIL_LINES, _SHORT_TAIL_LINES = 15, 3


def current_session(kernels: Kernels, pushed: Push) -> Session:
    """The session of this very push. While Kaggle shows the log of an older push, this one is queued."""
    session = kernels.session(pushed.kernel, pushed.version)
    if session is None:
        return Session(GONE, "deleted on Kaggle, or another account's", "")
    push_id = re.search(r"^kit push (\S+):", session.log, re.MULTILINE)
    if push_id is not None and push_id[1] != pushed.id:
        return Session(QUEUED, "", "")
    return session


def poll_session(kernels: Kernels, pushed: Push, seconds: float) -> Iterator[Session]:
    """The session every ``seconds`` seconds, until it has ended; the last item is the ended session."""
    while True:
        session = current_session(kernels, pushed)
        yield session
        if session.status not in (QUEUED, RUNNING):
            return
        time.sleep(seconds)


def session_lines(session: Session, tail: int = _TAIL_LINES) -> list[str]:
    """A session as text: its status and failure, its last metrics, the last ``tail`` lines of its log."""
    log = [line for line in session.log.splitlines() if line.strip()]
    metrics = [line for line in log if re.search(r"\bepoch \d+/\d+", line)]
    shown = [f"status: {session.status}{f' ({session.failure})' if session.failure else ''}"]
    shown += [f"last metrics: {metrics[-1].strip()}"] if metrics else []
    return shown + [f"  {line}" for line in log[len(log) - tail if tail < len(log) else 0 :]]


def pull(kernels: Kernels, run: Run, pushed: Push, report: Callable[[str], None]) -> Manifest:
    """Download a push's output to ``runs/NAME``.

    ``report`` is called with a line of progress. Raises KitError if the session is not complete, the output does
    not agree with its manifest, or ``runs/NAME`` has changed since the push.
    """
    if is_pulled(run, pushed):
        report("it was pulled before")
        _remove_staging(run)  # a call may have been killed before it did
        return _manifest(run.folder / ORIGIN)
    session = current_session(kernels, pushed)
    if session.status != COMPLETE:
        raise KitError(
            f"the kernel of run {run.name} to be complete", "\n".join(session_lines(session, _SHORT_TAIL_LINES)),
            f"`invoke kernel.status --run {run.name} --wait`, or push it again if it failed",
        )  # fmt: skip
    _require_replaceable(run, pushed)
    staging = make_folder(_staging(run) / pushed.id)
    report(f"fetching the output of {pushed.kernel}, version {pushed.version}")
    for is_last in (False, True):
        kernels.output(pushed.kernel, pushed.version, staging)
        faults = _faults(staging, pushed)
        if not faults:
            break
        if is_last:
            raise KitError(
                f"the output of {pushed.kernel} to agree with its manifest",
                first_few(faults, separator="; "),
                f"`invoke kernel.pull --run {run.name}` downloads these files again; if they stay wrong, push with "
                "--again",
            )
    manifest = _manifest(staging / MANIFEST)
    _require_replaceable(run, pushed)  # again: the download may have taken hours
    _move_to_runs(run, staging, manifest)
    _remove_staging(run)
    return manifest


def is_pulled(run: Run, pushed: Push) -> bool:
    """Whether the local run is the output of this push."""
    return (run.folder / ORIGIN).exists() and _manifest(run.folder / ORIGIN).push_id == pushed.id


def _remove_staging(run: Run) -> None:
    with explaining_write_errors(_staging(run)):
        if _staging(run).exists():
            shutil.rmtree(_staging(run))


def _faults(staging: Path, pushed: Push) -> list[str]:
    """How the output differs from its manifest; such files are deleted, so that they are downloaded again."""
    path = staging / MANIFEST
    try:
        manifest = _manifest(path)
    except KitError:
        path.unlink(missing_ok=True)
        return [f"{MANIFEST}: missing or broken"]
    if manifest.push_id != pushed.id:
        path.unlink()
        return [f"{MANIFEST}: of another push, {manifest.push_id}"]
    outside = [name for name in manifest.files if not _is_inside(name)]
    if outside:
        raise KitError(
            f"{MANIFEST} to list files of the output only", first_few(outside),
            "nothing was changed; inspect the kernel on Kaggle, and push it with --again",
        )  # fmt: skip
    faults = []
    for name, digest in manifest.files.items():
        file = staging / name
        if not file.is_file() or sha256(file) != digest:
            file.unlink(missing_ok=True)
            faults.append(f"{name}: missing or changed")
    return faults


def _is_inside(name: str) -> bool:
    """Whether a relative path stays inside its folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _manifest(path: Path) -> Manifest:
    return read_record(path, Manifest, f"move {path.parent} away, then pull again")


def _move_to_runs(run: Run, staging: Path, manifest: Manifest) -> None:
    """Rename the output to ``runs/NAME``; the run that the push continued is first moved to the staging folder."""
    fetched = make_folder(staging / "runs" / run.name)
    write_json(fetched / ORIGIN, asdict(manifest))
    make_folder(run.folder.parent)
    with explaining_write_errors(run.folder):
        if run.folder.exists():
            run.folder.rename(staging / "before")
        fetched.rename(run.folder)


def _require_replaceable(run: Run, pushed: Push) -> None:
    """Raise KitError if ``runs/NAME`` is not the state that the push continued: it would be lost."""
    state = state_sha256(run.folder)
    if run.folder.exists() and (not state or run.finished.exists() or state != pushed.continues_sha256):
        raise KitError(
            f"local {run.folder} unchanged since version {pushed.version} was pushed", "another state of the run",
            "move that folder away, then pull again",
        )  # fmt: skip


def _staging(run: Run) -> Path:
    return run.workspace / "kernels" / f".{run.name}.output"
