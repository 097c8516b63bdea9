"""Train a run, from a workspace and a run's name to checkpoints and stored validation detections.

``train`` may be called again after a kill and continues. In a further process of the same training it only trains;
the first process writes every file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from kit.config import Config, ModelConfig, load, override, preset, save
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.progress import Track, silent
from kit.data.competition import TrainingData, data_folder, has_test, load_test, load_training
from kit.data.early_decoding import decoding_meanwhile
from kit.data.splits import assign_folds
from kit.detectors import weights
from kit.detectors.hardware import process_count
from kit.detectors.norms import takes_one_image
from kit.presets import DEFAULT_PRESET, DEFAULT_PRESET_WITHOUT_GPU
from kit.reports.audit_report import audit_workspace, require_sound
from kit.reports.seen_images import refuse, sightings
from kit.runs.detecting import bare_detector, kept_weights
from kit.runs.folder import (
    Finished,
    Run,
    Split,
    mark_finished,
    read_finished,
    read_history,
    read_split,
)
from kit.runs.guards import require_same_data, require_trainable
from kit.runs.knobs import require_same_knobs, save_knobs
from kit.runs.locks import rank, require_launcher, starting_or_finishing, training_lock
from kit.runs.out_of_fold import stored, stored_fold
from kit.runs.seen import Seen, seen_path
from kit.training.box_losses import require_large_boxes
from kit.training.schedule import accumulation, fitting_batch_size, smallest_batch
from kit.training.seen import keep_seen, seen_before
from kit.training.stages import record_stages

_LARGER_SIZES_PX = (64, 128, 256)
_FIRST_PROCESS_SECONDS = 1800  # in which the first process decodes and audits the images
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Trained:
    """A run whose training ended now, or before if ``already``; ``finished`` is None while folds are missing."""

    run: Run
    finished: Finished | None
    already: bool


def train(
    workspace: Path,
    name: str | None = None,
    preset_name: str | None = None,
    assignments: Sequence[str] = (),
    track: Track = silent,
    allow: Sequence[str] = (),
    fold: int | None = None,
) -> Trained | None:
    """Start a run, continue it, or report that it is finished; ends with its validation detections stored.

    Args:
        workspace: Holds ``data/`` and ``runs/``.
        name: The run; by default the preset's name.
        preset_name: The preset of a new run; by default the one that suits the machine.
        assignments: Knobs, as ``KEY=VALUE``; those of an existing run must agree, unless they describe the machine.
        track: Reports progress.
        allow: What does not stop the training: checks of the audit, seen-test-images, seen-held-out-images.
        fold: Train only this one of ``data.folds``; the process that ends last finishes the run.

    Returns:
        The run and its end; None in the second and further processes of one training.

    Raises:
        KitError: The knobs differ from those of the run, or the data have faults that are not allowed.
    """
    recipe = preset_name or (DEFAULT_PRESET if torch.cuda.is_available() else DEFAULT_PRESET_WITHOUT_GPU)
    run = Run(workspace, name or recipe)
    require_trainable(run)
    if preset_name is None and not run.config.exists():
        log.info(
            "no --preset: %r, which suits a machine with%s GPU", recipe, " a" if recipe == DEFAULT_PRESET else "out"
        )
    config = _config(run, recipe, preset_name is not None, assignments)
    processes = process_count(config) * config.trainer.nodes
    require_launcher(processes)
    accumulation(config.training, processes)  # refuses what does not divide
    folds = _requested_folds(run, config, fold)
    if rank() > 0:
        split = _awaited_split(run)
        data = load_training(workspace, config)
        from kit.training import fit

        for fold_run in folds:
            fit.fit(fold_run, config, split, data, _starting_detector(fold_run, config, split))
        return None
    data_folder(workspace)
    with contextlib.ExitStack() as stack:
        for fold_run in folds:
            stack.enter_context(training_lock(fold_run))
        if run.finished.exists() and run.detections("validation").exists():
            save_knobs(run, lambda: _config(run, recipe, preset_name is not None, assignments))
            return Trained(run, read_finished(run), already=True)
        with decoding_meanwhile(workspace, config, track) as files:
            from kit.training import fit  # imports Lightning: seconds that no other verb needs
        audit = audit_workspace(workspace, config, track, files)
        require_sound(audit, allow)
        data = load_training(workspace, config, track, audit.opened)
        if has_test(workspace):
            load_test(
                workspace, config, track, audit.opened
            )  # a fault there must show before hours of training, not after
        if not any(fold_run.last.exists() for fold_run in folds):
            require_large_boxes(data, config)
        begins = any(not fold_run.last.exists() for fold_run in folds)
        before = seen_before(config.model) if begins else Seen.nothing()
        split, first = _begun(run, folds[0], config, data, before, allow)
        detectors = itertools.chain(
            [first], (_starting_detector(fold_run, config, split) for fold_run in folds[1:])
        )
        for fold_run, detector in zip(folds, detectors, strict=True):
            if not fold_run.last.exists():
                record_stages(fold_run, config, data)
                keep_seen(fold_run, data, split, before, track)
            fit.fit(fold_run, config, split, data, detector)
        for fold_run in folds:  # after all trainings: other processes of a training wait for none of this
            stored_fold(fold_run, config, split, data, track)
        return Trained(run, _finish(run, config, split, data), already=False)


def _config(run: Run, recipe: str, is_requested: bool, assignments: Sequence[str]) -> Config:
    """The knobs of a new run by its recipe, or those of an existing run, which must agree with the command's."""
    stored = _stored(run)
    base = preset(recipe) if stored is None or is_requested else stored
    wanted = override(base, assignments)
    if stored is None or _with_open_norms(stored.model, wanted.model) != wanted.model:
        wanted = dataclasses.replace(wanted, model=weights.resolve_norms(wanted.model))
    else:  # the file that it started from may be gone by now
        wanted = dataclasses.replace(wanted, model=stored.model)
    if stored is not None:
        require_same_knobs(run, stored, wanted)
    return wanted


