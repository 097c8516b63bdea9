"""A submission is judged before it is sent, as strictly as the server would, and with every fault named."""

import csv
import io
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.core.errors import KitError
from kit.schemas.csv_text import TableError
from kit.schemas.image_headers import ImageFacts
from kit.schemas.tables import SUBMISSION_COLUMNS, read_submission, validate_submission

HEADER = "ID,image_id,x_min,y_min,x_max,y_max,confidence,label"
IMAGES = {name: ImageFacts(Path(name), 100, 80) for name in ("a.png", "b.png")}
MAPPING = pd.DataFrame({"ID": [0, 1, 2], "image_id": ["a.png", "b.png", "a.png"]})
LABELS = {"Mass", "Nodule"}
GOOD = (
    "0,a.png,1,2,30,40,0.9,Mass",
    "1,b.png,0,0,100,80,1,Nodule",
    "2,a.png,1.5,2.5,3.5,4.5,0.000001,Mass",
)
BOX = "corners inside the image"


@pytest.fixture
def judge(tmp_path):
    """Reads a text, or bytes, as a submission for three IDs."""

    def read(content):
        path = tmp_path / "submission.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_submission(path, MAPPING, LABELS, IMAGES)

    return read


def faults(read, *arguments):
    """Line, value and expectation of every fault that reading finds."""
    with pytest.raises(TableError) as caught:
        read(*arguments)
    return [(fault.line, fault.value, fault.expected) for fault in caught.value.faults]


def text(*rows, header=HEADER):
    return "\n".join((header, *rows, ""))


def test_a_submission_without_rows_lacks_every_id(judge):
    assert faults(judge, text()) == [(None, "3 IDs missing: 0, 1, 2", "all 3 IDs of the mapping")]


def test_nothing_is_missing_where_nothing_was_asked(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text(text())
    assert read_submission(path, MAPPING[:0], LABELS, IMAGES).empty
    path.write_text(text(GOOD[0]))
    assert faults(read_submission, path, MAPPING[:0], LABELS, IMAGES) == [(2, "0", "an ID of the mapping")]


def test_a_valid_submission_is_read_in_any_order_of_rows(judge):
    for rows in (GOOD, GOOD[::-1]):
        table = judge(text(*rows))
        assert tuple(table.columns) == SUBMISSION_COLUMNS
        assert table["ID"].tolist() == ([0, 1, 2] if rows == GOOD else [2, 1, 0])
        assert table["ID"].dtype == np.int64
        assert table.set_index("ID").loc[1].tolist() == ["b.png", 0.0, 0.0, 100.0, 80.0, 1.0, "Nodule"]


def test_fractions_are_a_fault_and_multiplied_by_the_sides_they_are_well(judge):
    fractions = [f"{number},{name},0.1,0.25,0.5,1,0.5,Mass" for number, name in enumerate(MAPPING["image_id"])]
    with pytest.raises(TableError) as caught:
        judge(text(*fractions))
    (fault,) = caught.value.faults
    assert (fault.line, fault.value) == (2, "all 3 boxes within the first pixel of their images")
    assert caught.value.do == (
        "multiply x_min and x_max by the width and y_min and y_max by the height of each image, in pixels"
    )
    # The images have 100 x 80 pixels.
    pixels = [f"{number},{name},10,20,50,80,0.5,Mass" for number, name in enumerate(MAPPING["image_id"])]
    assert len(judge(text(*pixels))) == 3


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["fraction", "pixels", "one pixel"]), min_size=8, max_size=40))
def test_a_tenth_in_fractions_is_a_fault_and_boxes_of_one_pixel_are_none(tmp_path_factory, kinds):
    boxes = {"fraction": "0.1,0.25,0.5,1", "pixels": "10,20,50,80", "one pixel": "0,0,1,1"}
    mapping = pd.DataFrame({"ID": range(len(kinds)), "image_id": "a.png"})
    path = tmp_path_factory.getbasetemp() / "units.csv"

    def read(kinds):
        rows = [f"{number},a.png,{boxes[kind]},0.5,Mass" for number, kind in enumerate(kinds)]
        path.write_text(text(*rows))
        return read_submission(path, mapping, LABELS, IMAGES)

    fractions = kinds.count("fraction")
    if (fractions >= 2 and fractions >= len(kinds) / 10) or "pixels" not in kinds:
        with pytest.raises(TableError, match="within the first pixel") as caught:
            read(kinds)
        assert "multiply x_min and x_max by the width" in caught.value.do
        kinds = ["pixels" if kind == "fraction" else kind for kind in kinds]
        kinds[0] = "pixels"
    assert len(read(kinds)) == len(kinds)


