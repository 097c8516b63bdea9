"""The folder of a run: a name chosen by the user, and every file of the run.

``finished.json`` is written last; `invoke train` continues a run without it.
"""

from __future__ import annotations

import datetime
import functools
import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from kit.config import Config, load
from kit.core.errors import KitError, closest_names, first_few, reason
from kit.core.json_files import read_record, require_moment, write_json
from kit.runs.stages import Stages

HISTORY_COLUMNS = (
    "epoch", "step", "learning_rate", "train_loss", "map50", "map50_95", "boxes_lost", "seconds",
)  # fmt: skip
IMAGE_SCORES = "image scores"  # what a run keeps that has no detections: it says what is on an image, not where
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Run:
    """The paths of a run's files; with ``fold``, those of one of several folds.

    A single split is fold 0 and lies directly in the run's folder.
    """

    workspace: Path
    name: str
    fold: int | None = None

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise KitError(
                "a run's name of letters, digits, dots, dashes and underscores (64 at most)",
                repr(self.name),
                "choose another with --run NAME",
            )

    @property
    def folder(self) -> Path:
        """``WORKSPACE/runs/NAME``."""
        return self.workspace / "runs" / self.name

    @property
    def title(self) -> str:
        """``NAME``, or ``NAME/fold-K``: what messages and manifests call it."""
        return self.name if self.fold is None else f"{self.name}/fold-{self.fold}"

    @property
    def home(self) -> Path:
        """Where checkpoints, history and logs lie: the run's folder, or the fold's in it."""
        return self.workspace / "runs" / self.title

    def in_folds(self, count: int) -> tuple[Run, ...]:
        """The run in each of its folds; the run itself if it is a single split."""
        return tuple(replace(self, fold=fold) for fold in range(count)) if count > 1 else (self,)

    @property
    def config(self) -> Path:
        """Every knob of the run."""
        return self.folder / "config.json"

    @property
    def split(self) -> Path:
        """The labels, the images, those held out by each fold, and the hash of the table they came from."""
        return self.folder / "split.json"

    @property
    def weights(self) -> Path:
        """The file of weights that a D-FINE or RF-DETR started from: repository, revision, SHA-256."""
        return self.folder / "weights.json"

    @property
    def stages(self) -> Path:
        """The trainings that led to the weights, the first stage first, with their data sets."""
        return self.home / "stages.json"

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the best in-loop score."""
        return self.home / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch that ended: training continues from it."""
        return self.home / "last.ckpt"

    def checkpoint(self, keep: str) -> Path:
        """The file of the weights that detect, by ``training.keep``."""
        return self.best if keep == "best" else self.last

    @property
    def history(self) -> Path:
        """One row per epoch, over all attempts."""
        return self.home / "history.csv"

    @property
    def ensemble(self) -> Path:
        """Present if the run is an ensemble: its members and their weights."""
        return self.folder / "ensemble.json"

    @property
    def adopted(self) -> Path:
        """Present if the detections were adopted: the file that they came from."""
        return self.folder / "adopted.json"

    @property
    def report(self) -> Path:
        """The scores."""
        return self.folder / "report.json"

    @property
    def finished(self) -> Path:
        """Present once training has ended and its detections are stored."""
        return self.folder / "finished.json"

    def detections(self, part: str) -> Path:
        """The stored raw detections of ``validation`` or ``test``."""
        return self.home / "detections" / f"{part}.parquet"


