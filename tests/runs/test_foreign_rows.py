"""Detections from elsewhere: every form of the table in docs/ensembles.md, and each refusal with its way out."""

import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from repository import ROOT
from toy import copied, toy_config

from kit.boxes.geometry import CORNERS, clip
from kit.core.errors import KitError
from kit.data.competition import load_test, load_training
from kit.runs.adoption import adopt
from kit.runs.folder import Run
from kit.runs.foreign_rows import read_rows
from kit.schemas.foreign import read_foreign
from kit.schemas.tables import SUBMISSION_COLUMNS, read_annotations, read_submission

COLUMNS = ["image_id", *CORNERS, "score", "label"]
SIDE_PX = 96
LYING = (120, 160)  # as they lie in the file, with an orientation that turns them


class Place:
    """The toy competition, and the true boxes as another tool might have found them, with two of the test."""

    def __init__(self, workspace):
        self.workspace = workspace
        self.data, self.test = load_training(workspace, toy_config()), load_test(workspace, toy_config())
        boxes = self.data.annotations
        table = boxes.assign(score=[0.5 + 0.001 * i for i in range(len(boxes))])[COLUMNS]
        more = [(name, 1.0, 2.0, 30.5, 40.0, 0.25, self.labels[0]) for name in self.test.image_ids[:2]]
        self.table = pd.concat([table, pd.DataFrame(more, columns=COLUMNS)], ignore_index=True)

    @property
    def labels(self):
        return self.data.labels

    def read(self, path, images_file=None, clip=False, test=True):
        return read_rows(path, self.data, self.test if test else None, self.data.image_ids, images_file, clip)

    def refused(self, path, **options):
        with pytest.raises(KitError) as caught:
            self.read(path, **options)
        return caught.value

    def agrees(self, rows, table=None, abs_px=1e-3):
        """Whether these are the rows of the table, in any order of the images."""
        expected = self.table if table is None else table
        found = rows.table.sort_values(["image_id", "score"], kind="stable")
        expected = expected.sort_values(["image_id", "score"], kind="stable")
        assert (
            found[["image_id", "label"]].to_numpy().tolist() == expected[["image_id", "label"]].to_numpy().tolist()
        )
        numbers = [*CORNERS, "score"]
        assert found[numbers].to_numpy() == pytest.approx(expected[numbers].to_numpy(), abs=abs_px)
        return True


@pytest.fixture(scope="module")
def place(toy_source, tmp_path_factory):
    return Place(copied(toy_source, tmp_path_factory.mktemp("place") / "toy"))


def with_train_names(workspace):
    """Give the test images the names of training images; their new paths."""
    images = sorted((workspace / "data" / "train").glob("*.png"))
    mapping = workspace / "data" / "ID_to_Image_Mapping.csv"
    text = mapping.read_text()
    paths = []
    for old, new in zip(sorted((workspace / "data" / "test").glob("*.png")), images, strict=False):
        paths.append(old.rename(old.with_name(new.name)))
        text = text.replace(old.name, new.name)
    mapping.write_text(text)
    return paths


@pytest.fixture(scope="module")
def twins(toy_source, tmp_path_factory):
    """A competition whose test images have the names of training images."""
    workspace = copied(toy_source, tmp_path_factory.mktemp("twins") / "toy")
    with_train_names(workspace)
    return Place(workspace)


@pytest.fixture(scope="module")
def unlike_twins(toy_source, tmp_path_factory):
    """Such a competition; the test images are of another size and have an EXIF orientation."""
    workspace = copied(toy_source, tmp_path_factory.mktemp("unlike") / "toy")
    turned = Image.Exif()
    turned[0x0112] = 6
    for path in with_train_names(workspace):
        Image.open(path).resize(LYING).save(path, exif=turned)
    return Place(workspace)


def dump(path, value):
    path.write_text(json.dumps(value))
    return path


def with_folds(place, of_train, of_test):
    """The rows with a column fold: of each image of train in turn, and of the last two rows, which are of test."""
    images = sorted(set(place.table["image_id"]))
    folds = [of_train[images.index(name) % 2] for name in place.table["image_id"][:-2]]
    return place.table.assign(fold=[*folds, *of_test])


def written(table, path):
    if path.suffix == ".json":
        entries = results(table)
        for entry, fold in zip(entries, table["fold"], strict=True):
            entry["fold"] = None if pd.isna(fold) else fold
        return dump(path, entries)
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path, index=False)
    return path


def xywh(row):
    return [row.x_min, row.y_min, row.x_max - row.x_min, row.y_max - row.y_min]


def results(table, image=lambda name: name, category=lambda label: label, **more):
    """A COCO list of results; ``more`` are further keys, each a function of the file name."""
    return [
        {"image_id": image(row.image_id), "category_id": category(row.label), "bbox": xywh(row), "score": row.score}
        | {key: value(row.image_id) for key, value in more.items()}
        for row in table.itertuples()
    ]


def numbers_of(names, first=0):
    return {name: number for number, name in enumerate(sorted(set(names)), start=first)}


def data_set(table, size=(SIDE_PX, SIDE_PX), first=0):
    """The images and categories of a COCO data set, numbered from ``first``."""
    images = [
        {"id": number, "file_name": name, "width": size[0], "height": size[1]}
        for name, number in numbers_of(table["image_id"], first).items()
    ]
    categories = [{"id": number, "name": label} for label, number in numbers_of(table["label"], first).items()]
    return {"images": images, "categories": categories, "annotations": []}


def with_ids(table, first=0):
    """The entries of a table whose ids are those of ``data_set``."""
    return results(table, numbers_of(table["image_id"], first).get, numbers_of(table["label"], first).get)


def per_image(table, boxes, label):
    return {
        name: {boxes: rows[CORNERS].to_numpy().tolist(), "scores": rows["score"].tolist(),
               "labels": [label(word) for word in rows["label"]]}
        for name, rows in table.groupby("image_id")
    }  # fmt: skip


def yolo(table, folder, labels, columns=6):
    """YOLO's text files; the classes are counted from 0 in reverse order of the labels."""
    folder.mkdir()
    classes = sorted(labels, reverse=True)
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    for name, rows in table.groupby("image_id"):
        lines = [
            [classes.index(row.label), (row.x_min + row.x_max) / 2 / SIDE_PX, (row.y_min + row.y_max) / 2 / SIDE_PX,
             (row.x_max - row.x_min) / SIDE_PX, (row.y_max - row.y_min) / SIDE_PX, row.score][:columns]
            for row in rows.itertuples()
        ]  # fmt: skip
        (folder / f"{name[:-4]}.txt").write_text(
            "".join(" ".join(f"{v:.6g}" for v in line) + "\n" for line in lines)
        )
    return folder


