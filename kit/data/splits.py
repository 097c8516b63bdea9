"""Which images are held out: whole patients, classes balanced, one split or several folds.

Names are not trusted alone: images with equal pixels stay together, whatever patients their names say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int64

from kit.config import DataConfig
from kit.core.errors import KitError
from kit.data.competition import TrainingData, patients

Folds = tuple[tuple[str, ...], ...]
_CROSS_FITS = 5


def assign_folds(data: TrainingData, config: DataConfig, seed: int) -> Folds:
    """The images held out by each fold: one split of ``validation_share``, or ``data.folds`` folds of them all."""
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

    A pure function of its arguments, whatever the order of rows and images; ``digests`` says which images have
    equal pixels. Among ``split_candidates`` random orders of the patients, the one whose class shares are
    nearest to ``validation_share`` wins. Raises KitError where one patient has too many images, or a class
    cannot stand on both sides.
    """
    groups = _groups(image_ids, config, digests or {})
    labels, counts = _boxes_by_group(annotations, groups)
    images = np.array([len(group) for group in groups])
    goal = config.validation_share
    total = counts.sum(axis=0)
    best: tuple[float, tuple[str, ...]] | None = None
    for order in _orders(len(groups), config, seed):
        count = 1 + int(np.abs(images[order].cumsum() / images.sum() - goal).argmin())
        held = counts[order[:count]].sum(axis=0)
        if count == len(groups) or not ((held > 0) & (held < total)).all():
            continue
        imbalance = float(np.square(held / total - goal).sum())
        if best is None or imbalance < best[0]:
            best = imbalance, tuple(sorted(image for i in order[:count] for image in groups[i]))
    if best is None:
        raise _impossible("on both sides", labels, counts, config, "raise data.validation_share")
    return best[1]


def cross_validation(
    annotations: pd.DataFrame,
    image_ids: Sequence[str],
    config: DataConfig,
    seed: int,
    digests: Mapping[str, str] | None = None,
) -> Folds:
    """The images of each of ``data.folds`` folds, sorted: whole patients, classes and images spread evenly.

    A pure function of its arguments, whatever the order of rows and images. Each of ``split_candidates``
    candidates takes the patients, those with most images first and equals at random, and puts each into the
    fold that adds least to the sum of squared shares; the candidate whose shares are nearest to equal wins.
    Raises KitError where one patient has too many images, or no candidate has every class in every fold.
    """
    groups = _groups(image_ids, config, digests or {})
    labels, boxes = _boxes_by_group(annotations, groups)
    folds, filled = _balanced(groups, boxes, config, seed, config.folds)
    if (filled == 0).any():
        raise _impossible(f"in each of {config.folds} folds", labels, boxes, config, "lower data.folds")
    return folds


def cross_fits(data: TrainingData, config: DataConfig, seed: int) -> Folds:
    """Five folds of all images, or as many as there are patients, for detections that are out of fold already.

    Whatever is fitted to them (a prior, a calibration) must not be judged on the patients that it was fitted
    on. Unlike in ``cross_validation`` a class may be missing in a fold.
    """
    groups = _groups(data.image_ids, config, data.pixels.digests)
    _, boxes = _boxes_by_group(data.annotations, groups)
    folds, _ = _balanced(groups, boxes, config, seed, min(_CROSS_FITS, len(groups)))
    return tuple(fold for fold in folds if fold)


def split_groups(data: TrainingData, image_ids: Sequence[str], config: DataConfig) -> dict[str, str]:
    """The group of each image: images of one patient, and images with equal pixels, share a group.

    A group is named after its first image.
    """
    groups = _groups(image_ids, config, data.pixels.digests)
    return {image_id: group[0] for group in groups for image_id in group}


def _balanced(
    groups: Sequence[Sequence[str]], boxes: Int64[np.ndarray, "g l"], config: DataConfig, seed: int, folds: int
) -> tuple[Folds, Int64[np.ndarray, "f l1"]]:
    """The best candidate's folds, and the boxes of each class and the images that each of them holds.

    One that leaves a class out of a fold is taken only where all do.
    """
    images = np.array([len(group) for group in groups])
    counts = np.hstack([boxes, images[:, None]])  # the images count like one class more
    orders = [order[np.argsort(-images[order], kind="stable")] for order in _orders(len(groups), config, seed)]
    chosen, filled = _dealt(counts, np.stack(orders), folds)
    imbalance = np.square(filled / counts.sum(axis=0) - 1 / folds).sum(axis=(1, 2))
    lacking = (filled == 0).any(axis=(1, 2))
    best = int(np.lexsort((imbalance, lacking))[0])
    parts = [np.flatnonzero(chosen[best] == fold).tolist() for fold in range(folds)]
    return tuple(tuple(sorted(image for i in part for image in groups[i])) for part in parts), filled[best]