def test_a_single_fraction_among_other_boxes_is_named(judge, caplog):
    assert len(judge(text(*GOOD[:2], "2,a.png,0.1,0.2,0.5,0.9,0.5,Mass"))) == 3
    (line,) = caplog.messages
    assert line == "submission.csv: boxes of less than a pixel, as fractions of the sides are, in lines 4"
    caplog.clear()
    assert len(judge(text(*GOOD[:2], "2,a.png,0,0,1,1,0.5,Mass"))) == 3
    assert not caplog.messages


@pytest.mark.parametrize("change", [
    lambda content: content.replace(b"\n", b"\r"), lambda content: content.replace(b"\n", b"\r", 2),
    lambda content: content.replace(b"\n", b"\r\n").replace(b"\r\n", b"\r", 1),
    lambda content: content[:-1] + b"\r",
])  # fmt: skip
def test_a_line_that_ends_with_a_carriage_return_alone_is_a_fault_whose_command_mends_it(change, tmp_path):
    path = tmp_path / "my file.csv"
    path.write_bytes(change(text(*GOOD).encode()))
    with pytest.raises(TableError, match="a carriage return alone") as caught:
        read_submission(path, MAPPING, LABELS, IMAGES)
    assert len(caught.value.faults) == 1
    command, _, _ = caught.value.do.partition(", and take")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert len(read_submission(tmp_path / "NEW.csv", MAPPING, LABELS, IMAGES)) == 3


@pytest.mark.parametrize("cell", ["", "NA", "N/A", "None", "nan", " ", "null", "#N/A"])
def test_rows_without_corners_are_one_fault_and_with_corners_they_are_well(cell, judge):
    rows = [f"{number},{name},{','.join([cell] * 4)},0.5,Mass" for number, name in enumerate(MAPPING["image_id"])]
    with pytest.raises(TableError) as caught:
        judge(text(*rows))
    (fault,) = caught.value.faults
    assert (fault.line, fault.value) == (2, "a.png, label Mass, no corners and 2 rows more")
    assert caught.value.do == "write a box for every ID, whatever its confidence: corners in pixels"
    assert len(judge(text(*(row.replace(f",{','.join([cell] * 4)},", ",1,2,3,4,") for row in rows)))) == 3


def test_the_advice_is_for_the_file_that_was_handed_in(judge, tmp_path):
    with pytest.raises(TableError, match="correct these lines, then repeat the command with the same file"):
        judge(text(*GOOD[:2]))
    (tmp_path / "s.csv").write_text(text(*GOOD[:2]))
    with pytest.raises(TableError, match="so be it"):
        read_submission(tmp_path / "s.csv", MAPPING, LABELS, IMAGES, "so be it")


def test_line_ends_of_windows_are_fine(judge):
    assert len(judge(text(*GOOD).replace("\n", "\r\n"))) == 3


@pytest.mark.parametrize(
    "header",
    [
        "id,image_id,x_min,y_min,x_max,y_max,confidence,label",
        "ID,image_id,x_min,y_min,x_max,y_max,confidence",
        "ID,image_id,x_min,y_min,x_max,y_max,confidence,label,note",
        "ID,image_id,x_min,y_min,x_max,y_max,confidence,label,",
        "image_id,ID,x_min,y_min,x_max,y_max,confidence,label",
        "ID, image_id,x_min,y_min,x_max,y_max,confidence,label",
        ",ID,image_id,x_min,y_min,x_max,y_max,confidence,label",
        HEADER.replace(",", ";"),
        HEADER.replace(",", "\t"),
        GOOD[0],
    ],
)
def test_any_other_header_is_a_fault(header, judge):
    assert faults(judge, text(*GOOD, header=header)) == [(1, header, f"exactly the header {HEADER}")]


def test_a_column_named_twice_is_a_fault(judge):
    assert faults(judge, text(header=HEADER + ",label")) == [(1, "label", "each column once")]


def test_a_byte_order_mark_is_a_fault(judge):
    [(_, value, expected)] = faults(judge, text(*GOOD).encode("utf-16"))  # Kaggle is sent the file's bytes
    assert (value, expected) == ("UTF-16 text", "UTF-8 text (save the table as CSV UTF-8)")
    [(line, value, expected)] = faults(judge, "\ufeff" + text(*GOOD))
    assert (line, value) == (1, "\ufeff")
    assert expected.startswith("no byte order mark")


