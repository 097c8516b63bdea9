"""The rows of adopted detections, compared with the competition: images, halves, labels, units, folds and views."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.data.competition import TestData, TrainingData
from kit.runs.box_units import unit_faults
from kit.runs.halves import Halves, pictures, with_facts, with_halves
from kit.runs.label_order import agreement, labels_on_truth, other_order
from kit.schemas.csv_text import LINE, Fault
from kit.schemas.file_names import TEST, TRAIN
from kit.schemas.foreign.content import OPTIONAL, Foreign, by_cause, map_text, stated_sizes
from kit.schemas.foreign.forms import read_foreign
from kit.schemas.missing_images import named_otherwise
from kit.schemas.no_finding import has_no_corners, is_empty
from kit.schemas.number_cells import parse_numbers, without_corners
from kit.schemas.row_checks import (
    AREA,
    IMAGE_CHECKS,
    INSIDE,
    PLAIN_VIEW,
    RowCheck,
    clip_to_image,
    failed_checks,
)
from kit.schemas.tables import raise_faults
from kit.schemas.turned_boxes import turned_boxes, turned_sizes

_DO = "correct these lines and adopt the file again"
_CLIP = "correct these boxes, or add --clip, which cuts boxes off at the border of their image"
_NO_BOX = "leave out the rows without a box: an image without a detection needs no row"
ONE_HALF = "an image of train/ or of test/, not of both: the column part, or a folder, says which"
ADD_PART = "add a column part (or a key part of each entry) with train or test, and adopt the file again"
_MAKE_FOLDERS = "put the files into subfolders train/ and test/ of the folder, and adopt it again"
_CENTRE_INSIDE = RowCheck(
    "a box whose centre is inside its image (--clip cuts off what is over)",
    (*CORNERS, "width_px", "height_px"),
    lambda rows: (rows["width_px"] == 0) | (
        ((rows["x_min"] + rows["x_max"]) / 2).between(0, rows["width_px"])
        & ((rows["y_min"] + rows["y_max"]) / 2).between(0, rows["height_px"])
    ),
)  # fmt: skip
NO_FOLD = "no_fold"
_WHOLE = re.compile(r"^([0-9]+)\.0*$")  # pandas writes a column of whole numbers and empty cells so
_FILL_FOLD = "fill in the missing folds, or leave the column fold out"
_ON_TRUTH = "of the surest boxes that lie on a true one"
_NAME_LABELS = "correct the labels"
_CORRECT_NUMBERS = "correct the numbers of the labels (categories, or the order of the classes)"
_GIVE_SET = "give --images, a COCO data set whose categories have the detector's numbers"
_SIDES = {"x_min": "width_px", "y_min": "height_px", "x_max": "width_px", "y_max": "height_px"}
_ROW = ("image_id", "part", *CORNERS, "score", "label", "view", "fold")
log = logging.getLogger("kit")


@dataclasses.dataclass(frozen=True)
class ForeignRows:
    """Checked rows: the columns of stored detections but ``run``, and ``part`` (train or test)."""

    table: pd.DataFrame
    label_map: str  # the label that each number was taken for, in words; empty if the file names its labels

    @property
    def held_out(self) -> pd.Series:
        """Whether a row's image is one of ``train/``."""
        return self.table["part"] == TRAIN