def kits_csv(place, tmp):
    place.table.to_csv(tmp / "a.csv", index=False)
    return tmp / "a.csv", None


def kits_parquet(place, tmp):
    place.table.to_parquet(tmp / "a.parquet", index=False)
    return tmp / "a.parquet", None


def supervision(place, tmp):
    names = {"score": "confidence", "label": "class_name", "image_id": "file_name"}
    table = place.table.rename(columns=names).assign(class_id=3, tracker_id="")
    order = [*CORNERS, "class_id", "confidence", "tracker_id", "class_name", "file_name"]
    table[order].to_csv(tmp / "a.csv", index=False)
    return tmp / "a.csv", None


def coco_list(place, tmp):
    return dump(tmp / "a.json", results(place.table)), None


def coco_set(place, tmp):
    return dump(tmp / "a.json", {**data_set(place.table), "annotations": with_ids(place.table)}), None


def ultralytics(place, tmp):
    labels = numbers_of(place.labels, first=1)
    entries = results(place.table, lambda name: int(name[:8]), labels.get, file_name=str)
    return dump(tmp / "predictions.json", entries), None


def ids_alone(place, tmp):
    return dump(tmp / "a.json", with_ids(place.table)), dump(tmp / "set.json", data_set(place.table))


def mmdetection_preds(place, tmp):
    classes = sorted(place.labels, reverse=True)
    (tmp / "preds").mkdir()
    (tmp / "classes.txt").write_text("\n".join(classes))
    for name, output in per_image(place.table, "bboxes", classes.index).items():
        dump(tmp / "preds" / f"{name[:-4]}.json", output)
    return tmp / "preds", None


def torchvision(place, tmp):
    return dump(tmp / "a.json", per_image(place.table, "boxes", numbers_of(place.labels, first=1).get)), None


EXAMPLES = {
    "kit's CSV": kits_csv,
    "kit's parquet": kits_parquet,
    "supervision's CSV": supervision,
    "COCO results": coco_list,
    "COCO data set": coco_set,
    "Ultralytics' `predictions.json`": ultralytics,
    "detectron2's `coco_instances_results.json`": ids_alone,
    "MMDetection's `PREFIX.bbox.json`": ids_alone,
    "MMDetection's `preds/`": mmdetection_preds,
    "YOLO's text files": lambda place, tmp: (yolo(place.table, tmp / "labels", place.labels), None),
    "torchvision's outputs": torchvision,
}


class TestForms:
    @pytest.mark.parametrize("form", EXAMPLES)
    def test_an_example_of_each_form_gives_the_same_rows(self, form, place, tmp_path):
        path, images_file = EXAMPLES[form](place, tmp_path)
        assert place.agrees(place.read(path, images_file))

    def test_the_page_lists_these_forms_and_no_others(self):
        page = (ROOT / "docs" / "ensembles.md").read_text(encoding="utf-8")
        table = page.partition("| form |")[2].partition("\n\n")[0]
        assert re.findall(r"^\| (?!-)(.+?) \|", table, re.M) == list(EXAMPLES)

    @pytest.mark.parametrize("key", ["part", "fold", "view"])
    def test_null_counts_as_absent(self, key, place, tmp_path):
        entries = [entry | {key: None} for entry in results(place.table)]
        assert place.agrees(place.read(dump(tmp_path / "a.json", entries)))

    def test_null_in_place_of_a_number_is_said_as_it_stands(self, place, tmp_path):
        entries = results(place.table)
        refused = place.refused(dump(tmp_path / "a.json", [*entries, entries[0] | {"score": None}]))
        assert "found 'null', expected score to be a finite decimal number" in refused.found

    def test_names_without_their_ending_are_those_of_the_one_image(self, place, tmp_path, caplog):
        dump(tmp_path / "a.json", results(place.table, lambda name: name[:-4]))
        with caplog.at_level("INFO", "kit"):
            assert place.agrees(place.read(tmp_path / "a.json"))
        assert f"{place.table['image_id'][0][:-4]} is taken as" in caplog.text
        assert len(caplog.messages) == 1

    @pytest.mark.parametrize("folder", ["/data/", "runs/test/", "C:\\\\sets\\\\"])
    def test_names_with_their_folder_as_detectron2_writes_them(self, folder, place, tmp_path, caplog):
        content = data_set(place.table)
        for each in content["images"]:
            each["file_name"] = folder + each["file_name"]
        path = dump(tmp_path / "a.json", with_ids(place.table))
        with caplog.at_level("INFO", "kit"):
            assert place.agrees(place.read(path, dump(tmp_path / "set.json", content)))
        assert f"images named otherwise than their files: {folder}" in caplog.text
        content["images"][0]["width"] += 1
        assert "image" in place.refused(path, images_file=dump(tmp_path / "set.json", content)).found

    def test_a_table_with_ids_of_a_data_set(self, place, tmp_path):
        images, labels = numbers_of(place.table["image_id"]), numbers_of(place.table["label"])
        table = place.table.assign(
            image_id=place.table["image_id"].map(images), label=place.table["label"].map(labels)
        )
        table.to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv", dump(tmp_path / "set.json", data_set(place.table))))

    def test_a_data_set_without_categories_leaves_them_counted_from_1(self, place, tmp_path):
        images = numbers_of(place.table["image_id"])
        entries = results(place.table, images.get, numbers_of(place.labels, first=1).get)
        only_images = {"images": data_set(place.table)["images"]}
        path, images_file = dump(tmp_path / "a.json", entries), dump(tmp_path / "set.json", only_images)
        assert place.agrees(place.read(path, images_file))

    @pytest.mark.parametrize("name", ["Unnamed: 0", ""])
    def test_further_columns_are_ignored_and_named_once(self, name, place, tmp_path, caplog):
        table = place.table.assign(area=7)
        table.to_csv(tmp_path / "a.csv", index_label=name)
        with caplog.at_level("INFO", "kit"):
            assert place.agrees(place.read(tmp_path / "a.csv"))
        (line,) = caplog.messages
        assert "area" in line
        assert (name or "one without a name") in line

    @settings(max_examples=10)
    @given(
        st.lists(
            st.one_of(st.integers(-5, 10**12), st.text(st.characters(codec="utf-8"), min_size=1)),
            min_size=40, max_size=40, unique_by=str,
        )
    )  # fmt: skip
    def test_any_unique_ids_name_their_images(self, place, tmp_path_factory, ids):
        path = tmp_path_factory.mktemp("ids") / "a.json"
        content = {**data_set(place.table), "annotations": with_ids(place.table)}
        for each in content["images"]:
            each["id"] = ids[each["id"]]
        for each in content["annotations"]:
            each["image_id"] = ids[each["image_id"]]
        assert place.agrees(place.read(dump(path, content)))


