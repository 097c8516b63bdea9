"""The scores of a run, from its stored detections to ``report.json`` and the pages that show them.

No network runs here: thresholds, fusion and the one box per image are functions of a table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import kit
from kit import decision, evaluation, explore
from kit.config import DecisionConfig, load
from kit.data import MAPPING, TrainingData, asks_twice, has_test, load_training, patients
from kit.ensemble import held_out_detections, refresh
from kit.errors import KitError
from kit.files import read_json, sha256, write_json
from kit.inference import read_detections
from kit.members import fused, members
from kit.progress import Track, silent
from kit.runs import Run, Split, read_history, read_split, require_finished
from kit.schemas import ImageFacts, mapped_images

THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)  # those that the notebook tried, and none
_LATE_EPOCHS = 10
log = logging.getLogger("kit")


def evaluate(run: Run, track: Track = silent) -> dict[str, Any]:
    """Score the stored validation detections; writes ``report.json``, figures and ``report.html``."""
    refresh(run)
    finished = require_finished(run)
    config, split, of = load(run.config), read_split(run), members(run)
    data = load_training(run.workspace, config, track)
    require_same_data(run, split, data)
    stored = held_out_detections(run)
    candidates = fused(read_detections(stored), of, config.fusion)
    sizes = image_sizes(data.pixels.facts)
    truth = data.annotations[data.annotations["image_id"].isin(split.validation)].reset_index(drop=True)
    priors = out_of_fold_priors(data.annotations, split, sizes)
    histories = [read_history(fold) for fold in run.in_folds(len(finished.epoch))] if finished.epoch else []
    mapping = decision.pseudo_mapping(truth, repeats=asks_twice(run.workspace))
    many = evaluation.score(truth, candidates, split.validation)
    asked = decision.one_box_truth(truth, mapping)

    def answer(threshold: float, found: pd.DataFrame = candidates) -> decision.Decision:
        return _answers_by_fold(found, mapping, split, priors, sizes, threshold, config.decision)

    def one_box(answers: pd.DataFrame) -> evaluation.Scores:
        return evaluation.score(asked, decision.answers_to_detections(answers), set(mapping["image_id"]))

    curve = [
        {"threshold": threshold, "map50": many_map50, "one_box_map50": one_box(answer(threshold).table).map50}
        for threshold, many_map50 in evaluation.threshold_curve(truth, candidates, split.validation, THRESHOLDS)
    ]
    wanted = config.decision.threshold
    applied = wanted if wanted and _gains(asked, answer(0.0), answer(wanted), config.training.seed) else 0.0
    chosen = answer(applied)
    one = one_box(chosen.table)
    floor = one_box(answer(0.0, candidates.iloc[:0]).table)
    report = {
        "run": run.name,
        "kit_version": kit.__version__,
        "weights": {"kept": finished.kept, "sha256": dict(finished.weights)},
        "training": [in_loop(*fold) for fold in zip(histories, finished.epoch, strict=True)],
        "detections_sha256": sha256(stored),
        "images": {
            "folds": len(split.folds),
            "training": min(len(split.training(fold)) for fold in range(len(split.folds))) if histories else None,
            "validation": len(split.validation),
            "validation_single_box": int((truth.groupby("image_id").size() == 1).sum()),
            "boxes": len(truth),
            "test_patients_in_train_share": _shared_patients(run.workspace, split, config.data.patient_pattern),
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
        "decision": dataclasses.asdict(config.decision),
        "members": [dataclasses.asdict(member) for member in of],
        "prior": decision.fit_prior(data.annotations, sizes).to_dict(),
    }
    report = _without_nan(report)
    paths = {image_id: data.pixels.facts[image_id].path for image_id in split.validation}
    explore.run_report(report, truth, candidates, chosen.table, histories, paths, run.folder, config.training.seed)
    write_json(run.report, report)
    return report


def current_report(run: Run, track: Track = silent) -> dict[str, Any]:
    """The run's report, evaluated first where it is missing, broken, or older than detections or knobs."""
    refresh(run)
    config = load(run.config)
    expected = {
        "detections_sha256": sha256(held_out_detections(run)),
        "fusion": dataclasses.asdict(config.fusion),
        "decision": dataclasses.asdict(config.decision),
    }
    with contextlib.suppress(KitError):
        report = read_json(run.report, "")
        if isinstance(report, dict) and all(report.get(key) == value for key, value in expected.items()):
            return report
    log.info("run %s: evaluating first", run.name)
    return evaluate(run, track)


