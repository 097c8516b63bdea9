"""Every publisher's form becomes a workspace: the boxes, the images without one, the patients, the origins."""

import json

import numpy as np
import pandas as pd
import pytest
from published import CORNERS, ONE_LABEL, WRITERS

from kit.core.errors import KitError
from kit.data.groups import read_groups
from kit.data.images import read_grey
from kit.importing import ImportOptions, carry_out, finished_import, plan_import
from kit.importing.dicom import patient_mark
from kit.importing.forms import FORMS
from kit.schemas.csv_text import TableError
from kit.schemas.image_headers import image_headers
from kit.schemas.tables import read_annotations

BOXES = pd.DataFrame(
    [("00000001_000", 4, 6, 24, 26, "Mass"), ("00000001_000", 30, 6, 44, 20, "Nodule"),
     ("00000002_000", 2, 3, 40, 41, "Mass"), ("00000004_000", 10, 10, 63, 47, "Nodule")],
    columns=["image_id", *CORNERS, "label"],
)  # fmt: skip
NAMES = [f"{number:08d}_000" for number in range(1, 6)]


XML = f"VOCdevkit/VOC2012/Annotations/{NAMES[1]}.xml"
LONG = "x" * 300  # more than a file system takes
COCO = "annotations/instances_train2017.json"


def pictures():
    rng = np.random.default_rng(5)
    levels = {name: rng.integers(1, 255, (48, 64)).astype(np.uint8) for name in NAMES}
    for picture in levels.values():
        picture[0, :2] = 0, 255  # the whole range, so that DICOM's becomes the same
    return levels


def written(form, folder):
    WRITERS[form](folder, pictures(), BOXES)
    return folder


def options(form, source, workspace, **others):
    return ImportOptions(form, source, workspace, **others)


def imported(form, tmp_path, **others):
    wanted = options(form, written(form, tmp_path / "set"), tmp_path / "work", **others)
    carry_out(plan_import(wanted))
    return wanted


def read_table(workspace):
    images = image_headers(workspace / "data" / "train")
    return read_annotations(workspace / "data" / "train.csv", images, every_image=True)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_becomes_a_workspace_with_its_boxes_in_the_new_pixels(form, tmp_path):
    wanted = imported(form, tmp_path, size_px=32)
    found = read_table(wanted.workspace)
    label = ONE_LABEL.get(form)
    expected = BOXES.assign(image_id=BOXES["image_id"] + ".png", label=label or BOXES["label"])
    expected[CORNERS] = expected[CORNERS] / 2  # 64 x 48 pixels become 32 x 24
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    # SIIM's third picture has no box, but its study is not negative: it is not empty.
    names = [f"{name}.png" for name in NAMES if (form, name) != ("siim", NAMES[2])]
    facts = image_headers(wanted.workspace / "data" / "train")
    assert {name: (fact.width_px, fact.height_px) for name, fact in facts.items()} == dict.fromkeys(names, (32, 24))
    assert not (wanted.workspace / "data" / "ID_to_Image_Mapping.csv").exists()
    assert finished_import(wanted).boxes == 4


@pytest.mark.parametrize("form", FORMS)
def test_pixels_that_need_no_resizing_are_the_source_s(form, tmp_path):
    wanted = imported(form, tmp_path)
    for name in NAMES[:2]:
        np.testing.assert_array_equal(
            read_grey(wanted.workspace / "data" / "train" / f"{name}.png"), pictures()[name]
        )


@pytest.mark.parametrize(
    ("form", "together"),
    [
        ("siim", {NAMES[0]: NAMES[1]}),
        ("nih", {NAMES[0]: NAMES[1], NAMES[2]: NAMES[3]}),
        ("rsna", {}),
        ("coco", None),
    ],
)
def test_patients_are_groups_that_name_nobody(form, together, tmp_path):
    wanted = imported(form, tmp_path)
    groups = read_groups(wanted.workspace / "data")
    if together is None:
        assert groups == {}
        return
    pairs = [(a, b) for a in sorted(groups) for b in sorted(groups) if a < b and groups[a] == groups[b]]
    assert pairs == [(f"{a}.png", f"{b}.png") for a, b in together.items()]
    assert all(len(group) == 32 and set(group) <= set("0123456789abcdef") for group in groups.values())


