"""No class vanishes from a training without a word: boxes too small, or beyond the border, are counted by class."""

import re

import numpy as np
import pandas as pd
import pytest
from toy import TOY, toy_config

from kit.boxes.geometry import CORNERS
from kit.config import AugmentationConfig, override
from kit.core.errors import KitError
from kit.data.competition import load_training
from kit.data.dataset import DetectionDataset, collate
from kit.training.box_losses import BoxLosses, require_large_boxes

LABELS = ("Mass", "Nodule")


def losses(boxes, too_small, at_border):
    return BoxLosses(LABELS, *(np.array(counts) for counts in (boxes, too_small, at_border)))


@pytest.fixture
def tiny_class(toy):
    """The toy with a class of boxes of 2 x 2 px: at 32 px they have (2 * 32 / 96)^2 = 0.44 square pixels."""
    path = toy / "data" / "train.csv"
    table = pd.read_csv(path)
    rows = table.index[:10]
    low = table.loc[rows, ["x_min", "y_min"]].to_numpy()
    table.loc[rows, ["x_max", "y_max"]] = low + 2
    table.loc[rows, "label"] = "Speck"
    path.write_text(table.to_csv(index=False))
    return toy


def data_and_config(workspace, *more):
    config = override(toy_config(), ("model.image_size_px=32", *more))
    return load_training(workspace, config), config


class TestBeforeTraining:
    def test_a_class_below_the_smallest_area_is_refused_and_both_advices_work(self, tiny_class):
        data, config = data_and_config(tiny_class)
        with pytest.raises(KitError) as caught:
            require_large_boxes(data, config)
        assert "class 'Speck': all 10 are smaller, the largest has 0.44" in caught.value.found
        advised = re.findall(r"--set (\S+=\d+)", caught.value.do)
        assert [assignment.split("=")[0] for assignment in advised] == [
            "model.image_size_px", "augmentation.min_area_px",
        ]  # fmt: skip
        for assignment in advised:
            data, config = data_and_config(tiny_class, assignment)
            require_large_boxes(data, config)
            dataset = DetectionDataset(data, data.image_ids, config.model.image_size_px, 0, config.augmentation)
            lost = sum(dataset[index].boxes_lost for index in range(len(dataset)))
            assert lost[0].tolist() == [0] * len(data.labels)

    def test_more_than_a_tenth_is_said_and_a_tenth_is_not(self, tiny_class, caplog):
        path = tiny_class / "data" / "train.csv"
        table = pd.read_csv(path)
        table.loc[table["label"] == "Speck", "label"] = ["Speck", "Speck", *["Dust"] * 8]
        more = table[table["label"] == "Mass"].head(1)
        large = [more.assign(x_min=1, y_min=1, x_max=50 + n / 4, y_max=60, label="Speck") for n in range(16)]
        other = [more.assign(x_min=1, y_min=1, x_max=50 + n / 4, y_max=60, label="Dust") for n in range(90)]
        path.write_text(pd.concat([table, *large, *other]).to_csv(index=False))
        data, config = data_and_config(tiny_class)
        require_large_boxes(data, config)
        (line,) = [record.getMessage() for record in caplog.records if "class" in record.getMessage()]
        assert line.startswith("class 'Speck': 2 of 18 boxes are below augmentation.min_area_px=1")

    def test_training_stops_before_there_is_a_run(self, tiny_class):
        from kit.training.train import train

        with pytest.raises(KitError, match="class 'Speck'"):
            train(tiny_class, None, "demo", (*TOY, "model.image_size_px=32"))
        assert not (tiny_class / "runs" / "demo" / "config.json").exists()


