"""A run's held-out images on the scored path: candidates, how each rule judges them, and the answers given.

Everything that a report shows and a comparison compares is made here, from stored detections alone.
"""

from __future__ import annotations

import collections
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from kit.boxes.geometry import Sizes
from kit.choosing import location_prior, one_box
from kit.choosing.box_scale import scaled_out_of_fold
from kit.choosing.devices import Device, setting_device, weigh_terms
from kit.choosing.fusion_settings import (
    FusionChoice,
    Setting,
    applied,
    settings_to_try,
    usual_setting,
    weigh_settings,
)
from kit.choosing.image_evidence import DEVICE, evidence_columns, with_image_evidence
from kit.choosing.one_box import Decision, answers_to_detections, decide, validation_mapping
from kit.choosing.places import PLACE_COLUMNS, Places, fit_places, with_places_out_of_fold
from kit.choosing.selection import SCORE, choose_rule, judge_out_of_fold, oracle, patient_groups, shuffled
from kit.config import RULE_NAMES, Config, FusionConfig, load
from kit.core.errors import first_few
from kit.core.progress import Track, silent
from kit.data.competition import TrainingData, asks_twice, load_training, patients
from kit.data.splits import split_groups
from kit.metrics import average_precision
from kit.metrics.bootstrap import Intervals
from kit.runs.ensemble import refresh
from kit.runs.folder import Run, Split, read_split
from kit.runs.guards import require_detector, require_same_data
from kit.runs.image_scores import held_out_scores
from kit.runs.members import fusing_members, members
from kit.runs.own_rows import read_held_out
from kit.schemas.detections import with_categories
from kit.schemas.image_headers import image_sizes

RANDOM_CHOICES = 20
# Of each image, by falling score: enough to tell the settings of the fusion apart. What is reported has them all.
MOST_CANDIDATES = 50
log = logging.getLogger("kit")


@dataclass(frozen=True)
class HeldOut:
    """What a run's scores are made of; ``one_box_truth``: true boxes of the images scored with one box each."""

    run: Run
    config: Config
    split: Split
    data: TrainingData
    truth: pd.DataFrame
    candidates: pd.DataFrame
    learned_from: pd.DataFrame  # candidates of all images as new images have them: the rule for those learns here
    mapping: pd.DataFrame
    one_box_truth: pd.DataFrame
    judged: Mapping[str, pd.DataFrame]  # by rule, each image by a rule that never saw it
    priors: Sequence[location_prior.Prior]  # by fold, likewise
    sizes: Sizes
    patients: Mapping[str, str]
    groups: Mapping[str, int]  # by image, the group that is judged by what was learned on the others
    terms: tuple[str, ...] = ()  # columns of the candidates that are further terms of p
    fusion: FusionChoice | None = None  # None: nothing was to be chosen
    devices: Mapping[str, Device] = field(default_factory=dict)  # that were tried; ``judged`` has those kept

    def answers(self, judged: pd.DataFrame, threshold: float = 0.0) -> Decision:
        """One box per ID of ``mapping``; candidates under ``threshold`` are left out; no prior saw its image."""
        kept = judged[judged["score"] >= threshold] if threshold > 0 else judged
        prior_of = {
            image_id: prior for held, prior in zip(self.split.folds, self.priors, strict=True) for image_id in held
        }
        return decide(kept, self.mapping, prior_of, self.sizes, self.config.decision.fallback_confidence)

    def keeps(self, device: str) -> bool:
        """Whether a device was tried and is used."""
        return device in self.devices and self.devices[device].kept

    def many_box(self) -> average_precision.Matches:
        """All candidates of all held-out images, matched."""
        return average_precision.match(self.truth, self.candidates, self.split.validation)

    def one_box(self, answers: Decision) -> average_precision.Matches:
        """The answers, matched with ``one_box_truth``."""
        detections = answers_to_detections(answers.table)
        return average_precision.match(self.one_box_truth, detections, set(self.mapping["image_id"]))


