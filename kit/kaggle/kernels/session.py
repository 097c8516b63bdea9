"""What a pushed kernel does on Kaggle's machine: link the data, train, score, answer the test, say what it made.

The training runs in processes of their own, one per fold and GPU. After ``kernel.max_hours`` it is stopped as by
Ctrl-C at the end of an epoch, and the session ends normally: a second push goes on from its output.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.config import Config, knobs
from kit.core.files import make_folder, sha256
from kit.core.json_files import write_json
from kit.runs.folder import Run

MANIFEST, RUN_ARCHIVE = "kit-manifest.json", "run.kit"
ORIGIN = "kernel.json"  # in a run that was pulled: the manifest of its push
FINISHED, STOPPED = "finished", "stopped"
_INTERRUPTED = (130, -signal.SIGTERM)  # the latter before `train` listens
_GLANCE_SECONDS = 0.5
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Manifest:
    """Written last: which push this was, how it ended, and the SHA-256 of every file of the run."""

    push_id: str
    run: str
    ended: str
    files: dict[str, str]

    def __post_init__(self) -> None:
        if self.ended not in (FINISHED, STOPPED):
            raise ValueError(f"a session that ended as {self.ended!r}, not {FINISHED} or {STOPPED}")


def run_session(config: Config, push: Mapping[str, str], package: Path, output: Path) -> str:
    """Do it all; how it ended: finished or stopped. Raises SystemExit with the code of a step that failed.

    ``push`` has its ``id``, the ``run``, the ``preset`` and the state that it ``continues``, "" for none.
    ``output`` is the folder that Kaggle keeps; the data and the caches stand elsewhere. A trained run is kept
    whatever comes of scoring it and of the answers: both can be done again at home.
    """
    run_name, push_id = push["run"], push["id"]
    log.info("kit push %s: run %s", push_id, run_name)
    started = time.monotonic()
    workspace = make_folder(package.parent / "workspace")
    make_folder(output / "runs")
    (workspace / "runs").symlink_to(output / "runs")
    run = Run(workspace, run_name)
    if push["continues"]:
        _restore(Path(config.kaggle.input_root).resolve(), output / "runs" / run_name, push["continues"])
    flags = [word for assignment in assignments(config) for word in ("--set", assignment)]
    step = _Steps(package, workspace)
    root = f"kaggle.input_root={Path(config.kaggle.input_root).resolve()}"
    ids = f"competition.expected_ids={config.competition.expected_ids}"
    step.must_run("download", "--competition", config.competition.slug, "--set", root, "--set", ids)
    words = ("train", "--run", run_name, "--preset", push["preset"], *flags)
    ended = step.train(run, words, config, started)
    if ended == FINISHED:
        for verb in ("evaluate", "predict"):
            if step.run(verb, "--run", run_name):
                log.info("kit: %s failed; the run is whole: pull it, then `invoke %s` there", verb, verb)
                break
    files = {path.relative_to(output).as_posix(): sha256(path) for path in _files(output / "runs" / run_name)}
    write_json(output / MANIFEST, asdict(Manifest(push_id, run_name, ended, files)))
    log.info("kit push %s: %s", push_id, ended)
    return ended


def assignments(config: Config) -> list[str]:
    """Every knob that decides the training, as for ``--set``; those left to the machine are left out."""
    chosen = [key for key in knobs() if key.split(".")[0] not in ("kaggle", "kernel")]
    open_norm = {"model.norm", "model.norm_eps"} if config.model.norm == "auto" else set()
    return [f"{key}={_text(config.get(key))}" for key in chosen if key not in open_norm]


class _Steps:
    """The verbs of the unpacked package, each in a process of its own."""

    def __init__(self, package: Path, workspace: Path) -> None:
        self._package, self._workspace = package, workspace

    def run(self, *words: str) -> int:
        """Run one to its end; its exit code."""
        return self._start(words).wait()

    def must_run(self, *words: str) -> None:
        """Run one to its end. Raises SystemExit where it failed."""
        code = self.run(*words)
        if code:
            log.info("kit: %s failed", words[0])
            sys.exit(code)

    def train(self, run: Run, words: Sequence[str], config: Config, started: float) -> str:
        """All folds, as many at a time as there are GPUs; the single split on all of them."""
        deadline = started + config.kernel.max_hours * 3600
        folds = config.data.folds
        waiting: list[tuple[str, ...]] = [("--fold", str(fold)) for fold in range(folds)] if folds > 1 else [()]
        free = list(range(min(config.kernel.devices, len(waiting))))
        running: dict[int, subprocess.Popen[bytes]] = {}
        stopped = False
        while running or (waiting and not stopped):
            while waiting and free and not stopped:
                lane = free.pop(0)
                gpu = {"CUDA_VISIBLE_DEVICES": str(lane)} if folds > 1 else {}
                running[lane] = self._start((*words, *waiting.pop(0)), gpu)
            time.sleep(_GLANCE_SECONDS)
            if not stopped and time.monotonic() >= deadline and _has_checkpoints(run, len(running)):
                stopped = True
                for process in running.values():
                    process.terminate()  # which `train` takes as Ctrl-C
            for lane, process in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[lane]
                    free.append(lane)
                    if code and not (stopped and code in _INTERRUPTED):
                        self._end(running)
                        log.info("kit: train failed")
                        sys.exit(code)
        return FINISHED if run.finished.exists() else STOPPED

    def _start(self, words: Sequence[str], more: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "invoke", *words, "--workspace", str(self._workspace)]
        return subprocess.Popen(command, cwd=self._package, env={**os.environ, **(more or {})})

    def _end(self, running: dict[int, subprocess.Popen[bytes]]) -> None:
        for process in running.values():
            process.terminate()
            process.wait()


def state_sha256(folder: Path) -> str:
    """The hashes of a run's last checkpoints, joined in the order of their folds; "" where it has none."""
    return "".join(sha256(path) for path in sorted(folder.glob("**/last.ckpt")))


def _restore(root: Path, goal: Path, state: str) -> None:
    """Go on from the run that the push brought. Raises SystemExit where Kaggle mounted another one, or none."""
    archive = next(_named(root, RUN_ARCHIVE), None)
    if archive is not None:
        with zipfile.ZipFile(archive) as opened:  # of this very user's own making
            opened.extractall(make_folder(goal))
    if state_sha256(goal) != state:
        found = "another state of the run" if archive else f"no {RUN_ARCHIVE}"
        log.info("kit: the run to go on from is not mounted: found %s; push again", found)
        sys.exit(1)
    log.info("kit: going on from %s", archive)


def _named(root: Path, name: str) -> Iterator[Path]:
    """Files of that name near the top: a data set is mounted one to three folders deep."""
    for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
        yield from root.glob(f"{depth}/{name}")


def _has_checkpoints(run: Run, running: int) -> bool:
    """Whether stopping now loses an epoch at most."""
    return len(list((run.folder).glob("**/last.ckpt"))) >= running


def _files(folder: Path) -> list[Path]:
    """The files of a run, without locks and without what an earlier pull left."""
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / ORIGIN)
    return sorted(path for path in files if not path.name.startswith("."))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def main(config_text: str, push: dict[str, str], package: Path) -> None:
    """The entry of the pushed script: the current folder is the output."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    content = json.loads(config_text)
    values = {f"{section}.{name}": value for section, names in content.items() for name, value in names.items()}
    config = Config().replace({key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    run_session(config, push, package, Path.cwd())
