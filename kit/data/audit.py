"""What is wrong with a competition's data: tables and prints of pixels in, findings out.

A fault stops training, a warning should be inspected, a note informs. The names of the checks are stable: they
stand in ``audit.json`` and after ``train --allow``.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from kit.data.duplicates import Prints, duplicate_groups, likeness
from kit.data.statistics import box_fractions
from kit.schemas.image_headers import ImageFacts

LEVELS = FAULT, WARNING, NOTE = "fault", "warning", "note"
ANNOTATED, DUPLICATES, BOXES = "annotated-test-images", "duplicate-images", "improbable-boxes"
LABELS, PATIENTS, CLASSES = "labels-alike", "patients-in-both", "class-counts"
CHECKS = (ANNOTATED, DUPLICATES, BOXES, LABELS, PATIENTS, CLASSES)
_ALIKE = 0.8  # of difflib: Infiltrate and Infiltration .82, Pneumonia and Pneumothorax .67
_LEAST_BOXES = 20  # a class with fewer has no distribution to speak of
# False alarms among 814 boxes, mean of 40 draws with NIH's means and standard deviations: sides normal .02, beta
# .05, the phantoms' .08; lognormal sides without any relation 2.7; tails of Student's t with 5 degrees 8.9.
_IMPROBABLE = 5.5
_TAIL = 0.05  # the scale is read between this quantile and its opposite: up to 5% of the boxes may be wrong
_LEAST_SPREAD = {"size": 0.2, "shape": 0.2, "across": 0.02, "down": 0.02}
_EDGE = 0.002


@dataclass(frozen=True)
class Finding:
    """The result of a check: level, name of the check, description, advice, and a row for each case."""

    level: str
    check: str
    text: str
    do: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class AuditInput:
    """What the checks judge. ``annotations`` may name images of train/ and of test/, ``test_names`` of the test.

    ``own_table``: train.csv is the organisers' own file, as it was downloaded. ``prints`` are those of all
    readable images, named ``train/NAME`` and ``test/NAME``; ``patients`` has the patient of every image.
    """

    annotations: pd.DataFrame
    own_table: bool
    train: Mapping[str, ImageFacts]
    test: Mapping[str, ImageFacts]
    test_names: Collection[str]
    patients: Mapping[str, str]
    prints: Prints


def findings(data: AuditInput) -> list[Finding]:
    """The findings of all checks: faults, then warnings, then notes. Checks that find nothing are left out."""
    images = {**data.test, **data.train}
    results = (
        annotated_test_images(data.annotations, data.test_names, data.own_table),
        duplicate_images(data.prints, data.annotations["image_id"]),
        improbable_boxes(data.annotations, images),
        labels_alike(data.annotations["label"]),
        patients_in_both(list(data.train), list(data.test), data.patients),
        class_counts(data.annotations),
    )
    return sorted(filter(None, results), key=lambda finding: LEVELS.index(finding.level))


def annotated_test_images(
    annotations: pd.DataFrame, test_names: Collection[str], own_table: bool
) -> Finding | None:
    """Rows of train.csv on an image of the test: a fault, unless the organisers themselves wrote them."""
    rows = annotations[annotations["image_id"].isin(list(test_names))].reset_index(drop=True)
    if rows.empty:
        return None
    text = f"{_count(len(rows), 'row')} of train.csv annotate {_count(rows['image_id'].nunique(), 'test image')}"
    if own_table:
        do = "the organisers' own file has them: these labels leak the test set, and public scores will be too high"
        return Finding(WARNING, ANNOTATED, text, do, rows)
    return Finding(
        FAULT, ANNOTATED, f"{text}, and train.csv is not the file that `invoke download` recorded",
        "remove these rows, or fetch the competition's own file with `invoke download`: the test's answers are no "
        f"training data (--allow {ANNOTATED} trains on them anyway)", rows,
    )  # fmt: skip


def duplicate_images(prints: Prints, annotated: Collection[str]) -> Finding | None:
    """Copies of the same picture, within train/ or test/ or across both: a row per image, in groups.

    Every image is compared with the first of its group: how many of 256 ``bits`` differ, and the ``correlation``
    of the 64-px copies.
    """
    groups = duplicate_groups(prints)
    if not groups:
        return None
    boxed = {f"train/{name}" for name in annotated}
    rows = []
    for number, group in enumerate(groups, start=1):
        for index in group:
            near, name = likeness(prints, group[0], index), prints.names[index]
            rows.append((number, name, name in boxed, near.equal, near.bits, round(near.correlation, 4)))
    table = pd.DataFrame(rows, columns=["group", "image", "has_boxes", "pixels_equal", "bits", "correlation"])
    folders = table["image"].str.split("/").str[0].groupby(table["group"]).nunique()
    across = int((folders > 1).sum())
    return Finding(
        WARNING, DUPLICATES,
        f"{_count(len(table), 'image')} in {_count(len(groups), 'group')} are copies of the same picture, or "
        f"nearly; {_count(across, 'group')} across train and test",
        "compare them side by side: a picture in both train and test makes scores too high; a picture twice in "
        "train counts double and must not stand on both sides of a split", table,
    )  # fmt: skip


def improbable_boxes(annotations: pd.DataFrame, images: Mapping[str, ImageFacts]) -> Finding | None:
    """Boxes whose size and position are far from those of the other boxes of their class.

    Four values per box, almost independent of each other: sum (size) and difference (shape) of the logits of
    width and height as shares of the image, and the centre's position across and down. The distance of a value
    is that from the median of its class, in units of the robust scale of its class; a box is improbable if the
    root of the sum of its squared distances exceeds 5.5. A class with fewer than 20 boxes is not judged.
    """
    shares = box_fractions(annotations, images)
    odds = shares[["width", "height"]].clip(_EDGE, 1 - _EDGE)
    logits = np.log(odds / (1 - odds))
    values = pd.DataFrame(
        {
            "size": logits["width"] + logits["height"],
            "shape": logits["width"] - logits["height"],
            "across": shares["centre_x"],
            "down": shares["centre_y"],
        }
    )
    deviations = pd.DataFrame(0.0, index=values.index, columns=values.columns)
    for _, rows_of_class in shares.groupby("label").groups.items():
        if len(rows_of_class) >= _LEAST_BOXES:
            deviations.loc[rows_of_class] = _deviations(values.loc[rows_of_class])
    distance = np.sqrt(np.square(deviations).sum(axis=1))
    chosen = distance[distance > _IMPROBABLE].sort_values(ascending=False, kind="stable").index
    if chosen.empty:
        return None
    rows = annotations.reset_index(drop=True).loc[chosen]
    rows = rows.assign(distance=distance.round(2), odd=deviations.abs().idxmax(axis=1)).reset_index(drop=True)
    return Finding(
        WARNING, BOXES, f"{_count(len(rows), 'box', 'boxes')} of {len(annotations)} improbable for the class",
        "inspect the picture sheet: a typing error, another convention (x, y, width, height), a wrong label, or "
        "just a rare patient", rows,
    )  # fmt: skip


def labels_alike(labels: pd.Series) -> Finding | None:
    """Pairs of labels that differ in case, blanks and signs, or in a few letters, but not in digits."""
    counts = labels.value_counts().sort_index()
    rows = [
        (label, int(counts[label]), other, int(counts[other]), difference)
        for label, other in itertools.combinations(counts.index, 2)
        if (difference := _difference(label, other))
    ]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["label", "boxes", "other_label", "other_boxes", "differ_by"])
    return Finding(
        WARNING, LABELS, f"{_count(len(table), 'pair')} of labels may be two spellings of the same class",
        "a different spelling makes a different class: if they are the same, spell them alike in train.csv", table,
    )  # fmt: skip


def patients_in_both(train: Sequence[str], test: Sequence[str], patients: Mapping[str, str]) -> Finding | None:
    """Patients with images in train/ and in test/: a row each, with the numbers of their images."""
    in_train = pd.Series([patients[name] for name in train], dtype=object).value_counts()
    in_test = pd.Series([patients[name] for name in test], dtype=object).value_counts()
    both = sorted(set(in_train.index) & set(in_test.index))
    if not both:
        return None
    rows = pd.DataFrame(
        {"patient": both, "training_images": in_train[both].to_numpy(), "test_images": in_test[both].to_numpy()}
    )
    images = int(rows["test_images"].sum())
    return Finding(
        NOTE, PATIENTS,
        f"{_count(images, 'test image')} of {len(test)} ({images / len(test):.0%}) show a patient who is also in "
        f"train ({_count(len(both), 'patient')})",
        "to that extent the test is easier than the validation by patient", rows,
    )  # fmt: skip


def class_counts(annotations: pd.DataFrame) -> Finding | None:
    """Boxes, images and share of every class, the most frequent first."""
    if annotations.empty:
        return None
    rows = annotations.groupby("label").agg(boxes=("image_id", "size"), images=("image_id", "nunique"))
    rows = rows.sort_values("boxes", ascending=False, kind="stable").reset_index()
    rows["share"] = (rows["boxes"] / len(annotations)).round(4)
    few = rows.iloc[-1]
    return Finding(
        NOTE, CLASSES,
        f"{_count(len(annotations), 'box', 'boxes')} of {_count(len(rows), 'class', 'classes')}; fewest: "
        f"{few['label']} ({few['boxes']})",
        "the score is a mean over classes: a rare class counts as much as a frequent one", rows,
    )  # fmt: skip


def _deviations(values: pd.DataFrame) -> pd.DataFrame:
    """The distance of each value from the median in robust standard deviations.

    The scale is the larger of two, from the middle half and from the middle nine tenths of the values: two lungs
    make two clusters of centres, and the middle half may lie in only one of them.
    """
    scales = [
        (values.quantile(1 - tail) - values.quantile(tail)) / (2 * NormalDist().inv_cdf(1 - tail))
        for tail in (0.25, _TAIL)
    ]
    return (values - values.median()) / pd.DataFrame([_LEAST_SPREAD, *scales]).max()


def _difference(label: str, other: str) -> str:
    bare, other_bare = ("".join(filter(str.isalnum, text.casefold())) for text in (label, other))
    if bare == other_bare:
        return "case or signs" if bare or label.casefold() == other.casefold() else ""
    if list(filter(str.isdigit, bare)) != list(filter(str.isdigit, other_bare)):
        return ""
    return "spelling" if difflib.SequenceMatcher(None, bare, other_bare).ratio() >= _ALIKE else ""


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
