"""The page of the data: every image of train/, what the audit says of it, copies side by side."""

import shutil

import pandas as pd
import pytest
from made_up_view import read_block
from toy import copied, toy_config

from kit.data.finding import Finding
from kit.reports.data_view import notes_of, view_data


@pytest.fixture(scope="module")
def page(toy_source, tmp_path_factory):
    workspace = copied(toy_source, tmp_path_factory.mktemp("data") / "toy")
    train = workspace / "data" / "train"
    first, second = sorted(path.name for path in train.glob("*.png"))[:2]
    shutil.copyfile(train / first, train / "99999999_000.png")
    shutil.copyfile(train / second, workspace / "data" / "test" / "99999998_000.png")
    (path,) = view_data(workspace, toy_config())
    return workspace, path, read_block(path), first, second


def by_name(content):
    return {image["name"]: image for image in content["images"]}


def test_every_image_of_train_is_there_with_its_boxes_and_those_of_test_that_a_finding_names(page):
    workspace, path, content, _, second = page
    assert path == workspace / "explore" / "view.html"
    images = by_name(content)
    train = {f"train/{path.name}" for path in (workspace / "data" / "train").glob("*.png")}
    assert train <= set(images)
    assert "test/99999998_000.png" in images
    table = pd.read_csv(workspace / "data" / "train.csv")
    assert sum(len(image["truth"]) for image in images.values()) == len(table)
    of_second = table[table["image_id"] == second]
    assert [content["labels"][row[4]] for row in images[f"train/{second}"]["truth"]] == of_second["label"].tolist()
    assert content["sides"] == []


def test_copies_are_named_and_stand_beside_each_other_within_and_across_the_halves(page):
    *_, content, first, second = page
    images, names = by_name(content), [image["name"] for image in content["images"]]
    checks = [finding["check"] for finding in content["findings"]]
    number = checks.index("duplicate-images")
    for name, copy in ((first, "train/99999999_000.png"), (second, "test/99999998_000.png")):
        original = images[f"train/{name}"]
        assert [names[index] for index in original["beside"]] == [copy]
        assert [names[index] for index in images[copy]["beside"]] == [f"train/{name}"]
        assert any(note.startswith("group") for index, note in original["findings"] if index == number)
        assert original["thumb"] == images[copy]["thumb"]
    order = content["orders"].index("copies together")
    values = {name: image["orders"][order] for name, image in images.items()}
    assert values[f"train/{first}"] == values["train/99999999_000.png"] != values[f"train/{second}"]


@pytest.mark.parametrize(
    ("rows", "check", "expected"),
    [
        ({"image": ["test/b.png", "test/gone.png"]}, "orientation-tags", {"test/b.png": ""}),
        ({"image_id": ["a.png", "b.png"]}, "box-units", {"train/a.png": "", "test/b.png": ""}),
        ({"image_id": ["a.png"] * 2, "label": ["x", "x"], "odd": ["size", "shape"]}, "improbable-boxes",
         {"train/a.png": "x: size, x: shape"}),
        ({"patient": ["p"]}, "patients-in-both", {"train/a.png": "patient p", "test/b.png": "patient p"}),
        ({"label": ["x"], "other_label": ["y"]}, "labels-alike", {"train/a.png": "x, y"}),
        ({"label": ["x"], "boxes": [3]}, "class-counts", {}),
        ({}, "unread-images", {}),
    ],
)  # fmt: skip
def test_a_finding_names_its_images_by_path_id_patient_or_label(rows, check, expected):
    files = {"train/a.png": None, "test/b.png": None, "train/c.png": None}
    truth = pd.DataFrame({"image_id": ["train/a.png", "train/c.png"], "label": ["x", "other"]})
    finding = Finding("warning", check, "", "", pd.DataFrame(rows))
    patient_of = {"a.png": "p", "b.png": "p", "c.png": "q"}
    assert notes_of(finding, files, truth, patient_of) == expected


def test_an_annotated_test_image_is_shown_and_named(toy):
    table = toy / "data" / "train.csv"
    rows = pd.read_csv(table)
    tested = sorted(path.name for path in (toy / "data" / "test").glob("*.png"))[0]
    pd.concat([rows, rows[:1].assign(image_id=tested)]).to_csv(table, index=False)
    (path,) = view_data(toy, toy_config())
    content = read_block(path)
    image = by_name(content)[f"test/{tested}"]
    assert len(image["truth"]) == 1
    assert "annotated-test-images" in [content["findings"][number]["check"] for number, _ in image["findings"]]
    counts = f"{rows['image_id'].nunique()} of them with {len(rows)} boxes;"
    assert counts in path.read_text(encoding="utf-8")  # its own row is not counted among those of train/
