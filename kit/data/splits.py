"""Which images are held out: whole patients, classes balanced, one split or several folds.

Copies of one picture stay together too, whatever the patients in their names. A class that only one patient has
stays in training.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from kit.choosing.balanced_folds import CROSS_FITS, balanced_folds, count_boxes, random_orders
from kit.config import DataConfig
from kit.core.errors import KitError
from kit.data.competition import TrainingData, patients
from kit.data.duplicates import joined_groups, pictures
from kit.data.groups import GROUPS
from kit.data.patient_pattern import fitting_share, knows_patients

Folds = tuple[tuple[str, ...], ...]
log = logging.getLogger("kit")


def assign_folds(data: TrainingData, config: DataConfig, seed: int) -> Folds:
    """The images that each fold holds out: one split of ``validation_share``, or ``data.folds`` folds of all."""
    known = (pictures(data.pixels), data.groups)
    if config.folds == 1:
        return (validation_split(data.annotations, data.image_ids, config, seed, *known),)
    return cross_validation(data.annotations, data.image_ids, config, seed, *known)


def validation_split(
    annotations: pd.DataFrame,
    image_ids: Sequence[str],
    config: DataConfig,
    seed: int,
    picture_of: Mapping[str, str] | None = None,
    patient_of: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The images held out, sorted: whole patients, about ``validation_share`` of the images, classes balanced.

    A pure function of its arguments that ignores the order of rows and images. Among ``split_candidates`` random
    orders of the patients, the one whose class shares are nearest to ``validation_share`` wins. The patients of a
    class that a single patient has, or that no candidate has on both sides, stay in training: the log says so.

    Args:
        annotations: The true boxes (image_id, label).
        image_ids: All images, those without boxes too.
        config: The knobs of the split.
        seed: Of the random orders.
        picture_of: By image_id; images with equal values are copies of one picture and stay together.
        patient_of: By image_id, the patients that groups.csv knows; those of the others are in their names.

    Raises:
        KitError: If a patient has too many images, or no patient can be held out.
    """
    groups = _groups(image_ids, config, picture_of or {}, patient_of or {})
    labels, counts = count_boxes(annotations, groups)
    boxes, images = counts[:, :-1], counts[:, -1]
    carriers = (boxes > 0).sum(axis=0)
    kept = carriers == 1  # by class: whether its patients stay in training
    while True:
        free = np.flatnonzero(~boxes[:, kept].any(axis=1))
        held = _best_candidate(boxes[free], images[free], int(images.sum()), boxes.sum(axis=0), kept, config, seed)
        if len(held):
            break
        if kept.all():
            raise _nothing_to_hold_out(len(groups))
        in_free = (boxes[free] > 0).sum(axis=0)
        kept[np.flatnonzero(~kept)[in_free[~kept].argmin()]] = True  # the class that costs fewest patients
    _warn_of_kept(labels, carriers, kept, "no candidate split has it on both sides; raise data.split_candidates")
    return tuple(sorted(image for index in free[held] for image in groups[index]))


def _best_candidate(
    boxes: Int64[np.ndarray, "g labels"],
    images: Int64[np.ndarray, " g"],
    total_images: int,
    total_boxes: Int64[np.ndarray, " labels"],
    kept: Bool[np.ndarray, " labels"],
    config: DataConfig,
    seed: int,
) -> Int64[np.ndarray, " h"]:
    """The groups that the best candidate holds out; none if no candidate has every other class on both sides."""
    goal = config.validation_share
    best = float("inf")
    chosen = np.arange(0)
    for order in random_orders(len(boxes), seed, config.split_candidates) if len(boxes) else ():
        count = 1 + int(np.abs(images[order].cumsum() / total_images - goal).argmin())
        held = boxes[order[:count]].sum(axis=0)[~kept]
        total = total_boxes[~kept]
        if images[order[:count]].sum() == total_images or not ((held > 0) & (held < total)).all():
            continue
        imbalance = float(np.square(held / total - goal).sum())
        if imbalance < best:
            best, chosen = imbalance, order[:count]
    return chosen


def cross_validation(
    annotations: pd.DataFrame,
    image_ids: Sequence[str],
    config: DataConfig,
    seed: int,
    picture_of: Mapping[str, str] | None = None,
    patient_of: Mapping[str, str] | None = None,
) -> Folds:
    """The images of each of ``data.folds`` folds, sorted: whole patients, classes and images spread evenly.

    The arguments are those of ``validation_split``; the folds are the best of ``split_candidates`` candidates
    (see ``balanced_folds``). A patient who alone has a class is in no fold: every fold trains on it, and the log
    says so. Raises KitError if a patient has too many images, or no candidate has every other class in every fold.
    """
    groups = _groups(image_ids, config, picture_of or {}, patient_of or {})
    labels, counts = count_boxes(annotations, groups)
    carriers = (counts[:, :-1] > 0).sum(axis=0)
    kept = carriers == 1
    free = np.flatnonzero(~counts[:, :-1][:, kept].any(axis=1))
    filled_by = counts[free][:, np.append(~kept, True)]
    if not len(free):
        raise _nothing_to_hold_out(len(groups))
    fold_of, filled = balanced_folds(filled_by, config.folds, seed, config.split_candidates)
    if (filled == 0).any():
        fewer = (
            folds
            for folds in range(min(config.folds - 1, len(free)), 1, -1)
            if balanced_folds(filled_by, folds, seed, config.split_candidates)[1].all()
        )
        raise _impossible_folds(labels, np.where(kept, len(groups), carriers), len(free), config, next(fewer, 1))
    _warn_of_kept(labels, carriers, kept, "")
    return _images_by_fold([groups[index] for index in free], fold_of, config.folds)


