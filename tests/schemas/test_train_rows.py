"""One cause is one fault, whose advice gives the table if it is followed; rows without a box are counted."""

import csv
import io
import logging
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from kit.schemas.csv_text import TableError
from kit.schemas.image_headers import ImageFacts, image_headers
from kit.schemas.tables import (
    NIH_COLUMNS,
    annotation_labels,
    no_finding_boxes,
    read_annotations,
    read_mapping,
)

HEADER = "image_id,x_min,y_min,x_max,y_max,label"
NIH = ",".join(NIH_COLUMNS)
COUNT = 12


def facts(names, side=100):
    return {name: ImageFacts(Path(name), side, side) for name in names}


def written(path, rows, header=HEADER):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([header.split(","), *rows])
    path.write_text(file.getvalue(), encoding="utf-8")
    return path


def boxes(names):
    return [(name, 1, 2, 30, 40 + number, "Mass") for number, name in enumerate(names)]


def the_fault(read, *arguments):
    with pytest.raises(TableError) as caught:
        read(*arguments)
    (fault,) = caught.value.faults
    return fault, caught.value.do


NAMES = [f"0{number:02d}_Häl.png" for number in range(COUNT)]
OTHERWISE = {
    "no extension": lambda name: name.removesuffix(".png"),
    "upper case": str.upper,
    "the extension alone in upper case": lambda name: name.replace(".png", ".PNG"),
    "another extension": lambda name: name.replace(".png", ".jpg"),
    "DICOM names": lambda name: name.replace(".png", ".dcm"),
    "decomposed letters": lambda name: unicodedata.normalize("NFD", name),
    "decomposed, without extension": lambda name: unicodedata.normalize("NFD", name.removesuffix(".png")),
    "lost zeros": lambda name: name.lstrip("0"),
    "a path": lambda name: f"train/{name}",
    "a path of Windows": lambda name: f"images\\{name}",
}