def score_held_out(
    run: Run, track: Track = silent, data: TrainingData | None = None, fusion: FusionChoice | None = None
) -> HeldOut:
    """Put a finished run's stored detections on the scored path. Raises KitError if they or the data changed.

    Rules are cross-fitted by fold; with a single fold, by groups of patients inside the held-out images.
    ``data`` are the training data if they are loaded already; else they are read. ``fusion`` is what the run's
    report has chosen, if it is known already; else what is ``auto`` is chosen here.
    """
    refresh(run)
    require_detector(run)
    config, split = load(run.config), read_split(run)
    data = data or load_training(run.workspace, config, track)
    require_same_data(run, split, data)
    scores = held_out_scores(run)
    fuse = fusing_members(with_categories(read_held_out(run, split)), members(run))
    truth = data.annotations[data.annotations["image_id"].isin(split.validation)].reset_index(drop=True)
    mapping = validation_mapping(truth, repeats=asks_twice(run.workspace))
    one_box_truth = one_box.one_box_truth(truth, mapping)
    _warn_of_split_patients(run, split, data, config)
    patient_of = patients(split.validation, config.data.patient_pattern, data.groups)
    groups = split.fold_of
    if len(split.folds) == 1:
        together = split_groups(data, split.validation, config.data)
        groups = patient_groups(one_box_truth, split.validation, together, config.training.seed)
    sizes = image_sizes(data.pixels.facts)
    further: dict[str, Sequence[str]] = {DEVICE: evidence_columns(scores)}
    places: list[Places] = []
    if config.decision.localisation == "auto":
        places = [fit_places(learned, sizes) for learned in _learned_by_fold(data.annotations, split)]
        further["localisation"] = PLACE_COLUMNS

    def made(fusion: FusionConfig, most: int | None = None) -> pd.DataFrame:
        table = with_image_evidence(fuse(fusion), scores)
        if most:
            table = table.groupby("image_id", observed=True).head(most).reset_index(drop=True)
        return with_places_out_of_fold(table, places, split.fold_of, sizes) if places else table

    candidates = made(config.fusion.usual)
    priors = out_of_fold_priors(data.annotations, split, sizes)
    bare = HeldOut(
        run, config, split, data, truth, candidates, candidates, mapping, one_box_truth, {}, priors, sizes,
        patient_of, groups,
    )  # fmt: skip
    held = _judged(bare, further)
    if config.fusion.is_open:
        held = _with_fusion(held, made, fusion)
    return _with_box_scale(held) if config.decision.box_scale == "auto" else held


def _warn_of_split_patients(run: Run, split: Split, data: TrainingData, config: Config) -> None:
    """Log which patients are on two sides: groups.csv came later, or the folds of a file are not by patient."""
    sides = collections.defaultdict(set)
    for image_id, patient in patients(data.image_ids, config.data.patient_pattern, data.groups).items():
        sides[patient].add(split.fold_of.get(image_id))  # None: it was trained on
    apart = sorted(patient for patient, found in sides.items() if len(found) > 1)
    if apart:
        log.warning(
            "run %s: %d patient%s (%s) in several folds, or both held out and trained on: the run scores better "
            "here than on others. Its folds stay as they were made, or adopted; new ones need another --run NAME",
            run.name, len(apart), " is" if len(apart) == 1 else "s are", first_few(apart),
        )  # fmt: skip


def rule_choice(
    held: HeldOut,
) -> tuple[str, dict[str, average_precision.Matches], dict[tuple[str, str], Intervals]]:
    """The rule to use, each rule's matched answers, and the paired differences of the rules."""
    matched = {rule: held.one_box(held.answers(held.judged[rule])) for rule in RULE_NAMES}
    best, differences = choose_rule(matched, held.patients, held.config.training.seed)
    named = held.config.decision.rule
    return best if named == "auto" else named, matched, differences


def oracle_answers(held: HeldOut) -> Decision:
    """The answers of the oracle, which chooses and ranks with the truth known."""
    return held.answers(oracle(held.judged["score"], held.one_box_truth))


def random_choice_map50(held: HeldOut, rule: str) -> float:
    """The one-box mAP of a random candidate with its confidence by ``rule``, the mean of several choices."""
    rng = np.random.default_rng(held.config.training.seed)
    drawn = [_map50(held, shuffled(held.judged[rule], rng)) for _ in range(RANDOM_CHOICES)]
    return float(np.mean(drawn))