def cross_fits(data: TrainingData, config: DataConfig, seed: int) -> Folds:
    """Five folds of all images, or one per patient if there are fewer, for detections made out of fold elsewhere.

    A prior or a calibration fitted on them must not be judged on the patients that it was fitted on. Unlike in
    ``cross_validation`` a class may be missing in a fold.
    """
    groups = _groups(data.image_ids, config, pictures(data.pixels), data.groups)
    if not knows_patients(data.image_ids, config.patient_pattern, data.groups):
        log.warning(
            "data.patient_pattern=%s fits %.0f%% of the images' names: each of the others counts as a patient of "
            "its own; `invoke audit` says more", config.patient_pattern,
            100 * fitting_share(data.image_ids, config.patient_pattern, data.groups),
        )  # fmt: skip
    _, counts = count_boxes(data.annotations, groups)
    folds = min(CROSS_FITS, len(groups))
    fold_of, _ = balanced_folds(counts, folds, seed, config.split_candidates)
    return tuple(fold for fold in _images_by_fold(groups, fold_of, folds) if fold)


def split_groups(data: TrainingData, image_ids: Sequence[str], config: DataConfig) -> dict[str, str]:
    """The group of each image: images of one patient, and copies of one picture, share a group.

    A group is named after its first image. The largest share of a patient is not checked: the images may be few.
    """
    groups = _groups(image_ids, config, pictures(data.pixels), data.groups, checked=False)
    return {image_id: group[0] for group in groups for image_id in group}


def _images_by_fold(groups: Sequence[Sequence[str]], fold_of: Int64[np.ndarray, " g"], folds: int) -> Folds:
    """The images of each fold, sorted."""
    of_fold = [np.flatnonzero(fold_of == fold).tolist() for fold in range(folds)]
    return tuple(tuple(sorted(image for i in indices for image in groups[i])) for indices in of_fold)


def _groups(
    image_ids: Sequence[str],
    config: DataConfig,
    picture_of: Mapping[str, str],
    known: Mapping[str, str],
    checked: bool = True,
) -> list[list[str]]:
    """Images that must stay together; groups are sorted, and ordered by their first image.

    Raises KitError if ``checked`` and a patient has too many of them.
    """
    patient_of = patients(image_ids, config.patient_pattern, known)
    if checked:
        _check_largest(patient_of, config, known)
    names = sorted(patient_of)
    _, of_patient = np.unique([patient_of[image_id] for image_id in names], return_inverse=True)
    _, first, of_picture = np.unique(
        [picture_of.get(image_id, image_id) for image_id in names], return_index=True, return_inverse=True
    )
    group_of = joined_groups(of_patient, np.stack([np.arange(len(names)), first[of_picture]], axis=1))
    groups: dict[int, list[str]] = {}
    for image_id, group in zip(names, group_of.tolist(), strict=True):
        groups.setdefault(group, []).append(image_id)
    return list(groups.values())


def _check_largest(patient_of: Mapping[str, str], config: DataConfig, known: Mapping[str, str]) -> None:
    names, sizes = np.unique(list(patient_of.values()), return_counts=True)
    if not len(sizes):
        return
    largest = int(sizes.argmax())
    if sizes[largest] > config.largest_patient_share * len(patient_of) and sizes[largest] > 1:
        name = str(names[largest])
        theirs = [image_id for image_id, patient in patient_of.items() if patient == name]
        if 2 * sum(image_id in known for image_id in theirs) >= len(theirs):
            source, do = f"data/{GROUPS}", f"correct data/{GROUPS}"
        else:
            source = f"data.patient_pattern={config.patient_pattern}"
            do = "correct the pattern (its first group is the patient)"
        raise KitError(
            f"no patient with more than {config.largest_patient_share:.0%} of the {len(patient_of)} images",
            f"patient {name!r} has {sizes[largest]} by {source}", f"{do}, or raise data.largest_patient_share",
        )  # fmt: skip


def _warn_of_kept(
    labels: Sequence[str], carriers: Int64[np.ndarray, " labels"], kept: Bool[np.ndarray, " labels"], why: str
) -> None:
    """Say which classes no held-out image has, since their patients stay in training."""
    for label, count in zip(np.array(labels, dtype=object)[kept], carriers[kept].tolist(), strict=True):
        log.warning(
            "class %r occurs in %d patient%s, who stay%s in training: no score judges this class%s",
            label, count, "" if count == 1 else "s", "s" if count == 1 else "", f" ({why})" if count > 1 else "",
        )  # fmt: skip


def _nothing_to_hold_out(patient_count: int) -> KitError:
    return KitError(
        "a patient who can be held out: with copies of one picture counted as one patient, two at least",
        f"{patient_count} patient(s), each with all images or with a class that no other has",
        "add images of other patients, or correct data.patient_pattern (its first group is the patient)",
    )


def _impossible_folds(
    labels: Sequence[str], carriers: Int64[np.ndarray, " labels"], free: int, config: DataConfig, possible: int
) -> KitError:
    rarest = (
        f"{labels[int(carriers.argmin())]!r} occurs in {carriers.min()} patient(s)" if len(labels) else "no boxes"
    )
    return KitError(
        f"a split by patient with every class in each of {config.folds} folds",
        f"none among {config.split_candidates} candidates of {free} patient(s); {rarest}",
        f"lower data.folds to {possible}, raise data.split_candidates, or add images of that class",
    )
