"""Tables at the border: right data, or every fault with its file, line and value."""

import csv
import io
import logging
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.core.errors import KitError
from kit.schemas.csv_text import Fault, TableError, read_cells, to_numbers
from kit.schemas.detections import DETECTION_COLUMNS, check_detections
from kit.schemas.image_headers import ImageFacts, image_headers
from kit.schemas.tables import ANNOTATION_COLUMNS, annotation_labels, mapped_images, read_annotations, read_mapping

HEADER = "image_id,x_min,y_min,x_max,y_max,label"
NIH = "Image Index,Finding Label,Bbox [x,y,w,h]"
IMAGES = {name: ImageFacts(Path(name), 100, 80) for name in ("a.png", "b.png", "c.jpg")} | {
    "cut.png": ImageFacts(Path("cut.png"), 0, 0, "truncated"),
}
GOOD = "a.png,1,2,30,40.5,Mass"


@pytest.fixture
def train(tmp_path):
    """Reads a text, or bytes, as train.csv."""

    def read(content, images=IMAGES):
        path = tmp_path / "train.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_annotations(path, images)

    return read


def faults(read, *arguments):
    """Line, value and expectation of every fault that reading finds."""
    with pytest.raises(TableError) as caught:
        read(*arguments)
    return [(fault.line, fault.value, fault.expected) for fault in caught.value.faults]


def rows_of(table):
    return [tuple(row) for row in table.itertuples(index=False)]


def test_a_table_without_rows_is_a_fault_of_the_file(train):
    assert faults(train, HEADER + "\n") == [(None, "no rows", "at least one row")]


def test_a_good_row_keeps_its_numbers(train):
    table = train(f"{HEADER}\n{GOOD}\n")
    assert rows_of(table) == [("a.png", 1.0, 2.0, 30.0, 40.5, "Mass")]
    assert tuple(table.columns) == ANNOTATION_COLUMNS
    assert (table.dtypes[["x_min", "y_min", "x_max", "y_max"]] == np.float64).all()


def test_twelve_kinds_of_fault_in_twelve_rows_give_twelve_faults(train):
    rows = (
        "a.png,nan,2,30,40,Mass",  # 2: not finite
        "a.png,1,2,1_000,40,Mass",  # 3: no number
        "a.png,1,2,3,40",  # 4: a cell too few
        'a.png,1,2,3,4,"Mass"x',  # 5: letters after a closed quote
        "a.png,30,2,30,40,Mass",  # 6: no width
        "a.png,1,2,101,40,Mass",  # 7: a whole pixel outside
        "no.png,1,2,30,40,Mass",  # 8: no such image
        "cut.png,1,2,30,40,Mass",  # 9: unreadable image
        "../a.png,1,2,30,40,Mass",  # 10: a path
        " a.png,1,2,30,40,Mass",  # 11: a blank
        "a.png,1,2,30,40,",  # 12: an empty label
        GOOD,
        GOOD,  # 14: once more
    )
    plain = "that is not empty, without blanks around it or invisible characters"
    assert faults(train, "\n".join((HEADER, *rows))) == [
        (2, "nan", "x_min to be a finite decimal number"),
        (3, "1_000", "x_max to be a finite decimal number"),
        (4, "a.png,1,2,3,40", "6 cells as in the header, not 5"),
        (5, 'a.png,1,2,3,4,"Mass"x', "a well-formed CSV row, its quotes closed (',' expected after '\"')"),
        (6, "x_min 30, y_min 2, x_max 30, y_max 40", "x_min < x_max and y_min < y_max"),
        (7, "x_min 1, y_min 2, x_max 101, y_max 40, width_px 100, height_px 80",
         "corners inside the image, or less than a pixel over"),
        (8, "no.png", "an image that is there"),
        (9, "image_id cut.png, image_fault truncated", "an image that can be read"),
        (10, "../a.png", "a file name without a path"),
        (11, " a.png", f"an image_id {plain}"),
        (12, "", f"a label {plain}"),
        (14, "image_id a.png, x_min 1, y_min 2, x_max 30, y_max 40.5, label Mass",
         "a row that no earlier line has (line 13 does)"),
    ]  # fmt: skip


