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
from kit.choosing import location_prior
from kit.choosing.one_box import Decision, answers_to_detections
from kit.choosing.selection import SelectionRule, choose_rule, fit_rules
from kit.config import RULE_NAMES, Config, load
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.json_files import read_json, without_nan, write_json
from kit.core.progress import Track, silent
from kit.data.competition import has_test, patients
from kit.evaluation.held_out import HeldOut, oracle_map50, random_choice_map50, score_held_out
from kit.metrics import average_precision, bootstrap
from kit.metrics.error_analysis import analyse_errors
from kit.reports import run_report
from kit.runs.detections import held_out_detections
from kit.runs.ensemble import refresh
from kit.runs.folder import Run, Split, read_history, require_finished
from kit.runs.locks import using_results
from kit.runs.members import members
from kit.schemas.file_names import MAPPING
from kit.schemas.tables import mapped_images

THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)  # those that the notebook tried, and none
_LATE_EPOCHS = 10
log = logging.getLogger("kit")


def evaluate(run: Run, track: Track = silent) -> dict[str, Any]:
    """Score the stored validation detections; writes ``report.json``, figures and ``report.html``."""
    require_finished(run)
    with using_results(run):
        return _evaluated(run, track)


def current_report(run: Run, track: Track = silent) -> dict[str, Any]:
    """The run's report, evaluated first where it is missing, broken, or older than detections or knobs."""
    refresh(run)
    expected = _made_from(run, load(run.config))
    # A report of another shape, such as one of an earlier version, is an old one.
    with contextlib.suppress(KitError, AttributeError, KeyError, TypeError, ValueError):
        report = read_json(run.report, "")
        if report["made_from"] == expected and _is_usable(report):
            return report
    log.info("run %s: evaluating first", run.name)
    return _evaluated(run, track)


def _evaluated(run: Run, track: Track) -> dict[str, Any]:
    """The same for a caller that holds the run (``using_results``)."""
    held = score_held_out(run, track)
    finished, of = require_finished(run), members(run)
    config, split, truth, seed = held.config, held.split, held.truth, held.config.training.seed
    histories = [read_history(fold) for fold in run.in_folds(len(finished.epoch))] if finished.epoch else []
    rules, chosen = _rules(held)
    judged = held.judged[chosen]

    def one_box(answers: Decision) -> average_precision.Scores:
        found = answers_to_detections(answers.table)
        return average_precision.score_detections(held.one_box_truth, found, set(held.mapping["image_id"]))

    many_curve = average_precision.threshold_curve(truth, held.candidates, split.validation, THRESHOLDS)
    curve = [
        {"threshold": at, "map50": many_map50, "one_box_map50": one_box(held.answers(judged, at)).map50}
        for at, many_map50 in many_curve
    ]
    applied = _applied_threshold(held, chosen)
    answers = held.answers(judged, applied)
    one, many = one_box(answers), average_precision.score_detections(truth, held.candidates, split.validation)
    floor = one_box(held.answers(judged.iloc[:0]))
    one_matches, many_matches = held.one_box(answers), held.many_box()
    one_interval = bootstrap.map_intervals(one_matches, held.patients, seed)
    many_interval = bootstrap.map_intervals(many_matches, held.patients, seed)
    expected = bootstrap.expected_score(one_matches, _test_images(run.workspace, config), seed)
    detections = answers_to_detections(answers.table)
    report = {
        "run": run.name,
        "kit_version": kit.__version__,
        "weights": {"kept": finished.kept, "sha256": dict(finished.weights)},
        "training": [in_loop(*fold) for fold in zip(histories, finished.epoch, strict=True)],
        "detections_sha256": sha256(held_out_detections(run)),
        "made_from": _made_from(run, config),
        "images": {
            "folds": len(split.folds),
            "training": min(len(split.training(fold)) for fold in range(len(split.folds))) if histories else None,
            "validation": len(split.validation),
            "validation_single_box": int((truth.groupby("image_id").size() == 1).sum()),
            "boxes": len(truth),
            "test_patients_in_train_share": _shared_patients(run.workspace, split, config.data.patient_pattern),
        },
        "many_box": _aggregate(many) | _ends(many_interval.overall) | {"boxes": len(truth)},
        "one_box": _aggregate(one)
        | _ends(one_interval.overall)
        | {"prior_map50": floor.map50, "fallbacks": len(answers.fallback_ids)},
        "expected_on_leaderboard": dataclasses.asdict(expected),
        "decision": {
            "chosen": chosen,
            "rules": rules,
            "oracle": {"map50": oracle_map50(held)},
            "random": {"map50": random_choice_map50(held, chosen)},
            "prior": {"map50": floor.map50},
            "rule": fit_rules(held.candidates, held.one_box_truth, held.sizes)[chosen].to_dict(),
            "knobs": dataclasses.asdict(config.decision),
        },
        "per_class": {
            label: dataclasses.asdict(part)
            | _ends(many_interval.per_class[label])
            | _one_box_class(one, one_interval, label)
            for label, part in many.per_class.items()
        },
        "losses": {
            "many_box": dataclasses.asdict(analyse_errors(truth, held.candidates, split.validation)),
            "one_box": dataclasses.asdict(
                analyse_errors(held.one_box_truth, detections, set(held.mapping["image_id"]))
            ),
        },
        "threshold": {
            "best": _best(curve, "map50"),
            "one_box_best": _best(curve, "one_box_map50"),
            "applied": applied,
            "curve": curve,
        },
        "fusion": dataclasses.asdict(config.fusion),
        "members": [dataclasses.asdict(member) for member in of],
        "prior": location_prior.fit_prior(held.data.annotations, held.sizes).to_dict(),
    }
    report = without_nan(report)
    paths = {image_id: held.data.pixels.facts[image_id].path for image_id in split.validation}
    run_report.run_report(report, truth, held.candidates, answers.table, histories, paths, run.folder, seed)
    write_json(run.report, report)
    return report


