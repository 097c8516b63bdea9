"""The folder of a run: a name chosen by the user, and every file of the run.

``finished.json`` is written last; `invoke train` continues a run without it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from kit.config import Config, load
from kit.core.errors import KitError, closest_names, reason
from kit.core.json_files import read_record, write_json

HISTORY_COLUMNS = (
    "epoch", "step", "learning_rate", "train_loss", "map50", "map50_95", "boxes_lost", "seconds",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Run:
    """The paths of a run's files; with ``fold``, those of one of several folds.

    A single split is fold 0 and lies directly in the run's folder.
    """

    workspace: Path
    name: str
    fold: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.endswith("."):
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
    def best(self) -> Path:
        """Checkpoint of the epoch with the best in-loop score."""
        return self.home / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch that ended: training continues from it."""
        return self.home / "last.ckpt"

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


def read_split(run: Run) -> Split:
    """The split that a run was started with."""
    return read_record(run.split, Split, _restore(run.split))


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
    if missing or words:
        found = f"no {', '.join(missing)}" if missing else f"no numbers in {', '.join(words)}"
        raise KitError(f"{run.history} to have a row of numbers per epoch", found, do)
    return table


def read_finished(run: Run) -> Finished:
    """The end of a finished run."""
    return read_record(run.finished, Finished, _restore(run.finished))


def mark_finished(
    run: Run, kept: str, epoch: Sequence[int], epochs: Sequence[int], weights: Mapping[str, str]
) -> Finished:
    """Write ``finished.json`` and return its content.

    Args:
        run: The run.
        kept: Which weights predict: best, last, ema, or that they are an ensemble's or adopted.
        epoch: By fold, the epoch whose weights were kept, counted from 1.
        epochs: By fold, how many epochs were trained.
        weights: By fold's title, the SHA-256 of its checkpoint.
    """
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    finished = Finished(kept, tuple(epoch), tuple(epochs), dict(weights), at)
    write_json(run.finished, asdict(finished))
    return finished


def names(workspace: Path) -> list[str]:
    """The names of all runs of a workspace, sorted."""
    return sorted(path.parent.name for path in (workspace / "runs").glob("*/config.json"))


def existing(workspace: Path, name: str) -> Run:
    """The run of that name. Raises KitError with the closest names if there is none."""
    run = Run(workspace, name)
    if not run.config.exists():
        raise KitError(
            f"the name of a run in {workspace / 'runs'}",
            repr(name),
            f"nearest: {closest_names(name, names(workspace))}; `invoke train` starts one",
        )
    return run


def newest_finished(workspace: Path) -> Run:
    """The run that finished last. Raises KitError if none has."""
    finished = [run for name in names(workspace) if (run := Run(workspace, name)).finished.exists()]
    if not finished:
        started = names(workspace)
        raise KitError(
            f"a finished run in {workspace / 'runs'}",
            f"runs that have not finished: {', '.join(started)}" if started else "no run",
            f"`invoke train{f' --run {started[0]}' if started else ''}` {'goes on' if started else 'starts one'}",
        )
    return max(finished, key=lambda run: read_finished(run).at)


def workspace_config(workspace: Path) -> Config:
    """The knobs of the run that finished last, or the defaults if none has: for verbs without a run."""
    finished = [run for name in names(workspace) if (run := Run(workspace, name)).finished.exists()]
    return load(newest_finished(workspace).config) if finished else Config()


def require_finished(run: Run) -> Finished:
    """How the run ended. Raises KitError if it has not."""
    if not run.finished.exists():
        raise KitError(
            f"run {run.name!r} to be finished",
            "its training has not ended",
            "run its `invoke train` command again: it goes on where it stopped",
        )
    return read_finished(run)


def _restore(path: Path) -> str:
    return f"restore {path}, or train under another --run name"