def _stored(run: Run) -> Config | None:
    """The knobs that a run was started with; the norms that a file written by hand leaves open are named."""
    if not run.config.exists():
        return None
    config = load(run.config)
    return dataclasses.replace(config, model=weights.resolve_norms(config.model))


def _with_open_norms(stored: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """The stored knobs, with the norms left open where the command leaves them open."""
    norm = "auto" if wanted.norm == "auto" else stored.norm
    return dataclasses.replace(stored, norm=norm, norm_eps=min(wanted.norm_eps, stored.norm_eps))


def _requested_folds(run: Run, config: Config, fold: int | None) -> tuple[Run, ...]:
    """The folds that this process trains."""
    folds = run.in_folds(config.data.folds)
    if fold is None:
        return folds
    if not 0 <= fold < len(folds):
        raise KitError(
            f"--fold between 0 and {len(folds) - 1}: run {run.name!r} has data.folds={len(folds)}", str(fold),
            "name one of these, or start another --run NAME with --folds N",
        )  # fmt: skip
    return (folds[fold],)


def _begun(
    run: Run, first: Run, config: Config, data: TrainingData, seen: Seen, allow: Sequence[str]
) -> tuple[Split, nn.Module]:
    """The run's split and the first fold's network; everything that can fail on user input has been checked.

    ``seen`` is what the starting weights saw: test and held-out images among them are refused unless allowed.
    Processes that train one fold each begin one after the other; the first one writes split.json and config.json.
    """
    with starting_or_finishing(run):
        require_trainable(run)  # once more: another process may have adopted detections under this name
        before = _stored(run)
        if before is not None:
            require_same_knobs(run, before, config)
        split = _split(run, config, data)
        detector = _starting_detector(first, config, split)
        _require_batches(config, split, detector)
        refuse(run, sightings(run.workspace, config, seen, split.validation), allow, config.model.weights)
        split.save(run.split)
        save(config, run.config)
    return split, detector


def _require_batches(config: Config, split: Split, detector: nn.Module) -> None:
    """Raise KitError if a batch of one image is left that the norm layers refuse at this size."""
    settings, processes = config.training, process_count(config) * config.trainer.nodes
    shares = [math.ceil(len(split.training(fold)) / processes) for fold in range(len(split.folds))]
    alone = any(smallest_batch(share, settings.batch_size) == 1 for share in shares)
    if not alone or takes_one_image(detector, config.model.image_size_px):
        return
    size = fitting_batch_size(shares, settings, processes)
    larger = [px for px in _LARGER_SIZES_PX if takes_one_image(detector, px)]
    do = [f"--set training.batch_size={size}"] if size else []
    do += [f"--set model.image_size_px={larger[0]}"] if larger else []
    raise KitError(
        "two images or more in every training batch: the norm layers need more than one value per channel, and "
        f"model.image_size_px={config.model.image_size_px} leaves one per image",
        f"a last batch of one image ({', '.join(map(str, shares))} images in batches of {settings.batch_size})",
        ", or ".join([*do, "--set model.norm=frozen"]),
    )


def _finish(run: Run, config: Config, split: Split, data: TrainingData) -> Finished | None:
    """Merge the folds' detections and write ``finished.json``, if every fold has its detections."""
    folds = run.in_folds(len(split.folds))
    with starting_or_finishing(run):
        if not all(fold.detections("validation").exists() for fold in folds):
            return None
        stored(run, config, split, data)
        kept = [kept_weights(fold, config.training.keep) for fold in folds]
        return mark_finished(
            run,
            config.training.keep,
            [epoch for _, epoch, _ in kept],
            [len(read_history(fold)) for fold in folds],
            {fold.title: sha256(path) for fold, (path, _, _) in zip(folds, kept, strict=True)},
            {fold.title: sha256(seen_path(fold)) for fold in folds if seen_path(fold).exists()},
        )


def _awaited_split(run: Run) -> Split:
    """The split that the first process makes; under torchrun all processes start at once, on several machines."""
    until = time.monotonic() + _FIRST_PROCESS_SECONDS
    if not run.split.exists():
        log.info("process %d waits for the first process of this training to prepare the data", rank())
    while not run.split.exists():
        if time.monotonic() > until:
            raise KitError(
                f"{run.split} from the first process of this training", "no such file",
                "start it, with the same --workspace on a disk that all machines share",
            )  # fmt: skip
        time.sleep(1)
    return read_split(run)


def _split(run: Run, config: Config, data: TrainingData) -> Split:
    # Several processes may train the folds: the first one that begins makes the split.
    if run.last.exists() or (config.data.folds > 1 and run.split.exists()):
        split = read_split(run)
        require_same_data(run, split, data)
        return split
    held = assign_folds(data, config.data, config.training.seed)
    return Split(data.labels, data.image_ids, held, data.table_sha256)


def _starting_detector(run: Run, config: Config, split: Split) -> nn.Module:
    """The network as training takes it: with its starting weights, unless a checkpoint will replace them."""
    detector = bare_detector(config, split)
    if not run.last.exists():
        if rank() == 0 and not run.config.exists():
            run.weights.unlink(missing_ok=True)  # of an attempt that did not begin
        random = weights.load_initial_weights(detector, config.model, run.weights, split.labels)
        if rank() == 0:
            log.info("run %s: starting from weights %r", run.title, config.model.weights)
            if random:
                log.info("%d tensors have no weights there and start at random", len(random))
            saved = weights.first_stage_labels(config.model)
            if saved:
                copied = [label for label in split.labels if label in saved]
                new = [label for label in split.labels if label not in saved]
                log.info(
                    "class rows copied by label: %s; at random: %s",
                    ", ".join(copied) or "none", ", ".join(new) or "none",
                )  # fmt: skip
    return detector
