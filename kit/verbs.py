"""What the tasks that need a network do: from a workspace and a run's name to files and a result.

Each may be called again after a kill and goes on; ``train`` in a second process of the same training only
trains, and leaves every file to the first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import nn

from kit import decision, explore, model
from kit.audit_report import audit_workspace, require_sound
from kit.config import DEFAULT_PRESET, Config, ModelConfig, differences, load, override, preset, save
from kit.data import (
    TestData,
    TrainingData,
    data_folder,
    has_test,
    load_test,
    load_training,
    patients,
    validation_split,
)
from kit.errors import KitError
from kit.files import make_folder, sha256
from kit.fusion import fuse
from kit.inference import Source, kept_weights, store_detections
from kit.progress import Track, silent
from kit.report import current_report, image_sizes, require_same_data
from kit.runs import Finished, Run, Split, mark_finished, read_finished, read_history, read_split, require_finished
from kit.schedule import accumulation
from kit.schemas import read_submission
from kit.submission import Origin, Submission, write_submission

log = logging.getLogger("kit")


@dataclass(frozen=True)
class Trained:
    """A finished run, and whether it had been finished before."""

    run: Run
    finished: Finished
    already: bool


def train(
    workspace: Path,
    name: str | None = None,
    preset_name: str | None = None,
    assignments: Sequence[str] = (),
    track: Track = silent,
    allow: Sequence[str] = (),
) -> Trained | None:
    """Start a run, go on with it, or find that it is finished; ends with its validation detections stored.

    The name defaults to the preset's. A run that exists keeps its knobs: others raise KitError, unless they
    only describe the machine; so do faults of the data, unless ``allow`` names their checks (kit.audit). None in
    the second and further processes of one training.
    """
    from kit import training  # imports Lightning: seconds that no other verb needs

    run = Run(workspace, name or preset_name or DEFAULT_PRESET)
    config = _config(run, preset_name, assignments)
    accumulation(config.training, training.devices(config) * config.trainer.nodes)  # refuses what does not divide
    if _rank() > 0:
        data, split = load_training(workspace, config), read_split(run)
        training.fit(run, config, split, data, _starting_detector(run, config, split))
        return None
    data_folder(workspace)
    with _held(run):
        if run.finished.exists() and run.detections("validation").exists():
            _save_changed(run, config)
            return Trained(run, read_finished(run), already=True)
        require_sound(audit_workspace(workspace, config, track), allow)
        data = load_training(workspace, config, track)
        if has_test(workspace):
            load_test(workspace, config, track)  # a fault there must show before hours of training, not after
        split = _split(run, config, data)
        detector = _starting_detector(run, config, split)
        split.save(run.split)  # from here on there is a run: whatever can be refused has been
        save(config, run.config)
        training.fit(run, config, split, data, detector)
        path, epoch, _ = kept_weights(run, config.training.keep)
        _detections(run, "validation", config, split, data, split.validation, track)
        epochs = len(read_history(run))
        return Trained(run, mark_finished(run, config.training.keep, epoch, epochs, path), already=False)


def predict(run: Run, message: str | None = None, track: Track = silent) -> Submission:
    """Detect on the test images, choose one box per ID, check and file the next numbered submission."""
    finished = require_finished(run)
    config, split = load(run.config), read_split(run)
    require_same_data(run, split, load_training(run.workspace, config, track))
    report = current_report(run, track)
    data = load_test(run.workspace, config, track)
    detections = _detections(run, "test", config, split, data, data.image_ids, track)
    candidates = fuse(detections, config.fusion, config.inference.views)
    answers = decision.decide(
        candidates,
        data.mapping,
        decision.Prior.from_dict(report["prior"]),
        image_sizes(data.pixels.facts),
        report["threshold"]["applied"],
        config.decision.fallback_confidence,
    )
    if answers.fallback_ids:
        log.info("%d of %d IDs got the location prior's box", len(answers.fallback_ids), len(answers.table))
    origin = Origin(
        message=message or f"run {run.name}",
        run=run.name,
        local_score=report["one_box"]["map50"],
        weights={run.name: finished.weights_sha256},
        config=config.as_dict(),
        git=_git_state(),
        fallbacks=len(answers.fallback_ids),
    )
    return write_submission(
        run.workspace / "submissions",
        decision.submission_text(answers.table),
        origin,
        check=lambda path: read_submission(path, data.mapping, split.labels, data.pixels.facts),
    )


def adjust(run: Run, assignments: Sequence[str]) -> None:
    """Change knobs of a run that act on its stored detections. Raises KitError for any other."""
    config = load(run.config)
    wanted = override(config, assignments)
    _refuse_changes(run, config, wanted)
    _save_changed(run, wanted)


def describe(workspace: Path, config: Config, track: Track = silent) -> explore.DatasetReport:
    """The dataset report in ``WORKSPACE/explore``."""
    training_data, test = load_training(workspace, config, track), load_test(workspace, config, track)
    everyone = [*training_data.image_ids, *test.image_ids]
    return explore.dataset_report(
        training_data.annotations,
        test.mapping,
        training_data.pixels.facts,
        {image_id: test.pixels.facts[image_id] for image_id in test.image_ids},
        patients(everyone, config.data.patient_pattern),
        workspace / "explore",
        config.training.seed,
        track,
    )


def _config(run: Run, preset_name: str | None, assignments: Sequence[str]) -> Config:
    stored = load(run.config) if run.config.exists() else None
    base = preset(preset_name or DEFAULT_PRESET) if stored is None or preset_name else stored
    wanted = override(base, assignments)
    if stored is None or _as_asked(stored.model, wanted.model) != wanted.model:
        wanted = dataclasses.replace(wanted, model=model.resolved(wanted.model))
    else:  # the file that it started from may be gone by now
        wanted = dataclasses.replace(wanted, model=stored.model)
    if stored is not None:
        _refuse_changes(run, stored, wanted)
    return wanted


def _save_changed(run: Run, config: Config) -> None:
    if config != load(run.config):
        save(config, run.config)


def _as_asked(stored: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """The stored knobs, with the norms left open where the command leaves them open."""
    norm = "auto" if wanted.norm == "auto" else stored.norm
    return dataclasses.replace(stored, norm=norm, norm_eps=min(wanted.norm_eps, stored.norm_eps))


def _refuse_changes(run: Run, stored: Config, wanted: Config) -> None:
    changed = differences(stored, wanted)
    if changed:
        listed = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
        raise KitError(
            f"the knobs that run {run.name!r} was started with", listed,
            f"`invoke train --run {run.name}` goes on with it as it is; another --run NAME starts anew",
        )  # fmt: skip


def _split(run: Run, config: Config, data: TrainingData) -> Split:
    if run.last.exists():
        split = read_split(run)
        require_same_data(run, split, data)
        return split
    held = validation_split(data.annotations, data.image_ids, config.data, config.training.seed)
    return Split(data.labels, data.image_ids, (held,), data.table_sha256)


def _starting_detector(run: Run, config: Config, split: Split) -> nn.Module:
    """The network as training takes it: with its starting weights, unless a checkpoint will replace them."""
    detector = _bare_detector(config, split)
    if not run.last.exists():
        random = model.load_initial_weights(detector, config.model)
        if _rank() == 0:
            log.info("run %s: starting from weights %r", run.name, config.model.weights)
            if random:
                log.info("%d tensors have no weights there and start at random", len(random))
    return detector


def _bare_detector(config: Config, split: Split) -> nn.Module:
    torch.manual_seed(config.training.seed)
    return model.build(config.model, len(split.labels))


def _detections(
    run: Run,
    part: str,
    config: Config,
    split: Split,
    data: TrainingData | TestData,
    image_ids: Sequence[str],
    track: Track,
) -> pd.DataFrame:
    path, _, weights = kept_weights(run, config.training.keep)
    source = Source(run.name, 0, sha256(path), split.labels, config.model.image_size_px, config.inference)

    def detector() -> nn.Module:
        network = _bare_detector(config, split)
        network.load_state_dict(weights)
        gpu = torch.cuda.is_available() and config.trainer.accelerator != "cpu"
        return network.to("cuda" if gpu else "cpu")

    return store_detections(run.detections(part), source, detector, data.pixels, image_ids, track)


@contextlib.contextmanager
def _held(run: Run) -> Iterator[None]:
    """Hold the run for this process; the system lets go of it when the process ends, however it ends."""
    make_folder(run.folder)
    holder = run.folder / ".holder"
    try:
        with FileLock(run.folder / ".lock", timeout=0):
            holder.write_text(str(os.getpid()), encoding="utf-8")
            yield
    except Timeout as error:
        raise KitError(
            f"run {run.name!r} to be free",
            f"process {holder.read_text(encoding='utf-8')} is training it",
            "wait for it, or choose another --run NAME",
        ) from error


def _rank() -> int:
    # Set by torchrun (RANK) and by Lightning's own launcher (LOCAL_RANK) in every process but the first.
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def _git_state() -> dict[str, Any]:
    """Commit of the kit's own checkout and whether it was clean; empty where it is none or git is missing."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return {}
