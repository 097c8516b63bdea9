"""Labels under other names, and several readers' boxes of one finding."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.importing.forms.boxed_set import ROW_COLUMNS, rows_table
from kit.importing.labels import COMPETITION_LABELS, mapped, read_label_map, suggestion
from kit.importing.readers import boxes_by_readers
from kit.schemas.csv_text import TableError

VINDR = ("Aortic enlargement", "Infiltration", "Nodule/Mass", "Pleural effusion", "Pneumothorax")


@pytest.mark.parametrize(
    ("label", "near"),
    [
        ("Infiltration", "Infiltrate?"), ("Nodule/Mass", "Nodule or Mass?"), ("Pleural effusion", "Effusion?"),
        ("Mass", "Mass"), ("MASS", "Mass?"), ("Pneumonia", "Pneumonia"), ("opacity", ""), ("Lung Opacity", ""),
        ("Aortic enlargement", ""), ("Fibrosis", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_label_near_to_one_of_the_competition_is_suggested(label, near):
    assert suggestion(label) == near


def test_the_competition_s_labels_are_those_of_the_synthetic_one():
    from kit.data.synthetic.generator import STATISTICS

    assert tuple(sorted(STATISTICS)) == COMPETITION_LABELS


def test_a_map_renames_and_leaves_out_and_the_other_labels_stay(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("source,target\nInfiltration,Infiltrate\nNodule/Mass,\n")
    assert mapped(VINDR, read_label_map(path, VINDR)) == {
        "Aortic enlargement": "Aortic enlargement", "Infiltration": "Infiltrate", "Nodule/Mass": "",
        "Pleural effusion": "Pleural effusion", "Pneumothorax": "Pneumothorax",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("source;target\n", "map.csv:1: found 'source;target', expected the header source,target"),
        ("source,target\nInfiltratoin,Mass\n", "map.csv:2: found 'Infiltratoin', expected a label of the set"),
        ("source,target\nInfiltration,a\nInfiltration,b\n", "map.csv:3: found 'Infiltration', expected a source"),
        ("source,target\nInfiltration, a\n", "map.csv:2: found ' a', expected a label that is not empty, without"),
    ],
)  # fmt: skip
def test_a_wrong_map_is_refused_with_its_line(text, found, tmp_path):
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(TableError) as refused:
        read_label_map(path, VINDR)
    assert found in str(refused.value)
    path.write_text("source,target\nInfiltration,\n")  # the advice
    assert read_label_map(path, VINDR) == {"Infiltration": ""}


def rows(*boxes):
    return rows_table([(image, *corners, label, reader, Path("t.csv"), line)
                       for line, (image, corners, label, reader) in enumerate(boxes, start=2)])  # fmt: skip


def test_no_rows_give_no_boxes():
    boxes, images = boxes_by_readers(rows(), {}, "fuse")
    assert boxes.empty and images is None
    assert boxes_by_readers(rows(), {"R1": frozenset({"a"})}, "fuse")[0].empty


def test_the_boxes_of_one_finding_are_their_mean_and_a_finding_of_one_reader_stays():
    table = rows(
        ("a", (10, 10, 50, 50), "Mass", "R1"), ("a", (12, 12, 52, 52), "Mass", "R2"),
        ("a", (11, 11, 51, 51), "Mass", "R3"), ("a", (12, 12, 52, 52), "Nodule", "R2"),
        ("a", (70, 70, 80, 80), "Mass", "R3"), ("b", (0, 0, 5, 5), "Mass", "R1"),
    )  # fmt: skip
    readers = {name: frozenset("ab") for name in ("R1", "R2", "R3")}
    boxes, images = boxes_by_readers(table, readers, "fuse")
    assert images is None
    assert boxes[["image", "label", "rows"]].to_numpy().tolist() == [
        ["a", "Mass", (0, 1, 2)], ["a", "Nodule", (3,)], ["a", "Mass", (4,)], ["b", "Mass", (5,)],
    ]  # fmt: skip
    np.testing.assert_allclose(boxes.loc[0, ["x_min", "y_max"]].to_numpy(float), [(10 + 12 + 11) / 3, 51])


def test_two_readers_of_different_places_are_two_findings():
    table = rows(("a", (0, 0, 10, 10), "Mass", "R1"), ("a", (0, 0, 10, 21), "Mass", "R2"))  # IoU 100 / 210
    assert len(boxes_by_readers(table, {"R1": frozenset("a"), "R2": frozenset("a")}, "fuse")[0]) == 2


def test_every_box_has_an_origin_and_every_row_is_one(step):
    """Also where a box joined a mean that it overlaps less than another one in the end."""
    for seed in range(0, 80, step):
        rng = np.random.default_rng(seed)
        low = rng.uniform(0, 60, (12, 2))
        corners = np.hstack([low, low + rng.uniform(10, 40, (12, 2))])
        table = rows(*(("a", tuple(box), "Mass", f"R{number % 4}") for number, box in enumerate(corners.tolist())))
        boxes, _ = boxes_by_readers(table, {f"R{number}": frozenset("a") for number in range(4)}, "fuse")
        assert all(boxes["rows"])
        assert set().union(*boxes["rows"]) == set(range(12))
        assert list(table.columns) == list(ROW_COLUMNS)


def test_a_table_in_which_only_some_rows_name_a_reader_keeps_the_others():
    table = rows(
        ("a", (0, 0, 10, 10), "Mass", "R1"), ("a", (0, 1, 10, 11), "Mass", "R2"), ("b", (0, 0, 9, 9), "Mass", "")
    )
    boxes, _ = boxes_by_readers(table, {"R1": frozenset("a"), "R2": frozenset("a")}, "fuse")
    assert boxes["rows"].tolist() == [(0, 1), (2,)]
    assert isinstance(boxes, pd.DataFrame)
