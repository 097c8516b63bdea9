"""What a pushed kernel does on Kaggle's machine: link the data, train, evaluate, predict, write a manifest.

Each fold trains in a process of its own, on a GPU of its own. After ``kernel.max_hours`` the training stops at the
end of an epoch, as after Ctrl-C, and the session ends normally: a second push continues from its output.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.config import Config, knobs
from kit.core.errors import KitError
from kit.core.files import make_folder, sha256
from kit.core.json_files import write_json
from kit.data.groups import GROUPS
from kit.kaggle.kernels.machine import usable_gpus
from kit.runs.folder import Run
from kit.runs.seen import SEEN_FILE

MANIFEST, RUN_ARCHIVE = "kit-manifest.json", "run.kit"
# Kaggle unpacks what has an archive's suffix.
WEIGHTS_FILE, MOUNTED_SEEN_FILE, GROUPS_FILE = "weights.kit", "seen.kit", "groups.kit"
ORIGIN = "kernel.json"  # in a pulled run: the manifest of its push
FINISHED, STOPPED = "finished", "stopped"
_INTERRUPTED = (130, -signal.SIGTERM)  # the latter before `train` handles the signal
_POLL_SECONDS = 0.5
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Manifest:
    """Written last: the push's id, its run, finished or stopped, and the SHA-256 of each of the run's files."""

    push_id: str
    run: str
    ended: str
    files: dict[str, str]

    def __post_init__(self) -> None:
        if self.ended not in (FINISHED, STOPPED):
            raise ValueError(f"a session that ended as {self.ended!r}, not {FINISHED} or {STOPPED}")


def run_session(config: Config, push: Mapping[str, str], package: Path, output: Path) -> str:
    """Run the whole session: download, train, evaluate, predict, write the manifest.

    A trained run is kept even if evaluate or predict fails: both can be repeated after the pull.

    Args:
        config: The knobs of the run.
        push: The push's ``id``, its ``run``, the ``preset``, the state that it ``continues`` ("" for none); if
            they were sent along, the SHA-256 of the file of ``weights`` and of ``groups`` (groups.csv); if any, the
            faults to ``allow``, with commas.
        package: The folder of the unpacked kit; the data and the caches are written beside it.
        output: The folder that Kaggle keeps.

    Returns:
        "finished" or "stopped".

    Raises:
        SystemExit: A step failed, with its exit code; or the session has no GPU, with 1.
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
    if push.get("weights"):
        _place_weights(Path(config.kaggle.input_root).resolve(), package / config.model.start, push["weights"])
    if push.get("groups"):  # before the download, which ends with an audit
        groups = _sent(Path(config.kaggle.input_root).resolve(), GROUPS_FILE, push["groups"])
        shutil.copyfile(groups, make_folder(workspace / "data") / GROUPS)
    flags = [word for assignment in assignments(config) for word in ("--set", assignment)]
    allowed = [word for name in push.get("allow", "").split(",") if name for word in ("--allow", name)]
    gpus = _gpus(config)
    step = _Steps(package, workspace)
    root = f"kaggle.input_root={Path(config.kaggle.input_root).resolve()}"
    ids = f"competition.expected_ids={config.competition.expected_ids}"
    data = [text for text in assignments(config) if text.startswith("data.")]  # what the training takes as valid
    knobs = [word for text in (root, ids, *data) for word in ("--set", text)]
    step.must_run("download", "--competition", config.competition.slug, *knobs, *allowed)
    words = ("train", "--run", run_name, "--preset", push["preset"], *flags, *allowed)
    ended = step.train(run, words, config, started, gpus)
    if ended == FINISHED:
        for verb in ("evaluate", "predict"):
            if step.run(verb, "--run", run_name):
                log.info("kit: %s failed, but the run is whole: pull it, then `invoke %s`", verb, verb)
                break
    files = {path.relative_to(output).as_posix(): sha256(path) for path in _files(output / "runs" / run_name)}
    write_json(output / MANIFEST, asdict(Manifest(push_id, run_name, ended, files)))
    log.info("kit push %s: %s", push_id, ended)
    return ended


def assignments(config: Config) -> list[str]:
    """Every knob of the training as KEY=VALUE for ``--set``, without the norms that the session resolves."""
    keys = [key for key in knobs() if key.split(".")[0] not in ("kaggle", "kernel")]
    unresolved = {"model.norm", "model.norm_eps"} if config.model.norm == "auto" else set()
    return [f"{key}={_text(config.get(key))}" for key in keys if key not in unresolved]