@pytest.mark.parametrize(
    ("row", "value", "expected"),
    [
        ("1,a.png,1,2,3,4,0.5,Mass", "ID 1, image_id a.png, mapping b.png",
         "the image_id that the mapping has for this ID"),
        ("1,no.png,1,2,3,4,0.5,Mass", "ID 1, image_id no.png, mapping b.png",
         "the image_id that the mapping has for this ID"),
        ("1,b.png,1,2,3,4,0.5,mass", "mass", "one of the labels Mass, Nodule"),
        ("1,b.png,1,2,3,4,0.5,", "", "one of the labels Mass, Nodule"),
        ("1,b.png,1,2,3,4,1.000001,Mass", "1.000001", "a confidence between 0 and 1"),
        ("1,b.png,1,2,3,4,-0.1,Mass", "-0.1", "a confidence between 0 and 1"),
        ("1,b.png,1,2,3,4,,Mass", "", "confidence to be a finite decimal number"),
        ("1,b.png,1,2,nan,4,0.5,Mass", "nan", "x_max to be a finite decimal number"),
        ("1,b.png,3,2,1,4,0.5,Mass", "x_min 3, y_min 2, x_max 1, y_max 4", "x_min < x_max and y_min < y_max"),
        ("1,b.png,1,2,3,2,0.5,Mass", "x_min 1, y_min 2, x_max 3, y_max 2", "x_min < x_max and y_min < y_max"),
        ("1,b.png,-0.1,2,3,4,0.5,Mass", "x_min -0.1, y_min 2, x_max 3, y_max 4, width_px 100, height_px 80", BOX),
        ("1,b.png,1,2,3,80.00001,0.5,Mass",
         "x_min 1, y_min 2, x_max 3, y_max 80.00001, width_px 100, height_px 80", BOX),
        ("1,b.png,1,2,3,4,0.5", "1,b.png,1,2,3,4,0.5", "8 cells as in the header, not 7"),
    ],
)  # fmt: skip
def test_a_row_with_one_mistake_is_one_fault_on_its_line(row, value, expected, judge):
    found = faults(judge, text(GOOD[0], row, GOOD[2]))
    assert found[0] == (3, value, expected)
    rest = [(None, "1 IDs missing: 1", "all 3 IDs of the mapping")]  # a row that does not split has no ID
    assert found[1:] == (rest if "cells" in expected else [])


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("3", "an ID of the mapping"),
        ("-1", "an ID of the mapping"),
        ("1.0", "ID to be a whole number (at most 15 digits)"),
        ("", "ID to be a whole number (at most 15 digits)"),
        ("１", "ID to be a whole number (at most 15 digits)"),
        ("0", "an ID that no earlier line has (line 2 does)"),
    ],
)
def test_another_id_is_a_fault_and_its_own_is_missing(number, expected, judge):
    found = faults(judge, text(GOOD[0], f"{number},{'a' if number == '0' else 'b'}.png,1,2,3,4,0.5,Mass", GOOD[2]))
    assert [fault[::2] for fault in found] == [(3, expected), (None, "all 3 IDs of the mapping")]


def test_an_id_written_with_zeros_before_it_is_that_id(judge):
    assert judge(text(GOOD[0], "001,b.png,1,2,3,4,0.5,Mass", GOOD[2]))["ID"].tolist() == [0, 1, 2]


def test_twelve_kinds_of_fault_in_twelve_rows_give_twelve_faults(tmp_path):
    rows = (
        "x,a.png,1,2,3,4,0.5,Mass",  # 2: no ID
        "1,a.png,1,2,3,4,0.5",  # 3: a cell too few
        '2,a.png,1,2,3,4,0.5,"Mass"x',  # 4: letters after a closed quote
        "3,a.png,1,inf,3,4,0.5,Mass",  # 5: not finite
        "4,b.png,1,2,3,4,0.5,Mass",  # 6: another image
        "5,a.png,3,2,1,4,0.5,Mass",  # 7: inverted
        "6,a.png,1,2,300,4,0.5,Mass",  # 8: outside
        "7,a.png,1,2,3,4,2,Mass",  # 9: no confidence
        "8,a.png,1,2,3,4,0.5,Hernia",  # 10: unknown label
        "99,a.png,1,2,3,4,0.5,Mass",  # 11: unknown ID
        "9,a.png,1,2,3,4,0.5,Mass",
        "9,a.png,1,2,3,4,0.5,Mass",  # 13: once more
    )
    path = tmp_path / "submission.csv"
    path.write_text(text(*rows))
    mapping = pd.DataFrame({"ID": [3, 4, 5, 6, 7, 8, 9, 10], "image_id": "a.png"})
    found = faults(read_submission, path, mapping, LABELS, IMAGES)
    assert [fault[0] for fault in found] == [*range(2, 12), 13, None]
    assert found[-1][1] == "1 IDs missing: 10"


