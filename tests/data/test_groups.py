"""groups.csv says which images show one patient; the split keeps them together, whatever the names say."""

import logging
import shutil

import pandas as pd
import pytest
from toy import TOY, second_run, toy_config

from kit.core.errors import KitError
from kit.data import audit
from kit.data.competition import load_training, patients
from kit.data.groups import read_groups
from kit.data.patient_pattern import knows_patients
from kit.data.splits import assign_folds, split_groups, validation_split
from kit.schemas.csv_text import TableError

NIH = r"^(\d{8})_\d{3}"


def write(folder, text):
    (folder / "groups.csv").write_text(text, encoding="utf-8")
    return folder


def test_without_the_file_there_are_no_groups(tmp_path):
    assert read_groups(tmp_path) == {}


def test_a_group_comes_before_the_pattern_and_the_pattern_before_the_name():
    images = ["00000001_000.png", "00000001_001.png", "x.png"]
    assert patients(images, NIH, {"00000001_001.png": "g"}) == dict(
        zip(images, ["00000001", "g", "x.png"], strict=True)
    )


def test_images_of_one_group_stand_on_one_side_of_the_split():
    images = [f"{number}.png" for number in range(60)]
    boxes = pd.DataFrame({"image_id": images, "label": ["Mass", "Nodule"] * 30})
    group_of = {image: f"g{number % 20}" for number, image in enumerate(images)}
    config = toy_config().data
    held = set(validation_split(boxes, images, config, 1, None, group_of))
    assert {group_of[image] for image in held}.isdisjoint(group_of[image] for image in images if image not in held)
    alone = set(validation_split(boxes, images, config, 1))
    assert not {group_of[image] for image in alone}.isdisjoint(group_of[i] for i in images if i not in alone)


def test_training_data_bring_their_groups_and_say_which_images_have_none(toy, caplog):
    names = sorted(path.name for path in (toy / "data" / "train").iterdir())
    rows = [f"{name},p{number % 8}" for number, name in enumerate(names[:-1])]
    write(toy / "data", "\n".join(["image_id,group", *rows]))
    with caplog.at_level(logging.WARNING, "kit"):
        data = load_training(toy, toy_config())
    assert (
        "groups.csv leaves out 1 of 32 training images, whose patients follow from data.patient_pattern: "
        f"{names[-1]}" in caplog.text
    )
    together = split_groups(data, data.image_ids, toy_config().data)
    assert all(together[names[index]] == together[names[index + 8]] for index in range(8))
    (held,) = assign_folds(data, toy_config().data, 1)
    assert {together[image] for image in held}.isdisjoint(together[image] for image in names if image not in held)


def test_the_audit_asks_no_pattern_of_names_that_have_a_group():
    images = [f"x{number}.png" for number in range(20)]
    config = toy_config().data
    assert audit.patient_pattern(images, (), config, images[:18]) is None and knows_patients(
        images, NIH, images[:18]
    )
    assert audit.patient_pattern(images, (), config, images[:17]).rows["image_id"].tolist() == images[17:]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("image,patient\na.png,1\n", "groups.csv:1: found 'image,patient', expected the header image_id,group"),
        ("image_id,group\na.png,1\na.png,2\n", "groups.csv:3: found 'a.png', expected an image_id that no earlier"),
        ("image_id,group\na.png, \n", "groups.csv:2: found 'image_id a.png, group  ', expected an image_id and a"),
        ("image_id,group\na.png\n", "groups.csv:2: found 'a.png', expected 2 cells as in the header, not 1"),
    ],
)
def test_a_broken_file_is_refused_with_its_line_and_without_it_training_data_are_read(toy, text, found):
    write(toy / "data", text)
    with pytest.raises(TableError) as refused:
        load_training(toy, toy_config())
    assert found in str(refused.value) and "or delete it" in refused.value.do
    (toy / "data" / "groups.csv").unlink()  # the advice
    assert load_training(toy, toy_config()).groups == {}


@pytest.mark.slow
def test_a_set_without_a_test_part_and_without_a_one_box_image_is_trained_scored_compared_and_described(
    toy, tmp_path, undrawn
):
    from kit.evaluation.comparison import compare
    from kit.evaluation.predict import predict
    from kit.evaluation.report import evaluate
    from kit.reports.dataset_report import describe
    from kit.training.train import train

    data, aside = toy / "data", tmp_path / "aside"
    aside.mkdir()
    for name in ("test", "ID_to_Image_Mapping.csv"):
        shutil.move(data / name, aside / name)
    rows = pd.read_csv(data / "train.csv")
    halved = rows.assign(
        x_min=rows["x_min"] / 2, x_max=rows["x_max"] / 2, y_max=rows["y_max"] / 2, y_min=rows["y_min"] / 2
    )
    pd.concat([rows, halved]).to_csv(data / "train.csv", index=False)
    run = train(toy, "first", "demo", [*TOY, "training.max_epochs=1"]).run
    report = evaluate(run)
    assert (report.one_box.images, report.many_box.images) == (0, report.images.validation)
    assert report.images.validation_single_box == 0 and report.decision.chosen == "score"
    assert "no one-box score" in run.report.with_suffix(".html").read_text(encoding="utf-8")
    again = second_run(run, "again")
    evaluate(again)
    compared = compare(run, again)
    assert (compared.images.one_box, compared.many_box.difference) == (0, 0.0)
    counts = describe(toy, toy_config()).tables["counts"].set_index("what")["count"]
    assert (counts["training images"], counts["test images"]) == (32, 0)
    with pytest.raises(KitError) as refused:
        predict(run)
    assert "a test part" in refused.value.expected and "put both there" in refused.value.do
    for name in ("test", "ID_to_Image_Mapping.csv"):  # the advice
        shutil.move(aside / name, data / name)
    assert predict(run).csv.exists()