class TestInTheSamples:
    def test_causes_are_told_apart_by_class(self, tiny_class):
        data, _ = data_and_config(tiny_class)
        speck = data.labels.index("Speck")
        still = AugmentationConfig(affine_p=0.0)
        dataset = DetectionDataset(data, data.image_ids, 32, 0, still)
        assert dataset.box_counts.tolist() == data.annotations["label"].value_counts()[list(data.labels)].tolist()
        lost = collate([dataset[index] for index in range(len(dataset))]).boxes_lost
        assert lost[0].tolist() == [10 if index == speck else 0 for index in range(len(data.labels))]
        assert not lost[1].any()
        moved = AugmentationConfig(affine_p=1.0, shift=0.5, min_area_px=0.0)
        dataset = DetectionDataset(data, data.image_ids, 32, 0, moved)
        lost = collate([dataset[index] for index in range(len(dataset))]).boxes_lost
        assert not lost[0].any() and lost[1].any()

    def test_every_box_is_kept_or_lost_once(self, tiny_class):
        data, _ = data_and_config(tiny_class)
        dataset = DetectionDataset(data, data.image_ids, 32, 0, AugmentationConfig(affine_p=1.0, shift=0.3))
        samples = [dataset[epoch, index] for epoch in range(3) for index in range(len(dataset))]
        kept = sum(np.bincount(sample.labels.numpy() - 1, minlength=len(data.labels)) for sample in samples)
        lost = sum(sample.boxes_lost.sum(axis=0) for sample in samples)
        assert (kept + lost == 3 * dataset.box_counts).all()

    def test_an_image_that_does_not_count_has_lost_none(self, tiny_class):
        data, config = data_and_config(tiny_class)
        dataset = DetectionDataset(data, data.image_ids, 32, 0, config.augmentation)
        assert not any(dataset[0, len(dataset) + index].boxes_lost.any() for index in range(len(dataset)))

    def test_images_without_boxes_lose_none(self, toy):
        data, config = data_and_config(toy)
        first = data.annotations["image_id"].iloc[0]
        boxes = data.annotations[data.annotations["image_id"] != first]
        assert (boxes[CORNERS].to_numpy() >= 0).all()
        (toy / "data" / "train.csv").write_text(boxes.to_csv(index=False))
        data, config = data_and_config(toy)
        dataset = DetectionDataset(data, [first], 32, 0, config.augmentation)
        assert not dataset[0].boxes_lost.any()


class TestAnEpoch:
    def test_no_loss_is_said_with_no_word(self, caplog):
        none = losses([5, 5], [0, 0], [0, 0])
        none.warn(toy_config())
        none.refuse(toy_config())
        assert none.words == "" and not caplog.records

    def test_both_causes_are_in_the_line(self):
        assert losses([50, 50], [2, 0], [0, 3]).words == ", 2 boxes too small, 3 boxes lost at the border"

    def test_a_class_that_loses_more_than_a_tenth_is_named_with_both_causes(self, caplog):
        losses([10, 10], [1, 1], [0, 1]).warn(toy_config())
        (line,) = [record.getMessage() for record in caplog.records]
        assert line == (
            "class 'Nodule': 2 of 10 boxes took no part in this epoch: 1 below augmentation.min_area_px=1 at "
            "model.image_size_px=64, 1 lost at the border (augmentation.min_visibility=0.3)"
        )

    @pytest.mark.parametrize(("too_small", "at_border"), [(1, 0), (0, 10), (4, 6)])
    def test_a_class_that_loses_all_is_an_error(self, too_small, at_border):
        with pytest.raises(KitError, match="class 'Nodule': all"):
            losses([10, too_small + at_border], [0, too_small], [0, at_border]).refuse(toy_config())

    def test_a_few_boxes_may_all_leave_the_picture_by_chance_and_no_boxes_are_no_loss(self):
        losses([10, 9], [0, 0], [0, 9]).refuse(toy_config())
        losses([10, 0], [0, 0], [0, 0]).refuse(toy_config())


@pytest.mark.slow
def test_a_class_lost_at_the_border_stops_the_first_epoch_and_the_advice_trains(toy):
    from kit.training.train import train

    hard = ("augmentation.affine_p=1", "augmentation.shift=0.5", "augmentation.min_visibility=1")
    path = toy / "data" / "train.csv"
    table = pd.read_csv(path)
    table[["x_min", "y_min", "x_max", "y_max", "label"]] = [1, 1, 95, 95, "Mass"]
    table.loc[::2, "label"] = "Nodule"
    table.loc[::2, "x_max"] = 94
    path.write_text(table.drop_duplicates("image_id").to_csv(index=False))
    with pytest.raises(KitError, match="boxes of every class in an epoch") as caught:
        train(toy, None, "demo", (*TOY, *hard))
    assert "augmentation.min_visibility" in caught.value.do
    done = train(toy, "softer", "demo", (*TOY, *hard[:2], "augmentation.min_visibility=0.1"))
    assert done.finished