def test_two_bad_cells_of_a_row_are_one_fault_that_names_both(train):
    assert faults(train, f"{HEADER}\na.png,x,2,,40,Mass\n") == [
        (2, "x_min x, x_max ", "x_min, x_max to be finite decimal numbers")
    ]


def test_the_competitions_columns_stand_in_any_order_among_others(train):
    table = train("note,label,confidence,y_max,x_max,y_min,x_min,image_id,line,\nn,Mass,.5,40,30,2,1,a.png,7,\n")
    assert rows_of(table) == [("a.png", 1.0, 2.0, 30.0, 40.0, "Mass")]


@pytest.mark.parametrize("tail", ["", ",", ",,,"])
def test_nihs_width_and_height_become_corners(tail, train):
    table = train(f"{NIH}{tail}\na.png,Nodule,10.5,20.25,30,40{tail}\n")
    assert rows_of(table) == [("a.png", 10.5, 20.25, 10.5 + 30, 20.25 + 40, "Nodule")]


def test_nihs_boxes_are_judged_in_nihs_terms(train):
    text = f"{NIH}\na.png,Mass,1,2,0,4\na.png,Mass,1,2,3,-4\na.png,Mass,90,2,11,4\nb.png,Mass,1,2,1e308,1\n"
    assert [fault[::2] for fault in faults(train, text)] == [
        (2, "a width and a height above 0"),
        (3, "a width and a height above 0"),
        (4, "corners inside the image, or less than a pixel over"),
        (5, "corners inside the image, or less than a pixel over"),
    ]


def test_columns_of_both_headers_do_not_collide(train):
    assert rows_of(train(f"{NIH},label,x_min,width\na.png,Mass,1,2,3,4,other,9,9\n")) == [
        ("a.png", 1.0, 2.0, 4.0, 6.0, "Mass")
    ]
    both = train(f"{HEADER},{NIH}\n{GOOD},b.png,Nodule,1,2,3,4\n")
    assert rows_of(both) == [("a.png", 1.0, 2.0, 30.0, 40.5, "Mass")]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_a_fault_of_the_header(delimiter, train):
    text = f"{HEADER}\n{GOOD}\n".replace(",", delimiter)
    [(line, value, expected)] = faults(train, text)
    assert (line, value) == (1, HEADER.replace(",", delimiter))
    assert expected == f"the header {HEADER} or {NIH}, with commas"


@pytest.mark.parametrize(
    ("content", "line", "value"),
    [
        (b"", None, "an empty file"),
        (b" \r\n\n", None, "an empty file"),
        (b"\xef\xbb\xbf\n", None, "an empty file"),
        (f"{HEADER}\n{GOOD}\n".encode("utf-16")[:-1], 2, "byte 0x0a"),
        (f"{HEADER}\n{GOOD}\na.png,1,2,3,\0,Mass\n".encode(), 3, "a NUL byte"),
        (f"{HEADER}\na.png,1,2,3,4,Maß\n".encode("latin-1"), 2, "byte 0xdf"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1, "byte 0x89"),
        (b"\n\n" + HEADER.replace("x_min", "X_MIN").encode(), 3, HEADER.replace("x_min", "X_MIN")),
        (f"{HEADER},x_min,label\n{GOOD},1,2".encode(), 1, "label,x_min"),
        (b",,,\n,,,\n", 1, ",,,"),
        (b'"image_id', 1, '"image_id'),
    ],
)
def test_what_is_no_such_table_is_one_fault(content, line, value, train):
    assert [fault[:2] for fault in faults(train, content)] == [(line, value)]


