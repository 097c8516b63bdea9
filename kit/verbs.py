"""What the tasks that need a network do: from a workspace and a run's name to files and a result.

Each may be called again after a kill and goes on; ``train`` in a second process of the same training only
trains, and leaves every file to the first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
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

import kit
from kit import decision, evaluation, explore, model
from kit.config import DEFAULT_PRESET, Config, differences, load, override, preset, save
from kit.data import (
    TestData,
    TrainingData,
    asks_twice,
    has_test,
    load_test,
    load_training,
    patients,
    validation_split,
)
from kit.errors import KitError
from kit.files import read_json, sha256, write_json
from kit.fusion import fuse
from kit.inference import Source, kept_weights, read_detections, store_detections
from kit.progress import Track, silent
from kit.runs import Finished, Run, Split, mark_finished, read_finished, read_split, require_finished
from kit.schemas import read_submission
from kit.submission import Origin, Submission, write_submission

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(9))
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
) -> Trained | None:
    """Start a run, go on with it, or find that it is finished; ends with its validation detections stored.

    The name defaults to the preset's. A run that exists keeps its knobs: others raise KitError, unless they
    only describe the machine. None in the second and further processes of one training.
    """
    from kit import training  # imports Lightning: seconds that no other verb needs

    run = Run(workspace, name or preset_name or DEFAULT_PRESET)
    config = _config(run, preset_name, assignments)
    if _rank() > 0:
        data = load_training(workspace, config)
        training.fit(run, config, read_split(run), data, _bare_detector(config, read_split(run)))
        return None
    with _held(run):
        if run.finished.exists():
            return Trained(run, read_finished(run), already=True)
        data = load_training(workspace, config, track)
        if has_test(workspace):
            load_test(workspace, config, track)  # a fault there must show before hours of training, not after
        split = _split(run, config, data)
        save(config, run.config)
        training.fit(run, config, split, data, _bare_detector(config, split))
        path, epoch, _ = kept_weights(run, config.training.keep)
        _detections(run, "validation", config, split, data, split.validation, track)
        epochs = len(pd.read_csv(run.history))
        return Trained(run, mark_finished(run, config.training.keep, epoch, epochs, path), already=False)


def evaluate(run: Run, track: Track = silent) -> dict[str, Any]:
    """Score the stored validation detections; writes ``report.json``, figures and ``report.html``."""
    finished = require_finished(run)
    config, split = load(run.config), read_split(run)
    data = load_training(run.workspace, config, track)
    _same_table(run, split, data)
    stored = run.detections("validation")
    candidates = fuse(read_detections(stored), config.fusion, config.inference.views)
    held = set(split.validation)
    sizes = image_sizes(data.pixels.facts)
    truth = data.annotations[data.annotations["image_id"].isin(held)].reset_index(drop=True)
    prior = decision.fit_prior(data.annotations[~data.annotations["image_id"].isin(held)], sizes)
    mapping = decision.pseudo_mapping(truth, repeats=asks_twice(run.workspace))
    many = evaluation.score(truth, candidates, split.validation)
    asked = decision.one_box_truth(truth, mapping)

    def answer(threshold: float) -> decision.Decision:
        return decision.decide(candidates, mapping, prior, sizes, threshold, config.decision.fallback_confidence)

    def one_box(answers: pd.DataFrame) -> evaluation.Scores:
        return evaluation.score(asked, decision.answers_to_detections(answers), set(mapping["image_id"]))

    curve = [
        {"threshold": threshold, "map50": many_map50, "one_box_map50": one_box(answer(threshold).table).map50}
        for threshold, many_map50 in evaluation.threshold_curve(truth, candidates, split.validation, THRESHOLDS)
    ]
    wanted = config.decision.threshold
    applied = wanted if one_box(answer(wanted).table).map50 > curve[0]["one_box_map50"] else 0.0
    chosen = answer(applied)
    one = one_box(chosen.table)
    floor = one_box(decision.prior_answers(prior, mapping, sizes, config.decision.fallback_confidence))
    report = {
        "run": run.name,
        "kit_version": kit.__version__,
        "weights": {"kept": finished.kept, "epoch": finished.epoch, "sha256": finished.weights_sha256},
        "detections_sha256": sha256(stored),
        "images": {
            "training": len(data.image_ids) - len(split.validation),
            "validation": len(split.validation),
            "validation_single_box": int((truth.groupby("image_id").size() == 1).sum()),
            "boxes": len(truth),
        },
        "many_box": _aggregate(many) | {"boxes": len(truth)},
        "one_box": _aggregate(one) | {"prior_map50": floor.map50, "fallbacks": len(chosen.fallback_ids)},
        "per_class": {
            label: dataclasses.asdict(part)
            | {"one_box_ap50": one.per_class[label].ap50 if label in one.per_class else None}
            for label, part in many.per_class.items()
        },
        "threshold": {
            "best": _best(curve, "map50"),
            "one_box_best": _best(curve, "one_box_map50"),
            "applied": applied,
            "curve": curve,
        },
        "fusion": dataclasses.asdict(config.fusion),
        "views": list(config.inference.views),
        "prior": prior.to_dict(),
    }
    report = _without_nan(report)
    paths = {image_id: data.pixels.facts[image_id].path for image_id in split.validation}
    history = pd.read_csv(run.history)
    explore.run_report(report, truth, candidates, chosen.table, history, paths, run.folder, config.training.seed)
    write_json(run.report, report)
    return report


def predict(run: Run, message: str | None = None, track: Track = silent) -> Submission:
    """Detect on the test images, choose one box per ID, check and file the next numbered submission."""
    finished = require_finished(run)
    config, split = load(run.config), read_split(run)
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


def current_report(run: Run, track: Track = silent) -> dict[str, Any]:
    """The run's report, evaluated first where it is missing or older than the stored detections."""
    if run.report.exists():
        report = read_json(run.report, f"`invoke evaluate --run {run.name}` makes it anew")
        if isinstance(report, dict) and report.get("detections_sha256") == sha256(run.detections("validation")):
            return report
    log.info("run %s: evaluating first", run.name)
    return evaluate(run, track)


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


