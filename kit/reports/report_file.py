"""The content of report.json and comparison.json, key by key: the dataclasses that are written and read.

A score that cannot be computed (a class without truth, an interval over one patient) is NaN here and null there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kit.choosing.box_scale import BoxScale
from kit.choosing.ceiling import Ceiling
from kit.choosing.devices import Device
from kit.choosing.fusion_settings import FusionChoice
from kit.choosing.location_prior import Prior
from kit.choosing.places import ClassPlace
from kit.choosing.selection import SelectionRule
from kit.config import DecisionConfig, FusionConfig
from kit.core.errors import KitError
from kit.core.json_files import FloatOrNaN, fingerprint, read_json, read_record, record_content, write_json
from kit.metrics.bootstrap import Expected
from kit.metrics.error_analysis import ErrorAnalysis
from kit.runs.members import Member


@dataclass(frozen=True)
class Weights:
    """Which weights made the detections (best, ema, last, ensemble, adopted), and their SHA-256 by title."""

    kept: str
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class FoldTraining:
    """The mAP@0.5 in the training loop of one fold, measured on the held-out images; NaN if the history was lost.

    The epoch was chosen on these images: the range of the last ten epochs says how much of its score may be luck.
    """

    epoch: int  # the chosen one, counted from 1
    epochs: int
    chosen_map50: FloatOrNaN
    last_map50: FloatOrNaN
    last_ten_low: FloatOrNaN
    last_ten_high: FloatOrNaN
    last_ten_sd: FloatOrNaN


@dataclass(frozen=True)
class MadeFrom:
    """What a report is a function of, besides the training data, which may not change during a run."""

    detections_sha256: str
    mapping_sha256: str | None  # None without a mapping
    members: tuple[Member, ...]
    expected_ids: int
    fusion: FusionConfig
    decision: DecisionConfig
    image_scores: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by classifier
    groups_sha256: str | None = None  # of the text of groups.csv: it says whose images a resample draws together


@dataclass(frozen=True)
class ImageCounts:
    """How many images and boxes were trained on and scored."""

    folds: int
    training: int | None  # of the fold with the fewest; None if nothing was trained
    validation: int
    validation_single_box: int  # with exactly one true box
    boxes: int  # true boxes on the validation images
    test_patients_in_train_share: float | None  # of the test images, whose patient is in train/; None: not known


@dataclass(frozen=True)
class _Scores:
    map50: FloatOrNaN  # COCO's 101 points
    map50_area: FloatOrNaN  # area under the precision envelope
    map50_11: FloatOrNaN  # VOC's 11 points
    map50_95: FloatOrNaN  # mean over IoU .50, .55, ... .95
    images: int
    low: FloatOrNaN  # 95% interval of map50
    high: FloatOrNaN


@dataclass(frozen=True)
class ManyBoxScores(_Scores):
    """All candidates of all validation images: how good the detector is."""

    boxes: int


@dataclass(frozen=True)
class OneBoxScores(_Scores):
    """One box per image, on the submission's own path: the score to compare with the public one."""

    prior_map50: FloatOrNaN  # of the location prior alone
    fallbacks: int  # answers that came from the location prior


@dataclass(frozen=True)
class Difference:
    """A paired difference of two scores with its 95% interval."""

    difference: FloatOrNaN
    low: FloatOrNaN
    high: FloatOrNaN


@dataclass(frozen=True)
class RuleScore:
    """The one-box mAP of a rule with its 95% interval, and its differences from the rules that come after it."""

    map50: FloatOrNaN
    low: FloatOrNaN
    high: FloatOrNaN
    against: Mapping[str, Difference]


@dataclass(frozen=True)
class Reference:
    """The one-box mAP that a rule is measured by: the oracle's, a random candidate's, the location prior's."""

    map50: FloatOrNaN


@dataclass(frozen=True)
class Choice:
    """How the one box is chosen: every rule's score, the rule that is used, and what it learned."""

    chosen: str
    rules: Mapping[str, RuleScore]
    oracle: Reference
    random: Reference
    prior: Reference
    rule: SelectionRule  # fitted on all validation images; `predict` chooses with it
    knobs: DecisionConfig

    def __post_init__(self) -> None:
        if self.rule.name != self.chosen:
            raise ValueError(f"the rule is the one that is chosen ({self.chosen!r}), not {self.rule.name!r}")