def test_a_missing_file_a_folder_and_a_file_as_folder_are_faults(tmp_path):
    def values(path):
        return [fault[1] for fault in faults(read_annotations, path, IMAGES)]

    (tmp_path / "file").write_text("x")
    assert values(tmp_path / "train.csv") == ["no such file"]
    assert values(tmp_path) == ["Is a directory"]
    assert values(tmp_path / "file" / "train.csv") == ["Not a directory"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_byte_order_marks_and_empty_lines_change_nothing(end, train):
    text = end.join((HEADER, GOOD, "", "b.png,1,2,3,4,Mass"))
    for content in (text, text + end, "\ufeff" + text, text.encode("utf-16"), f"\ufeff{text}".encode("utf-16-be"),
                    text.encode("utf-16-le"), text.encode("utf-16-be")):  # fmt: skip
        assert [row[0] for row in rows_of(train(content))] == ["a.png", "b.png"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_stay_physical_after_a_quoted_line_break(end, train):
    text = end.join((f"{HEADER},note", f'{GOOD},"one{end}two{end}three"', "", "a.png,x,2,3,4,Mass,"))
    assert [fault[:2] for fault in faults(train, text)] == [(6, "x")]


def test_quoted_cells_may_hold_commas_and_quotes(train):
    assert rows_of(train(f'{HEADER}\n"a.png","1",2,3,4,"Mass, ""large"""\n'))[0][-1] == 'Mass, "large"'


def test_a_quote_that_never_closes_is_named_where_it_opens(train):
    text = f'{HEADER}\na.png,x,2,3,4,Mass\na.png,1,2,3,4,"Mass\n{GOOD}\n'
    assert [fault[:2] for fault in faults(train, text)] == [(2, "x"), (3, 'a.png,1,2,3,4,"Mass')]


def test_a_cell_over_a_megabyte_is_a_fault_and_the_rows_after_it_are_judged(train):
    limit = csv.field_size_limit()
    text = f"{HEADER}\na.png,1,2,3,4,{'M' * 1_100_000}\na.png,1,2,x,4,Mass\n"
    with pytest.raises(TableError) as caught:
        train(text)
    assert [fault.line for fault in caught.value.faults] == [2, 3]
    assert len(str(caught.value)) < 1000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    "cell",
    ["", " ", " 1", "1 ", "1_000", "0x10", "nan", "NaN", "inf", "-Infinity", "1e999", "9" * 400, "1,5", "1.2.3",
     "-", ".", "e5", "1e", "١٢", "１２", "½", "1\u00a0", "1\n", "True", "None", "+-1", "1e1000", "--1"],
)  # fmt: skip
def test_what_is_no_plain_number_is_no_number(cell):
    assert to_numbers(pd.Series([cell], dtype=object)).isna().all()


@pytest.mark.parametrize(("cell", "value"), [("1", 1), ("+1.5", 1.5), (".5", 0.5), ("5.", 5), ("-1E-2", -0.01)])
def test_plain_numbers_are_read(cell, value):
    assert to_numbers(pd.Series([cell], dtype=object)).tolist() == [value]


@pytest.mark.parametrize("cell", ["1.0", "1e2", "+1", "", "１", "1" * 16, "0x1"])
def test_what_is_no_whole_number_is_no_id(cell):
    assert to_numbers(pd.Series([cell], dtype=object), whole=True).isna().all()


def test_no_cells_are_no_numbers():
    assert to_numbers(pd.Series([], dtype=object)).shape == (0,)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "x/a.png", "..\\a.png", "..", "."])
def test_a_path_in_an_image_id_is_one_fault(name, train):
    assert faults(train, f"{HEADER}\n{name},1,2,3,4,Mass\n") == [(2, name, "a file name without a path")]


@pytest.mark.parametrize("label", ["", " ", "Mass ", "\tMass", "Ma\x07ss", "Mass\u200b", "Ma\u202ess"])
def test_a_label_without_plain_letters_is_a_fault(label, train):
    assert [fault[:2] for fault in faults(train, f"{HEADER}\na.png,1,2,3,4,{label}\n")] == [(2, label)]


def test_a_label_in_any_script_is_kept(train):
    assert train(f"{HEADER}\na.png,1,2,3,4,<b>Größe 影\n")["label"].tolist() == ["<b>Größe 影"]


def test_less_than_a_pixel_over_is_clipped_and_said(train, caplog):
    with caplog.at_level(logging.INFO, "kit"):
        table = train(f"{HEADER}\na.png,-0.5,-0.99,100.5,80.99,Mass\n{GOOD}\n")
    assert rows_of(table)[0] == ("a.png", 0.0, 0.0, 100.0, 80.0, "Mass")
    assert [record.getMessage() for record in caplog.records] == [
        "train.csv: 1 boxes ended less than a pixel outside their image and were clipped"
    ]


def test_nothing_is_said_where_nothing_was_clipped(train, caplog):
    with caplog.at_level(logging.INFO, "kit"):
        train(f"{HEADER}\na.png,0,0,100,80,Mass\n")
    assert not caplog.records