def test_the_secret_of_the_hashes_is_gone_when_the_import_ends_and_another_one_s_differs(tmp_path):
    first, second = (imported("siim", tmp_path / name).workspace for name in "ab")
    assert not list(first.rglob("salt"))
    assert set(read_groups(first / "data").values()).isdisjoint(read_groups(second / "data").values())


def test_a_secret_that_a_kill_left_half_written_is_drawn_anew(tmp_path):
    """An empty one would hash every patient to what anybody can compute."""
    wanted = options("siim", written("siim", tmp_path / "set"), tmp_path / "work")
    plan = plan_import(wanted)
    (wanted.workspace / ".import").mkdir(parents=True)
    (wanted.workspace / ".import" / "salt").touch()
    carry_out(plan)
    groups = set(read_groups(wanted.workspace / "data").values())
    assert groups
    assert groups.isdisjoint(patient_mark(image.patient, b"") for image in plan.train)


def test_the_origin_of_every_row_is_its_line_in_the_set(tmp_path):
    workspace = imported("vindr", tmp_path).workspace
    rows = pd.read_csv(workspace / "data" / "import" / "rows.csv")
    assert rows["line"].tolist() == [2, 3, 4, 5]
    assert rows["lines"].tolist() == ["2 4 6", "3 5 7", "8 9 10", "14 15 16"]  # three readers each
    source = (tmp_path / "set" / "train.csv").read_text().splitlines()
    assert source[4 - 1].startswith(f"{NAMES[0]},Mass,1,R10,")
    images = pd.read_csv(workspace / "data" / "import" / "images.csv").set_index("image_id")
    assert images.loc[f"{NAMES[2]}.png", "source"] == f"train/{NAMES[2]}.dicom"


def test_one_reader_s_boxes_come_with_the_images_that_this_reader_read(tmp_path):
    source = written("vindr", tmp_path / "set")
    lines = (source / "train.csv").read_text().splitlines(keepends=True)
    (source / "train.csv").write_text(
        "".join(line for line in lines if f"{NAMES[2]},No finding,14,R10" not in line)
    )
    wanted = options("vindr", source, tmp_path / "work", readers="R10")
    plan = plan_import(wanted)
    assert [image.image_id for image in plan.train] == [f"{name}.png" for name in NAMES if name != NAMES[2]]
    assert plan.boxes["x_min"].tolist() == [5, 31, 3, 11]  # R10 draws a pixel to the right
    assert "left out: 1 image that the reader did not read" in plan.notes


def test_all_readers_boxes_are_kept_and_rows_that_repeat_one_are_one(tmp_path):
    source = written("vindr", tmp_path / "set")
    with (source / "train.csv").open("a") as file:
        file.write(f"{NAMES[0]},Mass,1,R11,4,6,24,26\n")
    plan = plan_import(options("vindr", source, tmp_path / "work", readers="all"))
    assert len(plan.boxes) == 12
    assert [line for _, line in plan.boxes["origins"].iloc[0]] == [2, 20]


def test_a_reader_who_is_not_there_is_refused_with_the_nearest(tmp_path):
    source = written("vindr", tmp_path / "set")
    with pytest.raises(KitError) as refused:
        plan_import(options("vindr", source, tmp_path / "work", readers="R80"))
    assert "R8" in refused.value.do
    assert len(plan_import(options("vindr", source, tmp_path / "work", readers="R8")).boxes) == 4  # the advice
    source = written("nih", tmp_path / "nih")
    with pytest.raises(KitError, match="names no readers"):
        plan_import(options("nih", source, tmp_path / "work", readers="R8"))


def test_images_without_a_box_are_left_out_or_drawn(tmp_path):
    source = written("coco", tmp_path / "set")
    kept = {}
    for share in (0.0, 0.5, 1.0):
        plan = plan_import(options("coco", source, tmp_path / "work", empty_share=share))
        kept[share] = [image.image_id for image in plan.train]
    boxed = sorted({f"{name}.png" for name in BOXES["image_id"]})
    assert kept[0.0] == boxed and len(kept[0.5]) == 4 and kept[1.0] == [f"{name}.png" for name in NAMES]


