"""The competition's tables: annotations, mapping and submission, with all faults of a file in one error.

Numbers are parsed cell by cell, then the rows that could be parsed are checked.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.core.errors import first_few
from kit.schemas.csv_text import LINE, Cells, Fault, TableError, read_cells, to_numbers
from kit.schemas.file_names import MAPPING, TABLE, TEST, TRAIN
from kit.schemas.fractions import boxes_in_fractions
from kit.schemas.image_headers import ImageFacts, image_headers
from kit.schemas.misplaced import misplaced_files
from kit.schemas.missing_images import named_otherwise
from kit.schemas.no_finding import has_no_corners, says_no_finding, stands_for_no_finding
from kit.schemas.number_cells import parse_numbers, without_corners
from kit.schemas.row_checks import (
    AREA,
    EXACTLY_INSIDE,
    IMAGE_CHECKS,
    IMAGE_THERE,
    INSIDE,
    LABEL,
    NIH_AREA,
    RowCheck,
    clip_to_image,
    failed_checks,
    repeated_rows,
    with_image_facts,
)
from kit.schemas.turned_boxes import turned_boxes

ANNOTATION_COLUMNS = ("image_id", *CORNERS, "label")
MAPPING_COLUMNS = ("ID", "image_id")
SUBMISSION_COLUMNS = ("ID", "image_id", *CORNERS, "confidence", "label")
# NIH's header "Image Index,Finding Label,Bbox [x,y,w,h]", split at its commas.
NIH_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
_NIH_MEANING = ("image_id", "label", "x_min", "y_min", "width", "height")
_SHOWN_IDS = 10
_FIX = "correct the file, or fetch it anew"
_FUSE = "leave out the repeated rows, or --set data.repeated_boxes=fuse if several readers gave them"
_LABEL_OR_LEAVE_OUT = (
    "leave out the rows without a box, or label them No finding: an image without a finding needs no row"
)
CORRECT = "correct these lines, then repeat the command with the same file"
_EVERY_ID = "write a box for every ID, whatever its confidence: corners in pixels"
_MANY_ROWS = 10  # that fail for one cause: fewer are single mistakes
log = logging.getLogger("kit")


def read_annotations(
    path: Path, images: Mapping[str, ImageFacts], every_image: bool = False, repeats: bool = False
) -> pd.DataFrame:
    """True boxes: image_id, corners (float64 pixels), label, in the file's order.

    The header is the competition's, in any order, or NIH's (x, y, width, height); other columns are ignored. A row
    labelled ``No finding`` (or alike) with empty corners or a stand-in box (0,0,1,1, -1s, the whole image) is an
    image without a box: it is left out, and the log has the count. Boxes that end less than a pixel outside their
    image are clipped, and the log says how many. Raises TableError with all faults; with ``every_image`` an
    unreadable image that no row names is a fault too. With ``repeats`` a row may repeat an earlier one.
    """
    cells = read_cells(path, _FIX)
    raw = _annotation_cells(cells)
    sides = _sides(raw)
    empty = stands_for_no_finding(raw["label"], raw[sides], with_image_facts(raw, images))
    bare = raw[~empty & has_no_corners(raw[sides])]
    table, faults = parse_numbers(
        cells, raw.drop(index=[*raw.index[empty], *bare.index]), ("image_id", "label"), sides
    )
    if "width" in raw:
        table = table.assign(x_max=table["x_min"] + table["width"], y_max=table["y_min"] + table["height"])
    folder = path.parent / TRAIN
    faults += _image_faults(
        path, pd.concat([table[[LINE, "image_id"]], raw.loc[empty, [LINE, "image_id"]]]), images, folder
    )
    faults += without_corners(path, bare, _LABEL_OR_LEAVE_OUT)
    table = with_image_facts(table, images)
    turned, rest = turned_boxes(path, table, table["image_id"].map(images.get))
    faults += turned + _box_faults(path, rest, NIH_AREA if "width" in raw else AREA)
    faults += failed_checks(path, table, (LABEL,))
    if not repeats:
        faults += repeated_rows(path, table, ANNOTATION_COLUMNS, "a row that no earlier line has", _FUSE)
    if every_image:
        faults += _unnamed(set(raw["image_id"]), images)
    if not faults and table.empty and empty.any():
        faults = [Fault(path, None, f"{len(raw)} rows without a box, and no other", "at least one row with a box")]
    raise_faults(path, table, faults, _FIX)
    if empty.any():
        without = raw.loc[empty, "image_id"]
        also = without[without.isin(table["image_id"])].nunique()
        log.info(
            "%s: %d rows without a box: these %d images have no finding%s", path.name, len(without),
            without.nunique(), f"; other rows give boxes to {also} of them" if also else "",
        )  # fmt: skip
    fitted = clip_to_image(table)
    moved = int((fitted[CORNERS] != table[CORNERS]).any(axis=1).sum())
    if moved:
        log.info("%s: %d boxes ended less than a pixel outside their image and were clipped", path.name, moved)
    return fitted[list(ANNOTATION_COLUMNS)].reset_index(drop=True)


def read_mapping(path: Path, images: Mapping[str, ImageFacts], expected_ids: int) -> pd.DataFrame:
    """The mapping of the test: ID (int64, unique) and image_id (may repeat), in the file's order.

    Raises TableError with all faults, also for a number of rows that is not ``expected_ids``.
    """
    cells = read_cells(path, _FIX)
    table, faults = parse_numbers(cells, _mapping_cells(cells), ("image_id",), integers=("ID",))
    faults += _image_faults(path, table, images, path.parent / TEST)
    faults += repeated_rows(path, table, ("ID",), "an ID that no earlier line has")
    rows = len(cells.table) + len(cells.faults)
    if rows not in (0, expected_ids):
        faults += [Fault(path, None, f"{rows} IDs", f"{expected_ids}: competition.expected_ids")]
    do = _FIX
    if rows not in (0, expected_ids):
        do += f"; or --set competition.expected_ids={rows}, if this edition has as many"
    raise_faults(path, table, faults, do)
    return table[list(MAPPING_COLUMNS)].reset_index(drop=True)


def read_submission(
    path: Path, mapping: pd.DataFrame, labels: Collection[str], images: Mapping[str, ImageFacts], do: str = CORRECT
) -> pd.DataFrame:
    """A submission, checked as Kaggle checks it: exactly the eight columns, every ID of the mapping once.

    ``labels`` are those of train.csv. Rows may have any order. Raises TableError with all faults and the advice
    ``do``.
    """
    cells = read_cells(path, do, marks=False)
    if cells.header != SUBMISSION_COLUMNS:
        fault = Fault(
            path, cells.header_line, ",".join(cells.header), f"exactly the header {','.join(SUBMISSION_COLUMNS)}"
        )
        raise TableError(path, [fault], do)
    numeric = (*CORNERS, "confidence")
    bare = cells.table[has_no_corners(cells.table[CORNERS])]
    table, faults = parse_numbers(
        cells, cells.table.drop(index=bare.index), ("image_id", "label"), floats=numeric, integers=("ID",)
    )
    faults += without_corners(path, bare, _EVERY_ID)
    image_of_id = mapping.set_index("ID")["image_id"]
    table = with_image_facts(table.assign(mapping=table["ID"].map(image_of_id)), images)
    checks = (
        RowCheck("an ID of the mapping", ("ID",), lambda rows: rows["mapping"].notna()),
        RowCheck(
            "the image_id that the mapping has for this ID",
            ("ID", "image_id", "mapping"),
            lambda rows: rows["mapping"].isna() | (rows["mapping"] == rows["image_id"]),
        ),
        RowCheck(
            "an image that is there and can be read",
            ("image_id", "image_fault"),
            lambda rows: (rows["image_fault"] == "") | (rows["mapping"] != rows["image_id"]),
        ),
        AREA,
        EXACTLY_INSIDE,
        RowCheck("a confidence between 0 and 1", ("confidence",), lambda rows: rows["confidence"].between(0, 1)),
        RowCheck(
            f"one of the labels {', '.join(sorted(labels))}",
            ("label",),
            lambda rows: rows["label"].isin(list(labels)),
        ),
    )
    faults += failed_checks(path, table, checks)
    faults += repeated_rows(path, table, ("ID",), "an ID that no earlier line has")
    faults += boxes_in_fractions(path, table)
    present = to_numbers(
        cells.table["ID"], whole=True
    )  # of all rows: an ID is present even if another cell of its row is bad
    missing = mapping.loc[~mapping["ID"].isin(present), "ID"].astype(str).tolist()
    if missing:
        found = f"{len(missing)} IDs missing: {first_few(missing, _SHOWN_IDS)}"
        faults.append(Fault(path, None, found, f"all {len(mapping)} IDs of the mapping"))
    raise_faults(path, table, faults, do, rows_needed=False)
    return table[list(SUBMISSION_COLUMNS)].reset_index(drop=True)


def validate_submission(
    path: Path, data: Path, expected_ids: int, orientation: str = "ignore", do: str = CORRECT
) -> pd.DataFrame:
    """``read_submission`` with the mapping, labels and image headers of a competition's folder ``data``.

    ``orientation`` is the knob data.orientation, which decides the images' sizes.
    """
    images = image_headers(data / TEST, orientation)
    mapping = read_mapping(data / MAPPING, images, expected_ids)
    return read_submission(path, mapping, annotation_labels(data / TABLE, orientation), images, do)


def annotation_labels(path: Path, orientation: str = "ignore") -> set[str]:
    """The labels in train.csv of rows with a box; boxes and images are not checked.

    ``orientation`` is the knob data.orientation: a box of a whole image has the size of the turned one. Raises
    TableError for faults of the labels.
    """
    cells = read_cells(path, _FIX)
    table = _annotation_cells(cells)
    folder = path.parent / TRAIN
    is_needed = says_no_finding(table["label"]).any() and folder.is_dir()  # some of these boxes are whole images
    images = image_headers(folder, orientation) if is_needed else {}
    table = table[~stands_for_no_finding(table["label"], table[_sides(table)], with_image_facts(table, images))]
    raise_faults(path, table, [*cells.faults, *failed_checks(path, table, (LABEL,))], _FIX)
    return set(table["label"])


def no_finding_boxes(path: Path, images: Mapping[str, ImageFacts]) -> pd.DataFrame:
    """The rows of train.csv with a box and a label such as ``No finding``: line, image_id, box (texts), label."""
    raw = _annotation_cells(read_cells(path, _FIX))
    sides = _sides(raw)
    without = stands_for_no_finding(raw["label"], raw[sides], with_image_facts(raw, images))
    rows = raw[says_no_finding(raw["label"]) & ~without]
    return rows[[LINE, "image_id", *sides, "label"]].reset_index(drop=True)


def mapped_images(path: Path) -> pd.Series:
    """The image_ids of a mapping; only its header is checked."""
    return _mapping_cells(read_cells(path, _FIX))["image_id"]


def _image_faults(path: Path, table: pd.DataFrame, images: Mapping[str, ImageFacts], folder: Path) -> list[Fault]:
    """Faults of the image_ids: one for each cause that explains several rows, else one a row."""
    unknown = table[~table["image_id"].isin(list(images))]
    faults, rest = named_otherwise(path, unknown, images, folder)
    judged = pd.concat([table[table["image_id"].isin(list(images))], rest])
    found = failed_checks(path, with_image_facts(judged, images), IMAGE_CHECKS)
    missing = [fault for fault in found if fault.expected == IMAGE_THERE]
    if len(missing) >= _MANY_ROWS:
        value = f"{missing[0].value} (and {len(missing) - 1} rows more)"
        do = misplaced_files(folder.parent) or f"put their images into {folder}, or leave these rows out"
        found = [fault for fault in found if fault.expected != IMAGE_THERE]
        found.append(dataclasses.replace(missing[0], value=value, do=do))
    return faults + found


def _box_faults(path: Path, table: pd.DataFrame, area: RowCheck) -> list[Fault]:
    """Faults of the boxes: one a row, with advice if most rows fail for one cause.

    Most boxes outside their images are one fault: they are of larger pictures.
    """
    outside = failed_checks(path, table, (INSIDE,))
    if len(outside) >= _MANY_ROWS and len(outside) > len(table) / 2:
        seen = table[table["width_px"] > 0]
        reach = max((seen["x_max"] / seen["width_px"]).max(), (seen["y_max"] / seen["height_px"]).max())
        outside = [
            Fault(path, outside[0].line, f"{outside[0].value} and {len(outside) - 1} rows more of {len(table)}",
                  f"{INSIDE.expected}; the farthest reaches {reach:.3g} times as far",
                  "if the boxes are of larger pictures, multiply their corners by the ratio of the sizes, or put "
                  f"those pictures into {TRAIN}/")
        ]  # fmt: skip
    without = failed_checks(path, table, (area,))
    if area is AREA and len(without) >= _MANY_ROWS and len(without) > len(table) / 2:
        advice = f"if x_max and y_max hold width and height, name the columns as NIH does: {','.join(NIH_COLUMNS)}"
        if table[CORNERS].to_numpy().max() <= 1:
            advice = "if these are YOLO's centres and sizes as fractions, write corners in pixels"
        without = [dataclasses.replace(fault, do=advice) for fault in without]
    return without + outside


def _unnamed(named: Collection[str], images: Mapping[str, ImageFacts]) -> list[Fault]:
    """Faults of unreadable images that no row names: training would use them as images without a finding."""
    return [
        Fault(facts.path, None, facts.fault, "an image that can be read")
        for image_id, facts in images.items()
        if facts.fault and image_id not in named
    ]


def _annotation_cells(cells: Cells) -> pd.DataFrame:
    """The annotation columns under kit's names, from the competition's header or NIH's (width and height)."""
    if set(NIH_COLUMNS) <= set(cells.header) and not set(ANNOTATION_COLUMNS) <= set(cells.header):
        kit_names = dict(zip(NIH_COLUMNS, _NIH_MEANING, strict=True))
    else:
        kit_names = dict(zip(ANNOTATION_COLUMNS, ANNOTATION_COLUMNS, strict=True))
    return _renamed_columns(cells, kit_names, f"{','.join(ANNOTATION_COLUMNS)} or {','.join(NIH_COLUMNS)}")