@dataclass(frozen=True)
class Split:
    """The images of ``train/``, and which of them each fold's weights never saw; a single split is one fold."""

    labels: tuple[str, ...]
    images: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]  # images held out, by fold
    table_sha256: str

    def __post_init__(self) -> None:
        held = [image_id for fold in self.folds for image_id in fold]
        if len(set(held)) != len(held) or not set(held) <= set(self.images):
            raise ValueError("folds hold each image once at most, and no other images than those of the split")
        if not self.folds or not all(self.folds):
            raise ValueError("a split has at least one fold, and no empty one")

    def training(self, fold: int) -> tuple[str, ...]:
        """The images that the weights of a fold are trained on, in the order of ``images``."""
        held = set(self.folds[fold])
        return tuple(image_id for image_id in self.images if image_id not in held)

    @property
    def validation(self) -> tuple[str, ...]:
        """Every image that some fold held out, sorted: those that have out-of-fold detections."""
        return tuple(sorted(self.fold_of))

    @property
    def fold_of(self) -> dict[str, int]:
        """The fold that held an image out, by image."""
        return {image_id: number for number, fold in enumerate(self.folds) for image_id in fold}

    def save(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, asdict(self))


@dataclass(frozen=True)
class Finished:
    """How a run ended. The epochs are by fold; there are none if nothing was trained."""

    kept: str
    epoch: tuple[int, ...]  # the one whose weights were kept
    epochs: tuple[int, ...]  # how many were trained
    weights: Mapping[str, str]  # SHA-256 of what made the detections, by title
    at: str
    run: str = ""  # its name; earlier versions did not write it
    seen: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of seen.parquet, by title; if recorded

    def __post_init__(self) -> None:
        require_moment(self.at)


def read_split(run: Run) -> Split:
    """The split that a run was started with."""
    return read_record(run.split, Split, _restore(run, run.split))


def read_stages(run: Run) -> Stages | None:
    """The stages that led to the weights of a run, or of one of its folds; None if none were recorded."""
    return read_record(run.stages, Stages, _restore(run, run.stages)) if run.stages.exists() else None


def read_history(run: Run) -> pd.DataFrame:
    """One row per epoch; zero rows if the file is missing (`invoke train` writes it anew when it continues).

    Raises KitError if the file is no such table.
    """
    do = f"delete {run.history}: it only shows the epochs, and a training that goes on writes it anew"
    try:
        table = pd.read_csv(run.history)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame(columns=list(HISTORY_COLUMNS), dtype=float)
    except (OSError, ValueError) as error:  # pandas' own errors and those of decoding are ValueErrors
        raise KitError(f"{run.history} to be a table of epochs", reason(error), do) from error
    missing = [name for name in HISTORY_COLUMNS if name not in table]
    words = [name for name in HISTORY_COLUMNS if name in table and not pd.api.types.is_numeric_dtype(table[name])]
    found = f"no {', '.join(missing)}" if missing else f"no numbers in {', '.join(words)}" if words else ""
    if not found and table["epoch"].tolist() != list(range(1, 1 + len(table))):
        found = f"the epochs {first_few(table['epoch'])}, not counted from 1"
    if found:
        raise KitError(f"{run.history} to have a row of numbers per epoch", found, do)
    return table


def read_finished(run: Run) -> Finished:
    """The end of a finished run. Raises KitError if its folder was renamed, or is a copy of another run's."""
    finished = read_record(run.finished, Finished, _restore(run, run.finished))
    is_ensemble = run.ensemble.exists()  # it has the weights of its members
    names = () if is_ensemble else (title.partition("/")[0] for title in finished.weights)
    owners = {*filter(None, [finished.run]), *names} - {run.name}
    if owners:
        raise KitError(
            f"run {run.name!r} to have its own weights and detections, under the name it was made with",
            f"those of run {min(owners)!r}, in {run.finished}", _way_back(run, min(owners)),
        )  # fmt: skip
    return finished


def _way_back(run: Run, owner: str) -> str:
    """What to do with a folder that holds another run's files."""
    if not _is_name(owner):
        return _restore(run, run.finished)
    folder = run.folder.with_name(owner)
    if folder.exists():
        return f"--run {owner}; a copy cannot be used: move {run.folder} out of {folder.parent}"
    return f"rename the folder back: mv {shlex.quote(str(run.folder))} {shlex.quote(str(folder))}"