def test_a_test_part_without_truth_becomes_a_mapping(tmp_path):
    source = written("rsna", tmp_path / "set")
    (source / "stage_2_train_images" / f"{NAMES[2]}.dcm").rename(source / "t.dcm")
    (source / "stage_2_test_images").mkdir()
    (source / "t.dcm").rename(source / "stage_2_test_images" / "zz.dcm")
    lines = (source / "stage_2_train_labels.csv").read_text().splitlines(keepends=True)
    (source / "stage_2_train_labels.csv").write_text("".join(line for line in lines if NAMES[2] not in line))
    wanted = options("rsna", source, tmp_path / "work")
    assert carry_out(plan_import(wanted)).test_images == 1
    data = wanted.workspace / "data"
    assert (data / "ID_to_Image_Mapping.csv").read_text() == "ID,image_id\n1,zz.png\n"
    groups = read_groups(data)
    assert set(groups) == {path.name for part in ("train", "test") for path in (data / part).iterdir()}


def test_yolo_s_folder_for_two_parts_is_read_once_and_a_polygon_is_its_box(tmp_path):
    source = written("yolo", tmp_path / "set")
    (source / "labels" / "train" / f"{NAMES[2]}.txt").write_text("0 0.25 0.5 0.5 0.25 0.75 0.75\n")
    plan = plan_import(options("yolo", source / "data.yaml", tmp_path / "work"))
    assert "images/train is named for train and val, and read once" in plan.notes
    assert len(plan.train) == 5
    polygon = plan.boxes[plan.boxes["image_id"] == f"{NAMES[2]}.png"]
    assert polygon[CORNERS].to_numpy().tolist() == [[16, 12, 48, 36]]  # of 64 x 48 pixels


def test_yolo_s_list_of_images_takes_blanks_and_names_every_path_that_is_none(tmp_path):
    source = written("yolo", tmp_path / "set")
    table = source / "data.yaml"
    table.write_text(
        table.read_text().replace("train: images/train", "train: list.txt").replace("val: images/train", "")
    )
    paths = [f"  images/train/{path.name} " for path in sorted((source / "images" / "train").iterdir())]
    (source / "list.txt").write_text("\n".join([*paths[:-1], "", " images/nowhere.png ", "b" * 300, "b\0.png"]))
    with pytest.raises(TableError) as caught:
        plan_import(options("yolo", table, tmp_path / "work"))
    assert [fault.line for fault in caught.value.faults] == [len(paths) + number for number in (1, 2, 3)]
    (source / "list.txt").write_text("\n".join(paths))  # as it advises
    assert len(plan_import(options("yolo", table, tmp_path / "work")).train) == len(paths)


def test_voc_that_counts_from_0_is_read_as_such(tmp_path):
    source = written("voc", tmp_path / "set")
    path = source / XML
    path.write_text(path.read_text().replace("<xmin>3</xmin>", "<xmin>0</xmin>"))
    plan = plan_import(options("voc", source, tmp_path / "work"))
    assert plan.boxes["x_min"].tolist() == [5, 31, 0, 11]