class TestImageNames:
    @pytest.mark.parametrize("change", OTHERWISE)
    def test_ids_written_otherwise_are_one_fault_and_renamed_they_are_read(self, change, tmp_path):
        path = written(tmp_path / "train.csv", boxes(map(OTHERWISE[change], NAMES)))
        fault, do = the_fault(read_annotations, path, facts(NAMES))
        assert fault.line == 2
        assert f"(and {COUNT - 1} rows more)" in fault.value
        if "path" in change:
            assert do == "leave out the folders before the names"
        else:
            assert do == "write each image_id as its file is named, or rename the files"
        assert "fetch it anew" not in do
        assert len(read_annotations(written(path, boxes(NAMES)), facts(NAMES))) == COUNT

    @pytest.mark.parametrize("change", OTHERWISE)
    def test_so_are_those_of_the_mapping(self, change, tmp_path):
        rows = [(number, OTHERWISE[change](name)) for number, name in enumerate(NAMES)]
        fault, do = the_fault(read_mapping, written(tmp_path / "m.csv", rows, "ID,image_id"), facts(NAMES), COUNT)
        assert fault.line == 2 and "fetch it anew" not in do

    def test_each_cause_has_its_line_and_a_name_without_a_cause_its_own(self, tmp_path):
        rows = boxes(["000_Häl", "001_Häl", "nowhere.png", "002_HÄL.PNG", "elsewhere.png"])
        with pytest.raises(TableError) as caught:
            read_annotations(written(tmp_path / "train.csv", rows), facts(NAMES))
        assert [(fault.line, fault.value) for fault in caught.value.faults] == [
            (2, "000_Häl (and 1 rows more)"), (4, "nowhere.png"), (5, "002_HÄL.PNG"), (6, "elsewhere.png"),
        ]  # fmt: skip
        assert "correct the file" in caught.value.do

    @pytest.mark.parametrize("extension", ["dcm", "DCM", "tif", "bmp"])
    def test_files_of_other_formats_are_named_and_converted_they_are_read(self, extension, tmp_path):
        (tmp_path / "train").mkdir()
        for number in range(COUNT):
            (tmp_path / "train" / f"{number:03d}.{extension}").write_bytes(b"DICM")
        for ids in ([f"{n:03d}" for n in range(COUNT)], [f"{n:03d}.{extension}" for n in range(COUNT)]):
            fault, do = the_fault(read_annotations, written(tmp_path / "train.csv", boxes(ids)), {})
            assert fault.expected == f"a PNG or JPEG image, not train/000.{extension}"
            assert do == "convert the files of other formats to PNG or JPEG, and name these in the table"
        converted = [f"{number:03d}.png" for number in range(COUNT)]
        path = written(tmp_path / "train.csv", boxes(converted))
        assert len(read_annotations(path, facts(converted))) == COUNT

    @pytest.mark.parametrize("there", [0, 1])
    def test_many_images_that_are_not_there_are_one_line_and_both_ways_out_work(self, there, tmp_path):
        (tmp_path / "train").mkdir()
        path = written(tmp_path / "train.csv", boxes(NAMES))
        fault, do = the_fault(read_annotations, path, facts(NAMES[:there]))
        assert fault.value == f"{NAMES[there]} (and {COUNT - there - 1} rows more)"
        assert do == f"put their images into {tmp_path / 'train'}, or leave these rows out"
        assert len(read_annotations(path, facts(NAMES))) == COUNT
        assert len(read_annotations(written(path, boxes(NAMES[:1])), facts(NAMES[:1]))) == 1

    @pytest.mark.parametrize("deeper", ["train", "train/train", "a/ü b/c"])
    def test_images_in_deeper_folders_are_named_and_moved_up_they_are_read(self, deeper, tmp_path):
        inner = tmp_path / "train" / deeper
        inner.mkdir(parents=True)
        for name in NAMES:
            (inner / name).touch()
        path = written(tmp_path / "train.csv", boxes(NAMES))
        fault, do = the_fault(read_annotations, path, {})
        assert fault.expected == f"an image directly in train/, not train/{deeper}/{NAMES[0]}"
        assert do == "move the images up into train/"
        for name in NAMES:
            (inner / name).rename(tmp_path / "train" / name)
        assert len(read_annotations(path, facts(NAMES))) == COUNT

    @settings(max_examples=30)
    @given(
        st.lists(st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=9), min_size=1,
                 max_size=6, unique_by=lambda text: unicodedata.normalize("NFC", text).casefold().lstrip("0")),
        st.sampled_from(list(OTHERWISE)),
    )  # fmt: skip
    def test_any_name_written_otherwise_is_read_or_one_fault_a_cause(self, tmp_path_factory, stems, change):
        names = [f"{stem}.png" for stem in stems]
        path = written(tmp_path_factory.getbasetemp() / "names.csv", boxes(map(OTHERWISE[change], names)))
        try:
            assert len(read_annotations(path, facts(names))) == len(names)
        except TableError as error:
            # A letter may fold to several, so that one change can look like two causes; never a line a row.
            assert len(error.faults) <= min(len(names), 3)
            assert error.faults[0].line is not None


EMPTY = {
    "empty": ("", "", "", ""),
    "nan": ("nan", "nan", "nan", "nan"),
    "dashes": ("-", "-", "-", "-"),
    "a stand-in": (0, 0, 1, 1),
    "zeros": (0, 0, 0, 0),
    "a stand-in in decimals": ("0.0", "0", "1.00", "1.0"),
    "-1s": (-1, -1, -1, -1),
    "a stand-in one pixel further": (1, 1, 2, 2),
    "the whole image": (0, 0, 100, 100),
    "the whole image, counted from 1": (1, 1, 100, 100),
    "the whole image to its last pixel": (0, 0, 99, 99),
    "N/A": ("N/A", "NA", "null", " "),
}


def pictures(folder):
    """The images of NAMES in train/."""
    (folder / "train").mkdir()
    for name in NAMES:
        Image.new("L", (100, 100)).save(folder / "train" / name)