def out_of_fold_priors(annotations: pd.DataFrame, split: Split, sizes: Sizes) -> list[location_prior.Prior]:
    """By fold, the location prior of the images that the fold was trained on, never of those it held out."""
    return [location_prior.fit_prior(learned, sizes) for learned in _learned_by_fold(annotations, split)]


def _learned_by_fold(annotations: pd.DataFrame, split: Split) -> list[pd.DataFrame]:
    """By fold, the annotations of the images that it was trained on."""
    return [annotations[annotations["image_id"].isin(split.training(fold))] for fold in range(len(split.folds))]


def _judged(bare: HeldOut, further: Mapping[str, Sequence[str]]) -> HeldOut:
    """The candidates judged, with those ``further`` terms, by device, that are not measurably worse than none."""

    @functools.cache
    def judged(columns: tuple[str, ...]) -> HeldOut:
        tables = judge_out_of_fold(bare.candidates, bare.one_box_truth, bare.sizes, bare.groups, columns)
        return replace(bare, judged=tables, terms=columns)

    def answered(columns: tuple[str, ...]) -> average_precision.Matches:
        rule, matched, _ = rule_choice(judged(columns))
        return matched[rule]

    columns, devices = weigh_terms(further, answered, bare.patients, bare.config.training.seed)
    return replace(judged(columns), devices=devices)


def _with_fusion(held: HeldOut, made: Callable[..., pd.DataFrame], choice: FusionChoice | None) -> HeldOut:
    """The candidates by the setting of each group, if the answers of the rule to use are measurably better so."""
    config, numbers = held.config.fusion, sorted(set(held.groups.values()))
    rule = rule_choice(held)[0]

    def judged(candidates: pd.DataFrame | Mapping[int, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        return judge_out_of_fold(candidates, held.one_box_truth, held.sizes, held.groups, held.terms)

    def answered(setting: Setting) -> average_precision.Matches:
        best = made(applied(config, setting), MOST_CANDIDATES)
        of_rule = SCORE.judge(best, held.sizes) if rule == SCORE.name else judged(best)[rule]
        return held.one_box(held.answers(of_rule))

    @functools.lru_cache(maxsize=2)  # the best by group and the usual one
    def with_settings(settings: tuple[Setting, ...]) -> HeldOut:
        if set(settings) == {usual_setting(config)}:
            return held
        tables = {setting: made(applied(config, setting)) for setting in dict.fromkeys(settings)}
        by_rule = judged({number: tables[setting] for number, setting in zip(numbers, settings, strict=True)})
        return replace(held, judged=by_rule, candidates=by_rule[rule].drop(columns=["confidence", "value"]))

    def answered_by_group(settings: tuple[Setting, ...]) -> average_precision.Matches:
        chosen = with_settings(settings)
        return chosen.one_box(chosen.answers(chosen.judged[rule]))

    devices = dict(held.devices)
    if choice is None:
        weighted = len({member.weight for member in members(held.run)}) > 1
        choice, devices["fusion"] = weigh_settings(
            settings_to_try(config, weighted), answered, answered_by_group, held.groups, held.patients,
            held.config.training.seed,
        )  # fmt: skip
    return replace(
        with_settings(choice.by_group), learned_from=made(applied(config, choice.used)), fusion=choice,
        devices=devices,
    )  # fmt: skip


def _with_box_scale(held: HeldOut) -> HeldOut:
    """The boxes by the factors of their classes, if the answers of the rule to use are measurably better so."""
    rule, matched, _ = rule_choice(held)
    judged = scaled_out_of_fold(held.judged, held.candidates, held.truth, held.sizes, held.groups)
    scaled = replace(held, judged=judged)
    after = scaled.one_box(scaled.answers(judged[rule]))
    device = setting_device(after, matched[rule], held.patients, held.config.training.seed)
    return replace(scaled if device.kept else held, devices={**held.devices, "box_scale": device})


def _map50(held: HeldOut, judged: pd.DataFrame) -> float:
    return average_precision.mean_average_precision(held.one_box(held.answers(judged)))