@pytest.mark.parametrize(
    "corners", ["-1,0,9,9", "0,-1,9,9", "0,0,101,9", "0,0,9,81", "-0.9,0,-0.1,9", "100.2,0,100.8,9", "0,0,1e300,9"]
)
def test_a_pixel_over_or_nothing_inside_is_refused(corners, train):
    [(line, _, expected)] = faults(train, f"{HEADER}\na.png,{corners},Mass\n")
    assert (line, expected) == (2, "corners inside the image, or less than a pixel over")


def test_the_text_has_a_line_for_each_cause_and_the_error_every_fault_by_line(train):
    text = "\n".join(
        (HEADER, *(f"a.png,1,2,3,4,Mass{i}" if i % 2 else f"a.png,1,x{i},3,4,Mass" for i in range(120)))
    )
    text += "\n" + "a.png,1,2\n" * 7
    with pytest.raises(TableError) as caught:
        train(text)
    lines = [fault.line for fault in caught.value.faults]
    assert len(lines) == 60 + 7
    assert lines == sorted(lines)
    shown = str(caught.value).splitlines()
    assert shown[1] == "found:    67 faults"
    assert shown[2:-1] == [
        "  train.csv:2: found 'x0' and 59 more alike (line 4, 6, 8, 10, 12, ...), "
        "expected y_min to be a finite decimal number",
        "  train.csv:122: found 'a.png,1,2' and 6 more alike (line 123, 124, 125, 126, 127, ...), "
        "expected 6 cells as in the header, not 3",
    ]


def test_the_text_has_fifty_lines_and_the_count_of_the_rest():
    path = Path("train.csv")
    found = [Fault(path, line, "x", f"cause {line}") for line in range(2, 62)]
    found += [Fault(path, line, "y", "a label") for line in range(62, 69)]
    shown = str(TableError(path, found, "correct them")).splitlines()
    assert shown[1] == "found:    67 faults"
    assert shown[2] == "  train.csv:2: found 'x', expected cause 2"
    assert shown[-2] == "  ... and 17 more"
    assert len(shown) == 2 + 50 + 1 + 1


@pytest.mark.parametrize("count", [5, 6, 12])
@pytest.mark.parametrize(
    ("row", "found", "expected"),
    [
        ("a.png,{i},2,50,60,Mass ", "Mass ", "a label that is not empty"),
        ("a.png ,{i},2,50,60,Mass", "a.png ", "an image_id that is not empty"),
        ('a.png,"{i},5",2,50,60,Mass', "10,5", "x_min to be a finite decimal number"),
        ("a.png,{i},2,5,60,Mass", "x_min 10, y_min 2, x_max 5, y_max 60", "x_min < x_max"),
    ],
)
def test_a_cause_in_many_rows_is_one_line_and_corrected_there_is_none(row, found, expected, count, train):
    rows = [row.format(i=10 + i) for i in range(count)]
    with pytest.raises(TableError) as caught:
        train("\n".join([HEADER, *rows]))
    assert [fault.line for fault in caught.value.faults] == list(range(2, 2 + count))
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert lines[0].startswith(f"  train.csv:2: found {found!r}")
    assert expected in lines[0]
    assert len(lines) == (5 if count == 5 else 1)
    assert (f"and {count - 1} more alike (line 3, 4, 5, 6, 7" in lines[0]) == (count > 5)
    mended = [f"a.png,{10 + i},2,50,60,Mass" for i in range(count)]
    assert len(train("\n".join([HEADER, *mended]))) == count