def _orders(count: int, config: DataConfig, seed: int) -> list[Int64[np.ndarray, " g"]]:
    candidates = range(config.split_candidates)
    return [np.random.default_rng([seed, candidate]).permutation(count) for candidate in candidates]


def _dealt(
    counts: Int64[np.ndarray, "g l"], orders: Int64[np.ndarray, "c g"], folds: int
) -> tuple[Int64[np.ndarray, "c g"], Int64[np.ndarray, "c f l"]]:
    """Each candidate's fold of each group, and what its folds then hold; all candidates advance together.

    Adding g to a fold that holds c changes the sum of squared shares by (2 c g + g g) / total², of which only
    c g differs between the folds.
    """
    candidate = np.arange(len(orders))
    weights = counts / np.square(counts.sum(axis=0))
    filled = np.zeros((len(orders), folds, counts.shape[1]), dtype=np.int64)
    chosen = np.zeros(orders.shape, dtype=np.int64)
    for group in orders.T:
        fold = np.einsum("cfl,cl->cf", filled, weights[group]).argmin(axis=1)
        filled[candidate, fold] += counts[group]
        chosen[candidate, group] = fold
    return chosen, filled


def _groups(image_ids: Sequence[str], config: DataConfig, digests: Mapping[str, str]) -> list[list[str]]:
    """Images that must stay together, each group sorted, the groups by their first image."""
    patient_of = patients(image_ids, config.patient_pattern)
    _check_pattern(list(patient_of.values()), config)
    leader = {image_id: image_id for image_id in patient_of}

    def leading(image_id: str) -> str:
        while leader[image_id] != image_id:
            image_id = leader[image_id]
        return image_id

    first: dict[tuple[str, str], str] = {}
    for image_id in sorted(patient_of):
        for key in (("patient", patient_of[image_id]), ("pixels", digests.get(image_id, image_id))):
            one, other = sorted((leading(first.setdefault(key, image_id)), leading(image_id)))
            leader[other] = one
    groups: dict[str, list[str]] = {}
    for image_id in sorted(patient_of):
        groups.setdefault(leading(image_id), []).append(image_id)
    return list(groups.values())


def _check_pattern(patient_ids: Sequence[str], config: DataConfig) -> None:
    names, sizes = np.unique(patient_ids, return_counts=True)
    if not len(sizes):
        return
    largest = int(sizes.argmax())
    if sizes[largest] > config.largest_patient_share * len(patient_ids) and sizes[largest] > 1:
        found = f"patient {str(names[largest])!r} has {sizes[largest]}"
        raise KitError(
            f"no patient with more than {config.largest_patient_share:.0%} of the {len(patient_ids)} images",
            f"{found} by data.patient_pattern={config.patient_pattern}",
            "correct the pattern (its first group is the patient), or raise data.largest_patient_share",
        )


def _boxes_by_group(
    annotations: pd.DataFrame, groups: Sequence[Sequence[str]]
) -> tuple[list[str], Int64[np.ndarray, "g l"]]:
    labels = sorted(set(annotations["label"]))
    group_of = {image_id: i for i, group in enumerate(groups) for image_id in group}
    number = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(groups), len(labels)), dtype=np.int64)
    rows = annotations["image_id"].map(group_of).to_numpy(), annotations["label"].map(number).to_numpy()
    np.add.at(counts, rows, 1)
    return labels, counts


def _impossible(where: str, labels: Sequence[str], counts: np.ndarray, config: DataConfig, do: str) -> KitError:
    carriers = (counts > 0).sum(axis=0)
    rarest = int(carriers.argmin())
    return KitError(
        f"a split by patient with every class {where}",
        f"none among {config.split_candidates} candidates; {labels[rarest]!r} occurs in "
        f"{carriers[rarest]} patient(s)",
        f"add images of that class, {do}, or raise data.split_candidates",
    )
