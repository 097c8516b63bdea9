"""Several readers' boxes of one finding: fused by weighted boxes fusion, all kept, or those of one reader."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kit.boxes.fusion import weighted_boxes_fusion
from kit.boxes.geometry import CORNERS, iou_pairs
from kit.core.errors import KitError, closest_names
from kit.data.repeated_boxes import SAME_FINDING_IOU

FUSE, ALL = "fuse", "all"
ORIGINS = "rows"  # the column: the numbers of the source rows that a box is made of, a tuple


def boxes_by_readers(
    rows: pd.DataFrame, readers: Mapping[str, frozenset[str]], choice: str
) -> tuple[pd.DataFrame, frozenset[str] | None]:
    """The boxes (image, corners, label, ORIGINS) of the chosen readers, and the images that they read (None: all).

    ``rows`` has ROW_COLUMNS and a unique index. ``fuse`` averages boxes of one label that overlap in an image by
    more than half (as the score counts one finding), each reader weighing the same; a finding of one reader stays.
    Boxes of a set that names no readers stay as they are. Rows that repeat another one are one box.
    Raises KitError for a name that is no reader's.
    """
    images = None
    if choice not in (FUSE, ALL):
        if choice not in readers:
            known = (
                f"a reader: {closest_names(choice, readers)}"
                if readers
                else "fuse or all: the set names no readers"
            )
            raise KitError("--readers fuse, all, or the name of a reader", repr(choice), f"choose {known}")
        images, rows = readers[choice], rows[rows["reader"] == choice]
    if choice == FUSE and readers:
        return _fused(rows, list(readers)), images
    columns = ["image", *CORNERS, "label"]
    kept = rows[~rows.duplicated(columns)][columns].reset_index(drop=True)
    numbers = rows.groupby(columns, sort=False).ngroup().to_numpy()
    origins: list[tuple[int, ...]] = [()] * len(kept)
    for index, number in zip(rows.index.tolist(), numbers.tolist(), strict=True):
        origins[number] += (index,)
    return _with_origins(kept, origins), images


def _fused(rows: pd.DataFrame, readers: list[str]) -> pd.DataFrame:
    """The findings of all readers, by image and then in the order of their first row."""
    named = rows["reader"] != ""
    by_reader = rows[named].rename(columns={"image": "image_id", "reader": "run"}).assign(view="", score=1.0)
    sources = [(reader, "") for reader in readers]
    fused = weighted_boxes_fusion(by_reader, sources, SAME_FINDING_IOU)
    fused = fused.rename(columns={"image_id": "image"})[["image", *CORNERS, "label"]]
    origins: dict[int, list[int]] = {number: [] for number in fused.index}
    of_place = {place: np.asarray(numbers) for place, numbers in fused.groupby(["image", "label"]).indices.items()}
    for place, members in rows[named].groupby(["image", "label"]).indices.items():
        candidates, indices = of_place[place], rows[named].index.to_numpy()[members]
        overlap = iou_pairs(
            np.repeat(rows.loc[indices, CORNERS].to_numpy(np.float64), len(candidates), axis=0),
            np.tile(fused.loc[candidates, CORNERS].to_numpy(np.float64), (len(indices), 1)),
        ).reshape(len(indices), len(candidates))
        for index, best in zip(indices.tolist(), overlap.argmax(axis=1).tolist(), strict=True):
            origins[int(candidates[best])].append(int(index))
        for number, nearest in zip(candidates.tolist(), overlap.argmax(axis=0).tolist(), strict=True):
            if not origins[int(number)]:  # its boxes overlap another mean more
                origins[int(number)].append(int(indices[nearest]))
    fused = _with_origins(fused, [tuple(origins[number]) for number in fused.index])
    others = rows[~named][["image", *CORNERS, "label"]]
    others = _with_origins(others, [(index,) for index in others.index.tolist()])
    table = pd.concat([part for part in (fused, others) if len(part)] or [fused], ignore_index=True)
    first = table[ORIGINS].map(lambda numbers: numbers[0])
    return table.iloc[np.lexsort((first, table["image"]))].reset_index(drop=True) if len(table) else table


def _with_origins(boxes: pd.DataFrame, origins: list[tuple[int, ...]]) -> pd.DataFrame:
    return boxes.assign(rows=pd.Series(origins, index=boxes.index, dtype=object))