def image_sizes(facts: Any) -> dict[str, tuple[int, int]]:
    """Width and height in pixels by image_id."""
    return {image_id: (fact.width_px, fact.height_px) for image_id, fact in facts.items()}


def _config(run: Run, preset_name: str | None, assignments: Sequence[str]) -> Config:
    stored = load(run.config) if run.config.exists() else None
    base = preset(preset_name or DEFAULT_PRESET) if stored is None or preset_name else stored
    wanted = override(base, assignments)
    wanted = dataclasses.replace(wanted, model=model.resolved(wanted.model))
    changed = {} if stored is None else differences(stored, wanted)
    if changed:
        listed = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
        raise KitError(
            f"the knobs that run {run.name!r} was started with", listed,
            f"`invoke train --run {run.name}` goes on with it as it is; another --run NAME starts anew",
        )  # fmt: skip
    return wanted


def _split(run: Run, config: Config, data: TrainingData) -> Split:
    if run.split.exists():
        split = read_split(run)
        _same_table(run, split, data)
        return split
    held = validation_split(data.annotations, data.image_ids, config.data, config.training.seed)
    split = Split(data.labels, held, data.table_sha256)
    split.save(run.split)
    return split


def _same_table(run: Run, split: Split, data: TrainingData) -> None:
    if split.table_sha256 != data.table_sha256:
        raise KitError(
            f"the train.csv that run {run.name!r} was started with (SHA-256 {split.table_sha256[:12]}...)",
            f"another one ({data.table_sha256[:12]}...)",
            "put the old file back, or train under another --run name",
        )


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
    run.folder.mkdir(parents=True, exist_ok=True)
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


def _aggregate(scores: evaluation.Scores) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(scores).items() if name != "per_class"}


def _best(curve: Sequence[dict[str, float]], name: str) -> float:
    """The lowest threshold with the highest score."""
    return max(curve, key=lambda point: (point[name], -point["threshold"]))["threshold"]


def _without_nan(value: Any) -> Any:
    """The same nested values with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
