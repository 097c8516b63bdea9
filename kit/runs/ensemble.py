"""Ensembles: runs whose detections are those of other runs, judged on the images that every member held out.

An ensemble keeps copies of the detections and updates them from its members whenever it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict

from kit.config import AUTO, Config, load, override, save
from kit.core.errors import KitError, closest_names, first_few
from kit.core.files import sha256
from kit.core.json_files import write_json
from kit.core.text_files import has_sha256
from kit.data.competition import TrainingData
from kit.runs.detections import KEY, merge_detections, merged_key, read_detections
from kit.runs.folder import (
    IMAGE_SCORES,
    Run,
    Split,
    mark_finished,
    names,
    read_finished,
    read_split,
    require_finished,
)
from kit.runs.guards import require_detector, require_same_truth
from kit.runs.image_scores import STORED, read_image_scores
from kit.runs.knobs import require_same_knobs
from kit.runs.locks import starting_or_finishing, using_results
from kit.runs.members import Ensemble, Member, least_members, members, read_ensemble, require_weights_that_act
from kit.runs.own_rows import held_out_detections, read_held_out
from kit.schemas.file_names import TABLE

KEPT = "ensemble"  # instead of best, ema or last
_WBF_IOU = 0.55  # Solovyev et al., Weighted boxes fusion (2021)
log = logging.getLogger("kit")


def ensemble(
    run: Run,
    of: Sequence[str],
    weights: Sequence[float] = (),
    assignments: Sequence[str] = (),
    classifiers: Sequence[str] = (),
) -> Ensemble:
    """Make an ensemble of the named runs, or update it; ``weights`` has one weight per run, or is empty.

    ``assignments`` are knobs that act on stored detections; the others are the first member's. ``classifiers`` are
    runs of image scores, which become evidence; with them one member is enough. Raises KitError if another run has
    the name, too few runs are named, or the runs cannot be combined.
    """
    wanted = require_combinable(run, of, weights, assignments, classifiers)
    with starting_or_finishing(run), using_results(run):
        config = _knobs(run, wanted, assignments, classifiers)
        _assemble(run, wanted, classifiers)
        save(config, run.config)
        return read_ensemble(run)


def require_combinable(
    run: Run, of: Sequence[str], weights: Sequence[float], assignments: Sequence[str], classifiers: Sequence[str]
) -> tuple[tuple[str, float], ...]:
    """The members, each with its weight. Raises KitError as ``ensemble`` does; writes nothing."""
    factors = tuple(weights) or (1.0,) * len(of)
    least = least_members(classifiers)
    if run.name in (*of, *classifiers):
        raise KitError(
            "a name for the ensemble that none of its members has", f"--run {run.name}, which is among them",
            "choose another --run NAME",
        )  # fmt: skip
    if len(of) < least or len(set(of)) != len(of):
        raise KitError(
            "one run or more, each once, for --of" if classifiers else "two runs or more, each once, for --of",
            ", ".join(of) or "none",
            "`invoke ensemble --run NAME --of A --of B`, or `--of A --with CLASSIFIER`: a run of image scores",
        )
    if len(set(classifiers)) != len(classifiers):
        raise KitError("each run once for --with", ", ".join(classifiers), "name each once")
    if len(factors) != len(of) or not all(0 < factor < float("inf") for factor in factors):
        raise KitError(
            f"a --weight above 0 for each of the {len(of)} runs, in their order, or none",
            ", ".join(map(str, weights)), "`invoke ensemble --run NAME --of A --of B --weight 2 --weight 1`",
        )  # fmt: skip
    wanted = tuple(zip(of, factors, strict=True))
    _knobs(run, wanted, assignments, classifiers)
    return wanted


def _knobs(
    run: Run, wanted: Sequence[tuple[str, float]], assignments: Sequence[str], classifiers: Sequence[str]
) -> Config:
    """The ensemble's knobs. Raises KitError if another run has its name, or the members cannot be combined."""
    if run.config.exists():
        _require_this(run, wanted, classifiers)
    runs = [member_run(run, name) for name, _ in wanted]
    base = load(run.config) if run.config.exists() else _config(runs)
    config = override(base, assignments)
    require_same_knobs(run, base, config)
    require_weights_that_act([weight for _, weight in wanted], config.fusion)
    splits = [read_split(other) for other in runs]
    _common_split(runs, splits)
    _classifiers(run, classifiers, runs[0], splits[0])
    return config