def mark_finished(
    run: Run, kept: str, epoch: Sequence[int], epochs: Sequence[int], weights: Mapping[str, str],
    seen: Mapping[str, str] | None = None,
) -> Finished:  # fmt: skip
    """Write ``finished.json`` and return its content.

    Args:
        run: The run.
        kept: Which weights predict: best, last, ema, or that they are an ensemble's or adopted.
        epoch: By fold, the epoch whose weights were kept, counted from 1.
        epochs: By fold, how many epochs were trained.
        weights: By fold's title, the SHA-256 of its checkpoint.
        seen: By fold's title, that of its ``seen.parquet``.
    """
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    finished = Finished(kept, tuple(epoch), tuple(epochs), dict(weights), at, run.name, dict(seen or {}))
    write_json(run.finished, asdict(finished))
    return finished


def names(workspace: Path) -> list[str]:
    """The names of all runs of a workspace, sorted; a folder with another name is passed over, and logged once."""
    found = sorted(path.parent for path in (workspace / "runs").glob("*/config.json"))
    for folder in found:
        if not _is_name(folder.name):
            _warn_once(f"{folder} is passed over: its name is no run's")
    return [folder.name for folder in found if _is_name(folder.name)]


def existing(workspace: Path, name: str) -> Run:
    """The run of that name. Raises KitError with the closest names if there is none."""
    run = Run(workspace, name)
    if not run.config.exists():
        raise KitError(
            f"the name of a run in {workspace / 'runs'}", repr(name),
            f"nearest: {closest_names(name, names(workspace))}; `invoke train` starts one",
        )  # fmt: skip
    return run


def newest_finished(workspace: Path) -> Run:
    """The run with detections that finished last. Raises KitError if none has."""
    finished = [run for run in finished_runs(workspace) if read_finished(run).kept != IMAGE_SCORES]
    if not finished:
        started = [name for name in names(workspace) if not Run(workspace, name).finished.exists()]
        raise KitError(
            f"a finished run in {workspace / 'runs'}",
            f"runs that have not finished: {', '.join(started)}" if started else "none that can be used",
            f"`invoke train{f' --run {started[0]}' if started else ''}` {'goes on' if started else 'starts one'}",
        )
    return finished[-1]


def finished_runs(workspace: Path) -> list[Run]:
    """The finished runs, the one that finished last at the end.

    A run whose ``finished.json`` or ``config.json`` cannot be read, or is another run's, is passed over, and logged
    once: verbs that name no run go on with the others.
    """
    ended: dict[Run, datetime.datetime] = {}
    for run in (Run(workspace, name) for name in names(workspace)):
        try:
            if run.finished.exists():
                ended[run] = datetime.datetime.fromisoformat(read_finished(run).at)
                load(run.config)
        except KitError as error:
            ended.pop(run, None)
            _warn_once(f"run {run.name} is passed over: expected {error.expected}; found {error.found}; {error.do}")
    return sorted(ended, key=lambda run: ended[run])


def workspace_config(workspace: Path) -> Config:
    """The knobs of the run that finished last, or the defaults if none has: for verbs without a run."""
    finished = finished_runs(workspace)
    return load(finished[-1].config) if finished else Config()


def require_finished(run: Run) -> Finished:
    """How the run ended. Raises KitError if it has not."""
    if not run.finished.exists():
        raise KitError(
            f"run {run.name!r} to be finished",
            "its training has not ended",
            "run its `invoke train` command again: it goes on where it stopped",
        )
    return read_finished(run)


def anew(run: Run) -> str:
    """How a run like this one is made under another name: adopted, an ensemble or trained."""
    way = "adopt its file again" if run.adopted.exists() else "train"
    if run.ensemble.exists():
        way = "make the ensemble anew"
    return f"{way} under another --run NAME"


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not name.endswith(".")


@functools.cache
def _warn_once(text: str) -> None:
    log.warning(text)


def _restore(run: Run, path: Path) -> str:
    return f"restore {path}, or {anew(run)}"