@dataclass(frozen=True)
class ClassScores:
    """One class's average precision, with many boxes per image and with one, each with its 95% interval."""

    ap50: FloatOrNaN
    ap50_area: FloatOrNaN
    ap50_11: FloatOrNaN
    boxes: int
    detections: int
    low: FloatOrNaN
    high: FloatOrNaN
    one_box_ap50: FloatOrNaN
    one_box_low: FloatOrNaN
    one_box_high: FloatOrNaN


@dataclass(frozen=True)
class LossesByPath:
    """What was lost and why, with many boxes per image and with one."""

    many_box: ErrorAnalysis
    one_box: ErrorAnalysis


@dataclass(frozen=True)
class ThresholdPoint:
    """Both scores if only candidates of at least this score were kept."""

    threshold: float
    map50: FloatOrNaN
    one_box_map50: FloatOrNaN


@dataclass(frozen=True)
class Thresholds:
    """The lowest thresholds with the highest scores, the one that is applied, and the curve."""

    best: float
    one_box_best: float
    applied: float
    curve: tuple[ThresholdPoint, ...]


@dataclass(frozen=True)
class ClassifierScore:
    """How well a classifier tells which held-out images have a box of a label: the area under the ROC curve."""

    auc: FloatOrNaN
    low: FloatOrNaN  # 95% interval by patient
    high: FloatOrNaN
    images: int  # held out, with a score of this label
    positives: int  # of them, with a box of this label


@dataclass(frozen=True)
class Report:
    """The content of ``report.json``: every score of a run, and what `predict` answers the test images with."""

    run: str
    kit_version: str
    weights: Weights
    training: tuple[FoldTraining, ...]  # by fold; none if nothing was trained
    detections_sha256: str
    made_from: MadeFrom
    images: ImageCounts
    many_box: ManyBoxScores
    one_box: OneBoxScores
    expected_on_leaderboard: Expected
    decision: Choice
    per_class: Mapping[str, ClassScores]
    losses: LossesByPath
    threshold: Thresholds
    fusion: FusionConfig  # as it is used: a setting in place of auto
    members: tuple[Member, ...]
    prior: Prior  # fitted on all training images
    ceiling: Ceiling | None = None  # None in reports of earlier versions
    box_scale: BoxScale | None = None  # `predict` scales the boxes with it; None: they stay as they are
    # The usual places of the classes, fitted on all training images, if they are terms of p.
    places: Mapping[str, ClassPlace] = field(default_factory=dict)
    fusion_choice: FusionChoice | None = None  # None if neither the method nor the IoU was auto
    devices: Mapping[str, Device] = field(default_factory=dict)  # none in reports of earlier versions
    classifiers: Mapping[str, Mapping[str, ClassifierScore]] = field(default_factory=dict)  # by run, by label
    sha256: str = field(default="", compare=False)  # of all the rest; empty in reports of earlier versions


def write_report(path: Path, report: Report) -> None:
    """Write ``report.json`` with the fingerprint of its content: `predict` answers with the numbers in it."""
    content = record_content(report) | {"sha256": ""}
    write_json(path, content | {"sha256": fingerprint(content)})


def read_report(path: Path) -> Report:
    """A run's report. Raises KitError if it is missing, damaged, edited, or of another version of the kit."""
    do = f"`invoke evaluate --run {path.parent.name}` makes it anew"
    report = read_record(path, Report, do)
    found = fingerprint(read_json(path, do) | {"sha256": ""})
    if report.sha256 not in ("", found):
        raise KitError(f"{path} as it was written ({report.sha256[:12]}...)", f"{found[:12]}...", do)
    return report


@dataclass(frozen=True)
class Verdict(Difference):
    """A paired difference, first run minus second, and what it says of the first, as ``verdict`` words it."""

    verdict: str


@dataclass(frozen=True)
class ComparedScores(Verdict):
    """One score of both runs, the verdict on their difference, and the verdict by class."""

    map50: Mapping[str, FloatOrNaN]  # by run
    per_class: Mapping[str, Verdict]


@dataclass(frozen=True)
class ComparedImages:
    """How many images were compared, and how many each run held out."""

    many_box: int
    one_box: int
    patients: int
    held_out: Mapping[str, int]  # by run


@dataclass(frozen=True)
class Comparison:
    """The content of ``comparison.json``: two runs on the same held-out images, each through its own rule."""

    runs: tuple[str, str]
    rules: Mapping[str, str]  # the rule used, by run
    images: ComparedImages
    many_box: ComparedScores
    one_box: ComparedScores
