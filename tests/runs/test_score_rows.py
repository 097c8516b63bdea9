"""Image scores from elsewhere: their scale, and every fault with its row, each with advice that works."""

import re

import numpy as np
import pandas as pd
import pytest
from toy import copied, toy_config

from kit.core.errors import KitError
from kit.data.competition import load_test, load_training
from kit.runs.score_rows import LOGITS, PROBABILITIES, read_score_rows


class Place:
    """The toy competition, and a score of every label for its images, those of the test in the last rows."""

    def __init__(self, workspace):
        self.workspace = workspace
        self.data, self.test = load_training(workspace, toy_config()), load_test(workspace, toy_config())
        names = [*self.data.image_ids, *self.test.image_ids]
        rows = [(name, label) for name in names for label in self.data.labels]
        self.table = pd.DataFrame(rows, columns=["image_id", "label"])
        self.table["score"] = np.random.default_rng(0).random(len(rows)).round(6)
        self.of_test = self.table["image_id"].isin(self.test.image_ids)
        self.path = workspace / "scores.csv"

    def read(self, table, held=None):
        self.path.write_text(table.to_csv(index=False))
        return read_score_rows(self.path, self.data, self.test, held or self.data.image_ids)

    def refused(self, table, held=None):
        with pytest.raises(KitError) as caught:
            self.read(table, held)
        return caught.value

    def changed(self, row, **cells):
        table = self.table.astype(object)
        for name, value in cells.items():
            table.loc[row, name] = value
        return table


@pytest.fixture(scope="module")
def place(toy_source, tmp_path_factory):
    return Place(copied(toy_source, tmp_path_factory.mktemp("scores") / "toy"))


def test_images_of_both_halves_keep_their_scores(place):
    rows = place.read(place.table)
    assert rows.scale == PROBABILITIES
    assert rows.table["part"].tolist() == np.where(place.of_test, "test", "train").tolist()
    assert rows.table[["image_id", "label", "score"]].to_numpy().tolist() == place.table.to_numpy().tolist()
    assert (rows.table["fold"] == 0).all()


def test_parquet_is_read_alike_and_names_without_their_ending_too(place):
    path = place.workspace / "scores.parquet"
    place.table.assign(image_id=place.table["image_id"].str.removesuffix(".png")).to_parquet(path)
    rows = read_score_rows(path, place.data, place.test, place.data.image_ids)
    assert rows.table.equals(place.read(place.table).table)


def test_logits_become_probabilities(place):
    odds = np.log(place.table["score"] / (1 - place.table["score"]))
    rows = place.read(place.table.assign(score=odds))
    assert rows.scale == LOGITS
    assert rows.table["score"].tolist() == pytest.approx(place.table["score"].tolist())
    far = place.read(place.table.assign(score=odds * 1e6)).table["score"]
    assert far.between(0, 1).all()


def test_percentages_are_refused_and_can_be_divided(place):
    table = place.table.assign(score=100 * place.table["score"])
    error = place.refused(table)
    assert "scores reach from" in error.found
    assert error.do == "divide the scores by 100 if they are percentages"
    assert place.read(table.assign(score=table["score"] / 100)).scale == PROBABILITIES


def test_a_few_scores_outside_among_probabilities_are_mistakes_and_not_logits(place):
    error = place.refused(place.changed(3, score=-0.2))
    label = place.table["label"][3]
    assert f"scores.csv:5: found '{place.table['image_id'][3]}, {label}, -0.2'" in error.found
    assert "a probability between 0 and 1" in error.found
    assert place.read(place.changed(3, score=0.2)).scale == PROBABILITIES


@pytest.mark.parametrize("score", ["nan", "", "inf", "high"])
def test_a_score_that_is_no_number_has_its_line(score, place):
    error = place.refused(place.changed(4, score=score))
    assert f"scores.csv:6: found {score!r}, expected score to be a finite decimal number" in error.found
    assert len(place.read(place.table.drop(index=4)).table) == len(place.table) - 1  # a row may be missing


