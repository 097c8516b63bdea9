"""``seen.parquet`` of a run: made before its first epoch, compared with its checkpoint when it goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.config import ModelConfig
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.progress import Track, silent
from kit.data.competition import TrainingData
from kit.detectors.checkpoints import load_checkpoint
from kit.detectors.class_rows import saved_labels
from kit.runs.folder import Run, Split
from kit.runs.seen import SEEN_FILE, Seen, prints_of, read_seen, recorded_sha256, seen_path, with_stage, write_seen

log = logging.getLogger("kit")


def seen_before(config: ModelConfig) -> Seen:
    """The images that the checkpoint of ``model.weights`` saw; none for any other start.

    None either for a checkpoint of an earlier version, which does not record them: the log warns of it. Raises
    KitError if the ``seen.parquet`` beside a checkpoint is lost or was changed.
    """
    if config.start in ("none", "imagenet", "coco"):
        return Seen.nothing()
    path = Path(config.weights)
    other = "choose another model.weights"
    checkpoint = load_checkpoint(path, other)
    digest = recorded_sha256(checkpoint)
    if not digest and not saved_labels(checkpoint):
        return Seen.nothing()  # another tool's
    if not digest:
        log.warning(
            "model.weights=%s is of an earlier version of kit, which did not record the images that its weights "
            "saw: whether images of the test or held out are among them is not known", path,
        )  # fmt: skip
        return Seen.nothing()
    beside = path.with_name(SEEN_FILE)
    return read_seen(beside, digest, f"copy {SEEN_FILE} of the run that made {path.name} beside it, or {other}")


def keep_seen(run: Run, data: TrainingData, split: Split, before: Seen, track: Track = silent) -> None:
    """Write the ``seen.parquet`` of a run, or of a fold: what came before, and its own training images."""
    own = prints_of(data.pixels, split.training(run.fold or 0), track)
    write_seen(seen_path(run), with_stage(before, run, own))


def seen_sha256(run: Run, state: Mapping[str, Any]) -> str:
    """The SHA-256 of the run's ``seen.parquet`` for its checkpoints; "" if it went on from an earlier version's.

    ``state`` is the content of ``last.ckpt``, empty when the training begins. Raises KitError if the file is lost
    or is not the one that the checkpoint was saved with.
    """
    path = seen_path(run)
    if not state:
        return sha256(path) if path.exists() else ""
    recorded = recorded_sha256(state)
    if not recorded:
        log.info("run %s was started by an earlier version of kit: which images its weights saw is not recorded",
                 run.title)  # fmt: skip
        return ""
    actual = sha256(path) if path.exists() else ""
    if actual != recorded:
        raise KitError(
            f"{path}, the images that the weights saw, as when {run.last.name} was saved ({recorded[:12]}...)",
            f"{actual[:12]}..." if actual else "no such file",
            f"restore it from a copy, or delete {run.home} and start anew",
        )  # fmt: skip
    return recorded