def _made_from(run: Run, config: Config) -> dict[str, Any]:
    """What a report is a function of, besides the training data, which may not change."""
    mapping = run.workspace / "data" / MAPPING
    return {
        "detections_sha256": sha256(held_out_detections(run)),
        "mapping_sha256": sha256(mapping) if has_test(run.workspace) else None,
        "members": [{**dataclasses.asdict(each), "views": list(each.views)} for each in members(run)],
        "expected_ids": config.competition.expected_ids,
        "fusion": dataclasses.asdict(config.fusion),
        "decision": dataclasses.asdict(config.decision),
    }


def _is_usable(report: Mapping[str, Any]) -> bool:
    """Whether ``predict`` finds what it wants; what is missing raises KeyError and the like."""
    SelectionRule.from_dict(report["decision"]["rule"])
    location_prior.Prior.from_dict(report["prior"])
    found = [report["one_box"][name] for name in ("map50", "low", "high")]
    found += [report["expected_on_leaderboard"][name] for name in ("mean", "low", "high")]
    return all(isinstance(one, (float, type(None))) for one in [*found, report["threshold"]["applied"]])


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


def _rules(held: HeldOut) -> tuple[dict[str, Any], str]:
    """Every rule's one-box mAP with its interval and its paired differences, and the rule to use."""
    seed, wanted = held.config.training.seed, held.config.decision.rule
    matched = {rule: held.one_box(held.answers(held.judged[rule])) for rule in RULE_NAMES}
    best, differences = choose_rule(matched, held.patients, seed)
    table: dict[str, Any] = {}
    for rule, matches in matched.items():
        overall = bootstrap.map_intervals(matches, held.patients, seed).overall
        against = {
            other: {"difference": found.overall.value} | _ends(found.overall)
            for (one, other), found in differences.items()
            if one == rule
        }
        table[rule] = {"map50": overall.value} | _ends(overall) | {"against": against}
    return table, best if wanted == "auto" else wanted


def _applied_threshold(held: HeldOut, rule: str) -> float:
    """The threshold of the knobs where the interval of its paired gain lies above 0, else 0."""
    wanted = held.config.decision.threshold
    if not wanted:
        return 0.0
    before, after = (held.one_box(held.answers(held.judged[rule], at)) for at in (0.0, wanted))
    gain = bootstrap.paired_difference(after, before, held.patients, held.config.training.seed)
    return wanted if gain.overall.low > 0 else 0.0


def _test_images(workspace: Path, config: Config) -> int:
    """How many different images the test asks for; as many as it has IDs where there is no mapping."""
    if not has_test(workspace):
        return config.competition.expected_ids
    return int(mapped_images(workspace / "data" / MAPPING).nunique())


def _shared_patients(workspace: Path, split: Split, pattern: str) -> float | None:
    """Which share of the test images shows a patient who is also in ``train/``; None without a mapping."""
    if not has_test(workspace):
        return None
    tested = set(mapped_images(workspace / "data" / MAPPING))
    known = set(patients(split.images, pattern).values())
    return sum(patient in known for patient in patients(sorted(tested), pattern).values()) / max(1, len(tested))


def _ends(interval: bootstrap.Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high}


def _one_box_class(
    one: average_precision.Scores, interval: bootstrap.Intervals, label: str
) -> dict[str, float | None]:
    if label not in one.per_class:
        return {"one_box_ap50": None, "one_box_low": None, "one_box_high": None}
    ends = interval.per_class[label]
    return {"one_box_ap50": one.per_class[label].ap50, "one_box_low": ends.low, "one_box_high": ends.high}


def _aggregate(scores: average_precision.Scores) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(scores).items() if name != "per_class"}


def _best(curve: Sequence[dict[str, float]], name: str) -> float:
    """The lowest threshold with the highest score."""
    return max(curve, key=lambda point: (point[name], -point["threshold"]))["threshold"]