def read_rows(
    path: Path,
    data: TrainingData,
    test: TestData | None,
    held: Sequence[str],
    images_file: Path | None = None,
    clip: bool = False,
) -> ForeignRows:
    """The rows of a file or folder of detections; boxes less than a pixel over the border are clipped.

    Args:
        path: The file or folder.
        data: The training half.
        test: The test half, if there is one.
        held: The images of ``train/`` that were held out.
        images_file: A COCO data set whose ids the detections use.
        clip: Cut off any box at the border whose centre is inside its image.

    Raises:
        TableError: Every fault: unknown images and labels, images that were not held out, corners, other units,
            scores outside 0..1, an image of train in two folds, folds that are not counted from 0.
    """
    foreign = read_foreign(path, data.labels, images_file, _DO)
    cells = foreign.cells
    raw = cells.table.assign(**{name: value for name, value in OPTIONAL.items() if name not in cells.table})
    raw = with_folds(raw)
    texts = ("image_id", "label", "view", "part", NO_FOLD)
    halves: Halves = {
        TRAIN: data.pixels.facts,
        TEST: test.pixels.facts if test else {},
    }
    bare = has_no_corners(raw[CORNERS])
    table, faults = parse_numbers(cells, raw[~bare], texts, (*CORNERS, "score"), ("fold",))
    table = table.assign(stated=stated_sizes(table["image_id"], foreign.sizes))
    table = with_facts(with_halves(path, table, halves), halves)
    if foreign.in_fractions:
        table = table.assign(**{name: table[name] * table[side].clip(lower=1) for name, side in _SIDES.items()})
    within = _CENTRE_INSIDE if clip else INSIDE
    own = pictures(table, halves)
    judged, own = table[own.notna()], own[own.notna()]
    turned = turned_sizes(path, judged, own) or turned_boxes(path, judged, own, within)[0]
    units = turned or unit_faults(path, judged, data.annotations)
    raise_faults(path, table, units, _DO, rows_needed=False)
    unknown, known = unknown_images(path, table, halves)
    outside = failed_checks(path, table, (within,))
    if not clip and _CENTRE_INSIDE.test(table).all():
        outside = [dataclasses.replace(fault, do=_CLIP) for fault in outside]
    faults += [*unknown, *failed_checks(path, known, IMAGE_CHECKS), *outside]
    faults += without_corners(path, raw[bare], _NO_BOX) + _repeated(path, table)
    values = (
        RowCheck(
            f"one of the labels {', '.join(data.labels)}", ("label",), lambda rows: rows["label"].isin(data.labels)
        ),
        RowCheck("a score between 0 and 1", ("score",), lambda rows: rows["score"].between(0, 1)),
    )
    divide = _MAKE_FOLDERS if path.is_dir() else ADD_PART
    faults += [
        dataclasses.replace(fault, do=divide if fault.expected == ONE_HALF else "")
        for fault in failed_checks(path, table, (AREA, PLAIN_VIEW, *half_rules(data, halves, held), *values))
    ]
    faults += without_fold(path, table)
    if not faults:
        faults += fold_faults(path, table, table["part"] == TRAIN)
    raise_faults(path, table, [_located(foreign, fault) for fault in by_cause(faults)], _DO)
    fitted = clip_to_image(table)
    moved = int((fitted[CORNERS] != table[CORNERS]).any(axis=1).sum())
    if moved:
        how_far = "" if clip else "less than a pixel "
        log.info("%s: %d boxes ended %soutside their image and were clipped", path.name, moved, how_far)
    pairs = labels_on_truth(table[table["part"] == TRAIN], data.annotations)
    order = _NAME_LABELS if not foreign.numbers else _GIVE_SET if foreign.counted else _CORRECT_NUMBERS
    _warn_of_another_order(path, pairs, order)
    return ForeignRows(
        fitted.drop(columns=["width_px", "height_px", "image_fault", "stated", NO_FOLD, LINE]),
        _label_map(foreign, pairs),
    )


def _label_map(foreign: Foreign, pairs: pd.DataFrame) -> str:
    """The labels that numbers were taken for, and how often the truth agrees; empty if the file names labels."""
    if not foreign.numbers:
        return ""
    found = set(foreign.cells.table["label"])
    numbers = {
        number: label if label in found else f"{label} (no detection)" for number, label in foreign.numbers.items()
    }
    agrees = f"; {_ON_TRUTH} {agreement(pairs)} have its label" if len(pairs) else ""
    hint = "; if the file counts otherwise, say so with --images: a COCO data set with its categories"
    return map_text(numbers) + agrees + (hint if foreign.counted else "")


def _warn_of_another_order(path: Path, pairs: pd.DataFrame, do: str) -> None:
    """A warning if the boxes are on the true ones and their labels are others'."""
    if better := other_order(pairs):
        log.warning(
            "%s: %s %s have its label; %s: %s, then adopt the file under another --run NAME",
            path.name, _ON_TRUTH, agreement(pairs), better, do,
        )  # fmt: skip


def _located(foreign: Foreign, fault: Fault) -> Fault:
    """The fault with its file and line, if the detections came in several files."""
    if not foreign.origins or fault.line is None or fault.file != foreign.cells.path:
        return fault
    file, line = foreign.origins[fault.line - 1]
    return dataclasses.replace(fault, file=file, line=line)


def _repeated(path: Path, table: pd.DataFrame) -> list[Fault]:
    """One fault for all rows that equal an earlier one, as those of a file that was appended to itself do.

    A detector gives a box of one label and score once; twice it would count as a false detection, and weigh double
    in an ensemble.
    """
    again = table[table.duplicated(list(_ROW))]
    if again.empty:
        return []
    row = again.iloc[0]
    first = table.loc[(table[list(_ROW)] == row[list(_ROW)]).all(axis=1), LINE].iloc[0]
    more = f" and {len(again) - 1} rows more of {len(table)}" if len(again) > 1 else ""
    return [
        Fault(path, int(row[LINE]), f"{row['image_id']}, {row['label']}, score {row['score']:g}{more}",
              f"each detection once (line {first} has the first one)",
              "leave out the rows that repeat others (of a file that was appended to itself one half)")
    ]  # fmt: skip