def test_rows_that_repeat_others_are_one_line_and_a_row_of_another_cause_has_its_own(train):
    rows = [f"a.png,{i},2,50,60,Mass" for i in range(8)]
    with pytest.raises(TableError) as caught:
        train("\n".join([HEADER, *rows, "a.png,1,x,3,4,Mass", *rows]))
    first, other = [line for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert first.startswith("  train.csv:10: found 'x'")
    assert "and 7 more alike (line 12, 13, 14, 15, 16, ...), expected a row that no earlier line has" in other


def test_one_fault_is_said_in_three_parts(train):
    with pytest.raises(TableError) as caught:
        train(f"{HEADER}\na.png,1,2,3,4,{'?' * 500} \n")
    expected, found, fault, do = str(caught.value).splitlines()
    assert expected.startswith("expected: ") and expected.endswith("train.csv without faults")
    assert found == "found:    1 fault"
    assert "?..." in fault and len(fault) < 300
    assert do == "do:       correct the file, or fetch it anew"


def test_a_fault_of_a_whole_file_names_no_line():
    assert str(Fault(Path("x/a.csv"), None, "b", "c")) == "a.csv: found 'b', expected c"


# The mapping.


@pytest.fixture
def mapping(tmp_path):
    """Reads a text as the mapping; expects three IDs."""

    def read(text, expected_ids=3):
        path = tmp_path / "mapping.csv"
        path.write_bytes(text.encode())
        return read_mapping(path, IMAGES, expected_ids)

    return read


def test_a_mapping_without_rows_is_a_fault(mapping):
    assert faults(mapping, "ID,image_id\n") == [(None, "no rows", "at least one row")]


@pytest.mark.parametrize("header", ["ID,image_id", "id,image_id", "ID,Image Index", "id,Image Index"])
def test_a_mapping_may_ask_for_an_image_twice(header, mapping, tmp_path):
    table = mapping(f"{header},note\n7,a.png,x\n3,b.png,\n-1,a.png,x\n")
    assert rows_of(table) == [(7, "a.png"), (3, "b.png"), (-1, "a.png")]
    assert table["ID"].dtype == np.int64
    assert mapped_images(tmp_path / "mapping.csv").tolist() == ["a.png", "b.png", "a.png"]


def test_the_competitions_names_win_over_the_other_editions(mapping, tmp_path):
    table = mapping("id,Image Index,ID,image_id\n9,x,1,a.png\n9,x,2,b.png\n9,x,3,a.png\n")
    assert rows_of(table) == [(1, "a.png"), (2, "b.png"), (3, "a.png")]
    assert mapped_images(tmp_path / "mapping.csv").tolist() == ["a.png", "b.png", "a.png"]


def test_all_faults_of_a_mapping_come_together(mapping):
    text = "ID,image_id\n1,a.png\n1,b.png\n2.0,a.png\n4,no.png\n5,cut.png\n6,../a.png\n7\n"
    found = faults(mapping, text)
    assert [fault[:2] for fault in found] == [
        (3, "1"), (4, "2.0"), (5, "no.png"), (6, "image_id cut.png, image_fault truncated"), (7, "../a.png"),
        (8, "7"), (None, "7 IDs"),
    ]  # fmt: skip
    assert found[0][2] == "an ID that no earlier line has (line 2 does)"


def test_the_wrong_number_of_ids_names_the_knob(mapping):
    with pytest.raises(TableError, match=r"--set competition.expected_ids=2") as caught:
        mapping("ID,image_id\n1,a.png\n2,b.png\n")
    assert [(fault.value, fault.expected) for fault in caught.value.faults] == [
        ("2 IDs", "3: competition.expected_ids")
    ]


@pytest.mark.parametrize("read", [mapped_images, lambda path: read_mapping(path, IMAGES, 1)])
def test_a_mapping_without_its_columns_is_a_fault(read, tmp_path):
    path = tmp_path / "mapping.csv"
    path.write_text("Id;image_id\n1;a.png\n")
    assert faults(read, path) == [(1, "Id;image_id", "the header ID,image_id, with commas")]


# Labels alone.


def test_labels_are_read_without_looking_at_the_boxes(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(f"{HEADER}\nno.png,x,,,,Mass\nno.png,x,,,,Nodule\nno.png,x,,,,Mass\n")
    assert annotation_labels(path) == {"Mass", "Nodule"}
    path.write_text(f"{NIH},label\nno.png,Effusion,,,,,other\n")
    assert annotation_labels(path) == {"Effusion"}


def test_labels_that_cannot_be_known_are_faults(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(f"{HEADER}\na.png,1,2,3,4\na.png,1,2,3,4, \n{GOOD}\n")
    assert [fault[:2] for fault in faults(annotation_labels, path)] == [(2, "a.png,1,2,3,4"), (3, " ")]
    path.write_text(HEADER)
    assert faults(annotation_labels, path) == [(None, "no rows", "at least one row")]


# Images by their headers.


def png(width, height):
    """The head of a PNG of this size; the pixels are missing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return head + struct.pack(">I", 9) + b"IDAT"


def test_an_empty_folder_has_no_images_and_a_missing_one_is_an_error(tmp_path):
    assert image_headers(tmp_path) == {}
    with pytest.raises(KitError, match="No such file"):
        image_headers(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(KitError, match="Not a directory"):
        image_headers(tmp_path / "file")


def test_images_are_listed_by_name_with_width_before_height(tmp_path):
    Image.new("L", (7, 5)).save(tmp_path / "b.PNG")
    Image.new("RGB", (6, 4)).save(tmp_path / "a.JPEG", "JPEG")
    Image.new("I;16", (3, 2)).save(tmp_path / "c.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    facts = image_headers(tmp_path)
    assert [(name, fact.width_px, fact.height_px, fact.fault) for name, fact in facts.items()] == [
        ("a.JPEG", 6, 4, ""), ("b.PNG", 7, 5, ""), ("c.png", 3, 2, ""),
    ]  # fmt: skip
    assert facts["b.PNG"].path == tmp_path / "b.PNG"


def test_a_file_that_is_no_image_has_a_fault_and_no_size(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000))
    (tmp_path / "warned.png").write_bytes(png(10_000, 10_000))
    Image.new("L", (3, 2)).save(tmp_path / "other.png", "GIF")
    facts = image_headers(tmp_path)
    assert {(fact.width_px, fact.height_px) for fact in facts.values()} == {(0, 0)}
    assert facts["text.png"].fault == facts["other.png"].fault == "no PNG or JPEG image"
    assert facts["zero.png"].fault == "an empty file"
    assert "exceeds limit" in facts["bomb.png"].fault
    assert "exceeds limit" in facts["warned.png"].fault
    assert not any(str(tmp_path) in fact.fault for fact in facts.values())


def test_a_wide_image_is_no_bomb(tmp_path):
    (tmp_path / "wide.png").write_bytes(png(20_000, 30))
    assert image_headers(tmp_path)["wide.png"].width_px == 20_000


def encoded(kind):
    file = io.BytesIO()
    Image.new("L", (9, 8), 77).save(file, kind, exif=Image.Exif(), icc_profile=b"odd")
    return file.getvalue()


def test_a_jpeg_with_bad_exif_data_is_an_image(tmp_path):
    data = bytearray(encoded("JPEG"))
    data[34] = 1  # the EXIF block now says that it has 256 entries, and ends before them
    (tmp_path / "x.jpg").write_bytes(data)
    assert image_headers(tmp_path)["x.jpg"].width_px == 9


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([encoded("PNG"), encoded("JPEG"), png(5, 5)]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 400),
)
def test_a_damaged_image_has_a_size_or_a_fault(tmp_path_factory, image, changes, length):
    data = bytearray(image)
    for place, value in changes:
        data[place % len(data)] = value
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / "x.png").write_bytes(data[:length])
    fact = image_headers(folder)["x.png"]
    assert (fact.width_px > 0 and fact.height_px > 0) != bool(fact.fault)


# Detections.


def detections(**changed):
    row = dict(zip(DETECTION_COLUMNS, ("r", 0, "plain", "a.png", 1.0, 2.0, 3.0, 4.0, 0.5, "Mass"), strict=True))
    return pd.DataFrame([row | changed])


def test_no_detections_are_fine():
    assert check_detections(detections()[:0], "x.parquet").empty


@pytest.mark.parametrize("count", [0, 2])
def test_detections_come_back_from_parquet_as_they_were(count, tmp_path):
    table = pd.concat([detections(), detections(score=1.0)], ignore_index=True)[:count]
    table.to_parquet(tmp_path / "x.parquet")
    checked = check_detections(pd.read_parquet(tmp_path / "x.parquet"), "x.parquet")
    assert rows_of(checked) == rows_of(table)
    assert (checked["image_id"].dtype, checked["fold"].dtype, checked["score"].dtype) == (
        object,
        np.int64,
        np.float64,
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (detections().drop(columns=["view", "label"]), "no column view, label"),
        (detections(fold=-1), "1 fault(s), the first: fold '-1' (row 0, greater_than_or_equal_to(0))"),
        (detections(fold=0.5), "fold 'float64' (dtype('int64'))"),
        (detections(score=1.5), "score '1.5' (row 0, in_range(0, 1))"),
        (detections(score=-0.1), "score '-0.1' (row 0"),
        (detections(score=float("nan")), "score 'nan' (row 0"),
        (detections(x_min=float("nan")), "x_min 'nan' (row 0"),
        (detections(x_max=float("inf")), "x_max 'inf' (row 0"),
        (detections(x_max="wide"), "x_max 'wide'"),
        (detections(x_max=1.0), "1 box(es) without an area, the first: [1.0, 2.0, 1.0, 4.0] (row 0)"),
        (detections(label=""), "label '' (row 0, a text, not empty)"),
        (detections(label=None), "label 'None' (row 0"),
        (detections(label=3), "label"),
        (detections(image_id=None), "image_id"),
        (pd.DataFrame(), "no column run, fold, view"),
        (pd.concat([detections(), detections(y_max=0.0)], ignore_index=True), "(row 1)"),
    ],
)
def test_bad_detections_are_an_error_that_names_the_file_and_the_column(table, words):
    with pytest.raises(KitError) as caught:
        check_detections(table, "some/test.parquet")
    assert "some/test.parquet" in caught.value.expected
    assert words in caught.value.found
    assert len(caught.value.found) < 300


# Properties.

CORNER = st.floats(0, 1, exclude_min=True).map(lambda share: round(share, 6))
WORD = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
LABEL = st.lists(WORD, min_size=1, max_size=2).map(" ".join)


@st.composite
def annotations(draw):
    boxes = draw(st.lists(st.tuples(st.sampled_from(["a.png", "b.png", "c.jpg"]), CORNER, CORNER, LABEL),
                          min_size=1, max_size=8, unique=True))  # fmt: skip
    return [(name, 0.0, 0.0, max(x * 100, 0.1), max(y * 80, 0.1), label) for name, x, y, label in boxes]


@settings(deadline=None, max_examples=60)
@given(annotations(), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.randoms(use_true_random=False))
def test_a_valid_table_is_read_as_it_was_written(tmp_path_factory, rows, end, quoted, random):
    rows = list(dict.fromkeys(rows))
    order = random.sample(range(6), 6)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerows([[row[i] for i in order] for row in [ANNOTATION_COLUMNS, *rows]])
    path = tmp_path_factory.getbasetemp() / "valid.csv"
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    assert rows_of(read_annotations(path, IMAGES)) == rows


PIECES = st.sampled_from(
    [HEADER.encode(), NIH.encode(), GOOD.encode(), b"ID,image_id", b"1,a.png", b"\n", b"\r", b'"', b",", b"\0",
     b"\xff", b"\xef\xbb\xbf", b"nan", b"1e308", b"\xc2\x85", b"\xe2\x80\xa8"]
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.binary(max_size=200), st.lists(st.one_of(PIECES, st.binary(max_size=3))).map(b"".join)))
def test_any_bytes_are_a_table_or_an_error_in_three_parts(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    readers = (lambda: read_annotations(path, IMAGES), lambda: read_mapping(path, IMAGES, 1),
               lambda: annotation_labels(path), lambda: mapped_images(path))  # fmt: skip
    for read in readers:
        try:
            assert len(read()) >= (read is not readers[-1])
        except KitError as error:
            lines = data.count(b"\n") + data.count(b"\r") + 1
            assert isinstance(error, TableError) and error.faults
            assert all(1 <= fault.line <= lines for fault in error.faults if fault.line is not None)


@settings(deadline=None, max_examples=60)
@given(annotations(), st.data())
def test_a_changed_cell_is_read_or_named_with_its_line(tmp_path_factory, rows, data):
    cells = [list(map(str, row)) for row in dict.fromkeys(rows)]
    row, column = data.draw(st.integers(0, len(cells) - 1)), data.draw(st.integers(0, 5))
    cells[row][column] = data.draw(st.one_of(st.text(st.characters(codec="utf-8"), max_size=8), NUMBER_LIKE))
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([ANNOTATION_COLUMNS, *cells])
    path = tmp_path_factory.getbasetemp() / "changed.csv"
    path.write_text(file.getvalue(), encoding="utf-8", newline="")
    try:
        assert len(read_annotations(path, IMAGES)) == len(cells)
    except TableError as error:
        assert {fault.line for fault in error.faults} & {row + 2, None} or "no earlier" in str(error)
        assert all(fault.line is None or fault.line >= 2 or fault.value == "a NUL byte" for fault in error.faults)


NUMBER_LIKE = st.one_of(st.floats().map(str), st.integers().map(str), st.sampled_from(["1e999", "1_0", "-0", "１"]))


# Size.


def many(path, rows, bad_every):
    """A train.csv whose every ``bad_every``-th row is inverted, with 3 boxes per image."""
    with path.open("w") as file:
        file.write(HEADER + "\n")
        for i in range(rows):
            right = 0 if i % bad_every == 0 else 50.25
            file.write(f"{i // 3:08d}_000.png,{i % 40 + 0.5},{i % 30},{i % 40 + right},{i % 30 + 40},Mass\n")
    return {f"{i:08d}_000.png": ImageFacts(Path("x"), 100, 80) for i in range(rows // 3 + 1)}


def judged(path, rows, bad_every, without=None):
    """The faults of such a table, and the CPU seconds that they took; one image may be missing."""
    images = many(path, rows, bad_every)
    images.pop(without, None)
    start = time.process_time()
    found = faults(read_annotations, path, images)
    return found, time.process_time() - start


def test_many_faults_take_no_more_than_their_number(tmp_path):
    """Twenty thousand cost four times as much as five thousand, not sixteen times, however busy the machine is."""

    def seconds(rows):
        found, needed = judged(tmp_path / f"{rows}.csv", rows, bad_every=1)
        assert len(found) == rows
        return needed

    assert any(seconds(20_000) < 8 * seconds(5_000) for _ in range(5))


@pytest.mark.slow
def test_a_million_rows_take_no_more_than_their_number(tmp_path):
    _, tenth = judged(tmp_path / "tenth.csv", 100_000, bad_every=1_000_001)
    found, whole = judged(tmp_path / "train.csv", 1_000_000, bad_every=1_000_001, without="00000000_000.png")
    assert whole < 40 * max(tenth, 0.5)
    assert [fault[0] for fault in found] == [2, 2, 3, 4]


@pytest.mark.slow
def test_a_hundred_thousand_faults_take_no_more_than_their_number(tmp_path):
    _, tenth = judged(tmp_path / "tenth.csv", 20_000, bad_every=2)
    found, whole = judged(tmp_path / "train.csv", 200_000, bad_every=2)
    assert whole < 40 * max(tenth, 0.25)
    assert [fault[0] for fault in found] == list(range(2, 200_002, 2))


def test_a_table_knows_its_cells_and_lines(tmp_path):
    (tmp_path / "x.csv").write_text("\na,,b\n1,2,3\n\n4,5\n6,7,8\n")
    cells = read_cells(tmp_path / "x.csv", "do")
    assert (cells.header, cells.header_line) == (("a", "", "b"), 2)
    assert rows_of(cells.table) == [("1", "3", 3), ("6", "8", 6)]
    assert [(fault.line, fault.value) for fault in cells.faults] == [(5, "4,5")]


def test_a_pipe_with_an_images_name_is_a_fault_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    assert image_headers(tmp_path)["x.png"].fault == "it is no file"


def test_a_sliver_that_float32_cannot_hold_is_no_box(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("image_id,x_min,y_min,x_max,y_max,label\na.png,50.00000001,1,50.00000002,4,Mass\n")
    with pytest.raises(TableError, match="x_min < x_max"):
        read_annotations(path, {"a.png": ImageFacts(tmp_path / "a.png", 100, 100)})


@pytest.mark.parametrize("change", ["doubled", "text"])
def test_detections_with_doubled_columns_or_numbers_as_text_are_refused(change):
    values = ("run", 0, "plain", "a.png", 1.0, 2.0, 3.0, 4.0, 0.5, "Mass")
    table = pd.DataFrame([values], columns=list(DETECTION_COLUMNS))
    table = pd.concat([table, table[["x_min"]]], axis=1) if change == "doubled" else table.assign(score="0.5")
    with pytest.raises(KitError, match="x_min" if change == "doubled" else "score"):
        check_detections(table, "here")
