"""SIIM-FISABIO-RSNA COVID-19 (Kaggle 2021): train_image_level.csv with the boxes, train_study_level.csv.

An image's boxes stand in ``label``: "opacity 1 x_min y_min x_max y_max" for each, or "none 1 0 0 1 1".
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.importing.forms.boxed_set import (
    FIX,
    TEST_PART,
    TRAIN_PART,
    BoxedSet,
    boxes_of,
    chosen,
    left_out,
    missing_pictures,
    no_such_form,
    pictures_by_name,
    read_columns,
    with_patients,
)
from kit.schemas.csv_text import LINE, Fault

_IMAGES, _STUDIES = "train_image_level.csv", "train_study_level.csv"
_NEGATIVE = "Negative for Pneumonia"
_WORDS = 6  # label, confidence, four corners
_EXPECTED = "groups of six words: label, confidence, x_min, y_min, x_max, y_max"


def read_siim(source: Path) -> BoxedSet:
    """The challenge's files in ``source``. Images of a study are of one patient.

    An image without a box whose study is not negative is ``unboxed``: its finding was drawn on another image of the
    study, or not at all.
    """
    table = source / _IMAGES
    if not table.is_file():
        do = f"name the folder with {_IMAGES}, {_STUDIES} and train/ with --source"
        raise no_such_form(source, f"SIIM's {_IMAGES}", do)
    found, repeated = pictures_by_name(source / TRAIN_PART, TRAIN_PART)
    columns = {"id": "image", "label": "boxes", "StudyInstanceUID": "study"}
    cells, raw = read_columns(table, columns, {})
    raw = raw.assign(image=f"{TRAIN_PART}/" + raw["image"].str.removesuffix("_image"))
    split = [
        (line, image, words.split()) for line, image, words in raw[[LINE, "image", "boxes"]].itertuples(index=False)
    ]
    faults = [*cells.faults, *repeated] + [
        Fault(table, line, " ".join(words), _EXPECTED, FIX)
        for line, _, words in split
        if len(words) % _WORDS or not words
    ]
    groups = pd.DataFrame(
        [
            (line, image, words[start], *words[start + 2 : start + _WORDS])
            for line, image, words in split
            for start in range(0, len(words) - _WORDS + 1, _WORDS)
        ],
        columns=[LINE, "image", "label", *CORNERS],
    )
    boxes, _, wrong = boxes_of(cells, groups.assign(reader=""))
    faults += [*wrong, *missing_pictures(table, raw, found, source / TRAIN_PART)]
    notes = left_out(found, set(raw["image"]), f"since {table.name} does not name them")
    unboxed: frozenset[str] = frozenset()
    tables = [table]
    if (source / _STUDIES).is_file():
        tables.append(source / _STUDIES)
        studies_cells, studies = read_columns(source / _STUDIES, {"id": "study", _NEGATIVE: "negative"}, {})
        faults += studies_cells.faults
        negative = dict(zip(studies["study"].str.removesuffix("_study"), studies["negative"], strict=True))
        positive = raw[raw["study"].map(negative) == "0"]["image"]
        unboxed = frozenset(set(positive) - set(boxes["image"]))
    else:
        notes.append(f"missing {_STUDIES}: images without a box are taken as empty, whatever their study shows")
    study_of = {image: f"study {study}" for image, study in zip(raw["image"], raw["study"], strict=True) if study}
    test, twice = pictures_by_name(source / TEST_PART, TEST_PART)
    pictures = with_patients(chosen(found, raw["image"]), study_of)
    return BoxedSet(pictures, boxes, [*faults, *twice], {}, unboxed, test, notes=notes, tables=tables)