def _sides(raw: pd.DataFrame) -> list[str]:
    """The columns of the box: corners, or NIH's width and height."""
    return ["x_min", "y_min", "width", "height"] if "width" in raw else CORNERS


def _mapping_cells(cells: Cells) -> pd.DataFrame:
    id_name = "ID" if "ID" in cells.header else "id"
    image_name = "image_id" if "image_id" in cells.header else "Image Index"
    return _renamed_columns(cells, {id_name: "ID", image_name: "image_id"}, ",".join(MAPPING_COLUMNS))


def _renamed_columns(cells: Cells, kit_names: Mapping[str, str], expected: str) -> pd.DataFrame:
    if not set(kit_names) <= set(cells.header):
        header = f"the header {expected}, with commas"
        fault = Fault(cells.path, cells.header_line, ",".join(cells.header), header)
        raise TableError(cells.path, [fault], _FIX)
    return cells.table[[LINE, *kit_names]].rename(columns=dict(kit_names))


def raise_faults(path: Path, table: pd.DataFrame, faults: list[Fault], do: str, rows_needed: bool = True) -> None:
    """Raise TableError if a file has faults.

    Args:
        path: the file.
        table: its parsed rows.
        faults: those of its cells and rows; the error has them by line.
        do: the advice for faults that have none of their own.
        rows_needed: whether a table without rows is a fault.
    """
    if rows_needed and not faults and table.empty:
        faults = [Fault(path, None, "no rows", "at least one row")]
    if faults:
        advice = dict.fromkeys(fault.do or do for fault in faults)
        in_order = sorted(faults, key=lambda fault: (fault.line is None, fault.line or 0))
        raise TableError(path, in_order, "; ".join(advice))