def image_sizes(facts: Mapping[str, ImageFacts]) -> dict[str, tuple[int, int]]:
    """Width and height in pixels by image_id."""
    return {image_id: (fact.width_px, fact.height_px) for image_id, fact in facts.items()}


def out_of_fold_priors(annotations: pd.DataFrame, split: Split, sizes: decision.Sizes) -> list[decision.Prior]:
    """By fold, the location prior of the images that the fold was trained on: never of those it answers for."""
    rows = [annotations["image_id"].isin(split.training(fold)) for fold in range(len(split.folds))]
    return [decision.fit_prior(annotations[learned], sizes) for learned in rows]


def in_loop(history: pd.DataFrame, epoch: int) -> dict[str, Any]:
    """A fold's epochs: the mAP@0.5 in the loop of the chosen and the last one, and the range of the last ten.

    None where the history was lost. All were measured on the held-out images, and the best was chosen on them.
    """
    scores = history.set_index("epoch")["map50"].astype(float)
    late = scores.iloc[-_LATE_EPOCHS:]
    return {
        "epoch": epoch,
        "epochs": len(scores),
        "chosen_map50": float(scores.get(epoch, math.nan)),
        "last_map50": float(scores.iloc[-1]) if len(scores) else math.nan,
        "last_ten_low": float(late.min()),
        "last_ten_high": float(late.max()),
        "last_ten_sd": float(late.std()),
    }


def require_same_data(run: Run, split: Split, data: TrainingData) -> None:
    """Raise KitError where train.csv or the images are not those that the run was started with."""
    changed = sorted(set(split.images) ^ set(data.image_ids))
    if split.table_sha256 != data.table_sha256 or changed:
        images = f", {len(changed)} images added or gone, such as {changed[0]}" if changed else ""
        raise KitError(
            f"the train.csv and images that run {run.name!r} was started with ({split.table_sha256[:12]}...)",
            f"train.csv {data.table_sha256[:12]}...{images}",
            "put the old files back, or train under another --run name",
        )


def _shared_patients(workspace: Path, split: Split, pattern: str) -> float | None:
    """Which share of the test images shows a patient who is also in ``train/``; None without a mapping."""
    if not has_test(workspace):
        return None
    tested = set(mapped_images(workspace / "data" / MAPPING))
    known = set(patients(split.images, pattern).values())
    return sum(patient in known for patient in patients(sorted(tested), pattern).values()) / max(1, len(tested))


def _answers_by_fold(
    candidates: pd.DataFrame,
    mapping: pd.DataFrame,
    split: Split,
    priors: Sequence[decision.Prior],
    sizes: decision.Sizes,
    threshold: float,
    config: DecisionConfig,
) -> decision.Decision:
    """Each held-out image's answers with the prior that never saw it; in the order of the mapping."""
    parts = [
        decision.decide(
            candidates, mapping[mapping["image_id"].isin(held)], prior, sizes, threshold, config.fallback_confidence
        )
        for held, prior in zip(split.folds, priors, strict=True)
    ]
    table = pd.concat([part.table for part in parts]).set_index("ID").loc[mapping["ID"]].reset_index()
    return decision.Decision(table, tuple(sorted(each for part in parts for each in part.fallback_ids)))


def _gains(truth: pd.DataFrame, before: decision.Decision, after: decision.Decision, seed: int) -> bool:
    """Whether the later answers are measurably better on the same images."""
    tables = [decision.answers_to_detections(answers.table) for answers in (before, after)]
    matched = [evaluation.match(truth, table, set(truth["image_id"])) for table in tables]
    return evaluation.gain_low(matched[0], matched[1], seed) > 0


def _aggregate(scores: evaluation.Scores) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(scores).items() if name != "per_class"}


def _best(curve: Sequence[dict[str, float]], name: str) -> float:
    """The lowest threshold with the highest score."""
    return max(curve, key=lambda point: (point[name], -point["threshold"]))["threshold"]


def _without_nan(value: Any) -> Any:
    """The same nested values with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
