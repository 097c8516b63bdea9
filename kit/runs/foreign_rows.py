"""The rows of adopted detections, compared with the competition: images, halves, labels, units, folds and views."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.boxes.nearest_truth import nearest_true_boxes
from kit.core.errors import first_few
from kit.data.competition import TestData, TrainingData
from kit.runs.box_units import unit_faults
from kit.schemas.csv_text import LINE, Fault, TableError
from kit.schemas.file_names import TEST, TRAIN
from kit.schemas.foreign.content import OPTIONAL, Foreign, by_cause, folder_and_name, map_text
from kit.schemas.foreign.forms import read_foreign
from kit.schemas.image_headers import ImageFacts
from kit.schemas.missing_images import named_otherwise
from kit.schemas.row_checks import (
    AREA,
    IMAGE_CHECKS,
    INSIDE,
    PLAIN_VIEW,
    RowCheck,
    clip_to_image,
    failed_checks,
    with_image_facts,
)
from kit.schemas.tables import parse_numbers, raise_faults
from kit.schemas.turned_boxes import turned_boxes, turned_sizes

_DO = "correct these lines and adopt the file again"
_ONE_PICTURE = (
    "pictures of several folders would be taken for one: leave out the rows of those that are not in this "
    "competition, or write one name for the same picture, and adopt the file again"
)
_CLIP = "correct these boxes, or add --clip, which cuts boxes off at the border of their image"
_ONE_HALF = "an image of train/ or of test/, not of both: the column part, or a folder, says which"
_ADD_PART = "add a column part (or a key part of each entry) with train or test, and adopt the file again"
_MAKE_FOLDERS = "put the files into subfolders train/ and test/ of the folder, and adopt it again"
_CENTRE_INSIDE = RowCheck(
    "a box whose centre is inside its image (--clip cuts off what is over)",
    (*CORNERS, "width_px", "height_px"),
    lambda rows: (rows["width_px"] == 0) | (
        ((rows["x_min"] + rows["x_max"]) / 2).between(0, rows["width_px"])
        & ((rows["y_min"] + rows["y_max"]) / 2).between(0, rows["height_px"])
    ),
)  # fmt: skip
_SIDES = {"x_min": "width_px", "y_min": "height_px", "x_max": "width_px", "y_max": "height_px"}
Halves = Mapping[str, Mapping[str, ImageFacts]]  # train and test: their images by name
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
    texts = ("image_id", "label", "view", "part")
    table, faults = parse_numbers(cells, raw, texts, (*CORNERS, "score"), ("fold",))
    halves: Halves = {
        TRAIN: data.pixels.facts,
        TEST: test.pixels.facts if test else {},
    }
    table = _with_facts(_with_halves(path, table, halves), halves)
    if foreign.in_fractions:
        table = table.assign(**{name: table[name] * table[side].clip(lower=1) for name, side in _SIDES.items()})
    everywhere = {**halves[TRAIN], **halves[TEST]}
    within = _CENTRE_INSIDE if clip else INSIDE
    turned = turned_sizes(path, foreign.sizes, everywhere) or turned_boxes(path, table, everywhere, within)[0]
    units = turned or unit_faults(path, table, foreign.sizes, data.annotations)
    raise_faults(path, table, units, _DO, rows_needed=False)
    unknown, known = _unknown_images(path, table, halves)
    outside = failed_checks(path, table, (within,))
    if not clip and _CENTRE_INSIDE.test(table).all():
        outside = [dataclasses.replace(fault, do=_CLIP) for fault in outside]
    faults += [*unknown, *failed_checks(path, known, IMAGE_CHECKS), *outside]
    divide = _MAKE_FOLDERS if path.is_dir() else _ADD_PART
    faults += [
        dataclasses.replace(fault, do=divide if fault.expected == _ONE_HALF else "")
        for fault in failed_checks(path, table, (AREA, PLAIN_VIEW, *_rules(data, halves, held)))
    ]
    if not faults:
        faults += _fold_faults(path, table, table["part"] == TRAIN)
    raise_faults(path, table, [_located(foreign, fault) for fault in by_cause(faults)], _DO)
    fitted = clip_to_image(table)
    moved = int((fitted[CORNERS] != table[CORNERS]).any(axis=1).sum())
    if moved:
        how_far = "" if clip else "less than a pixel "
        log.info("%s: %d boxes ended %soutside their image and were clipped", path.name, moved, how_far)
    return ForeignRows(
        fitted.drop(columns=["width_px", "height_px", "image_fault", LINE]),
        _label_map(foreign, table, data.annotations),
    )


def _label_map(foreign: Foreign, table: pd.DataFrame, truth: pd.DataFrame) -> str:
    """The labels that numbers were taken for, and how often the truth agrees; empty if the file names labels."""
    if not foreign.numbers:
        return ""
    found = set(table["label"])
    numbers = {
        number: label if label in found else f"{label} (no detection)" for number, label in foreign.numbers.items()
    }
    hint = "; if the file counts otherwise, say so with --images: a COCO data set with its categories"
    return map_text(numbers) + _agreement(table[table["part"] == TRAIN], truth) + (hint if foreign.counted else "")


def _agreement(rows: pd.DataFrame, truth: pd.DataFrame) -> str:
    """How often the surest box on a true one has its label, in words: seldom, if the numbers mean other labels."""
    own, other = nearest_true_boxes(truth, rows)
    on_truth = rows.assign(agrees=own.iou >= other.iou)[np.maximum(own.iou, other.iou) >= 1 / 2]
    surest = on_truth.sort_values("score", kind="stable").groupby("image_id").tail(1)
    agreeing = f"{int(surest['agrees'].sum())} of {len(surest)}"
    return f"; of the surest boxes that lie on a true one {agreeing} have its label" if len(surest) else ""


def _located(foreign: Foreign, fault: Fault) -> Fault:
    """The fault with its file and line, if the detections came in several files."""
    if not foreign.origins or fault.line is None or fault.file != foreign.cells.path:
        return fault
    file, line = foreign.origins[fault.line - 1]
    return dataclasses.replace(fault, file=file, line=line)


def _with_halves(path: Path, table: pd.DataFrame, halves: Halves) -> pd.DataFrame:
    """The rows with their half in ``part``, and with ``image_id`` as the images are named.

    A name may have a folder, which names the half if it is train or test, and lack its ending if one image alone
    has it. Without such a folder or ``part`` the half is the only one that has the image; empty if both or none do.
    A ``part`` that has no such image stays, and the image is named as in the other half.
    """
    of_stem = {half: _by_stem(images) for half, images in halves.items()}

    def identified(text: str, part: str) -> tuple[str, str]:
        folder, name = folder_and_name(text)
        preferred = [half for half in halves if half == (part or folder)]
        for among in (preferred, list(halves)):
            names = {name} if any(name in halves[half] for half in among) else set()
            names = names or set().union(*(of_stem[half].get(name, set()) for half in among))
            if len(names) == 1:
                (whole,) = names
                having = [half for half in among if whole in halves[half]]
                return whole, part or (having[0] if len(having) == 1 else "")
        return text, part

    pairs = list(zip(table["image_id"], table["part"], strict=True))
    result = {pair: identified(*pair) for pair in dict.fromkeys(pairs)}
    if merged := _merged_images(path, result):
        raise TableError(path, by_cause(merged), _ONE_PICTURE)
    changed = {text: name for (text, _), (name, _) in result.items() if text != name}
    if changed and path.is_file():
        text, name = next(iter(changed.items()))
        more = f" and so on ({len(changed)} names)" if len(changed) > 1 else ""
        log.info("%s: images named otherwise than their files: %s is taken as %s%s", path.name, text, name, more)
    return table.assign(image_id=[result[pair][0] for pair in pairs], part=[result[pair][1] for pair in pairs])


def _merged_images(path: Path, result: Mapping[tuple[str, str], tuple[str, str]]) -> list[Fault]:
    """A fault for each image of a half that names in several folders mean: two sets may share a name."""
    by_folder: dict[tuple[str, str], dict[str, str]] = {}
    for (text, _), image in result.items():
        folder = text.replace("\\", "/").rpartition("/")[0]
        if folder:
            by_folder.setdefault(image, {}).setdefault(folder, text)
    return [
        Fault(path, None, first_few(names.values()), f"{name} in one folder only")
        for (name, _), names in by_folder.items()
        if len(names) > 1
    ]


def _by_stem(images: Iterable[str]) -> dict[str, set[str]]:
    stems: dict[str, set[str]] = {}
    for name in images:
        stems.setdefault(Path(name).stem, set()).add(name)
    return stems


def _with_facts(table: pd.DataFrame, halves: Halves) -> pd.DataFrame:
    """The rows with the facts of their image: that of their part, or of the other half if the part has none."""
    everywhere = {**halves[TEST], **halves[TRAIN]}
    filled = [
        with_image_facts(rows, {**everywhere, **halves.get(str(part), {})}) for part, rows in table.groupby("part")
    ]
    return pd.concat(filled).sort_index() if filled else with_image_facts(table, {})


def _unknown_images(path: Path, table: pd.DataFrame, halves: Halves) -> tuple[list[Fault], pd.DataFrame]:
    """A fault for each cause for which rows name no image, and the other rows."""
    missing = table["image_fault"] == "missing"
    names = [*halves[TRAIN], *halves[TEST]]
    folder = next(iter(halves[TRAIN].values())).path.parent
    faults, rest = named_otherwise(path, table[missing], names, folder)
    return faults, pd.concat([table[~missing], rest])


def _rules(data: TrainingData, halves: Halves, held: Sequence[str]) -> tuple[RowCheck, ...]:
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
            _ONE_HALF, ("image_id",),
            lambda rows: ~rows["image_id"].isin(both) | (rows["part"] != ""),
        ),
        RowCheck(
            f"one of the labels {', '.join(data.labels)}", ("label",), lambda rows: rows["label"].isin(data.labels)
        ),
        RowCheck("a score between 0 and 1", ("score",), lambda rows: rows["score"].between(0, 1)),
        RowCheck("a fold, counted from 0", ("fold",), lambda rows: rows["fold"] >= 0),
    )  # fmt: skip


def _fold_faults(path: Path, table: pd.DataFrame, trained: pd.Series) -> list[Fault]:
    first = table[trained].groupby("image_id")["fold"].transform("first")
    moved = table.loc[trained, "fold"] != first
    faults = [
        Fault(path, line, f"{name}, fold {fold}", "the fold that its earlier rows name: one fold held it out")
        for line, name, fold in table[trained][moved][[LINE, "image_id", "fold"]].itertuples(index=False, name=None)
    ]
    if len(table) and not trained.any():
        faults.append(
            Fault(path, None, "no row of an image of train/", "out-of-fold detections, to score and calibrate")
        )
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