def test_at_most_ten_missing_ids_are_shown(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_text(text())
    mapping = pd.DataFrame({"ID": range(170), "image_id": "a.png"})
    assert faults(read_submission, path, mapping, LABELS, IMAGES) == [
        (None, "170 IDs missing: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 160 more", "all 170 IDs of the mapping")
    ]


def test_the_error_says_what_to_do_with_the_file(judge):
    with pytest.raises(TableError) as caught:
        judge(text(GOOD[0], GOOD[1].replace("Nodule", "nodule"), GOOD[2]))
    shown = str(caught.value).splitlines()
    assert shown[1:] == [
        "found:    1 fault",
        "  submission.csv:3: found 'nodule', expected one of the labels Mass, Nodule",
        "do:       correct these lines, then repeat the command with the same file",
    ]


@pytest.fixture
def competition(tmp_path):
    """The files of a competition with three IDs, and no training images: they are not needed here."""
    (tmp_path / "test").mkdir()
    for name in IMAGES:
        Image.new("L", (100, 80)).save(tmp_path / "test" / name)
    MAPPING.to_csv(tmp_path / "ID_to_Image_Mapping.csv", index=False)
    (tmp_path / "train.csv").write_text(
        "image_id,x_min,y_min,x_max,y_max,label\nt.png,1,2,3,4,Mass\nt.png,1,2,3,4,Nodule\n"
    )
    (tmp_path / "mine.csv").write_text(text(*GOOD))
    return tmp_path


def test_a_submission_is_validated_against_the_files_of_the_competition(competition):
    assert validate_submission(competition / "mine.csv", competition, 3)["ID"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["mine.csv", "train.csv", "ID_to_Image_Mapping.csv", "test/b.png"])
def test_a_missing_file_of_the_competition_is_named(name, competition):
    (competition / name).unlink()
    with pytest.raises(KitError, match=Path(name).name):
        validate_submission(competition / "mine.csv", competition, 3)


def test_another_number_of_ids_than_expected_is_an_error(competition):
    with pytest.raises(KitError, match=r"competition\.expected_ids=3"):
        validate_submission(competition / "mine.csv", competition, 170)


MUTANTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.floats().map(str),
    st.integers(-5, 105).map(str),
    st.sampled_from(
        ["0x1", "1_0", "1e999", "nan", "inf", "a.png", "b.png", "Mass", "Nodule", "", " ", "１", "../a.png"]
    ),
)


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 2), st.integers(0, 7), MUTANTS)
def test_one_changed_cell_is_still_valid_or_named_with_its_line(tmp_path_factory, row, column, cell):
    rows = [line.split(",") for line in GOOD]
    rows[row][column] = cell
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([SUBMISSION_COLUMNS, *rows])
    path = tmp_path_factory.getbasetemp() / "mutant.csv"
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    breaks = cell.count("\n") + cell.count("\r") - cell.count("\r\n")
    try:
        table = read_submission(path, MAPPING, LABELS, IMAGES)
    except TableError as error:
        lines = {fault.line for fault in error.faults}
        # A row that takes the ID of a later one makes that one the repetition.
        assert row + 2 in lines or (column == 0 and f"(line {row + 2} does)" in str(error)) or "\0" in cell
        assert lines <= {None, *range(row + 2, row + 3 + breaks)} or column == 0 or "\0" in cell
    else:
        assert sorted(table["ID"]) == [0, 1, 2]
        assert table.iloc[row, 1] == MAPPING["image_id"][table.iloc[row, 0]]
        corners = table[["x_min", "y_min", "x_max", "y_max"]].to_numpy()
        assert ((corners >= 0) & (corners <= [100, 80, 100, 80])).all()
        assert (corners[:, 2:] > corners[:, :2]).all()
        assert table["confidence"].between(0, 1).all()
        assert set(table["label"]) <= LABELS


@settings(deadline=None, max_examples=100)
@given(st.one_of(st.binary(max_size=200), st.lists(
    st.one_of(st.sampled_from([text(*GOOD).encode(), *(f"{line}\n".encode() for line in (HEADER, *GOOD))]),
              st.binary(max_size=3)), max_size=6).map(b"".join)))  # fmt: skip
def test_any_bytes_are_a_submission_or_a_list_of_faults(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    try:
        assert sorted(read_submission(path, MAPPING, LABELS, IMAGES)["ID"]) == [0, 1, 2]
    except TableError as error:
        assert error.faults
