"""What becomes of a push: its session looked at, its output brought home, each safe to call again.

The output is gathered in ``kernels/.NAME.output/`` and becomes ``runs/NAME`` in one rename, when every file is what
the kernel's own manifest says.
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


def status(wire: Kernels, pushed: Push) -> Session:
    """The session of exactly this push; one whose log names another push is an older one's, and ours is queued."""
    session = wire.session(pushed.kernel, pushed.version)
    if session is None:
        return Session(GONE, "deleted on Kaggle, or another account's", "")
    named = re.search(r"^kit push (\S+):", session.log, re.MULTILINE)
    if named is not None and named[1] != pushed.id:
        return Session(QUEUED, "", "")
    return session


def looks(wire: Kernels, pushed: Push, seconds: float) -> Iterator[Session]:
    """The session again and again until it has ended."""
    while True:
        session = status(wire, pushed)
        yield session
        if session.status not in (QUEUED, RUNNING):
            return
        time.sleep(seconds)


def lines(session: Session, tail: int = _TAIL_LINES) -> list[str]:
    """What is shown of a session: its state, its error, its last metrics, the last lines of its log."""
    log = [line for line in session.log.splitlines() if line.strip()]
    metrics = [line for line in log if re.search(r"\bepoch \d+/\d+", line)]
    shown = [f"status: {session.status}{f' ({session.failure})' if session.failure else ''}"]
    shown += [f"last metrics: {metrics[-1].strip()}"] if metrics else []
    return shown + [f"  {line}" for line in log[len(log) - tail if tail < len(log) else 0 :]]


def pull(wire: Kernels, run: Run, pushed: Push, note: Callable[[str], None]) -> Manifest:
    """Bring a push's output to ``runs/NAME``. Raises KitError while there is none, or it is not whole."""
    if is_pulled(run, pushed):
        note("it is there already")
        _tidy(run)  # of a call that was killed at its end
        return _manifest(run.folder / ORIGIN)
    session = status(wire, pushed)
    if session.status != COMPLETE:
        raise KitError(
            f"the kernel of run {run.name} to be complete", "\n".join(lines(session, _SHORT_TAIL_LINES)),
            f"`invoke kernel.status --run {run.name} --wait`, or push it again if it failed",
        )  # fmt: skip
    _require_replaceable(run, pushed)
    staging = make_folder(_staging(run) / pushed.id)
    note(f"fetching the output of {pushed.kernel}, version {pushed.version}")
    for is_last in (False, True):
        wire.output(pushed.kernel, pushed.version, staging)
        faults = _faults(staging, pushed)
        if not faults:
            break
        if is_last:
            raise KitError(
                f"the output of {pushed.kernel} as its manifest says",
                first_few(faults, separator="; "),
                f"`invoke kernel.pull --run {run.name}` fetches these anew",
            )
    manifest = _manifest(staging / MANIFEST)
    _require_replaceable(run, pushed)  # the download may have taken hours
    _place(run, staging, manifest)
    _tidy(run)
    return manifest


def is_pulled(run: Run, pushed: Push) -> bool:
    """Whether the local run is what this push brought home."""
    return (run.folder / ORIGIN).exists() and _manifest(run.folder / ORIGIN).push_id == pushed.id


def _tidy(run: Run) -> None:
    with explaining_write_errors(_staging(run)):
        if _staging(run).exists():
            shutil.rmtree(_staging(run))


def _faults(staging: Path, pushed: Push) -> list[str]:
    """What is not as the manifest says; such files are deleted, so that they are fetched anew."""
    path = staging / MANIFEST
    try:
        manifest = _manifest(path)
    except KitError:
        path.unlink(missing_ok=True)
        return [f"{MANIFEST}: missing or broken"]
    if manifest.push_id != pushed.id:
        path.unlink()
        return [f"{MANIFEST}: of another push, {manifest.push_id}"]
    outside = [name for name in manifest.files if not _stays(name)]
    if outside:
        raise KitError(
            f"{MANIFEST} to name files of the output only", first_few(outside),
            "nothing was changed; look at the kernel on Kaggle, and push it again",
        )  # fmt: skip
    faults = []
    for name, digest in manifest.files.items():
        file = staging / name
        if not file.is_file() or sha256(file) != digest:
            file.unlink(missing_ok=True)
            faults.append(f"{name}: missing or changed")
    return faults


def _stays(name: str) -> bool:
    """Whether a path leads to a place inside the folder that it is taken from."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _manifest(path: Path) -> Manifest:
    return read_record(path, Manifest, "pull again")


def _place(run: Run, staging: Path, manifest: Manifest) -> None:
    """One rename; what the push went on from moves into the staging folder first, which is deleted at the end."""
    fetched = make_folder(staging / "runs" / run.name)
    write_json(fetched / ORIGIN, asdict(manifest))
    make_folder(run.folder.parent)
    with explaining_write_errors(run.folder):
        if run.folder.exists():
            run.folder.rename(staging / "before")
        fetched.rename(run.folder)


def _require_replaceable(run: Run, pushed: Push) -> None:
    """The local run may give way only to what was made from it; one without a state was made otherwise."""
    state = state_sha256(run.folder)
    if run.folder.exists() and (not state or run.finished.exists() or state != pushed.continues_sha256):
        raise KitError(
            f"{run.folder} to be what version {pushed.version} went on from", "another state of the run",
            "move that folder away, then pull again",
        )  # fmt: skip


def _staging(run: Run) -> Path:
    return run.workspace / "kernels" / f".{run.name}.output"