def test_each_unknown_label_is_one_fault_with_the_nearest_name(place):
    renamed = place.table.assign(label=place.table["label"].replace("Infiltrate", "Infiltration"))
    renamed.loc[0, "label"] = "Fracture"
    error = place.refused(renamed)
    assert error.found.startswith("2 faults")
    assert re.search(r"found 'Infiltration and 39 rows more', expected .*\(nearest: Infiltrate\)", error.found)
    assert "rename the label as the competition does, or leave out the rows" in error.do
    mended = renamed.drop(index=0).replace({"label": {"Infiltration": "Infiltrate"}})
    assert len(place.read(mended).table) == len(place.table) - 1


def test_unknown_images_are_counted_in_one_line(place):
    far = place.table.assign(image_id=place.table["image_id"].where(place.table.index >= 16, "far.png"))
    error = place.refused(far)
    assert "16 times: far.png" in error.found
    assert len(place.read(far[16:]).table) == len(place.table) - 16


def test_a_second_score_of_an_image_and_label_is_refused(place):
    twice = pd.concat([place.table, place.table.iloc[[5]].assign(score=0.25)])
    error = place.refused(twice)
    assert "one score for each image and label, on test images of each fold (line 7 does)" in error.found
    assert "leave out the rows that repeat others" in error.do
    assert place.read(twice.groupby(["image_id", "label"], sort=False, as_index=False).mean()).scale


def test_an_image_that_was_not_held_out_is_refused(place):
    held = place.data.image_ids[1:]
    error = place.refused(place.table, held)
    assert f"8 times: {place.data.image_ids[0]}" in error.found
    assert "an image that was held out (--held-out)" in error.found
    rest = place.table[place.table["image_id"] != place.data.image_ids[0]]
    assert len(place.read(rest, held).table) == len(rest)


def test_scores_of_the_test_alone_teach_nothing(place):
    assert "no row of an image of train/" in place.refused(place.table[place.of_test]).found


def test_folds_one_held_an_image_of_train_out_and_each_scores_the_test(place):
    of_train = place.table[~place.of_test]
    number = of_train["image_id"].map({name: k % 2 for k, name in enumerate(place.data.image_ids)})
    of_test = [place.table[place.of_test].assign(fold=fold) for fold in (0, 1)]
    table = pd.concat([of_train.assign(fold=number), *of_test], ignore_index=True)
    rows = place.read(table).table
    assert rows["fold"].tolist() == table["fold"].tolist()
    moved = table.assign(fold=table["fold"].where(table.index != 1, 1 - table["fold"]))
    assert "the fold that its earlier rows name" in place.refused(moved).found
    empty = table.astype(object)
    empty.loc[9, "fold"] = ""  # of the second image, which fold 1 held out
    assert place.refused(empty).found.startswith("1 fault\n")
    assert "no fold', expected the fold that held the image out" in place.refused(empty).found
    again = pd.concat([table, table.iloc[[0, -1]]])
    assert place.refused(again).found.startswith("2 faults")


def test_a_name_in_both_halves_needs_the_column_part(toy_source, tmp_path):
    workspace = copied(toy_source, tmp_path / "toy")
    name = sorted(path.name for path in (workspace / "data" / "test").iterdir())[0]
    other = sorted(path.name for path in (workspace / "data" / "train").iterdir())[0]
    (workspace / "data" / "test" / name).rename(workspace / "data" / "test" / other)
    mapping = workspace / "data" / "ID_to_Image_Mapping.csv"
    mapping.write_text(mapping.read_text().replace(name, other))
    place = Place(workspace)
    error = place.refused(place.table)
    assert "column part" in error.do
    rows = place.read(place.table.assign(part=["train"] * 8 * 32 + ["test"] * 8 * 8)).table
    assert (rows["image_id"] == other).sum() == 16


def test_other_files_say_what_is_read(place):
    with pytest.raises(KitError, match=r"ends in \.csv or \.parquet"):
        read_score_rows(place.workspace / "scores.json", place.data, place.test, place.data.image_ids)
    wide = place.table.pivot(index="image_id", columns="label", values="score").reset_index()
    assert "the columns image_id or file_name, class_name or label" in place.refused(wide).found
    error = place.refused(place.table.assign(Fold=0))
    assert "fold, not Fold" in error.found
    assert place.read(place.table.assign(View="PA", Run=1)).table.equals(place.read(place.table).table)
