"""Thousands of tables with one thing wrong: each is read as it stands, or refused with file, line and value.

What "as it stands" means is read a second time here, by Python's own csv module and float().
"""

import codecs
import csv
import io

import pandas as pd
import pytest
from mutations import Mutant, snapshot, table_mutants
from PIL import Image

from kit.core.errors import KitError
from kit.schemas.csv_text import TableError
from kit.schemas.image_headers import image_headers
from kit.schemas.tables import NIH_COLUMNS, read_annotations, read_mapping, read_submission

SIDE_PX = 20
IMAGES = tuple(f"0000000{i}_00{i}.png" for i in range(1, 7))
LABELS = ("Mass", "Nodule", "Effusion")
CORNERS = ("x_min", "y_min", "x_max", "y_max")
BOXES = ((1, 2, 9.5, 8), (0, 0, 20, 20), (3.25, 4, 5, 19), (10, 1, 12, 2.5), (0.5, 0.5, 1.5, 1.5), (7, 7, 20, 9))


def lines(header, rows):
    return "".join(",".join(map(str, row)) + "\n" for row in [header, *rows]).encode()


ANNOTATIONS = lines(
    ("image_id", *CORNERS, "label"),
    [(IMAGES[i], *box, LABELS[i % 3]) for i, box in enumerate(BOXES)],
)
NIH = lines(
    NIH_COLUMNS,
    [(IMAGES[i], LABELS[i % 3], x, y, right - x, low - y) for i, (x, y, right, low) in enumerate(BOXES)],
)
MAPPING = lines(("ID", "image_id"), [(i + 1, IMAGES[i]) for i in range(6)])
SUBMISSION = lines(
    ("ID", "image_id", *CORNERS, "confidence", "label"),
    [(i + 1, IMAGES[i], *box, 0.5, LABELS[i % 3]) for i, box in enumerate(BOXES)],
)
TABLES = {
    "annotations": list(table_mutants(ANNOTATIONS, 1, cells=420, flips=40)),
    "nih": list(table_mutants(NIH, 2, cells=210, flips=20)),
    "mapping": list(table_mutants(MAPPING, 3, cells=210, flips=30)),
    "submission": list(table_mutants(SUBMISSION, 4, cells=420, flips=40)),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in IMAGES:
        Image.new("L", (SIDE_PX, SIDE_PX), 90).save(folder / name)
    return image_headers(folder)


def plain_rows(data):
    """The table as Python itself reads it: one dict of texts per line that is not empty."""
    marked = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if marked else {data[:1]: "utf-16-be", data[1:2]: "utf-16-le"}.get(b"\0", "utf-8-sig")
    rows = [row for row in csv.reader(io.StringIO(data.decode(encoding), newline=""), strict=True) if row]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def is_no_finding(row):
    """Whether the label of a row in train.csv says that there is none, and its box is the whole image."""
    label, *corners = (row.get(name) for name in ("label", *CORNERS))
    if NIH_COLUMNS[1] in row:
        label, *corners = (row.get(name) for name in NIH_COLUMNS[1:])
    return label == "None" and [float(corner) for corner in corners] == [0, 0, SIDE_PX, SIDE_PX]


def read(kind, path, images):
    if kind in ("annotations", "nih"):
        return read_annotations(path, images)
    mapping = pd.DataFrame({"ID": range(1, 7), "image_id": IMAGES})
    if kind == "mapping":
        return read_mapping(path, images, 6)
    return read_submission(path, mapping, LABELS, images)


def assert_as_it_stands(kind, table, data):
    """Every row is there, in order, with the very texts and numbers of the file; boxes lie in their images."""
    rows = [row for row in plain_rows(data) if not is_no_finding(row)]
    assert len(table) == len(rows)
    for ours, stands in zip(table.to_dict("records"), rows, strict=True):
        row = stands
        if kind == "nih":
            box = [float(row[name]) for name in NIH_COLUMNS[2:]]
            corners = dict(zip(CORNERS, (box[0], box[1], box[0] + box[2], box[1] + box[3]), strict=True))
            row = {"image_id": row["Image Index"], "label": row["Finding Label"], **corners}
        for name, value in ours.items():
            cell = row["id"] if name == "ID" and "ID" not in row else row[name]
            if name in CORNERS and kind in ("annotations", "nih"):  # less than a pixel over is clipped, and said
                assert value == min(max(float(cell), 0), SIDE_PX)
                assert abs(value - float(cell)) < 1
            else:
                assert value == (cell if isinstance(value, str) else float(cell))
        if kind != "mapping":
            assert 0 <= ours["x_min"] < ours["x_max"] <= SIDE_PX
            assert 0 <= ours["y_min"] < ours["y_max"] <= SIDE_PX
        if kind != "nih":
            assert ours["image_id"] in IMAGES


def assert_in_words(error, mutant: Mutant, path):
    """Every fault names the file; that of a changed cell also its line and what stands there."""
    assert isinstance(error, TableError), error
    assert error.do
    assert all(fault.file == path and fault.expected for fault in error.faults)
    assert path.name in str(error)
    if mutant.line is None:
        return
    there = [fault for fault in error.faults if fault.line == mutant.line]
    assert there, str(error)
    assert any(mutant.value in fault.value or as_shown(mutant.value) in fault.value for fault in there), str(error)


def as_shown(value):
    try:
        return f"{float(value):.15g}"
    except ValueError:
        return value.splitlines()[0] if value else value


@pytest.mark.parametrize("kind", TABLES)
def test_a_bad_table_is_read_as_it_stands_or_refused_in_words(kind, step, images, tmp_path):
    path = tmp_path / f"{kind}.csv"
    chosen = TABLES[kind][::step]
    accepted = 0
    for mutant in chosen:
        path.write_bytes(mutant.data)
        try:
            try:
                table = read(kind, path, images)
            except KitError as error:
                assert_in_words(error, mutant, path)
            else:
                accepted += 1
                assert_as_it_stands(kind, table, mutant.data)
        except BaseException as problem:
            problem.add_note(f"mutant: {mutant.name}")
            raise
        assert snapshot(tmp_path) == {path.name: mutant.data}
    assert 0 < accepted < len(chosen) / 2
