"""The scores of a run, from its stored detections to ``report.json`` and the pages that show them.

No network runs here: thresholds, fusion and the one box per image are functions of a table.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

import kit
from kit.choosing import fusion_settings, location_prior
from kit.choosing.box_scale import fit_box_scale
from kit.choosing.ceiling import Ceiling, ceiling
from kit.choosing.one_box import Decision, answers_to_detections
from kit.choosing.places import fit_places
from kit.choosing.selection import fit_rules
from kit.config import Config, load
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.progress import Track, silent
from kit.core.text_files import text_sha256
from kit.data.competition import TrainingData, has_test, patients
from kit.data.groups import GROUPS, read_groups
from kit.data.patient_pattern import knows_patients
from kit.evaluation.classifiers import classifier_scores
from kit.evaluation.held_out import HeldOut, oracle_answers, random_choice_map50, rule_choice, score_held_out
from kit.metrics import average_precision, bootstrap
from kit.metrics.error_analysis import analyse_errors
from kit.reports.report_file import (
    Choice,
    ClassScores,
    Difference,
    FoldTraining,
    ImageCounts,
    LossesByPath,
    MadeFrom,
    ManyBoxScores,
    OneBoxScores,
    Reference,
    Report,
    RuleScore,
    ThresholdPoint,
    Thresholds,
    Weights,
    read_report,
    write_report,
)
from kit.reports.seen_images import require_unseen
from kit.runs.ensemble import refresh
from kit.runs.folder import Finished, Run, Split, read_history
from kit.runs.guards import require_detector
from kit.runs.knobs import adjust
from kit.runs.locks import using_results
from kit.runs.members import members, read_ensemble
from kit.runs.own_rows import held_out_detections
from kit.schemas.file_names import MAPPING
from kit.schemas.tables import mapped_images

THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)  # none, and those that the notebook tried
_LATE_EPOCHS = 10
log = logging.getLogger("kit")


def evaluate(run: Run, track: Track = silent, assignments: Sequence[str] = (), allow: Sequence[str] = ()) -> Report:
    """Score the stored validation detections; write ``report.json``, figures and ``report.html``.

    ``assignments`` (KEY=VALUE) change knobs that act on stored detections first. Raises KitError for other knobs,
    and for test or held-out images that an earlier stage of the weights saw unless ``allow`` names it.
    """
    require_detector(run)
    with using_results(run):
        adjust(run, assignments)
        refresh(run)
        require_unseen(run, allow, track)
        return _evaluated(run, track)


def current_report(run: Run, track: Track = silent, data: TrainingData | None = None) -> Report:
    """The run's report, evaluated first if it is missing, damaged, or older than its detections or knobs.

    The caller holds the run's lock (``using_results``). ``data`` are the training data if they are loaded already.
    """
    refresh(run)
    if run.report.exists():
        try:
            report = read_report(run.report)
        except KitError as error:  # of an earlier version of the kit, or damaged
            log.info("run %s: %s cannot be read and is made anew: %s", run.name, run.report.name, error.found)
        else:
            current = report.made_from == _made_from(run, load(run.config)) and report.run == run.name
            if current and report.sha256:  # without it, by an earlier version, whose numbers cannot be checked
                return report
    log.info("run %s: evaluating first", run.name)
    return _evaluated(run, track, data)


def _evaluated(run: Run, track: Track, data: TrainingData | None = None) -> Report:
    """Evaluate a run whose lock the caller holds (``using_results``)."""
    held, finished = score_held_out(run, track, data), require_detector(run)
    histories = [read_history(fold) for fold in run.in_folds(len(finished.epoch))] if finished.epoch else []
    ideal = oracle_answers(held)
    choice = _choice(held, ideal)
    judged = held.judged[choice.chosen]
    applied = _applied_threshold(held, choice.chosen)
    answers = held.answers(judged, applied)
    limit = ceiling(answers, ideal, held.one_box_truth, held.mapping["image_id"])
    report = _report(held, finished, histories, choice, answers, _thresholds(held, judged, applied), limit)
    images = {image_id: held.data.pixels.facts[image_id] for image_id in held.split.validation}
    from kit.reports.run_report import run_report  # it loads matplotlib

    seed = held.config.training.seed
    run_report(report, held.truth, held.candidates, answers.table, histories, images, run.folder, seed)
    write_report(run.report, report)
    return report


def _report(
    held: HeldOut,
    finished: Finished,
    histories: Sequence[pd.DataFrame],
    choice: Choice,
    answers: Decision,
    threshold: Thresholds,
    limit: Ceiling,
) -> Report:
    """All scores of the ``answers``, which come from the chosen rule above the applied threshold."""
    run, config, seed = held.run, held.config, held.config.training.seed
    truth, scored = held.truth, set(held.mapping["image_id"])
    many = average_precision.score_detections(truth, held.candidates, held.split.validation)
    one = _one_box(held, answers)
    one_matches = held.one_box(answers)
    many_interval = bootstrap.map_intervals(held.many_box(), held.patients, seed)
    one_interval = bootstrap.map_intervals(one_matches, held.patients, seed)
    return Report(
        run=run.name,
        kit_version=kit.__version__,
        weights=Weights(finished.kept, finished.weights),
        training=tuple(fold_training(*fold) for fold in zip(histories, finished.epoch, strict=True)),
        detections_sha256=sha256(held_out_detections(run)),
        made_from=_made_from(run, config),
        images=_image_counts(held, trained=bool(histories)),
        many_box=ManyBoxScores(*_aggregate(many, many_interval.overall), boxes=len(truth)),
        one_box=OneBoxScores(
            *_aggregate(one, one_interval.overall),
            prior_map50=choice.prior.map50,
            fallbacks=len(answers.fallback_ids),
        ),
        expected_on_leaderboard=bootstrap.expected_score(one_matches, _test_images(run.workspace, config), seed),
        decision=choice,
        per_class=_class_scores(many, many_interval, one_interval),
        losses=LossesByPath(
            analyse_errors(truth, held.candidates, held.split.validation),
            analyse_errors(held.one_box_truth, answers_to_detections(answers.table), scored),
        ),
        threshold=threshold,
        fusion=fusion_settings.applied(config.fusion, held.fusion.used) if held.fusion else config.fusion,
        members=members(run),
        prior=location_prior.fit_prior(held.data.annotations, held.sizes),
        ceiling=limit,
        devices=held.devices,
        fusion_choice=held.fusion,
        places=fit_places(held.data.annotations, held.sizes) if held.keeps("localisation") else {},
        box_scale=fit_box_scale(held.learned_from, held.truth) if held.keeps("box_scale") else None,
        classifiers=classifier_scores(held),
    )


def _made_from(run: Run, config: Config) -> MadeFrom:
    mapping, groups = (run.workspace / "data" / name for name in (MAPPING, GROUPS))
    return MadeFrom(
        detections_sha256=sha256(held_out_detections(run)),
        mapping_sha256=text_sha256(mapping) if has_test(run.workspace) else None,
        members=members(run),
        expected_ids=config.competition.expected_ids,
        fusion=config.fusion,
        decision=config.decision,
        image_scores=dict(read_ensemble(run).classifiers) if run.ensemble.exists() else {},
        groups_sha256=text_sha256(groups) if groups.exists() else None,
    )


def fold_training(history: pd.DataFrame, epoch: int) -> FoldTraining:
    """The mAP@0.5 in the loop of a fold's chosen and last epoch, and the range of the last ten.

    ``history`` has a row per epoch (``read_history``); without rows every score is NaN.
    """
    scores = history.set_index("epoch")["map50"].astype(float)
    last_ten = scores.iloc[-_LATE_EPOCHS:]
    return FoldTraining(
        epoch=epoch,
        epochs=len(scores),
        chosen_map50=float(scores.get(epoch, math.nan)),
        last_map50=float(scores.iloc[-1]) if len(scores) else math.nan,
        last_ten_low=float(last_ten.min()),
        last_ten_high=float(last_ten.max()),
        last_ten_sd=float(last_ten.std()),
    )


def _image_counts(held: HeldOut, trained: bool) -> ImageCounts:
    split, truth = held.split, held.truth
    return ImageCounts(
        folds=len(split.folds),
        training=min(len(split.training(fold)) for fold in range(len(split.folds))) if trained else None,
        validation=len(split.validation),
        validation_single_box=int((truth.groupby("image_id").size() == 1).sum()),
        boxes=len(truth),
        test_patients_in_train_share=_shared_patients(held.run.workspace, split, held.config.data.patient_pattern),
    )


def _choice(held: HeldOut, ideal: Decision) -> Choice:
    """Every rule's one-box mAP with its interval and its paired differences, and the rule to use.

    ``ideal`` has the oracle's answers.
    """
    seed = held.config.training.seed
    chosen, matched, differences = rule_choice(held)
    rules = {}
    for rule, matches in matched.items():
        overall = bootstrap.map_intervals(matches, held.patients, seed).overall
        against = {
            other: Difference(gap.overall.value, gap.overall.low, gap.overall.high)
            for (first, other), gap in differences.items()
            if first == rule
        }
        rules[rule] = RuleScore(overall.value, overall.low, overall.high, against)
    no_candidate = held.judged[chosen].iloc[:0]
    return Choice(
        chosen=chosen,
        rules=rules,
        oracle=Reference(_one_box(held, ideal).map50),
        random=Reference(random_choice_map50(held, chosen)),
        prior=Reference(_one_box(held, held.answers(no_candidate)).map50),
        rule=fit_rules(held.learned_from, held.one_box_truth, held.sizes, held.terms)[chosen],
        knobs=held.config.decision,
    )


def _applied_threshold(held: HeldOut, rule: str) -> float:
    """The threshold of the knobs if the interval of its paired gain lies above 0, else 0."""
    threshold = held.config.decision.threshold
    if not threshold:
        return 0.0
    before, after = (held.one_box(held.answers(held.judged[rule], lowest)) for lowest in (0.0, threshold))
    gain = bootstrap.paired_difference(after, before, held.patients, held.config.training.seed)
    return threshold if gain.overall.above_0 else 0.0


def _thresholds(held: HeldOut, judged: pd.DataFrame, applied: float) -> Thresholds:
    many_curve = average_precision.threshold_curve(held.truth, held.candidates, held.split.validation, THRESHOLDS)
    curve = tuple(
        ThresholdPoint(lowest, many_map50, _one_box(held, held.answers(judged, lowest)).map50)
        for lowest, many_map50 in many_curve
    )
    # The lowest threshold with the highest score.
    best = max(curve, key=lambda point: (point.map50, -point.threshold)).threshold
    one_box_best = max(curve, key=lambda point: (point.one_box_map50, -point.threshold)).threshold
    return Thresholds(best, one_box_best, applied, curve)


def _one_box(held: HeldOut, answers: Decision) -> average_precision.Scores:
    detections = answers_to_detections(answers.table)
    return average_precision.score_detections(held.one_box_truth, detections, set(held.mapping["image_id"]))


def _aggregate(
    scores: average_precision.Scores, interval: bootstrap.Interval
) -> tuple[float, float, float, float, int, float, float]:
    """The fields that the scores with many boxes and with one box share, in their order."""
    return (
        scores.map50, scores.map50_area, scores.map50_11, scores.map50_95,
        scores.images, interval.low, interval.high,
    )  # fmt: skip


def _class_scores(
    many: average_precision.Scores, many_interval: bootstrap.Intervals, one_interval: bootstrap.Intervals
) -> dict[str, ClassScores]:
    """By class with truth; NaN with one box per image if none of the images scored so shows the class."""
    unknown = bootstrap.Interval(math.nan, math.nan, math.nan)
    table = {}
    for label, score in many.per_class.items():
        ends, one_box = many_interval.per_class[label], one_interval.per_class.get(label, unknown)
        table[label] = ClassScores(
            **asdict(score),
            low=ends.low,
            high=ends.high,
            one_box_ap50=one_box.value,
            one_box_low=one_box.low,
            one_box_high=one_box.high,
        )
    return table


def _test_images(workspace: Path, config: Config) -> int:
    """How many different images the test has; as many as it has IDs if there is no mapping."""
    if not has_test(workspace):
        return config.competition.expected_ids
    return int(mapped_images(workspace / "data" / MAPPING).nunique())


def _shared_patients(workspace: Path, split: Split, pattern: str) -> float | None:
    """The share of the test images that show a patient who is also in ``train/``.

    None without a mapping, or if neither groups.csv nor the pattern knows the patients of both halves.
    """
    if not has_test(workspace):
        return None
    tested = set(mapped_images(workspace / "data" / MAPPING))
    groups = read_groups(workspace / "data")
    if not (knows_patients(split.images, pattern, groups) and knows_patients(tested, pattern, groups)):
        return None
    known = set(patients(split.images, pattern, groups).values())
    shown = patients(sorted(tested), pattern, groups).values()
    return sum(patient in known for patient in shown) / max(1, len(tested))