def test_two_pictures_of_one_name_keep_their_folders(tmp_path):
    source = written("coco", tmp_path / "set")
    content = json.loads((source / "annotations" / "instances_train2017.json").read_text())
    (source / "val2017").mkdir()
    for name in NAMES[:2]:
        (source / "val2017" / f"{name}.png").write_bytes((source / "train2017" / f"{name}.png").read_bytes())
    content["images"] = content["images"][:2]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in (7, 8)]
    (source / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    plan = plan_import(options("coco", source, tmp_path / "work"))
    names = [image.image_id for image in plan.train]
    assert names[-4:] == [f"{part}_{name}.png" for part in ("train2017", "val2017") for name in NAMES[:2]]
    assert len(names) == 7 and len(plan.boxes) == 7


def test_a_stand_in_for_a_box_that_says_no_finding_is_none(tmp_path):
    source = written("coco", tmp_path / "set")
    path = source / COCO
    content = json.loads(path.read_text())
    content["categories"].append({"id": 9, "name": "No finding"})
    content["annotations"] += [
        {"image_id": 9, "category_id": 9, "bbox": bbox} for bbox in ([0, 0, 1, 1], [0, 0, 64, 48])
    ]
    path.write_text(json.dumps(content))
    plan = plan_import(options("coco", source, tmp_path / "work"))
    assert len(plan.boxes) == 4 and plan.labels["label"].tolist() == ["Mass", "Nodule"]
    assert "2 rows with a label such as No finding, and no box" in plan.notes


def test_nih_without_its_entries_takes_no_image_for_healthy_and_says_so(tmp_path):
    source = written("nih", tmp_path / "set")
    (source / "Data_Entry_2017.csv").unlink()
    plan = plan_import(options("nih", source, tmp_path / "work"))
    assert [image.image_id for image in plan.train] == [f"{NAMES[number]}.png" for number in (0, 1, 3)]
    assert any(note.startswith("missing Data_Entry_2017.csv") for note in plan.notes)


@pytest.mark.parametrize(
    ("form", "file", "before", "after", "found"),
    [
        ("vindr", "train.csv", "R9,4,6,24,26", "R9,4,6,24,abc", "train.csv:2: found 'abc', expected y_max"),
        ("vindr", "train.csv", "R9,4,6,24,26", "R9,4,6,104,26", "train.csv:2: found 'x_min 4, y_min 6, x_max 104"),
        ("vindr", "train.csv", "R9,4,6,24,26", "R9,,,,", "with a finding and no corners"),
        ("vindr", "train.csv", "class_name", "class", "train.csv:1: found 'image_id,class,"),
        ("vindr", "train.csv", NAMES[1], "gone", "train.csv:8: found 'gone', expected a picture of that name"),
        ("rsna", "stage_2_train_labels.csv", ",1\n", ",2\n", "Target 2', expected Target 0 or 1"),
        ("siim", "train_image_level.csv", "opacity 1 4 6", "opacity 1 4", "expected groups of six words"),
        ("chestx-det", "ChestX_Det_train.json", '"Mass", ', "", "ChestX_Det_train.json, entry 1: found"),
        ("nih", "BBox_List_2017.csv", ",14,14", ",0,14", "BBox_List_2017.csv:3: found 'x_min 30"),
        ("coco", COCO, '"category_id": 3', '"category_id": 9', "category_id to be an id"),
        ("coco", COCO, '"width": 64', '"width": 128', "expected 128 x 48 px, as the set"),
        ("yolo", f"labels/train/{NAMES[1]}.txt", "0 ", "7 ", "a class of 0 = Mass, 1 = Nodule"),
        ("yolo", "data.yaml", "images/train", "images/trian", "no such folder or file beside it"),
        ("yolo", "data.yaml", "images/train", LONG, "no such folder or file beside it"),
        ("coco", COCO, f"{NAMES[1]}.png", LONG, "expected a picture of that name"),
        ("yolo", "data.yaml", "names:", "names: [", "expected data.yaml with names"),
        ("voc", XML, "<xmin>3", "<xmin>x3", "expected an object with name"),
        ("voc", XML, "</annotation>", "", "expected an XML file of VOC"),
        ("voc", XML, "<annotation>", "<!DOCTYPE a><annotation>", "a DOCTYPE"),
    ],
)  # fmt: skip
def test_a_fault_has_its_file_its_line_and_its_value_and_the_corrected_file_is_read(
    form, file, before, after, found, tmp_path
):
    source = written(form, tmp_path / "set")
    path = source / file
    whole = path.read_text()
    assert before in whole
    path.write_text(whole.replace(before, after))
    with pytest.raises(KitError) as refused:
        plan_import(options(form, source, tmp_path / "work"))
    assert found in str(refused.value)
    assert "correct" in refused.value.do or "put the" in refused.value.do or "give the set" in refused.value.do
    path.write_text(whole)  # the advice
    assert len(plan_import(options(form, source, tmp_path / "work")).boxes) == 4


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_that_holds_nothing_of_the_form_is_refused_with_what_it_should_hold(form, tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(KitError) as refused:
        plan_import(options(form, tmp_path / "set", tmp_path / "work"))
    assert refused.value.found == "an empty folder" and "--source" in refused.value.do
    written(form, tmp_path / "set")  # the advice
    assert len(plan_import(options(form, tmp_path / "set", tmp_path / "work")).boxes) == 4


def test_an_unknown_form_and_a_source_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(KitError) as refused:
        plan_import(options("vinder", tmp_path, tmp_path / "work"))
    assert "vindr" in refused.value.do
    for name in ("set", LONG):
        with pytest.raises(KitError, match="nothing there"):
            plan_import(options("vindr", tmp_path / name, tmp_path / "work"))
