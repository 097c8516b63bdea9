"""What is wrong with a competition's data: tables and prints of pixels in, findings out.

A fault stops training, a warning should be inspected, a note informs. The names of the checks are stable: they
stand in ``audit.json`` and after ``train --allow``.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from kit.config import DataConfig
from kit.core.errors import KitError, closest_names, first_few
from kit.data.box_checks import (
    BOXES,
    NO_FINDING,
    REPEATED,
    UNITS,
    box_units,
    improbable_boxes,
    no_finding_boxes,
    repeated_boxes,
)
from kit.data.duplicates import Prints, likeness
from kit.data.finding import FAULT, LEVELS, NOTE, WARNING, Finding, counted
from kit.data.images import Levels
from kit.data.patient_pattern import fitting_share, knows_patients, suggested_pattern
from kit.data.picture_checks import (
    FEW_LEVELS,
    INVERTED,
    ORIENTATION,
    OUTLYING,
    few_levels,
    inverted_images,
    orientation_tags,
    outlying_levels,
)
from kit.schemas.file_names import TEST, TRAIN
from kit.schemas.image_headers import ImageFacts

ANNOTATED, DUPLICATES, PATTERN = "annotated-test-images", "duplicate-images", "patient-pattern"
SEEN_TEST, SEEN_HELD_OUT = "seen-test-images", "seen-held-out-images"  # by an earlier stage of the weights
LABELS, PATIENTS, CLASSES = "labels-alike", "patients-in-both", "class-counts"
UNREAD = "unread-images"
CHECKS = (
    ANNOTATED, UNITS, NO_FINDING, UNREAD, DUPLICATES, REPEATED, BOXES, LABELS, ORIENTATION, INVERTED, OUTLYING,
    FEW_LEVELS, PATTERN, PATIENTS, CLASSES,
)  # fmt: skip
_ALIKE = 0.8  # of difflib: Infiltrate and Infiltration .82, Pneumonia and Pneumothorax .67
_NAMES_SHOWN = 3


def require_checks(names: Iterable[str], others: Collection[str] = ()) -> None:
    """Raise KitError if a name after ``--allow`` is no check of the audit, of seen images or among ``others``."""
    known = (*others, *CHECKS, SEEN_TEST, SEEN_HELD_OUT)
    unknown = [name for name in names if name not in known]
    if unknown:
        nearest = closest_names(unknown[0], known)
        raise KitError("the name of a check after --allow", repr(unknown[0]), f"nearest: {nearest}")


@dataclass(frozen=True)
class AuditInput:
    """What the checks judge. ``annotations`` may name images of train/ and of test/, ``test_names`` of the test.

    ``own_table``: train.csv is the organisers' own file, as it was downloaded. ``prints`` are those of all
    readable images, named ``train/NAME`` and ``test/NAME``; ``patients`` has the patient of every image by
    groups.csv, whose images are ``groups``, or by ``config.patient_pattern``. ``unread`` are the paths of pictures
    that are not read. ``inverted`` and ``levels`` (of 16-bit images) are named as the prints are. ``no_finding``
    are the rows with a box and a label such as ``No finding``: line, image_id, box, label. ``copies`` are the
    groups of copies of one picture, by the indices of their prints (`duplicate_groups`).
    """

    annotations: pd.DataFrame
    own_table: bool
    train: Mapping[str, ImageFacts]
    test: Mapping[str, ImageFacts]
    test_names: Collection[str]
    patients: Mapping[str, str]
    prints: Prints
    config: DataConfig
    unread: Sequence[str] = ()
    inverted: Sequence[str] = ()
    levels: Mapping[str, Levels] = field(default_factory=dict)
    groups: Container[str] = ()
    no_finding: pd.DataFrame = field(default_factory=pd.DataFrame)
    copies: Sequence[tuple[int, ...]] = ()


def findings(data: AuditInput) -> list[Finding]:
    """The findings of all checks: faults, then warnings, then notes. Checks that find nothing are left out."""
    images = {**data.test, **data.train}
    parts = (("train", data.train), ("test", data.test))
    files = {f"{part}/{name}": facts for part, of_part in parts for name, facts in of_part.items()}
    results = (
        annotated_test_images(
            data.annotations, test_pictures(data.train, data.test_names, data.prints), data.own_table
        ),
        box_units(data.annotations, images),
        no_finding_boxes(data.no_finding),
        unread_images(data.unread),
        duplicate_images(data.prints, data.copies, data.annotations["image_id"]),
        repeated_boxes(data.annotations, data.config.repeated_boxes == "fuse"),
        improbable_boxes(data.annotations, images),
        labels_alike(data.annotations["label"]),
        orientation_tags(files),
        inverted_images(files, data.inverted),
        outlying_levels(data.levels),
        few_levels(data.prints.names, data.prints.copies),
        patient_pattern(data.train, data.test, data.config, data.groups),
        patients_in_both(list(data.train), list(data.test), data.patients),
        class_counts(data.annotations),
    )
    return sorted(filter(None, results), key=lambda finding: LEVELS.index(finding.level))


def test_pictures(train: Collection[str], test_names: Collection[str], prints: Prints) -> set[str]:
    """The image_ids by which a row of train.csv would name a picture of the test: pixels decide, not names.

    A name of train/ is one if its pixels equal those of any test image. It is judged by its name alone where one
    of the two files has no pixels to compare.
    """
    digests = dict(zip(prints.names, prints.digests, strict=True))
    of_test = {digest for name, digest in digests.items() if name.startswith(f"{TEST}/")}
    pictures = set(test_names) - set(train)
    for name in train:
        own, same_name = digests.get(f"{TRAIN}/{name}"), digests.get(f"{TEST}/{name}")
        if own in of_test or (name in test_names and (own is None or same_name is None)):
            pictures.add(name)
    return pictures


def annotated_test_images(
    annotations: pd.DataFrame, test_names: Collection[str], own_table: bool
) -> Finding | None:
    """Rows of train.csv on an image of the test: a fault, unless the organisers themselves wrote them."""
    rows = annotations[annotations["image_id"].isin(list(test_names))].reset_index(drop=True)
    if rows.empty:
        return None
    text = f"{counted(len(rows), 'row')} of train.csv annotate {counted(rows['image_id'].nunique(), 'test image')}"
    if own_table:
        do = "the organisers' own file has them: these labels leak the test set, and public scores will be too high"
        return Finding(WARNING, ANNOTATED, text, do, rows)
    return Finding(
        FAULT, ANNOTATED, f"{text}, and train.csv is not the file that `invoke download` recorded",
        "remove these rows, or move what data/ holds away, hidden files too, and `invoke download` brings the "
        "competition's own file: the test's answers are no training data "
        f"(--allow {ANNOTATED} trains on them anyway)", rows,
    )  # fmt: skip


def unread_images(paths: Sequence[str]) -> Finding | None:
    """Pictures in train/ and test/ that are not read, by their paths: in deeper folders, or in another format."""
    if not paths:
        return None
    return Finding(
        WARNING, UNREAD,
        f"{counted(len(paths), 'picture')} in train/ or test/ {'is' if len(paths) == 1 else 'are'} not read: "
        f"{first_few(paths, _NAMES_SHOWN)}",
        "only PNG and JPEG files directly in these folders are read: move images up, convert other formats, or "
        "delete what is not of the competition", pd.DataFrame({"image": list(paths)}),
    )  # fmt: skip


def duplicate_images(
    prints: Prints, groups: Sequence[tuple[int, ...]], annotated: Collection[str]
) -> Finding | None:
    """Copies of the same picture, within train/ or test/ or across both: a row per image, in groups.

    Every image is compared with the first of its group: how many of 256 ``bits`` differ, the ``correlation`` of the
    64-px copies, that of their details once they lie on each other (``aligned``), and whether it is ``mirrored``.
    """
    if not groups:
        return None
    boxed = {f"train/{name}" for name in annotated}
    rows = []
    for number, group in enumerate(groups, start=1):
        for index in group:
            near, name = likeness(prints, group[0], index), prints.names[index]
            numbers = (near.bits, round(near.correlation, 4), round(near.aligned, 4))
            rows.append((number, name, name in boxed, near.equal, *numbers, near.mirrored))
    columns = ["group", "image", "has_boxes", "pixels_equal", "bits", "correlation", "aligned", "mirrored"]
    table = pd.DataFrame(rows, columns=columns)
    folders = table["image"].str.split("/").str[0].groupby(table["group"]).nunique()
    across = int((folders > 1).sum())
    return Finding(
        WARNING, DUPLICATES,
        f"{counted(len(table), 'image')} in {counted(len(groups), 'group')} are copies of the same picture, or "
        f"nearly; {counted(across, 'group')} across train and test",
        "compare them side by side: a picture in both train and test makes scores too high; a picture twice in "
        "train counts double and must not stand on both sides of a split", table,
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
        WARNING, LABELS, f"{counted(len(table), 'pair')} of labels may be two spellings of the same class",
        "a different spelling makes a different class: if they are the same, spell them alike in train.csv", table,
    )  # fmt: skip


def patient_pattern(
    train: Collection[str], test: Collection[str], config: DataConfig, groups: Container[str] = ()
) -> Finding | None:
    """A data.patient_pattern that fits fewer than nine tenths of the names of a half: a row per name without it.

    A name in ``groups`` needs no pattern.
    """
    pattern, image_ids = config.patient_pattern, [*train, *test]
    if knows_patients(train, pattern, groups) and knows_patients(test, pattern, groups):
        return None
    others = sorted(name for name in set(image_ids) if not fitting_share([name], pattern, groups))
    fitting = len(image_ids) - sum(name in set(others) for name in image_ids)
    suggested = suggested_pattern(sorted(set(image_ids)), config.largest_patient_share)
    example = f"'data.patient_pattern={suggested}'" if suggested else "data.patient_pattern=PATTERN"
    return Finding(
        WARNING, PATTERN,
        f"data.patient_pattern={pattern} fits {fitting} of {counted(len(image_ids), 'name')} of images; not "
        f"{first_few(others, _NAMES_SHOWN)}",
        "each of the other images counts as a patient of its own, so that images of one patient may stand on both "
        f"sides of a split: add --set {example}{', which fits every name' * bool(suggested)}: its first group is "
        "the patient; if every image is of another patient, --set 'data.patient_pattern=(.+)'",
        pd.DataFrame({"image_id": others}),
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
        f"{counted(images, 'test image')} of {len(test)} ({images / len(test):.0%}) show a patient who is also in "
        f"train ({counted(len(both), 'patient')})",
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
        f"{counted(len(annotations), 'box', 'boxes')} of {counted(len(rows), 'class', 'classes')}; fewest: "
        f"{few['label']} ({few['boxes']})",
        "the score is a mean over classes: a rare class counts as much as a frequent one", rows,
    )  # fmt: skip


def _difference(label: str, other: str) -> str:
    bare, other_bare = ("".join(filter(str.isalnum, text.casefold())) for text in (label, other))
    if bare == other_bare:
        return "case or signs" if bare or label.casefold() == other.casefold() else ""
    if list(filter(str.isdigit, bare)) != list(filter(str.isdigit, other_bare)):
        return ""
    return "spelling" if difflib.SequenceMatcher(None, bare, other_bare).ratio() >= _ALIKE else ""