def refresh(run: Run) -> None:
    """Update an ensemble's files from its members; does nothing for any other run.

    The caller holds the run's lock (``using_results``). Raises KitError if a member is missing or can no longer be
    combined with the others.
    """
    if run.ensemble.exists():
        known = read_ensemble(run)
        _assemble(run, [(member.run, member.weight) for member in known.members], tuple(known.classifiers))


def _assemble(run: Run, wanted: Sequence[tuple[str, float]], classifiers: Sequence[str]) -> None:
    """Write split, detections and ``finished.json`` of an ensemble of (run, weight), unless they are up to date.

    Raises KitError if the folder is a copy of another ensemble's.
    """
    if run.ensemble.exists() and run.finished.exists():
        read_finished(run)
    runs = [member_run(run, name) for name, _ in wanted]
    splits = [read_split(other) for other in runs]
    split = _common_split(runs, splits)
    sources = [members(other)[0] for other in runs]
    evidence = _classifiers(run, classifiers, runs[0], splits[0])
    now = Ensemble(
        tuple(
            Member(source.run, source.views, weight, source.folds)
            for source, (_, weight) in zip(sources, wanted, strict=True)
        ),
        {title: digest for other in (*runs, *evidence) for title, digest in read_finished(other).weights.items()},
        {other.name: sha256(held_out_detections(other)) for other in runs},
        {other.name: sha256(other.detections(STORED)) for other in evidence},
    )
    goal = run.detections(TrainingData.detections_name)
    whole = run.ensemble.exists() and run.finished.exists() and goal.exists()
    if whole and read_ensemble(run) == now and read_split(run) == split:
        key = merged_key(list(now.detections.values()), split.validation)
        if read_detections(goal).attrs.get(KEY) == key:  # else somebody put another table in its place
            return
    tables = [read_held_out(other, own) for other, own in zip(runs, splits, strict=True)]
    for table, digest in zip(tables, now.detections.values(), strict=True):
        table.attrs = {KEY: digest}
    merge_detections(goal, tables, split.validation)
    split.save(run.split)
    write_json(run.ensemble, asdict(now))
    mark_finished(run, KEPT, (), (), now.weights)
    log.info(
        "ensemble %s: %s %s, judged on the %d images that all of them held out",
        run.name, "updated from" if whole else "of", ", ".join(other.name for other in runs), len(split.validation),
    )  # fmt: skip


def _config(runs: Sequence[Run]) -> Config:
    """The first member's knobs, with its fusion if it is alone or has a kind of weighted boxes fusion already."""
    first = load(runs[0].config)
    if first.fusion.usual.method != "suppress" or len(runs) == 1:
        return first
    method, iou = (
        f"fusion.usual_{name}" if first.get(f"fusion.{name}") == AUTO else f"fusion.{name}"
        for name in ("method", "iou")
    )
    return first.replace({method: "wbf", iou: _WBF_IOU})


def _require_this(run: Run, wanted: Sequence[tuple[str, float]], classifiers: Sequence[str]) -> None:
    made = read_ensemble(run) if run.ensemble.exists() else None
    known = [(member.run, member.weight) for member in made.members] if made else []
    if known != list(wanted) or (made and sorted(made.classifiers) != sorted(classifiers)):
        what = ", ".join(f"{name} (weight {weight:g})" for name, weight in known)
        what += f" with {', '.join(made.classifiers)}" if made and made.classifiers else ""
        raise KitError(
            f"a new name for the ensemble, or the members that {run.name!r} has",
            f"an ensemble of {what}" if known else f"a run {run.name!r} that is no ensemble",
            "choose another --run NAME",
        )