class TestRowsWithoutABox:
    @pytest.mark.parametrize(
        ("label", "corners"),
        [
            (label, corners)
            for label in ("No finding", "no_finding", "NO FINDING", "normal", "None", "")
            for corners in EMPTY
            if label or "whole" not in corners
        ],
    )
    def test_they_are_left_out_and_counted(self, label, corners, tmp_path, caplog):
        rows = [(name, *EMPTY[corners], label) for name in NAMES[:3] * 2] + boxes(NAMES[2:])
        path = written(tmp_path / "train.csv", rows)
        pictures(tmp_path)
        with caplog.at_level(logging.INFO, "kit"):
            table = read_annotations(path, facts(NAMES))
        assert table["image_id"].tolist() == NAMES[2:]
        assert set(table["label"]) == {"Mass"} == annotation_labels(path)
        (line,) = [record.getMessage() for record in caplog.records]
        assert line == (
            "train.csv: 6 rows without a box: these 3 images have no finding; other rows give boxes to 1 of them"
        )

    def test_in_nihs_columns_too(self, tmp_path):
        rows = [(NAMES[0], "No Finding", "", "", "", ""), (NAMES[1], "No Finding", 0, 0, 1, 1),
                (NAMES[3], "No Finding", 1, 1, 99, 99), (NAMES[2], "Mass", 1, 2, 3, 4)]  # fmt: skip
        path = written(tmp_path / "train.csv", rows, NIH)
        assert read_annotations(path, facts(NAMES))["image_id"].tolist() == [NAMES[2]]
        pictures(tmp_path)
        assert annotation_labels(path) == {"Mass"}

    def test_a_box_of_a_whole_image_that_lies_on_its_side_is_none_either(self, tmp_path):
        (tmp_path / "train").mkdir()
        tag = Image.Exif()
        tag[ExifTags.Base.Orientation] = 6
        Image.new("L", (100, 60)).save(tmp_path / "train" / "a.png", exif=tag)
        rows = [("a.png", 0, 0, 60, 100, "No finding"), ("a.png", 1, 2, 3, 4, "Mass")]
        path = written(tmp_path / "train.csv", rows)
        assert set(read_annotations(path, image_headers(tmp_path / "train", "exif"))["label"]) == {"Mass"}
        assert annotation_labels(path, "exif") == {"Mass"}

    @pytest.mark.parametrize("corners", [name for name in EMPTY if "whole" in name])
    def test_a_box_of_a_whole_image_without_a_label_has_lost_it(self, corners, tmp_path):
        path = written(tmp_path / "train.csv", [*boxes(NAMES), (NAMES[0], *EMPTY[corners], "")])
        fault, _ = the_fault(read_annotations, path, facts(NAMES))
        assert (fault.line, fault.value) == (len(NAMES) + 2, "")
        assert "label" in fault.expected

    def test_their_images_must_be_there(self, tmp_path):
        rows = [("nowhere.png", "", "", "", "", "No finding"), *boxes(NAMES)]
        fault, _ = the_fault(read_annotations, written(tmp_path / "train.csv", rows), facts(NAMES))
        assert (fault.line, fault.value, fault.expected) == (2, "nowhere.png", "an image that is there")

    def test_a_table_of_nothing_else_is_a_fault(self, tmp_path):
        path = written(tmp_path / "train.csv", [(name, 0, 0, 1, 1, "No finding") for name in NAMES])
        fault, _ = the_fault(read_annotations, path, facts(NAMES))
        assert fault.value == f"{COUNT} rows without a box, and no other"
        assert fault.expected == "at least one row with a box"
        one = [*boxes(NAMES[:1]), *((name, 0, 0, 1, 1, "No finding") for name in NAMES[1:])]
        assert len(read_annotations(written(path, one), facts(NAMES))) == 1

    def test_a_findings_label_without_corners_is_one_fault_whose_advice_works(self, tmp_path):
        bare = [(name, "", "", "", "", "Nodule") for name in NAMES[:5]]
        path = written(tmp_path / "train.csv", [*boxes(NAMES), *bare])
        fault, do = the_fault(read_annotations, path, facts(NAMES))
        assert fault.line == COUNT + 2 and fault.value.endswith("Nodule, no corners and 4 rows more")
        assert "label them No finding" in do
        labelled = [(*row[:5], "No finding") for row in bare]
        for rows in (boxes(NAMES), [*boxes(NAMES), *labelled]):
            assert len(read_annotations(written(path, rows), facts(NAMES))) == COUNT

    def test_a_real_box_is_kept_whatever_its_label(self, tmp_path):
        rows = [(NAMES[0], 0, 0, 1, 1, "Mass"), (NAMES[1], 5, 5, 20, 20, "normal")]
        assert len(read_annotations(written(tmp_path / "train.csv", rows), facts(NAMES))) == 2

    @pytest.mark.parametrize("label", ["No finding", "normal", "NaN"])
    def test_a_real_box_of_no_finding_is_named_with_its_line_and_without_corners_it_is_none(self, label, tmp_path):
        rows = [(NAMES[0], 0, 0, 1, 1, label), *boxes(NAMES[2:]), (NAMES[1], 5, 5, 20, 20, label)]
        path = written(tmp_path / "train.csv", rows)
        found = no_finding_boxes(path, facts(NAMES))
        assert found.to_numpy().tolist() == [[COUNT + 1, NAMES[1], "5", "5", "20", "20", label]]
        assert len(read_annotations(path, facts(NAMES))) == COUNT - 1
        rows[-1] = (NAMES[1], "", "", "", "", label)
        assert no_finding_boxes(written(path, rows), facts(NAMES)).empty
        assert len(read_annotations(path, facts(NAMES))) == COUNT - 2