class TestIds:
    @settings(max_examples=10)
    @given(st.data())
    def test_a_repeated_id_is_refused_by_name_and_numbering_anew_helps(self, place, tmp_path_factory, data):
        tmp = tmp_path_factory.mktemp("ids")
        content = {**data_set(place.table), "annotations": with_ids(place.table)}
        key, field = data.draw(st.sampled_from([("images", "file_name"), ("categories", "name")]))
        first, other = data.draw(
            st.lists(st.integers(0, len(content[key]) - 1), min_size=2, max_size=2, unique=True)
        )
        merged = {**content, key: [dict(each) for each in content[key]]}
        merged[key][other]["id"] = merged[key][first]["id"]
        for images_file, path in (
            (None, dump(tmp / "a.json", merged)),
            (dump(tmp / "set.json", merged), dump(tmp / "b.json", content["annotations"])),
        ):
            error = place.refused(path, images_file=images_file)
            assert f"{key} with the id {merged[key][first]['id']} twice" in error.found
            assert content[key][first][field] in error.found
            assert content[key][other][field] in error.found
            assert "number them anew" in error.do
        assert place.agrees(place.read(dump(tmp / "a.json", content)))

    def test_stems_name_the_images_of_a_data_set(self, place, tmp_path):
        content = data_set(place.table)
        named = {each["id"]: each["file_name"] for each in content["images"]}
        entries = [
            each | {"image_id": named[each["image_id"]].removesuffix(".png")} for each in with_ids(place.table)
        ]
        images_file = dump(tmp_path / "set.json", content)
        assert place.agrees(place.read(dump(tmp_path / "a.json", entries), images_file=images_file))

    def test_a_stem_that_is_another_images_id_is_no_name(self, place, tmp_path):
        content = {**data_set(place.table), "annotations": with_ids(place.table)}
        first, second = content["images"][:2]
        second["file_name"] = f"{first['id']}.png"
        entries = [each | {"image_id": str(first["id"])} for each in content["annotations"][:1]]
        path, images_file = dump(tmp_path / "a.json", entries), dump(tmp_path / "set.json", content)
        assert "(a text)" in place.refused(path, images_file=images_file).found

    @pytest.mark.parametrize("as_written", [float, str, int])
    def test_a_stated_size_counts_however_it_is_written(self, place, tmp_path, as_written):
        for side, fits in ((SIDE_PX, True), (SIDE_PX // 2, False)):
            content = {
                **data_set(place.table, (as_written(side), as_written(side))),
                "annotations": with_ids(place.table),
            }
            path = dump(tmp_path / "a.json", content)
            if fits:
                assert place.agrees(place.read(path))
            else:
                assert "images of another size" in place.refused(path).found

    def test_pictures_of_several_folders_are_not_taken_for_one(self, place, tmp_path):
        name = place.data.image_ids[0]
        rows = place.table.assign(image_id="siteA/" + place.table["image_id"])
        both = pd.concat(
            [
                rows,
                rows.assign(image_id="siteB/" + place.table["image_id"])[
                    lambda t: t["image_id"].str.endswith(name)
                ],
            ]
        )
        both.to_csv(tmp_path / "a.csv", index=False)
        error = place.refused(tmp_path / "a.csv")
        assert f"siteA/{name}" in error.found and f"siteB/{name}" in error.found
        rows.to_csv(tmp_path / "b.csv", index=False)  # without those of the other folder
        assert place.agrees(place.read(tmp_path / "b.csv"))

    def test_two_ids_of_one_file_name_are_refused(self, place, tmp_path):
        content = {**data_set(place.table), "annotations": with_ids(place.table)}
        content["images"][1]["file_name"] = content["images"][0]["file_name"]
        error = place.refused(dump(tmp_path / "a.json", content))
        assert f"file_name {content['images'][0]['file_name']} twice" in error.found

    def test_a_column_of_lists_that_is_not_needed_is_ignored(self, place, tmp_path):
        place.table.drop(columns="score").to_parquet(tmp_path / "a.parquet")
        assert "a.parquet: found 'image_id," in place.refused(tmp_path / "a.parquet").found  # and no row
        place.table.assign(embedding=[[0.5, 1.0]] * len(place.table)).to_parquet(tmp_path / "a.parquet")
        assert place.agrees(place.read(tmp_path / "a.parquet"))

    def test_labels_that_are_numbers_are_not_counted_anew(self, tmp_path):
        labels = [str(number) for number in range(12)]  # as texts "10" comes before "2"
        entries = [
            {"image_id": "a.png", "category_id": number, "bbox": [0, 0, 9, 9], "score": 0.5} for number in range(12)
        ]
        output = {"boxes": [[0, 0, 9, 9]] * 12, "scores": [0.5] * 12, "labels": list(range(12))}
        for content in (entries, {"a.png": output}):
            found = read_foreign(dump(tmp_path / "a.json", content), labels, None, "")
            assert found.cells.table["label"].tolist() == labels

    def test_hundreds_of_repeated_ids_are_one_line(self, place, tmp_path):
        content = data_set(place.table)
        content["images"] = [{"id": 1 + number % 20, "file_name": f"{number}.png"} for number in range(400)]
        (fault,) = place.refused(dump(tmp_path / "a.json", {**content, "annotations": []})).faults
        assert "20 times: " in str(fault)

    def test_the_label_of_each_number_is_said_with_those_that_never_occur(self, place, tmp_path):
        labels = numbers_of(place.labels, first=0)
        table = place.table[place.table["label"] != place.labels[0]]  # counted from 0, without its first class
        entries = results(table, category=labels.get)
        said = place.read(dump(tmp_path / "a.json", entries)).label_map
        assert said.startswith(f"1 = {place.labels[0]}, 2 = {place.labels[1]}, ")
        assert f"8 = {place.labels[7]} (no detection)" in said
        count = table["image_id"].isin(place.data.image_ids).groupby(table["image_id"]).any().sum()
        assert f"of the surest boxes that lie on a true one 0 of {count} have its label" in said
        assert "--images" in said
        categories = [{"id": number, "name": label} for label, number in labels.items()]
        images = [{"id": name, "file_name": name} for name in set(table["image_id"])]
        rows = place.read(
            tmp_path / "a.json", dump(tmp_path / "set.json", {"images": images, "categories": categories})
        )
        assert place.agrees(rows, table)
        assert rows.label_map.startswith(f"0 = {place.labels[0]} (no detection), 1 = {place.labels[1]}")
        assert f"of the surest boxes that lie on a true one {count} of {count} have its label" in rows.label_map
        assert "--images" not in rows.label_map

    @pytest.mark.parametrize("form", ["table", "counted", "set"])
    def test_labels_in_another_order_are_a_warning_and_as_advised_there_is_none(
        self, form, place, tmp_path, caplog
    ):
        turned = dict(zip(place.labels, reversed(place.labels), strict=True))
        right, wrong = numbers_of(place.labels, 1), numbers_of(place.labels, 1)
        wrong = {label: right[turned[label]] for label in right}
        images = [{"id": name, "file_name": name} for name in set(place.table["image_id"])]

        def set_of(numbers):
            categories = [{"id": number, "name": label} for label, number in numbers.items()]
            return dump(tmp_path / "set.json", {"images": images, "categories": categories})

        if form == "table":
            table = place.table.assign(label=place.table["label"].map(turned))
            table.to_csv(tmp_path / "a.csv", index=False)
            place.read(tmp_path / "a.csv")
            do = "correct the labels"
        else:
            path = dump(tmp_path / "a.json", results(place.table, category=wrong.get))
            place.read(path, *([set_of(right)] if form == "set" else []))
            do = "correct the numbers of the labels" if form == "set" else "give --images"
        (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert re.search(
            r"of the surest boxes that lie on a true one 0 of \d+ have its label; \d+ have it if", said
        )
        assert f"{place.labels[0]} as {place.labels[-1]}" in said
        assert do in said
        caplog.clear()
        if form == "table":
            place.table.to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv") if form == "table" else place.read(path, set_of(wrong)))
        assert "another order" not in caplog.text

    def test_a_file_that_names_its_labels_has_no_map(self, place, tmp_path):
        assert place.read(*coco_list(place, tmp_path)).label_map == ""

    def test_integer_ids_need_the_data_set(self, place, tmp_path):
        path, images_file = ids_alone(place, tmp_path)
        error = place.refused(path)
        assert "(a whole number)" in error.found
        assert "add --images ANNOTATIONS.json" in error.do
        assert len(error.faults) == 2  # image ids, and category 0: a line each
        assert place.agrees(place.read(path, images_file))

    @pytest.mark.parametrize(("own", "entry"), [(str, int), (int, str)])
    def test_ids_of_another_type_are_refused_with_both_types(self, own, entry, place, tmp_path):
        content = {**data_set(place.table), "annotations": with_ids(place.table)}
        for each in content["images"]:
            each["id"] = own(each["id"])
        for each in content["annotations"]:
            each["image_id"] = entry(each["image_id"])
        found = str(place.refused(dump(tmp_path / "a.json", content)))
        assert "a text" in found
        assert "a whole number" in found
        for each in content["annotations"]:
            each["image_id"] = own(each["image_id"])
        assert place.agrees(place.read(dump(tmp_path / "a.json", content)))

    def test_ids_with_a_decimal_point_and_numbers_that_are_none_name_their_entry(self, place, tmp_path):
        content = {**data_set(place.table), "annotations": with_ids(place.table)}
        content["annotations"][3]["image_id"] = 15.0
        content["annotations"][7]["bbox"][0] = float("nan")
        content["annotations"][8]["score"] = float("inf")
        faults = [str(fault) for fault in place.refused(dump(tmp_path / "a.json", content)).faults]
        assert [fault.partition(": ")[0] for fault in faults] == [f"a.json, entry {number}" for number in (4, 8, 9)]
        assert "image_id 15.0" in faults[0]
        assert "whole numbers or texts, not a decimal number" in faults[0]
        assert "nan" in faults[1]
        assert "score" in faults[2]

    def test_true_boxes_are_no_detections(self, place, tmp_path):
        content = {**data_set(place.table), "annotations": with_ids(place.table)}
        for each in content["annotations"]:
            del each["score"]
        (fault,) = place.refused(dump(tmp_path / "a.json", content)).faults
        assert "detections, not true boxes" in str(fault)

    def test_a_data_set_that_is_of_no_use(self, place, tmp_path):
        path, _ = coco_set(place, tmp_path)
        images_file = dump(tmp_path / "set.json", data_set(place.table))
        assert place.refused(path, images_file=images_file).do == "leave --images out"
        assert place.agrees(place.read(path))
        folder = yolo(place.table, tmp_path / "labels", place.labels)
        assert place.refused(folder, images_file=images_file).do == "leave --images out"

    @pytest.mark.parametrize("content", ["[]", "3", "{}", '{"images": [{"id": 1}]}', '{"images": [3]}'])
    def test_a_file_of_ids_that_is_none(self, content, place, tmp_path):
        path, _ = ids_alone(place, tmp_path)
        (tmp_path / "set.json").write_text(content)
        assert "set.json" in str(place.refused(path, images_file=tmp_path / "set.json"))


class TestHalves:
    @pytest.mark.parametrize("form", ["csv", "json"])
    def test_a_name_in_both_halves_needs_the_column_part(self, form, twins, tmp_path):
        def written(table):
            if form == "csv":
                table.to_csv(tmp_path / "a.csv", index=False)
            else:
                entries = results(table)
                if "part" in table:
                    entries = [entry | {"part": part} for entry, part in zip(entries, table["part"], strict=True)]
                dump(tmp_path / "a.json", entries)
            return tmp_path / f"a.{form}"

        error = twins.refused(written(twins.table))
        assert "not of both: the column part, or a folder, says which" in error.found
        assert "add a column part (or a key part of each entry) with train or test" in error.do
        parts = ["train"] * (len(twins.table) - 2) + ["test"] * 2
        rows = twins.read(written(twins.table.assign(part=parts)))
        assert rows.table["part"].tolist() == parts
        assert rows.held_out.sum() == len(twins.table) - 2
        both = set(twins.data.image_ids) & set(twins.test.image_ids)
        needed = [part if name in both else "" for name, part in zip(twins.table["image_id"], parts, strict=True)]
        assert twins.read(written(twins.table.assign(part=needed))).table["part"].tolist() == parts

    def test_the_folder_in_a_name_tells_the_half(self, twins, tmp_path):
        parts = ["train"] * (len(twins.table) - 2) + ["test"] * 2
        names = [f"data/{part}/{name}" for name, part in zip(twins.table["image_id"], parts, strict=True)]
        twins.table.assign(image_id=names).to_csv(tmp_path / "a.csv", index=False)
        assert twins.read(tmp_path / "a.csv").table["part"].tolist() == parts

    @pytest.mark.parametrize("folder", ["/x/test/", "C:\\mine\\Test\\"])
    def test_a_users_folder_that_is_no_half_names_none_and_the_column_part_helps(self, folder, twins, tmp_path):
        parts = ["train"] * (len(twins.table) - 2) + ["test"] * 2
        table = twins.table.assign(image_id=folder + twins.table["image_id"])
        table.to_csv(tmp_path / "a.csv", index=False)
        error = twins.refused(tmp_path / "a.csv")
        assert "the column part, or a folder, says which" in error.found
        assert "add a column part" in error.do
        table.assign(part=parts).to_csv(tmp_path / "a.csv", index=False)
        assert twins.read(tmp_path / "a.csv").table["part"].tolist() == parts

    @pytest.mark.parametrize("named", ["in the entries", "by the ids"])
    def test_sizes_of_images_of_one_name_are_those_of_their_half(self, named, unlike_twins, tmp_path):
        place = unlike_twins
        parts = ["train"] * (len(place.table) - 2) + ["test"] * 2
        table = place.table.assign(
            image_id=[f"{part}/{name}" for part, name in zip(parts, place.table["image_id"], strict=True)]
        )
        content = data_set(table)
        for each in content["images"]:
            if each["file_name"].startswith("test/"):
                each["width"], each["height"] = LYING
        entries = with_ids(table)
        if named == "in the entries":  # as Ultralytics writes it
            entries = [
                entry | {"file_name": name} for entry, name in zip(entries, place.table["image_id"], strict=True)
            ]
        path = dump(tmp_path / "a.json", {**content, "annotations": entries})
        rows = place.read(path)
        assert rows.table["part"].tolist() == parts
        content["images"][0]["width"] += 1
        assert "1 images of another size" in place.refused(dump(path, {**content, "annotations": entries})).found

    def test_an_orientation_in_the_other_half_says_nothing_of_an_image(self, unlike_twins, tmp_path):
        place = unlike_twins
        parts = ["train"] * (len(place.table) - 2) + ["test"] * 2
        name = place.test.image_ids[0]  # the box of its training image would fit the turned test image
        over = place.table.assign(part=parts)
        over.loc[(over["image_id"] == name) & (over["part"] == "train"), "x_max"] = SIDE_PX + 9.0
        over.to_csv(tmp_path / "a.csv", index=False)
        error = place.refused(tmp_path / "a.csv")
        assert "EXIF" not in error.found
        assert "--clip" in error.do
        assert place.read(tmp_path / "a.csv", clip=True).table["x_max"].max() <= SIDE_PX
        turned = place.table.assign(part=parts)
        turned.loc[len(turned) - 1, ["x_max", "y_max"]] = [LYING[1] - 1, 100.0]
        turned.to_csv(tmp_path / "a.csv", index=False)
        assert "--set data.orientation=exif" in place.refused(tmp_path / "a.csv").do

    def test_a_folder_has_a_subfolder_for_each_half(self, twins, tmp_path):
        yolo(twins.table, tmp_path / "labels", twins.labels)
        assert "subfolders train/ and test/" in twins.refused(tmp_path / "labels").do
        (tmp_path / "both").mkdir()
        yolo(twins.table[:-2], tmp_path / "both" / "train", twins.labels)
        yolo(twins.table[-2:], tmp_path / "both" / "test", twins.labels)
        (tmp_path / "both" / "train" / "classes.txt").rename(tmp_path / "both" / "classes.txt")
        assert twins.read(tmp_path / "both").table["part"].value_counts().tolist() == [len(twins.table) - 2, 2]

    @pytest.mark.parametrize("inner", [("Train", "Test"), ("TRAIN", "test")])
    def test_the_subfolders_may_be_written_in_capitals_and_the_files_endings_too(self, inner, twins, tmp_path):
        for half, rows in zip(inner, (twins.table[:-2], twins.table[-2:]), strict=True):
            (tmp_path / "both").mkdir(exist_ok=True)
            folder = yolo(rows, tmp_path / "both" / half, twins.labels)
            (folder / "classes.txt").replace(tmp_path / "both" / "Classes.TXT")
            for path in folder.glob("*.txt"):
                path.rename(path.with_suffix(".TXT"))
        assert twins.read(tmp_path / "both").table["part"].value_counts().tolist() == [len(twins.table) - 2, 2]

    @pytest.mark.parametrize("name", ["val", "valid", "labels", "fold-0"])
    def test_files_in_another_subfolder_are_refused_and_moved_they_are_read(self, name, place, tmp_path):
        folder = yolo(place.table[:-2], tmp_path / "both", place.labels)
        other = yolo(place.table[-2:], folder / name, place.labels)
        error = place.refused(folder)
        assert f"{name}/ with 2 files" in error.found
        assert f"move the files of {name}/ to train/ or test/" in error.do
        (folder / "empty").mkdir()
        other.rename(folder / "test")
        assert place.agrees(place.read(folder))

    def test_a_part_that_is_none_or_has_no_such_image(self, place, tmp_path):
        parts = ["train"] * (len(place.table) - 2) + ["test"] * 2
        table = place.table.assign(part=["training", "test", *parts[2:]])
        table.to_csv(tmp_path / "a.csv", index=False)
        first, second = map(str, place.refused(tmp_path / "a.csv").faults)
        assert first.startswith("a.csv:2: found 'training', expected train, test or nothing")
        assert second.startswith("a.csv:3: found ")
        assert "an image of the folder that the column part names" in second
        place.table.assign(part=parts).to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv"))

    def test_a_stem_under_the_wrong_part_is_told_the_part(self, place, tmp_path):
        parts = ["train"] * (len(place.table) - 2) + ["test"] * 2
        stems = place.table.assign(image_id=place.table["image_id"].str.removesuffix(".png"))
        stems.assign(part=["test", *parts[1:-1], "train"]).to_csv(tmp_path / "a.csv", index=False)
        faults = place.refused(tmp_path / "a.csv").faults
        assert [fault.expected for fault in faults] == ["an image of the folder that the column part names"] * 2
        stems.assign(part=parts).to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv"))

    def test_adopted_rows_of_both_halves_are_stored_apart(self, twins, tmp_path):
        from kit.runs.detections import read_detections

        parts = ["train"] * (len(twins.table) - 2) + ["test"] * 2
        twins.table.assign(part=parts).to_csv(tmp_path / "a.csv", index=False)
        run = Run(twins.workspace, "twins")
        arrival = adopt(run, tmp_path / "a.csv", None, (f"competition.expected_ids={len(twins.test.mapping)}",))
        assert (arrival.validation_rows, arrival.test_rows) == (len(parts) - 2, 2)
        assert len(read_detections(run.detections("test"))) == 2


class TestBorder:
    def over(self, place, px):
        """A box on every image that begins ``px`` left of the border."""
        return place.table.assign(x_min=-px, x_max=place.table["x_max"].clip(lower=20.0))

    def test_boxes_some_pixels_over_are_one_line_and_clipped_on_demand(self, place, tmp_path, caplog):
        table = self.over(place, 3.0)
        table.to_csv(tmp_path / "a.csv", index=False)
        error = place.refused(tmp_path / "a.csv")
        (fault,) = error.faults
        assert f"{len(table)} times: " in fault.value
        assert "--clip" in error.do
        with caplog.at_level("INFO", "kit"):
            assert place.agrees(place.read(tmp_path / "a.csv", clip=True), table.assign(x_min=0.0))
        assert f"a.csv: {len(table)} boxes ended outside their image and were clipped" in caplog.text

    @settings(max_examples=15)
    @given(st.lists(st.floats(0, 9), min_size=4, max_size=4))
    def test_clipped_boxes_are_those_that_geometry_clips(self, place, tmp_path_factory, over_px):
        signs = np.array([-1, -1, 1, 1])
        boxes = place.table[CORNERS].to_numpy() + signs * np.array(over_px)
        table = place.table.assign(**dict(zip(CORNERS, boxes.T, strict=True)))
        path = tmp_path_factory.mktemp("over") / "a.csv"
        table.to_csv(path, index=False)
        clipped = clip(boxes, SIDE_PX, SIDE_PX)
        expected = place.table.assign(**dict(zip(CORNERS, clipped.T, strict=True)))
        assert place.agrees(place.read(path, clip=True), expected)

    def test_less_than_a_pixel_is_clipped_with_a_word(self, place, tmp_path, caplog):
        self.over(place, 0.5).to_csv(tmp_path / "a.csv", index=False)
        with caplog.at_level("INFO", "kit"):
            assert (place.read(tmp_path / "a.csv").table["x_min"] == 0).all()
        assert "ended less than a pixel outside" in caplog.text

    def test_a_box_with_its_centre_outside_is_not_for_clipping(self, place, tmp_path):
        table = place.table.copy()
        table.loc[0, ["x_min", "x_max"]] = [-50.0, 10.0]
        table.to_csv(tmp_path / "a.csv", index=False)
        assert "--clip" not in place.refused(tmp_path / "a.csv").do
        (fault,) = place.refused(tmp_path / "a.csv", clip=True).faults
        assert "a box whose centre is inside its image" in str(fault)
        place.table.to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv", clip=True))

    def test_the_same_file_clipped_is_another_run(self, place, tmp_path):
        knobs = (f"competition.expected_ids={len(place.test.mapping)}",)
        place.table.to_csv(tmp_path / "a.csv", index=False)
        run = Run(place.workspace, "clipped")
        adopt(run, tmp_path / "a.csv", None, knobs, clip=True)
        assert adopt(run, tmp_path / "a.csv", None, knobs, clip=True).already
        with pytest.raises(KitError, match="another --images or --clip"):
            adopt(run, tmp_path / "a.csv", None, knobs)
        assert not adopt(Run(place.workspace, "unclipped"), tmp_path / "a.csv", None, knobs).already


class TestRefused:
    @pytest.mark.parametrize("name", ["fold", "view", "part"])
    def test_a_column_that_is_almost_an_optional_one(self, name, place, tmp_path):
        value = {"fold": 0, "view": "plain", "part": ""}[name]
        place.table.assign(**{name.title(): value}).to_csv(tmp_path / "a.csv", index=False)
        assert f"{name}, not {name.title()}" in place.refused(tmp_path / "a.csv").found
        place.table.assign(**{name: value}).to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv"))

    @settings(max_examples=4)
    @given(st.data())
    def test_rows_that_repeat_others_are_one_line_and_left_out_they_are_read(self, place, tmp_path_factory, data):
        path = tmp_path_factory.mktemp("repeated") / "a.csv"
        numbers = st.integers(0, len(place.table) - 1)
        again = data.draw(st.lists(numbers, min_size=1, max_size=len(place.table), unique=True))
        pd.concat([place.table, place.table.iloc[again]]).to_csv(path, index=False)
        (fault,) = place.refused(path).faults
        assert fault.line == len(place.table) + 2
        assert f"each detection once (line {again[0] + 2} has the first one)" in fault.expected
        assert (f"and {len(again) - 1} rows more" in fault.value) == (len(again) > 1)
        pd.read_csv(path).drop_duplicates().to_csv(path, index=False)
        assert place.agrees(place.read(path))

    def test_a_box_in_several_folds_views_or_labels_repeats_none(self, place, tmp_path):
        test = place.table[-1:]
        more = [test.assign(fold=1), test.assign(label=place.labels[1]), test.assign(score=0.24)]
        table = pd.concat([place.table, *more]).fillna({"fold": 0}).astype({"fold": int})
        table.to_csv(tmp_path / "a.csv", index=False)
        assert len(place.read(tmp_path / "a.csv").table) == len(table)

    def test_a_file_that_was_appended_to_itself_is_refused_in_every_form(self, place, tmp_path):
        entries = results(place.table)
        error = place.refused(dump(tmp_path / "a.json", entries * 2))
        assert f"and {len(entries) - 1} rows more of {2 * len(entries)}" in error.found
        assert "of a file that was appended to itself one half" in error.do
        assert place.agrees(place.read(dump(tmp_path / "a.json", entries)))
        folder = yolo(place.table, tmp_path / "labels", place.labels)
        first = folder / f"{place.table['image_id'][0][:-4]}.txt"
        text = first.read_text()
        first.write_text(text * 2)
        (fault,) = place.refused(folder).faults
        assert (fault.file, fault.line) == (first, len(text.splitlines()) + 1)
        first.write_text(text)
        assert place.agrees(place.read(folder))

    @pytest.mark.parametrize("empty", ["", "nan", "NaN", "NA", "N/A", "null", "None"])
    def test_rows_without_corners_are_one_line_as_in_train_csv_and_left_out_they_are_read(
        self, empty, place, tmp_path
    ):
        bare = place.table[:7].assign(**dict.fromkeys(CORNERS, empty))
        pd.concat([place.table, bare]).to_csv(tmp_path / "a.csv", index=False)
        error = place.refused(tmp_path / "a.csv")
        (fault,) = error.faults
        assert fault.value.endswith("no corners and 6 rows more")
        assert "leave out the rows without a box" in error.do
        place.table.to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv"))

    @pytest.mark.parametrize(
        "cell", ["1,5", "1.234,5", "1 000", "1_000", "1'000", "0x1", "inf", "nan", "", "\u0661", "1e999", "True"]
    )
    def test_a_number_that_is_none_is_refused_alike_in_every_table_and_in_json(self, cell, place, tmp_path):
        expected = "to be a finite decimal number"
        first, label = place.table["image_id"][0], place.labels[0]
        own = pd.DataFrame([(first, cell, 2, 30, 40, label)], columns=["image_id", *CORNERS, "label"])
        own.to_csv(tmp_path / "train.csv", index=False)
        with pytest.raises(KitError, match=f"found {re.escape(repr(cell))}, expected x_min {expected}"):
            read_annotations(tmp_path / "train.csv", place.data.pixels.facts)
        own.assign(ID=0, confidence=0.5)[list(SUBMISSION_COLUMNS)].to_csv(tmp_path / "s.csv", index=False)
        mapping = pd.DataFrame({"ID": [0], "image_id": [first]})
        with pytest.raises(KitError, match=f"found {re.escape(repr(cell))}, expected x_min {expected}"):
            read_submission(tmp_path / "s.csv", mapping, {label}, place.data.pixels.facts)
        own.assign(score=0.5).to_csv(tmp_path / "a.csv", index=False)
        assert f"found {cell!r}, expected x_min {expected}" in place.refused(tmp_path / "a.csv").found
        entries = results(place.table)
        entries[0]["score"] = cell
        assert (
            f"found {cell!r}, expected score {expected}" in place.refused(dump(tmp_path / "a.json", entries)).found
        )
        assert place.agrees(place.read(dump(tmp_path / "a.json", results(place.table))))

    @pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
    @pytest.mark.parametrize("folds", [(0, 1), (0.0, 1.0)])
    def test_rows_of_test_images_may_all_be_without_a_fold(self, folds, suffix, place, tmp_path):
        table = with_folds(place, folds, (None, None))
        rows = place.read(written(table, tmp_path / f"a.{suffix}"))
        assert place.agrees(rows)
        by_image = table.drop_duplicates("image_id").set_index("image_id")["fold"].fillna(0).astype(int)
        assert rows.table["fold"].tolist() == by_image[rows.table["image_id"]].tolist()
        assert set(rows.table.loc[rows.held_out, "fold"]) == {0, 1}

    @pytest.mark.parametrize("empty", ["nan", "NA", "null", ""])
    def test_an_empty_fold_may_be_written_in_several_ways(self, empty, place, tmp_path):
        table = with_folds(place, ("0", "1"), (empty, empty))
        assert place.agrees(place.read(written(table, tmp_path / "a.csv")))

    @pytest.mark.parametrize("at", ["first", "last"])
    def test_some_rows_without_a_fold_are_refused_and_filled_in_or_all_left_out_they_are_read(
        self, at, place, tmp_path
    ):
        row = 0 if at == "first" else len(place.table) - 1
        table = with_folds(place, ("0", "1"), ("0", "1"))
        table.loc[row, "fold"] = ""
        error = place.refused(written(table, tmp_path / "a.csv"))
        (fault,) = error.faults
        assert (fault.line, fault.value) == (row + 2, f"{table['image_id'][row]}, no fold")
        assert error.do == "fill in the missing folds, or leave the column fold out"
        table.loc[row, "fold"] = "0" if at == "first" else "1"
        assert place.agrees(place.read(written(table, tmp_path / "a.csv")))
        assert place.agrees(place.read(written(place.table, tmp_path / "a.csv")))

    def test_many_train_rows_without_a_fold_are_one_line(self, place, tmp_path):
        table = with_folds(place, ("", ""), ("0", "0"))
        (fault,) = place.refused(written(table, tmp_path / "a.csv")).faults
        assert fault.value.startswith(f"{len(table) - 2} times: {table['image_id'][0]}, no fold; ")

    @pytest.mark.parametrize("cell", ["0.5", "-0.0", "1.01", " 1", "one", "1.0.0"])
    def test_a_fold_that_is_no_whole_number_is_refused_and_as_one_it_is_read(self, cell, place, tmp_path):
        table = with_folds(place, ("0", "1"), ("0", "0"))
        table.loc[len(table) - 1, "fold"] = cell
        (fault,) = place.refused(written(table, tmp_path / "a.csv")).faults
        assert (fault.line, fault.value) == (len(table) + 1, cell)
        assert fault.expected == "fold to be a whole number (at most 15 digits)"
        table.loc[len(table) - 1, "fold"] = "1"
        assert place.agrees(place.read(written(table, tmp_path / "a.csv")))

    @pytest.mark.parametrize("separator", [";", "\t"])
    def test_a_table_of_another_separator_is_refused_and_with_commas_it_is_read(self, separator, place, tmp_path):
        place.table.to_csv(tmp_path / "a.csv", index=False, sep=separator, decimal="," if separator == ";" else ".")
        assert "with commas between the cells and points in the numbers" in place.refused(tmp_path / "a.csv").found
        place.table.to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv"))

    def test_numbers_of_classes_alone_are_no_labels(self, place, tmp_path):
        place.table.rename(columns={"label": "class_id"}).to_csv(tmp_path / "a.csv", index=False)
        assert "class_name or label" in place.refused(tmp_path / "a.csv").found
        place.table.rename(columns={"label": "class_name"}).to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv"))

    def test_a_pickle_is_not_opened_and_the_form_beside_it_is_named(self, place, tmp_path):
        for name, word in (("instances_predictions.pth", "coco_instances_results.json"), ("r.pkl", ".bbox.json")):
            (tmp_path / name).write_bytes(pickle.dumps([]))
            assert word in place.refused(tmp_path / name).do
        assert place.agrees(place.read(*ids_alone(place, tmp_path)))

    def test_one_text_file_stands_for_its_folder(self, place, tmp_path):
        folder = yolo(place.table, tmp_path / "labels", place.labels)
        assert "name their folder" in place.refused(next(folder.glob("0*.txt"))).do
        assert place.agrees(place.read(folder))

    def test_names_that_lost_their_zeros_are_one_line(self, place, tmp_path):
        table = place.table.assign(image_id=place.table["image_id"].str.lstrip("0"))
        table.to_csv(tmp_path / "a.csv", index=False)
        error = place.refused(tmp_path / "a.csv")
        (fault,) = error.faults
        assert f"the file's name with its zeros, {place.table['image_id'][0]}" in str(fault)
        assert "write each image_id as its file is named" in error.do
        place.table.to_csv(tmp_path / "a.csv", index=False)
        assert place.agrees(place.read(tmp_path / "a.csv"))

    def test_an_unknown_form_is_to_be_converted(self, place, tmp_path):
        for name, text in (("a.xml", "<annotation/>"), ("labelme.json", '{"version": "5", "shapes": []}')):
            (tmp_path / name).write_text(text)
            assert "COCO results (.json) or to a CSV file" in place.refused(tmp_path / name).do
        assert place.agrees(place.read(*coco_list(place, tmp_path)))

    def test_a_category_that_the_data_set_lacks(self, place, tmp_path):
        content = {**data_set(place.table), "annotations": with_ids(place.table)}
        content["annotations"][2]["category_id"] = 99
        (fault,) = place.refused(dump(tmp_path / "a.json", content)).faults
        assert str(fault).startswith("a.json, entry 3: found 'category_id 99 (a whole number)'")
        assert "--images" not in str(fault) + fault.do

    def test_a_folder_without_its_classes_or_without_files(self, place, tmp_path):
        folder = yolo(place.table, tmp_path / "labels", place.labels)
        text = (folder / "classes.txt").read_text()
        (folder / "classes.txt").unlink()
        assert str(folder / "classes.txt") in place.refused(folder).do
        (folder / "classes.txt").write_text(text)
        assert place.agrees(place.read(folder))
        (folder / "._classes.txt").write_bytes(b"\0")  # macOS leaves these
        (folder / "._0.json").write_bytes(b"\0")
        (folder / "__MACOSX").mkdir()
        (folder / "__MACOSX" / "0.txt").write_bytes(b"\0")
        assert place.agrees(place.read(folder))
        (tmp_path / "empty").mkdir()
        assert "name the folder" in place.refused(tmp_path / "empty").do
        dump(folder / "more.json", {})
        assert "both" in place.refused(folder).found

    @pytest.mark.parametrize("where", [0, 3])
    def test_a_blank_line_among_the_classes_is_refused_and_taken_out_they_are_read(self, where, place, tmp_path):
        folder = yolo(place.table, tmp_path / "labels", place.labels)
        text = (folder / "classes.txt").read_text()
        lines = text.splitlines()
        (folder / "classes.txt").write_text("\n".join([*lines[:where], " ", *lines[where:]]))
        error = place.refused(folder)
        (fault,) = error.faults
        assert fault.line == where + 1
        assert "take out the blank lines" in error.do
        (folder / "classes.txt").write_text(f"{text}\n \n")  # at the end they change no number
        assert place.agrees(place.read(folder))

    def test_text_files_without_confidences_are_one_line(self, place, tmp_path):
        (fault,) = place.refused(yolo(place.table, tmp_path / "labels", place.labels, columns=5)).faults
        assert "save_conf=True" in str(fault)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("0 40 50 20 20 0.5", "shares of the image's sides"),
            ("0 .4 .5 .2 x 0.5", "finite decimal numbers"),
            ("0 .4 .5 .2 nan 0.5", "finite decimal numbers"),
            ("9 .4 .5 .2 .2 0.5", "a class of classes.txt: 0 = "),
            ("0 .4 .5 .2 .2 .3 .3 0.5", "six numbers"),
            ("0 .4 .5 .2 .2 1.5", "a score between 0 and 1"),
        ],
    )
    def test_a_line_of_a_text_file_that_is_none_is_named(self, line, expected, place, tmp_path):
        folder = yolo(place.table, tmp_path / "labels", place.labels)
        path = folder / f"{place.table['image_id'][0][:-4]}.txt"
        text = path.read_text()
        path.write_text(f"{text}{line}\n")
        (fault,) = place.refused(folder).faults
        assert str(fault).startswith(f"{path.name}:{len(text.splitlines()) + 1}: found ")
        assert expected in str(fault)

    def test_a_text_file_of_no_image(self, place, tmp_path):
        folder = yolo(place.table, tmp_path / "labels", place.labels)
        (folder / "stranger.txt").write_text("0 .4 .5 .2 .2 .5\n")
        (fault,) = place.refused(folder).faults
        assert str(fault).startswith("stranger.txt:1: ")

    @pytest.mark.parametrize(
        "output",
        [3, {"boxes": []}, {"boxes": [[1, 2, 3]], "scores": [1], "labels": [1]},
         {"boxes": [[1, 2, 3, 4]], "scores": [], "labels": [1]}, {"boxes": 3, "scores": 3, "labels": 3}],
    )  # fmt: skip
    def test_outputs_that_are_none(self, output, place, tmp_path):
        (fault,) = place.refused(dump(tmp_path / "a.json", {"one.png": output})).faults
        assert "the lists boxes" in str(fault)
        (tmp_path / "preds").mkdir()
        (tmp_path / "classes.txt").write_text("\n".join(place.labels))
        dump(tmp_path / "preds" / "one.json", output)
        assert "the lists bboxes" in str(place.refused(tmp_path / "preds"))

    def test_an_output_with_an_unknown_label(self, place, tmp_path):
        outputs = {place.table["image_id"][0]: {"boxes": [[1, 2, 30, 40]], "scores": [0.5], "labels": [0]}}
        (fault,) = place.refused(dump(tmp_path / "a.json", outputs)).faults
        assert f"1 = {place.labels[0]}" in str(fault)
        outputs[place.table["image_id"][0]]["labels"] = [1]
        assert len(place.read(dump(tmp_path / "a.json", outputs)).table) == 1
