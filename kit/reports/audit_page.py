"""The page of an audit: every finding with its rows, and pictures of duplicates and improbable boxes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.data.audit import CHECKS, DUPLICATES
from kit.data.box_checks import BOXES, REPEATED, UNITS
from kit.data.finding import LEVELS, Finding
from kit.data.picture_checks import INVERTED, ORIENTATION
from kit.reports.figures import COLUMNS, PREDICTION, TRUTH, Mark, Picture, save, sheet, short
from kit.reports.html import write_page
from kit.reports.pictures import marks
from kit.schemas.file_names import TEST, TRAIN
from kit.schemas.image_headers import UPRIGHT, ImageFacts

_ROWS_SHOWN = 200
_IMAGES_SHOWN = 16
_TITLE_LETTERS = 28
_LINE_PT = 1.4


def write_audit_page(
    path: Path,
    findings: Sequence[Finding],
    images: Mapping[str, ImageFacts],
    annotations: pd.DataFrame | None = None,
) -> Path:
    """Write the page, with a PNG file beside it for each finding that has pictures; returns ``path``.

    Args:
        path: The page.
        findings: What the audit found.
        images: The facts of every image, by ``train/NAME`` and ``test/NAME``.
        annotations: The true boxes, by image_id; None without any.
    """
    boxes = pd.DataFrame(columns=["image_id", *CORNERS, "label"]) if annotations is None else annotations
    pictures_of: dict[str, Callable[[pd.DataFrame], list[Picture]]] = {
        DUPLICATES: lambda rows: _duplicates(rows, images),
        BOXES: lambda rows: _odd_boxes(rows, images),
        UNITS: lambda rows: _odd_boxes(rows, images),
        REPEATED: lambda rows: _repeated_boxes(rows, images),
        ORIENTATION: lambda rows: _orientations(rows, images, boxes),
        INVERTED: lambda rows: _inversions(rows, images),
    }
    figures = {}
    for finding in findings:
        if finding.check in pictures_of:
            figures[finding.check] = path.with_name(f"{finding.check}.png")
            save(sheet(pictures_of[finding.check](finding.rows), COLUMNS), figures[finding.check])
    values = {
        "findings": findings,
        "levels": LEVELS,
        "checks": CHECKS,
        "figures": figures,
        "tables": {finding.check: _readable(finding.rows.head(_ROWS_SHOWN)) for finding in findings},
    }
    return write_page(path, "audit_report.html", values)


def _readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with blanks in the columns' names, and yes and no for true and false."""
    table = rows.rename(columns=lambda name: name.replace("_", " "))
    flags = table.select_dtypes(bool).columns
    return table.assign(**{name: table[name].map({True: "yes", False: "no"}) for name in flags})


def _duplicates(rows: pd.DataFrame, images: Mapping[str, ImageFacts]) -> list[Picture]:
    """Each copy beside the first image of its group, two pairs in a row."""
    pictures: list[Picture] = []
    for number, group in rows.groupby("group"):
        first, *copies = group["image"]
        for copy in copies:
            pictures += [
                (short(f"{number}: {image}", _TITLE_LETTERS), images[image], []) for image in (first, copy)
            ]
    return pictures[:_IMAGES_SHOWN]


def _odd_boxes(rows: pd.DataFrame, images: Mapping[str, ImageFacts]) -> list[Picture]:
    """The first boxes on their images, with what is odd about them if the check says it."""
    return [
        _marked([row], f": {row['odd']}" if "odd" in row else "", images)
        for row in rows.head(_IMAGES_SHOWN).to_dict("records")
    ]


def _repeated_boxes(rows: pd.DataFrame, images: Mapping[str, ImageFacts]) -> list[Picture]:
    """The first findings with all their boxes."""
    findings = [group.to_dict("records") for _, group in rows.groupby("finding")]
    return [_marked(boxes, f": {len(boxes)} boxes", images) for boxes in findings[:_IMAGES_SHOWN]]


def _marked(boxes: Sequence[Mapping[Hashable, Any]], words: str, images: Mapping[str, ImageFacts]) -> Picture:
    """Boxes of one image on it; its title is the image_id and the words."""
    image_id = boxes[0]["image_id"]
    facts = next(images[f"{part}/{image_id}"] for part in (TRAIN, TEST) if f"{part}/{image_id}" in images)
    drawn = [
        Mark(
            (box["x_min"], box["y_min"], box["x_max"], box["y_max"]), short(str(box["label"])), PREDICTION, _LINE_PT
        )
        for box in boxes
    ]
    return short(f"{image_id}{words}", _TITLE_LETTERS), facts, drawn


def _orientations(rows: pd.DataFrame, images: Mapping[str, ImageFacts], annotations: pd.DataFrame) -> list[Picture]:
    """Each image as it lies and turned by its EXIF orientation, both with its boxes; images with boxes first."""
    named = annotations.assign(image=f"{TRAIN}/" + annotations["image_id"].astype(str))
    ordered = sorted(rows["image"], key=lambda name: name not in set(named["image"]))
    pictures: list[Picture] = []
    for name in ordered[: _IMAGES_SHOWN // 2]:
        boxes = marks(named[named["image"] == name], TRUTH)
        lying = replace(images[name], turn=UPRIGHT)
        pictures += [
            (short(f"as it lies: {lying.path.name}", _TITLE_LETTERS), lying, boxes),
            (short(f"turned: {lying.path.name}", _TITLE_LETTERS), lying.turned(), boxes),
        ]
    return pictures


def _inversions(rows: pd.DataFrame, images: Mapping[str, ImageFacts]) -> list[Picture]:
    """Each image as it lies in the file, and inverted."""
    return [
        (short(f"{title}: {images[name].path.name}", _TITLE_LETTERS), replace(images[name], inverted=inverted), [])
        for name in rows["image"][: _IMAGES_SHOWN // 2]
        for title, inverted in (("as it lies", False), ("inverted", True))
    ]
