"""What is wrong with a competition's data: tables and prints of pixels in, findings out.

A fault stops training, a warning wants a look, a note is good to know. Each check has a name that stays the same,
in ``audit.json`` and for ``train --allow NAME``.
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
_TAIL = 0.05  # the scale is read between these quantiles: up to one box in twenty may be wrong
_LEAST_SPREAD = {"size": 0.2, "shape": 0.2, "across": 0.02, "down": 0.02}
_EDGE = 0.002


@dataclass(frozen=True)
class Finding:
    """One check's result: its level, its name, what was found, what to do, and a row for each case."""

    level: str
    check: str
    text: str
    do: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Material:
    """What is judged. ``annotations`` may name images of both parts; ``test_names`` are those of the test.

    ``own_table`` says whether train.csv is the organisers' own, as it was downloaded. ``prints`` are of all
    readable images, named ``train/NAME`` and ``test/NAME``; ``patients`` has the patient of every image.
    """

    annotations: pd.DataFrame
    own_table: bool
    train: Mapping[str, ImageFacts]
    test: Mapping[str, ImageFacts]
    test_names: Collection[str]
    patients: Mapping[str, str]
    prints: Prints


def findings(material: Material) -> list[Finding]:
    """All that was found, faults first, then warnings, then notes; a check that found nothing is left out."""
    images = {**material.test, **material.train}
    found = (
        annotated_test_images(material.annotations, material.test_names, material.own_table),
        duplicate_images(material.prints, material.annotations["image_id"]),
        improbable_boxes(material.annotations, images),
        labels_alike(material.annotations["label"]),
        patients_in_both(list(material.train), list(material.test), material.patients),
        class_counts(material.annotations),
    )
    return sorted(
        (finding for finding in found if finding is not None), key=lambda finding: LEVELS.index(finding.level)
    )


def annotated_test_images(
    annotations: pd.DataFrame, test_names: Collection[str], own_table: bool
) -> Finding | None:
    """Rows of train.csv on an image of the test: a fault, unless the organisers themselves wrote them."""
    rows = annotations[annotations["image_id"].isin(list(test_names))].reset_index(drop=True)
    if rows.empty:
        return None
    text = f"{_count(len(rows), 'row')} of train.csv annotate {_count(rows['image_id'].nunique(), 'test image')}"
    if own_table:
        do = "the organisers' own file has them: a public score that knows them flatters"
        return Finding(WARNING, ANNOTATED, text, do, rows)
    return Finding(
        FAULT, ANNOTATED, f"{text}, and train.csv is not the file that `invoke download` recorded",
        "take these rows out, or fetch the competition's own file with `invoke download`; answers of the test "
        f"are no training data (--allow {ANNOTATED} trains all the same)", rows,
    )  # fmt: skip


def duplicate_images(prints: Prints, annotated: Collection[str]) -> Finding | None:
    """Images that are one picture, within train or test or across: a row per image, in groups.

    The first of a group is what the others are compared with; ``bits`` of 256 differ, 64-px copies correlate.
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
    parts = table.assign(part=table["image"].str.split("/").str[0]).groupby("group")["part"].nunique()
    across = int((parts > 1).sum())
    return Finding(
        WARNING, DUPLICATES,
        f"{_count(len(table), 'image')} in {_count(len(groups), 'group')} are one picture or nearly so; "
        f"{_count(across, 'group')} across train and test",
        "look at them side by side: a picture in both halves makes scores flatter, a picture twice in train "
        "counts double and must not stand on both sides of a split", table,
    )  # fmt: skip


def improbable_boxes(annotations: pd.DataFrame, images: Mapping[str, ImageFacts]) -> Finding | None:
    """Boxes whose size and position are far from those of the other boxes of their class.

    Four values per box, near to independent of each other: sum (size) and difference (shape) of the logits of
    width and height as shares of the image, and the centre's position across and down. Each is measured from its
    class's median in units of its class's robust scale; the box is improbable where the root of the four squares
    exceeds 5.5. A class with fewer than 20 boxes is not judged.
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
    for _, places in shares.groupby("label").groups.items():
        if len(places) >= _LEAST_BOXES:
            deviations.loc[places] = _deviations(values.loc[places])
    distance = np.sqrt(np.square(deviations).sum(axis=1))
    chosen = distance[distance > _IMPROBABLE].sort_values(ascending=False, kind="stable").index
    if chosen.empty:
        return None
    rows = annotations.reset_index(drop=True).loc[chosen]
    rows = rows.assign(distance=distance.round(2), odd=deviations.abs().idxmax(axis=1)).reset_index(drop=True)
    return Finding(
        WARNING, BOXES, f"{_count(len(rows), 'box', 'boxes')} of {len(annotations)} improbable for the class",
        "look at the picture sheet: a slip of the pen, another convention (x, y, width, height), a wrong label, or "
        "just a rare patient", rows,
    )  # fmt: skip


def labels_alike(labels: pd.Series) -> Finding | None:
    """Labels that differ by case, blanks and signs, or by a few letters; different digits make them different."""
    counts = labels.value_counts().sort_index()
    rows = [
        (one, int(counts[one]), other, int(counts[other]), by)
        for one, other in itertools.combinations(counts.index, 2)
        if (by := _differ_by(one, other))
    ]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["label", "boxes", "other_label", "other_boxes", "differ_by"])
    return Finding(
        WARNING, LABELS, f"{_count(len(table), 'pair')} of labels look like two spellings of one",
        "each spelling is a class of its own: write them alike in train.csv, if they are one", table,
    )  # fmt: skip


def patients_in_both(train: Sequence[str], test: Sequence[str], patients: Mapping[str, str]) -> Finding | None:
    """How many test images show a patient who is also in train."""
    known = pd.Series([patients[name] for name in train], dtype=object).value_counts()
    tested = pd.Series([patients[name] for name in test], dtype=object).value_counts()
    both = sorted(set(known.index) & set(tested.index))
    if not both:
        return None
    rows = pd.DataFrame(
        {"patient": both, "training_images": known[both].to_numpy(), "test_images": tested[both].to_numpy()}
    )
    images = int(rows["test_images"].sum())
    return Finding(
        NOTE, PATIENTS,
        f"{_count(images, 'test image')} of {len(test)} ({images / len(test):.0%}) show a patient who is also in "
        f"train ({_count(len(both), 'patient')})",
        "validation by patient is stricter than the test to that extent", rows,
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
        "every class counts alike in the score, however rare", rows,
    )  # fmt: skip


def _deviations(values: pd.DataFrame) -> pd.DataFrame:
    """Each value's distance from the median in robust standard deviations.

    The scale is the larger of those that the middle half and the middle nine tenths give: two lungs make two
    clouds, and the middle half alone may see only one of them.
    """
    scales = [
        (values.quantile(1 - tail) - values.quantile(tail)) / (2 * NormalDist().inv_cdf(1 - tail))
        for tail in (0.25, _TAIL)
    ]
    return (values - values.median()) / pd.DataFrame([_LEAST_SPREAD, *scales]).max()


def _differ_by(one: str, other: str) -> str:
    bare, other_bare = ("".join(filter(str.isalnum, text.casefold())) for text in (one, other))
    if bare == other_bare:
        return "case or signs" if bare or one.casefold() == other.casefold() else ""
    if list(filter(str.isdigit, bare)) != list(filter(str.isdigit, other_bare)):
        return ""
    return "spelling" if difflib.SequenceMatcher(None, bare, other_bare).ratio() >= _ALIKE else ""


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
