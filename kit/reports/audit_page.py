"""The page of an audit: every finding with its rows, and pictures of duplicates and improbable boxes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kit.data.audit import CHECKS, DUPLICATES
from kit.data.box_checks import BOXES, REPEATED, UNITS
from kit.data.finding import LEVELS, Finding
from kit.reports.figures import COLUMNS, PREDICTION, Mark, Picture, save, sheet, short
from kit.reports.html import write_page
from kit.schemas.file_names import TEST, TRAIN

_ROWS_SHOWN = 200
_IMAGES_SHOWN = 16
_TITLE_LETTERS = 28
_LINE_PT = 1.4


def write_audit_page(path: Path, findings: Sequence[Finding], image_paths: Mapping[str, Path]) -> Path:
    """Write the page, with a PNG file beside it for each finding that has pictures; returns ``path``.

    ``image_paths`` has the file of every image, by ``train/NAME`` and ``test/NAME``.
    """
    pictures_of = {DUPLICATES: _duplicates, BOXES: _odd_boxes, UNITS: _odd_boxes, REPEATED: _repeated_boxes}
    figures = {}
    for finding in findings:
        if finding.check in pictures_of:
            figures[finding.check] = path.with_name(f"{finding.check}.png")
            save(sheet(pictures_of[finding.check](finding.rows, image_paths), COLUMNS), figures[finding.check])
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


def _duplicates(rows: pd.DataFrame, image_paths: Mapping[str, Path]) -> list[Picture]:
    """Each copy beside the first image of its group, two pairs in a row."""
    pictures: list[Picture] = []
    for number, group in rows.groupby("group"):
        first, *copies = group["image"]
        for copy in copies:
            pictures += [
                (short(f"{number}: {image}", _TITLE_LETTERS), image_paths[image], []) for image in (first, copy)
            ]
    return pictures[:_IMAGES_SHOWN]


def _odd_boxes(rows: pd.DataFrame, image_paths: Mapping[str, Path]) -> list[Picture]:
    """The first boxes on their images, with what is odd about them if the check says it."""
    return [
        _marked([row], f": {row['odd']}" if "odd" in row else "", image_paths)
        for row in rows.head(_IMAGES_SHOWN).to_dict("records")
    ]


def _repeated_boxes(rows: pd.DataFrame, image_paths: Mapping[str, Path]) -> list[Picture]:
    """The first findings with all their boxes."""
    findings = [group.to_dict("records") for _, group in rows.groupby("finding")]
    return [_marked(boxes, f": {len(boxes)} boxes", image_paths) for boxes in findings[:_IMAGES_SHOWN]]


def _marked(boxes: Sequence[Mapping[Hashable, Any]], words: str, image_paths: Mapping[str, Path]) -> Picture:
    """Boxes of one image on it; its title is the image_id and the words."""
    image_id = boxes[0]["image_id"]
    path = next(image_paths[f"{part}/{image_id}"] for part in (TRAIN, TEST) if f"{part}/{image_id}" in image_paths)
    marks = [
        Mark(
            (box["x_min"], box["y_min"], box["x_max"], box["y_max"]), short(str(box["label"])), PREDICTION, _LINE_PT
        )
        for box in boxes
    ]
    return short(f"{image_id}{words}", _TITLE_LETTERS), path, marks