def unknown_images(path: Path, table: pd.DataFrame, halves: Halves) -> tuple[list[Fault], pd.DataFrame]:
    """A fault for each cause for which rows name no image, and the other rows."""
    missing = table["image_fault"] == "missing"
    names = [*halves[TRAIN], *halves[TEST]]
    folder = next(iter(halves[TRAIN].values())).path.parent
    faults, rest = named_otherwise(path, table[missing], names, folder)
    return faults, pd.concat([table[~missing], rest])


def half_rules(data: TrainingData, halves: Halves, held: Sequence[str]) -> tuple[RowCheck, ...]:
    """The checks of which image of which half a row means, and of its fold."""
    left_out, both = set(data.image_ids) - set(held), set(halves[TRAIN]) & set(halves[TEST])
    known = set(halves[TRAIN]) | set(halves[TEST])

    def in_its_part(rows: pd.DataFrame) -> pd.Series:
        names, parts = rows["image_id"], rows["part"]
        found = [part not in halves or name in halves[part] for name, part in zip(names, parts, strict=True)]
        return pd.Series(found, index=rows.index, dtype=bool) | ~names.isin(known)

    return (
        RowCheck(
            "an image that was held out (--held-out)", ("image_id",),
            lambda rows: ~rows["image_id"].isin(left_out) | (rows["part"] != TRAIN),
        ),
        RowCheck(
            "train, test or nothing in the column part", ("part",), lambda rows: rows["part"].isin(["", *halves])
        ),
        RowCheck("an image of the folder that the column part names", ("image_id", "part"), in_its_part),
        RowCheck(
            ONE_HALF, ("image_id",),
            lambda rows: ~rows["image_id"].isin(both) | (rows["part"] != ""),
        ),
        RowCheck("a fold, counted from 0", ("fold",), lambda rows: rows["fold"] >= 0),
    )  # fmt: skip


def with_folds(raw: pd.DataFrame) -> pd.DataFrame:
    """The cells with ``1.0`` in the column fold as 1; an empty one as fold 0, with ``no_fold`` True."""
    empty = is_empty(raw["fold"])
    folds = raw["fold"].str.replace(_WHOLE, r"\1", regex=True).mask(empty, OPTIONAL["fold"])
    return raw.assign(fold=folds, **{NO_FOLD: empty})


def without_fold(path: Path, table: pd.DataFrame) -> list[Fault]:
    """A fault for each row whose fold is empty; rows of test images may all be so: they are of one fold."""
    empty = table[NO_FOLD].astype(bool)
    on_train, on_test = (empty & (table["part"] == part) for part in (TRAIN, TEST))
    causes = [("the fold that held the image out: a row of train/ has one", table[on_train])]
    if not empty[table["part"] == TEST].all():
        causes.append(("a fold in each row of an image of test/, or in none", table[on_test]))
    return [
        Fault(path, line, f"{name}, no fold", expected, _FILL_FOLD)
        for expected, rows in causes
        for line, name in rows[[LINE, "image_id"]].itertuples(index=False, name=None)
    ]


def fold_faults(path: Path, table: pd.DataFrame, trained: pd.Series) -> list[Fault]:
    """Faults of folds and views as a whole; ``trained`` says which rows are of images of ``train/``."""
    first = table[trained].groupby("image_id")["fold"].transform("first")
    moved = table.loc[trained, "fold"] != first
    faults = [
        Fault(path, line, f"{name}, fold {fold}", "the fold that its earlier rows name: one fold held it out")
        for line, name, fold in table[trained][moved][[LINE, "image_id", "fold"]].itertuples(index=False, name=None)
    ]
    if len(table) and not trained.any():
        faults.append(Fault(path, None, "no row of an image of train/", "out-of-fold rows, to score and calibrate"))
    train_views, test_views = (sorted(set(rows["view"])) for rows in (table[trained], table[~trained]))
    if train_views and test_views and train_views != test_views:
        views = f"views {', '.join(train_views)} of train images, {', '.join(test_views)} of test images"
        faults.append(Fault(path, None, views, "the same views of both: what is scored is what is submitted"))
    for words, rows in (("train", table[trained]), ("test", table[~trained])):
        folds = sorted(rows["fold"].unique().tolist())
        if folds != list(range(len(folds))):
            listed = ", ".join(map(str, folds))
            faults.append(
                Fault(path, None, f"folds {listed}", f"the folds of {words} images counted from 0, none left out")
            )
    return faults
