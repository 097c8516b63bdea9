"""What happens at the end of an epoch: the history, the checkpoints, the decision to stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from kit.config import TrainingConfig
from kit.core.files import write_text
from kit.detectors.set_detectors import LOSS_KINDS
from kit.runs.folder import HISTORY_COLUMNS, Run
from kit.training.box_losses import BoxLosses
from kit.training.resume import PROGRESS
from kit.training.schedule import patience_ended

log = logging.getLogger("kit")


class Progress(Checkpoint):
    """Writes ``best.ckpt``, ``last.ckpt`` and the history when an epoch ends, and stops when patience ends.

    Lightning's own callbacks forget the best score when the folder is moved, lose the CSV on resume and
    train one epoch more after an early stop; here all three follow from the rows, which the checkpoint holds.
    """

    def __init__(self, run: Run, settings: TrainingConfig) -> None:
        self._run, self._settings = run, settings
        self._fold = "" if run.fold is None else f"fold {run.fold}, "
        self._rows: list[dict[str, float]] = []
        self._started = 0.0
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    @property
    def state_key(self) -> str:
        """A name that does not change with the code around it."""
        return PROGRESS

    @property
    def epochs(self) -> int:
        """Epochs that have ended, over all attempts."""
        return len(self._rows)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train."""
        return self.epochs >= self._settings.max_epochs or patience_ended(self._scores, self._settings.patience)

    @property
    def _scores(self) -> list[float]:
        return [row["map50"] for row in self._rows]

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, as plain numbers."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of a checkpoint."""
        self._rows = list(state_dict["rows"])

    def write_history(self) -> None:
        """Bring ``history.csv`` up to the rows: a kill may have come between it and the checkpoint."""
        write_text(self._run.history, pd.DataFrame(self._rows).to_csv(index=False, lineterminator="\n"))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take SIGTERM back: Lightning's handler waits for the other processes, which wait for this one."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._started = monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row; save the best first, then the last, so that the last never points to neither."""
        seen = trainer.callback_metrics
        better = not self._rows or float(seen["map50"]) >= max(self._scores)  # of equals, the longer trained
        measured = {name: float(seen[name]) for name in ("train_loss", "map50", "map50_95", "boxes_lost")}
        row = {
            "epoch": self.epochs + 1,
            "step": trainer.global_step,
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            **measured,
            "seconds": round(monotonic() - self._started, 2),
        }
        self._rows = [*self._rows, {name: row[name] for name in HISTORY_COLUMNS}]
        if better:
            trainer.save_checkpoint(self._run.best)
        trainer.save_checkpoint(self._run.last)
        if trainer.is_global_zero:
            self.write_history()
            losses = getattr(pl_module, "box_losses", None)
            lost = losses.words if isinstance(losses, BoxLosses) else ""
            log.info(
                "%sepoch %d/%d: loss %.3f%s, mAP@0.5 %.3f%s, %.0f s%s", self._fold, row["epoch"],
                self._settings.max_epochs, row["train_loss"], _parts(seen), row["map50"],
                " (best)" if better else "", row["seconds"], lost,
            )  # fmt: skip
        trainer.should_stop = trainer.should_stop or self.ended


def _parts(seen: Mapping[str, Any]) -> str:
    """The parts of a loss that its detector tells apart, for the epoch's line; empty if it does not."""
    parts = [f"{kind} {float(seen[f'loss_{kind}']):.3f}" for kind in LOSS_KINDS if f"loss_{kind}" in seen]
    return f" ({', '.join(parts)})" if parts else ""