class TestUnits:
    def test_boxes_of_larger_pictures_are_one_fault_with_their_reach_and_divided_they_are_read(self, tmp_path):
        rows = [(name, 110, 110, 180 + n, 150, "Mass") for n, name in enumerate(NAMES)]
        path = written(tmp_path / "train.csv", rows)
        fault, do = the_fault(read_annotations, path, facts(NAMES))
        assert fault.line == 2 and f"and {COUNT - 1} rows more of {COUNT}" in fault.value
        assert "reaches 1.91 times as far" in fault.expected
        assert "by the ratio of the sizes" in do
        halved = [(name, *(float(corner) / 2 for corner in box), label) for name, *box, label in rows]
        assert len(read_annotations(written(path, halved), facts(NAMES))) == COUNT

    def test_width_and_height_as_corners_get_advice_that_works(self, tmp_path):
        rows = [(name, 50 + n, 50, 20, 30, "Mass") for n, name in enumerate(NAMES)]
        with pytest.raises(TableError) as caught:
            read_annotations(written(tmp_path / "train.csv", rows), facts(NAMES))
        assert len(caught.value.faults) == COUNT
        assert f"name the columns as NIH does: {NIH}" in caught.value.do
        columns = dict(zip(("image_id", "label", "x_min", "y_min", "x_max", "y_max"), NIH_COLUMNS, strict=True))
        header = ",".join(columns[name] for name in HEADER.split(","))
        table = read_annotations(written(tmp_path / "train.csv", rows, header), facts(NAMES))
        assert table.iloc[0][["x_max", "y_max"]].tolist() == [70, 80]

    def test_yolos_centres_and_sizes_get_advice_that_works(self, tmp_path):
        rows = [(name, 0.5, 0.5, 0.2, 0.3 + n / 100, "Mass") for n, name in enumerate(NAMES)]
        with pytest.raises(TableError, match="centres and sizes as fractions, write corners in pixels"):
            read_annotations(written(tmp_path / "train.csv", rows), facts(NAMES))
        pixels = [
            (name, 100 * (x - w / 2), 100 * (y - h / 2), 100 * (x + w / 2), 100 * (y + h / 2), label)
            for name, x, y, w, h, label in rows
        ]
        assert len(read_annotations(written(tmp_path / "train.csv", pixels), facts(NAMES))) == COUNT


def test_repeated_rows_of_several_readers_get_advice_that_works(tmp_path):
    path = written(tmp_path / "train.csv", boxes(NAMES) * 2)
    with pytest.raises(TableError) as caught:
        read_annotations(path, facts(NAMES))
    assert re.search(r"--set data\.repeated_boxes=fuse", caught.value.do)
    assert len(read_annotations(path, facts(NAMES), repeats=True)) == 2 * COUNT
