"""The page of the data: all images with their true boxes, the audit's findings as filters, copies side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kit.config import Config
from kit.core.locks import locked_folder
from kit.core.progress import Track, silent
from kit.data.audit import DUPLICATES, LABELS, PATIENTS
from kit.data.box_checks import BOXES, REPEATED
from kit.data.competition import patients
from kit.data.finding import Finding
from kit.data.groups import read_groups
from kit.data.pixel_cache import PixelCache
from kit.reports.audit_report import audit_workspace, audited_annotations
from kit.reports.view_data import DATA, ImageFinding, View, ViewedImage
from kit.reports.view_page import write_view
from kit.schemas.file_names import TEST, TRAIN

_BESIDE = 3  # copies shown beside an image
FINDINGS, BOXES_ORDER, COPIES = "findings of the audit", "true boxes", "copies together"


def view_data(workspace: Path, config: Config, track: Track = silent) -> tuple[Path, ...]:
    """Write ``explore/view.html``: the images of train/, and those of test/ that a finding or row names; its paths.

    The audit is made if there is none of these data. Raises KitError if train.csv is missing or no table of boxes.
    """
    audit = audit_workspace(workspace, config, track)
    pixels, folder = audit.opened.pixels, workspace / "data"
    files = {f"{part}/{name}": (cache, name) for part, cache in pixels.items() for name in cache.digests}
    ids = sorted({name for _, name in files.values()})
    patient_of = patients(ids, config.data.patient_pattern, read_groups(folder))
    truth = audited_annotations(folder, audit.opened, config)
    paths = [_path(name, files) for name in truth["image_id"]]
    truth = truth.assign(image_id=pd.Series(paths, index=truth.index, dtype=object))
    noted = [(finding, notes_of(finding, files, truth, patient_of)) for finding in audit.findings]
    findings = [
        ImageFinding(finding.check, finding.level, finding.text, notes) for finding, notes in noted if notes
    ]
    beside, group_of = _copies(audit.findings, files)
    named = {*paths, *(name for finding in findings for name in finding.notes)}
    shown = [name for name in files if name.startswith(f"{TRAIN}/") or name in named]
    images = {
        name: ViewedImage(*files[name], patient_of[files[name][1]], None, beside.get(name, ())) for name in shown
    }
    boxes = truth["image_id"].value_counts()
    orders: dict[str, Mapping[str, float]] = {
        FINDINGS: {name: float(sum(name in finding.notes for finding in findings)) for name in shown},
        BOXES_ORDER: {name: float(boxes.get(name, 0)) for name in shown},
    }
    if group_of:
        orders[COPIES] = {name: -float(number) for name, number in group_of.items()}
    view = View(
        DATA, "The data: every image with its boxes", _lead(truth, shown, findings), sorted(set(truth["label"])),
        images, truth, (), orders, findings,
    )  # fmt: skip
    with locked_folder(workspace / "explore") as folder:
        return write_view(folder / "view.html", view, track)


def notes_of(
    finding: Finding, files: Mapping[str, object], truth: pd.DataFrame, patient_of: Mapping[str, str]
) -> dict[str, str]:
    """By image (``train/NAME``, ``test/NAME``) that a finding names: what it says of it, "" if only that.

    Args:
        finding: Its rows name images by path or by image_id, patients, or labels.
        files: The images, by path.
        truth: The true boxes; image_id is the path.
        patient_of: The patient by image_id.
    """
    rows = finding.rows
    words: Callable[[Mapping[Any, Any]], str] = _WORDS.get(finding.check, lambda row: "")
    found: dict[str, list[str]] = {}
    for row in rows.to_dict("records"):
        for name in _named_by(row, finding.check, files, truth, patient_of):
            if name in files:
                found.setdefault(name, []).append(words(row))
    return {name: ", ".join(dict.fromkeys(filter(None, said))) for name, said in found.items()}


def _path(image_id: str, files: Mapping[str, object]) -> str:
    """The image that a row of train.csv names: of train/, else of test/."""
    return f"{TRAIN}/{image_id}" if f"{TRAIN}/{image_id}" in files else f"{TEST}/{image_id}"


def _named_by(
    row: Mapping[Any, Any],
    check: str,
    files: Mapping[str, object],
    truth: pd.DataFrame,
    patient_of: Mapping[str, str],
) -> list[str]:
    if "image" in row:
        return [row["image"]]
    if "image_id" in row:
        return [_path(row["image_id"], files)]
    if check == PATIENTS:
        return [name for name in files if patient_of[name.partition("/")[2]] == row["patient"]]
    if check == LABELS:
        return list(truth.loc[truth["label"].isin([row["label"], row["other_label"]]), "image_id"].unique())
    return []


_WORDS: dict[str, Callable[[Mapping[Any, Any]], str]] = {
    DUPLICATES: lambda row: f"group {row['group']}",
    BOXES: lambda row: f"{row['label']}: {row['odd']}",
    REPEATED: lambda row: f"finding {row['finding']}",
    LABELS: lambda row: f"{row['label']}, {row['other_label']}",
    PATIENTS: lambda row: f"patient {row['patient']}",
}


def _copies(
    findings: tuple[Finding, ...], files: Mapping[str, tuple[PixelCache, str]]
) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """By image its copies (a few), and the number of their group."""
    rows = [finding.rows for finding in findings if finding.check == DUPLICATES]
    if not rows:
        return {}, {}
    table = rows[0][rows[0]["image"].isin(list(files))]
    groups: dict[int, list[str]] = {}
    for number, image in zip(table["group"].tolist(), table["image"], strict=True):
        groups.setdefault(number, []).append(image)
    beside = {
        name: tuple(other for other in members if other != name)[:_BESIDE]
        for members in groups.values()
        for name in members
    }
    return beside, {name: number for number, members in groups.items() for name in members}


def _lead(truth: pd.DataFrame, shown: list[str], findings: list[ImageFinding]) -> list[str]:
    of_train = sum(name.startswith(f"{TRAIN}/") for name in shown)
    own = truth.loc[[name.startswith(f"{TRAIN}/") for name in truth["image_id"]], "image_id"]
    first = f"{of_train} images of train/, {own.nunique()} of them with {len(own)} boxes"
    if len(shown) > of_train:
        first += f"; {len(shown) - of_train} images of test/ that a finding names"
    return [f"{first}.", *(f"{finding.check} ({finding.level}): {finding.text}." for finding in findings)]
