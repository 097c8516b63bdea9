"""Which images are held out: whole patients, classes balanced, one split or several folds.

Images with equal pixels stay together too, whatever the patients in their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int64

from kit.choosing.balanced_folds import CROSS_FITS, balanced_folds, count_boxes, random_orders
from kit.config import DataConfig
from kit.core.errors import KitError
from kit.data.competition import TrainingData, patients
from kit.data.duplicates import joined_groups

Folds = tuple[tuple[str, ...], ...]


def assign_folds(data: TrainingData, config: DataConfig, seed: int) -> Folds:
    """The images that each fold holds out: one split of ``validation_share``, or ``data.folds`` folds of all."""
    if config.folds == 1:
        return (validation_split(data.annotations, data.image_ids, config, seed, data.pixels.digests),)
    return cross_validation(data.annotations, data.image_ids, config, seed, data.pixels.digests)


def validation_split(
    annotations: pd.DataFrame,
    image_ids: Sequence[str],
    config: DataConfig,
    seed: int,
    digests: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The images held out, sorted: whole patients, about ``validation_share`` of the images, classes balanced.

    A pure function of its arguments that ignores the order of rows and images. Among ``split_candidates`` random
    orders of the patients, the one whose class shares are nearest to ``validation_share`` wins.

    Args:
        annotations: The true boxes (image_id, label).
        image_ids: All images, those without boxes too.
        config: The knobs of the split.
        seed: Of the random orders.
        digests: By image_id; images with equal digests have equal pixels and stay together.

    Raises:
        KitError: If a patient has too many images, or a class cannot stand on both sides.
    """
    groups = _groups(image_ids, config, digests or {})
    labels, counts = count_boxes(annotations, groups)
    boxes, images = counts[:, :-1], counts[:, -1]
    goal = config.validation_share
    total = boxes.sum(axis=0)
    best: tuple[float, tuple[str, ...]] | None = None
    for order in random_orders(len(groups), seed, config.split_candidates):
        count = 1 + int(np.abs(images[order].cumsum() / images.sum() - goal).argmin())
        held = boxes[order[:count]].sum(axis=0)
        if count == len(groups) or not ((held > 0) & (held < total)).all():
            continue
        imbalance = float(np.square(held / total - goal).sum())
        if best is None or imbalance < best[0]:
            best = imbalance, tuple(sorted(image for i in order[:count] for image in groups[i]))
    if best is None:
        raise _impossible("on both sides", labels, boxes, config, "raise data.validation_share")
    return best[1]


def cross_validation(
    annotations: pd.DataFrame,
    image_ids: Sequence[str],
    config: DataConfig,
    seed: int,
    digests: Mapping[str, str] | None = None,
) -> Folds:
    """The images of each of ``data.folds`` folds, sorted: whole patients, classes and images spread evenly.

    The arguments are those of ``validation_split``; the folds are the best of ``split_candidates`` candidates
    (see ``balanced_folds``). Raises KitError if a patient has too many images, or no candidate has every class in
    every fold.
    """
    groups = _groups(image_ids, config, digests or {})
    labels, counts = count_boxes(annotations, groups)
    fold_of, filled = balanced_folds(counts, config.folds, seed, config.split_candidates)
    if (filled == 0).any():
        raise _impossible(f"in each of {config.folds} folds", labels, counts[:, :-1], config, "lower data.folds")
    return _images_by_fold(groups, fold_of, config.folds)


def cross_fits(data: TrainingData, config: DataConfig, seed: int) -> Folds:
    """Five folds of all images, or one per patient if there are fewer, for detections made out of fold elsewhere.

    A prior or a calibration fitted on them must not be judged on the patients that it was fitted on. Unlike in
    ``cross_validation`` a class may be missing in a fold.
    """
    groups = _groups(data.image_ids, config, data.pixels.digests)
    _, counts = count_boxes(data.annotations, groups)
    folds = min(CROSS_FITS, len(groups))
    fold_of, _ = balanced_folds(counts, folds, seed, config.split_candidates)
    return tuple(fold for fold in _images_by_fold(groups, fold_of, folds) if fold)


def split_groups(data: TrainingData, image_ids: Sequence[str], config: DataConfig) -> dict[str, str]:
    """The group of each image: images of one patient, and images with equal pixels, share a group.

    A group is named after its first image.
    """
    groups = _groups(image_ids, config, data.pixels.digests)
    return {image_id: group[0] for group in groups for image_id in group}


def _images_by_fold(groups: Sequence[Sequence[str]], fold_of: Int64[np.ndarray, " g"], folds: int) -> Folds:
    """The images of each fold, sorted."""
    of_fold = [np.flatnonzero(fold_of == fold).tolist() for fold in range(folds)]
    return tuple(tuple(sorted(image for i in indices for image in groups[i])) for indices in of_fold)


def _groups(image_ids: Sequence[str], config: DataConfig, digests: Mapping[str, str]) -> list[list[str]]:
    """Images that must stay together; groups are sorted, and ordered by their first image."""
    patient_of = patients(image_ids, config.patient_pattern)
    _check_pattern(list(patient_of.values()), config)
    names = sorted(patient_of)
    _, of_patient = np.unique([patient_of[image_id] for image_id in names], return_inverse=True)
    _, first, with_digest = np.unique(
        [digests.get(image_id, image_id) for image_id in names], return_index=True, return_inverse=True
    )
    group_of = joined_groups(of_patient, np.stack([np.arange(len(names)), first[with_digest]], axis=1))
    groups: dict[int, list[str]] = {}
    for image_id, group in zip(names, group_of.tolist(), strict=True):
        groups.setdefault(group, []).append(image_id)
    return list(groups.values())


def _check_pattern(patient_ids: Sequence[str], config: DataConfig) -> None:
    names, sizes = np.unique(patient_ids, return_counts=True)
    if not len(sizes):
        return
    largest = int(sizes.argmax())
    if sizes[largest] > config.largest_patient_share * len(patient_ids) and sizes[largest] > 1:
        largest_patient = f"patient {str(names[largest])!r} has {sizes[largest]}"
        raise KitError(
            f"no patient with more than {config.largest_patient_share:.0%} of the {len(patient_ids)} images",
            f"{largest_patient} by data.patient_pattern={config.patient_pattern}",
            "correct the pattern (its first group is the patient), or raise data.largest_patient_share",
        )


def _impossible(where: str, labels: Sequence[str], counts: np.ndarray, config: DataConfig, do: str) -> KitError:
    carriers = (counts > 0).sum(axis=0)
    rarest = int(carriers.argmin())
    return KitError(
        f"a split by patient with every class {where}",
        f"none among {config.split_candidates} candidates; {labels[rarest]!r} occurs in "
        f"{carriers[rarest]} patient(s)",
        f"add images of that class, {do}, or raise data.split_candidates",
    )