class _Steps:
    """Runs tasks of the unpacked package, each in a process of its own."""

    def __init__(self, package: Path, workspace: Path) -> None:
        self._package, self._workspace = package, workspace

    def run(self, *words: str) -> int:
        """Run a task to its end; its exit code."""
        return self._start(words).wait()

    def must_run(self, *words: str) -> None:
        """Run a task to its end. Raises SystemExit if it failed."""
        code = self.run(*words)
        if code:
            log.info("kit: %s failed", words[0])
            sys.exit(code)

    def train(self, run: Run, words: Sequence[str], config: Config, started: float, gpus: int) -> str:
        """Train all folds, as many at a time as there are GPUs; a single split on all whose batches fit a step.

        ``gpus`` is the number of GPUs that the session has, 0 if it trains on the CPU.

        Returns "finished", or "stopped" after ``kernel.max_hours``. Raises SystemExit if a training failed.
        """
        deadline = started + config.kernel.max_hours * 3600
        folds = config.data.folds
        waiting = list(run.in_folds(folds))
        used = usable_gpus(config, gpus)
        log.info("kit: %d GPU(s), %d of %d training(s) at a time", gpus, used if folds > 1 else 1, len(waiting))
        free = list(range(used)) if folds > 1 else [0]
        running: dict[int, tuple[subprocess.Popen[bytes], Run]] = {}
        late = stopped = False
        while running or (waiting and not late):
            while waiting and free and not late:
                gpu = free.pop(0)
                visible = [gpu] if folds > 1 else range(used)
                environment = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, visible))}
                fold = waiting.pop(0)
                of_fold = ("--fold", str(fold.fold)) if folds > 1 else ()
                running[gpu] = self._start((*words, *of_fold), environment), fold
            time.sleep(_POLL_SECONDS)
            late = time.monotonic() >= deadline
            # With a checkpoint of each, stopping now loses an epoch at most.
            if late and not stopped and all(fold.last.exists() for _, fold in running.values()):
                stopped = True
                for process, _ in running.values():
                    process.terminate()  # `train` handles it like Ctrl-C
            for gpu, (process, _) in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[gpu]
                    free.append(gpu)
                    if code and not (stopped and code in _INTERRUPTED):
                        self._end([process for process, _ in running.values()])
                        log.info("kit: train failed")
                        sys.exit(code)
        return FINISHED if run.finished.exists() else STOPPED

    def _start(self, words: Sequence[str], variables: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "invoke", *words, "--workspace", str(self._workspace)]
        return subprocess.Popen(command, cwd=self._package, env={**os.environ, **(variables or {})})

    def _end(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            process.terminate()
            process.wait()


def _gpus(config: Config) -> int:
    """The GPUs of the session; 0 if it is to train on the CPU. Raises SystemExit if there is none."""
    if config.trainer.accelerator == "cpu":
        return 0
    # Another process: this one stays free of torch.
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode or not int(done.stdout):
        log.info(
            "kit: this session has no GPU, although %s was requested; push again, or push with "
            "--set trainer.accelerator=cpu to train on its CPU",
            config.kernel.machine,
        )
        sys.exit(1)
    return int(done.stdout)


def state_sha256(folder: Path) -> str:
    """The SHA-256 of a run's last checkpoints, joined in the order of the folds; "" if it has none."""
    return "".join(sha256(path) for path in sorted(folder.glob("**/last.ckpt")))


def _restore(root: Path, goal: Path, state: str) -> None:
    """Unpack the run that the push continues. Raises SystemExit if Kaggle mounts another state of it, or none."""
    archive = next(_named(root, RUN_ARCHIVE), None)
    if archive is not None:
        with zipfile.ZipFile(archive) as opened:  # trusted: the same user's own archive
            opened.extractall(make_folder(goal))
    if state_sha256(goal) != state:
        mounted = "another state of the run" if archive else f"no {RUN_ARCHIVE}"
        log.info("kit: the run to continue is not mounted: found %s; push with --again, which uploads it", mounted)
        sys.exit(1)
    log.info("kit: continuing from %s", archive)


def _place_weights(root: Path, path: Path, digest: str) -> None:
    """Link the mounted file of weights to the path that the run names, so that its knobs stay the same everywhere.

    Raises SystemExit if Kaggle mounts another file, or none, or if another one is at that path.
    """
    mounted = _sent(root, WEIGHTS_FILE, digest)
    try:
        if not path.exists():
            make_folder(path.parent)
            path.symlink_to(mounted)
        seen = next(_named(root, MOUNTED_SEEN_FILE), None)
        if seen is not None and not path.with_name(SEEN_FILE).exists():
            path.with_name(SEEN_FILE).symlink_to(seen)
        is_same = sha256(path) == digest
    except (OSError, KitError):
        is_same = False
    if not is_same:
        log.info("kit: %s cannot hold the weights here: push with a relative path, --set model.weights=PATH", path)
        sys.exit(1)
    log.info("kit: starting from %s, as %s", mounted, path)


def _sent(root: Path, name: str, digest: str) -> Path:
    """The mounted file that was sent along. Raises SystemExit if Kaggle mounts another file, or none."""
    mounted = next(_named(root, name), None)
    if mounted is None or sha256(mounted) != digest:
        found = "no file" if mounted is None else "another file"
        log.info("kit: %s is not mounted: found %s; push with --again, which uploads it", name, found)
        sys.exit(1)
    return mounted


def _named(root: Path, name: str) -> Iterator[Path]:
    """Files of that name in the upper folders: Kaggle mounts a data set one to three folders deep."""
    for depth in ("*", "*/*", "*/*/*", "*/*/*/*"):
        yield from root.glob(f"{depth}/{name}")


def _files(folder: Path) -> list[Path]:
    """The files of a run, without hidden ones (locks) and without the manifest of an earlier pull."""
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / ORIGIN)
    return sorted(path for path in files if not path.name.startswith("."))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def main(config_text: str, push: dict[str, str], package: Path) -> None:
    """The entry point of the pushed script; the current folder is the output."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    content = json.loads(config_text)
    values = {f"{section}.{name}": value for section, names in content.items() for name, value in names.items()}
    config = Config().replace({key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    run_session(config, push, package, Path.cwd())