def _classifiers(run: Run, of: Sequence[str], first: Run, split: Split) -> list[Run]:
    """The runs of image scores that an ensemble uses. Raises KitError if one is none, or is of other data."""
    found = []
    for name in sorted(of):
        classifier = _existing(run, name)
        if require_finished(classifier).kept != IMAGE_SCORES:
            raise KitError(
                f"a run of image scores for --with {name}", "a run with detections",
                f"name it with --of {name}, or adopt scores: `invoke adopt --run NAME --image-scores FILE`",
            )  # fmt: skip
        _require_same_data(first, split, classifier, read_split(classifier))
        read_image_scores(classifier)
        found.append(classifier)
    return found


def member_run(run: Run, name: str) -> Run:
    """A member of an ensemble: finished, with detections, and itself no ensemble."""
    member = _existing(run, name)
    if member.ensemble.exists():
        flags = " ".join(f"--of {source.run}" for source in read_ensemble(member).members)
        raise KitError("members that are no ensembles", f"{name!r} is one", f"name its members instead: {flags}")
    require_detector(member)
    return member


def _existing(run: Run, name: str) -> Run:
    """A run that an ensemble is made of. Raises KitError if there is none of that name."""
    member = Run(run.workspace, name)
    if not member.config.exists():
        raise KitError(
            f"run {name!r}, of which the ensemble {run.name!r} is made", f"no such run in {member.folder.parent}",
            f"nearest: {closest_names(name, names(run.workspace))}; restore its folder, or make an ensemble of "
            "other runs under another --run NAME",
        )  # fmt: skip
    return member


def _common_split(runs: Sequence[Run], splits: Sequence[Split]) -> Split:
    """The images that every member held out, grouped as in the member with most folds. Raises KitError if none.

    The groups only keep images apart when a prior or a calibration is cross-fitted: the fold that detected an
    image is in each member's own table.
    """
    for run, split in zip(runs[1:], splits[1:], strict=True):
        _require_same_data(runs[0], splits[0], run, split)
        require_same_truth(runs[0], run)
    common = set.intersection(*(set(split.validation) for split in splits))
    if not common:
        held = ", ".join(f"{run.name!r} {len(split.validation)}" for run, split in zip(runs, splits, strict=True))
        raise KitError(
            "images that every member held out", f"none; each held out: {held}",
            "train one of them with --folds, or both with the same training.seed and data.validation_share; adopt "
            "detections with the same --held-out",
        )  # fmt: skip
    finest = max(splits, key=lambda split: len(split.folds))
    folds = (tuple(image_id for image_id in fold if image_id in common) for fold in finest.folds)
    return Split(finest.labels, finest.images, tuple(fold for fold in folds if fold), finest.table_sha256)


def _require_same_data(first: Run, ours: Split, other: Run, theirs: Split) -> None:
    faults = []
    for run, images in (
        (first, set(ours.images) - set(theirs.images)),
        (other, set(theirs.images) - set(ours.images)),
    ):
        if images:
            shown = first_few(sorted(images))
            faults.append(f"{len(images)} images that only {run.name!r} has ({shown})")
    table = first.workspace / "data" / TABLE
    digests = {ours.table_sha256, theirs.table_sha256}
    if len(digests) > 1 and not all(has_sha256(table, digest) for digest in digests):
        faults.append(f"train.csv {ours.table_sha256[:12]}... and {theirs.table_sha256[:12]}...")
    if ours.labels != theirs.labels:
        faults.append(f"labels {', '.join(ours.labels)} and {', '.join(theirs.labels)}")
    if faults:
        raise KitError(
            f"runs {first.name!r} and {other.name!r} to be of the same data", "; ".join(faults),
            "train both on the same files",
        )  # fmt: skip
