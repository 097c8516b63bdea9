"""Whose detections a run's tables hold: its own, those of several runs (an ensemble), or a file's (adopted).

An ensemble may have classifiers too, whose scores of whole images are evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from kit.boxes.fusion import fusing
from kit.config import AUTO, FusionConfig, load
from kit.core.errors import KitError, first_few
from kit.core.json_files import read_record
from kit.detectors.weights_source import ADOPTED, WeightsSource
from kit.runs.folder import Run, read_split, read_stages
from kit.runs.stages import Stage


@dataclass(frozen=True)
class Member:
    """A run whose detections are fused: its views, its weight, the number of folds that detect on test images."""

    run: str
    views: tuple[str, ...]
    weight: float = 1.0
    folds: int = 1

    def __post_init__(self) -> None:
        if not self.views or not self.weight > 0 or self.folds < 1:
            raise ValueError(f"a member has a view, a weight above 0 and a fold, not {self}")


@dataclass(frozen=True)
class Ensemble:
    """The content of ``ensemble.json``: the members, and the SHA-256 of their weights and detections."""

    members: tuple[Member, ...]
    weights: Mapping[str, str]
    detections: Mapping[str, str]
    classifiers: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of their image scores, by run

    def __post_init__(self) -> None:
        least = least_members(self.classifiers)
        if len(self.members) < least:
            raise ValueError(f"an ensemble has at least {least} members, not {len(self.members)}")


@dataclass(frozen=True)
class Adopted:
    """The content of ``adopted.json``: the file that detections or image scores came from, its views and folds."""

    file: str
    sha256: str
    views: tuple[str, ...]  # none of image scores
    folds: int  # that detected on the test images, or scored them
    scores: str = ""  # what image scores were read as: probabilities or logits

    def __post_init__(self) -> None:
        if bool(self.views) == bool(self.scores) or self.folds < 1:
            raise ValueError(f"adopted detections have a view, image scores have none, and both a fold, not {self}")


def members(run: Run) -> tuple[Member, ...]:
    """The run itself, or the members of an ensemble: the sources of its stored detections."""
    if run.ensemble.exists():
        return read_ensemble(run).members
    if run.adopted.exists():
        adopted = read_adopted(run)
        return (Member(run.name, adopted.views, folds=adopted.folds),)
    return (Member(run.name, load(run.config).inference.views, folds=len(read_split(run).folds)),)


def stages_of(run: Run) -> dict[str, tuple[Stage, ...]]:
    """By title, the stages that led to the weights of a run, or of an ensemble's members; none if not recorded.

    Adopted detections are a stage of which only their file is known.
    """
    if run.ensemble.exists():
        of = (stages_of(Run(run.workspace, member.run)) for member in read_ensemble(run).members)
        return {title: stages for stages_by_title in of for title, stages in stages_by_title.items()}
    if run.adopted.exists():
        adopted = read_adopted(run)
        return {run.name: (Stage(run.name, start=WeightsSource(ADOPTED, adopted.file, sha256=adopted.sha256)),)}
    known = ((fold, read_stages(fold)) for fold in run.in_folds(len(read_split(run).folds)))
    return {fold.title: stages.stages if stages else () for fold, stages in known}


def least_members(classifiers: Collection[str]) -> int:
    """How many runs with detections an ensemble has at least: beside a classifier one is enough."""
    return 1 if classifiers else 2


def read_ensemble(run: Run) -> Ensemble:
    """The content of a run's ``ensemble.json``."""
    return read_record(run.ensemble, Ensemble, "restore it, or make the ensemble anew under another --run NAME")


def read_adopted(run: Run) -> Adopted:
    """The content of a run's ``adopted.json``."""
    return read_record(run.adopted, Adopted, "restore it, or adopt the file again under another --run NAME")


def fused(detections: pd.DataFrame, of: Sequence[Member], config: FusionConfig) -> pd.DataFrame:
    """Candidates from one fold of each member; every view of every member counts, also if it found nothing."""
    return fusing_members(detections, of)(config)


def fusing_members(detections: pd.DataFrame, of: Sequence[Member]) -> Callable[[FusionConfig], pd.DataFrame]:
    """``fused`` for one configuration after the other; neighbours that share their clusters share the work."""
    sources = [(member.run, view) for member in of for view in member.views]
    pairs = detections[["run", "view"]].drop_duplicates()
    strangers = set(pairs.itertuples(index=False, name=None)) - set(sources)
    if strangers:
        raise KitError(
            f"detections of {', '.join(' '.join(source) for source in sources)}",
            f"rows of {first_few(' '.join(source) for source in sorted(strangers))}",
            "a run keeps its folder's name: rename the folder back, or restore its files",
        )
    candidates = fusing(detections, sources, [member.weight for member in of for _ in member.views])

    def fuse(config: FusionConfig) -> pd.DataFrame:
        require_weights_that_act([member.weight for member in of], config)
        return candidates(config)

    return fuse


def require_weights_that_act(weights: Sequence[float], config: FusionConfig) -> None:
    """Raises KitError if the members have different weights and the fusion ignores weights."""
    if len(set(weights)) > 1 and config.usual.method == "suppress":
        raise KitError(
            "fusion.method=wbf, wbf_sum or wbf_or, in which alone the members' weights act",
            f"fusion.{'usual_' if config.method == AUTO else ''}method=suppress",
            "--set fusion.method=wbf, or make the ensemble without --weight under another --run NAME",
        )  # fmt: skip


def by_fold(detections: pd.DataFrame, of: Sequence[Member], least: int = 1) -> list[pd.DataFrame]:
    """The test's detections for each fold index of the member with most folds, and for ``least`` of them at least.

    A member with fewer folds is reused cyclically: fold K takes its fold K modulo its number of folds.
    """
    folds = detections["run"].map({member.run: member.folds for member in of}).to_numpy(np.float64)
    fold = detections["fold"].to_numpy(np.int64)
    return [detections[fold == index % folds] for index in range(max(least, *(member.folds for member in of)))]
