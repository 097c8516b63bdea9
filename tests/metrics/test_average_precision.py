"""Average precision: empty tables, curves by hand, and agreement with pycocotools and torchmetrics."""

import contextlib
import io
import math

import numpy as np
import pytest
from box_tables import detected, random_case, truth_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kit.boxes.geometry import CORNERS
from kit.metrics.average_precision import (
    MOST_PER_IMAGE_AND_CLASS,
    average_precision,
    match,
    mean_average_precision,
    precision_recall,
    score_detections,
    threshold_curve,
)

BOX, BELOW, FAR = (0, 0, 10, 10), (0, 0, 10, 4), (50, 50, 60, 60)


def hits(*flags):
    return np.array(flags, dtype=bool)


def coco_precision(truth, detections, names, points=101):
    """pycocotools' precision (IoU, recall point, class) for the classes that have truth, with their names."""
    labels = sorted(truth["label"].unique())
    known = detections[detections["label"].isin(labels)]

    def annotations(table):
        for number, row in enumerate(table.itertuples(), 1):
            width, height = row.x_max - row.x_min, row.y_max - row.y_min
            yield {
                "id": number,
                "image_id": names.index(row.image_id),
                "category_id": labels.index(row.label),
                "bbox": [row.x_min, row.y_min, width, height],
                "area": width * height,
                "iscrowd": 0,
            }

    found = [{**part, "score": value} for part, value in zip(annotations(known), known["score"], strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        tables = []
        for entries in (list(annotations(truth)), found):
            table = COCO()
            table.dataset = {
                "images": [{"id": number} for number in range(len(names))],
                "categories": [{"id": number} for number in range(len(labels))],
                "annotations": entries,
            }
            table.createIndex()
            tables.append(table)
        judge = COCOeval(*tables, iouType="bbox")
        judge.params.recThrs = np.linspace(0, 1, points)
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, :, 0, -1], labels


def test_empty_tables_have_no_score_and_no_curve():
    scores = score_detections(truth_of(), detected(), [])
    assert all(map(math.isnan, (scores.map50, scores.map50_area, scores.map50_11, scores.map50_95)))
    assert (scores.per_class, scores.images) == ({}, 0)
    assert precision_recall(truth_of(), detected(), ["1.png"]) == {}
    ((threshold, value),) = threshold_curve(truth_of(), detected(("1.png", BOX, 0.9, "Mass")), ["1.png"], [0.1])
    assert threshold == 0.1
    assert math.isnan(value)


def test_truth_without_any_detection_counts_zero():
    scores = score_detections(truth_of(("1.png", BOX, "Mass")), detected(), ["1.png", "2.png"])
    assert (scores.map50, scores.map50_area, scores.map50_11, scores.map50_95) == (0, 0, 0, 0)
    assert (scores.per_class["Mass"].boxes, scores.per_class["Mass"].detections, scores.images) == (1, 0, 2)


def test_one_hit_at_rank_one_of_twenty_truths_in_the_three_variants():
    found = hits(True, False, False)
    assert average_precision(found, 20, "area") == pytest.approx(1 / 20)  # .050
    # Recall .05 is reached at the points 0, .01, ... .05 of 101, and at the point 0 of 11.
    assert average_precision(found, 20, "coco101") == pytest.approx(6 / 101)  # .059
    assert average_precision(found, 20, "voc11") == pytest.approx(1 / 11)  # .091


def test_the_area_under_the_envelope_by_hand():
    # Precision after each detection: 1, 1/2, 2/3, 2/4, 3/5. The envelope at the three hits: 1, 2/3, 3/5; each
    # adds one of four truths to the recall.
    found = hits(True, False, True, False, True)
    assert average_precision(found, 4, "area") == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # Precision 0, 1/2, 2/3: the second hit lifts the first.
    assert average_precision(hits(False, True, True), 2, "area") == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_no_detection_scores_zero_and_no_truth_scores_nothing():
    for variant in ("coco101", "area", "voc11"):
        assert average_precision(hits(), 3, variant) == 0
        assert math.isnan(average_precision(hits(False), 0, variant))


def test_a_truth_is_found_once_and_the_second_box_on_it_is_wrong():
    truth = truth_of(("1.png", BOX, "Mass"), ("2.png", BOX, "Mass"))
    found = detected(("1.png", BOX, 0.9, "Mass"), ("1.png", BOX, 0.8, "Mass"), ("2.png", BELOW, 0.7, "Mass"))
    part = match(truth, found, ["1.png", "2.png"]).classes["Mass"]
    assert part.hits.tolist() == [True, False, False]  # the last overlaps 40 / 100
    assert part.scores.tolist() == [0.9, 0.8, 0.7]
    assert (part.images.tolist(), part.rows.tolist()) == ([0, 0, 1], [0, 1, 2])
    assert part.positives.tolist() == [1, 1]


def test_a_detection_takes_the_free_truth_that_it_overlaps_most():
    truth = truth_of(("1.png", (0, 0, 10, 8), "Mass"), ("1.png", BOX, "Mass"))
    found = detected(("1.png", BOX, 0.9, "Mass"), ("1.png", BOX, 0.8, "Mass"))
    assert match(truth, found, ["1.png"]).classes["Mass"].hits.tolist() == [True, True]
    assert match(truth, found, ["1.png"], 0.85).classes["Mass"].hits.tolist() == [True, False]


def test_of_two_truths_overlapped_alike_the_later_is_taken_as_pycocotools_does():
    early, late = ("1.png", (0, 0, 10, 10), "Mass"), ("1.png", (4, 0, 14, 10), "Mass")
    # The first detection overlaps both by 8 / 12; the second only the truth on the left, by 8 / 10.
    found = detected(("1.png", (2, 0, 12, 10), 0.9, "Mass"), ("1.png", (0, 0, 8, 10), 0.8, "Mass"))
    for truth, expected in ((truth_of(early, late), [True, True]), (truth_of(late, early), [True, False])):
        assert match(truth, found, ["1.png"]).classes["Mass"].hits.tolist() == expected
        precision, _ = coco_precision(truth, found, ["1.png"])
        assert score_detections(truth, found, ["1.png"]).map50 == pytest.approx(precision[0].mean())


def test_an_overlap_of_exactly_the_threshold_is_a_hit():
    truth = truth_of(("1.png", BOX, "Mass"))
    found = detected(("1.png", (0, 0, 10, 5), 0.9, "Mass"))
    assert match(truth, found, ["1.png"], 0.5).classes["Mass"].hits.tolist() == [True]
    assert match(truth, detected(("1.png", BOX, 0.9, "Mass")), ["1.png"], 1.0).classes["Mass"].hits.all()


def test_the_mean_leaves_out_classes_without_truth_and_keeps_those_without_detections():
    truth = truth_of(("1.png", BOX, "Mass"), ("1.png", FAR, "Nodule"))
    found = detected(("1.png", BOX, 0.5, "Mass"), ("1.png", BOX, 0.9, "Effusion"))
    scores = score_detections(truth, found, ["1.png"])
    assert scores.map50 == pytest.approx((1 + 0) / 2)
    assert list(scores.per_class) == ["Mass", "Nodule"]
    assert list(match(truth, found, ["1.png"]).classes) == ["Effusion", "Mass", "Nodule"]


def test_boxes_on_images_that_are_not_evaluated_are_an_error_that_names_them():
    with pytest.raises(ValueError, match=r"detections .*: 2\.png"):
        score_detections(truth_of(), detected(("2.png", BOX, 0.9, "Mass")), ["1.png"])
    with pytest.raises(ValueError, match=r"truth .*: 3\.png"):
        score_detections(truth_of(("3.png", BOX, "Mass")), detected(), ["1.png"])


def test_only_the_best_hundred_of_an_image_and_class_are_judged():
    many = [("1.png", FAR, 0.9, "Mass")] * MOST_PER_IMAGE_AND_CLASS
    late = detected(*many, ("1.png", BOX, 0.1, "Mass"), ("2.png", BOX, 0.1, "Mass"))
    part = match(truth_of(("1.png", BOX, "Mass")), late, ["1.png", "2.png"]).classes["Mass"]
    assert (len(part.scores), part.hits.sum()) == (101, 0)


def test_precision_and_recall_by_hand():
    truth = truth_of(("1.png", BOX, "Mass"), ("2.png", BOX, "Mass"))
    found = detected(("1.png", BOX, 0.9, "Mass"), ("1.png", FAR, 0.8, "Mass"), ("2.png", BOX, 0.7, "Mass"))
    recall, precision = precision_recall(truth, found, ["1.png", "2.png"])["Mass"]
    assert recall.tolist() == [1 / 2, 1 / 2, 1]
    assert precision.tolist() == [1, 1 / 2, 2 / 3]


def test_the_threshold_curve_by_hand():
    truth = truth_of(("1.png", BOX, "Mass"), ("2.png", BOX, "Mass"))
    found = detected(("1.png", BOX, 0.3, "Mass"), ("2.png", BOX, 0.2, "Mass"))
    curve = threshold_curve(truth, found, ["1.png", "2.png"], [0.0, 0.2, 0.25, 0.4])
    # Both, both (a score of exactly the threshold stays), one (recall 1/2: 51 of 101 points), none.
    assert curve == [(0.0, 1), (0.2, 1), (0.25, pytest.approx(51 / 101)), (0.4, 0)]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.booleans())
def test_higher_thresholds_only_lower_the_many_box_map_and_no_network_is_needed_to_know_it(seed, coarse):
    case = random_case(seed, coarse=coarse)
    values = [value for _, value in threshold_curve(*case, np.linspace(0, 1, 21).tolist())]
    assert (np.diff(values) <= 1e-12).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.125, 0.25, 0.5, 0.875]))
def test_one_matching_gives_the_curve_of_matching_anew_for_every_threshold(seed, threshold):
    truth, found, names = random_case(seed)
    anew = score_detections(truth, found[found["score"] >= threshold], names)
    assert threshold_curve(truth, found, names, [threshold]) == [(threshold, pytest.approx(anew.map50, abs=1e-12))]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 200), st.booleans())
def test_every_figure_equals_pycocotools(seed, boxes, detections, coarse):
    truth, found, names = random_case(seed, boxes=boxes, detections=detections, coarse=coarse)
    scores = score_detections(truth, found, names)
    precision, labels = coco_precision(truth, found, names)
    eleven, _ = coco_precision(truth, found, names, points=11)
    assert scores.map50 == pytest.approx(precision[0].mean(), abs=1e-6)
    assert scores.map50_11 == pytest.approx(eleven[0].mean(), abs=1e-6)
    assert scores.map50_95 == pytest.approx(precision.mean(), abs=1e-6)
    assert list(scores.per_class) == labels
    for number, part in enumerate(scores.per_class.values()):
        assert part.ap50 == pytest.approx(precision[0, :, number].mean(), abs=1e-6)
        assert part.ap50_11 == pytest.approx(eleven[0, :, number].mean(), abs=1e-6)


def test_more_than_a_hundred_detections_on_an_image_equal_pycocotools():
    truth, found, names = random_case(7, classes=1, images=4, boxes=30, detections=600)
    precision, _ = coco_precision(truth, found, names)
    assert score_detections(truth, found, names).map50_95 == pytest.approx(precision.mean(), abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_the_order_of_image_names_and_the_row_labels_do_not_matter(seed):
    truth, found, names = random_case(seed)
    scores = score_detections(truth.reset_index(drop=True), found.reset_index(drop=True), names)
    assert score_detections(truth.set_index(truth.index + 5), found, names[::-1]) == scores


def test_matches_hold_what_the_scores_are_made_of():
    truth, found, names = random_case(11, coarse=False)
    matches = match(truth, found, names)
    assert matches.image_ids == tuple(names)
    for label, part in matches.classes.items():
        rows = found.iloc[part.rows]
        assert (rows["label"] == label).all()
        assert rows["score"].tolist() == part.scores.tolist()
        assert rows["image_id"].tolist() == [names[number] for number in part.images]
        assert part.positives.sum() == (truth["label"] == label).sum()
        assert part.hits.sum() <= part.positives.sum()
        assert ((part.truths >= 0) == part.hits).all()
        found_boxes = truth.iloc[part.truths[part.hits]]
        assert found_boxes.index.is_unique
        assert found_boxes["image_id"].tolist() == rows["image_id"][part.hits].tolist()
    assert mean_average_precision(matches) == score_detections(truth, found, names).map50


@pytest.mark.slow
def test_classes_and_mean_equal_torchmetrics():
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    truth, found, names = random_case(3, coarse=False)
    found = found[found["label"].isin(truth["label"])]
    labels = sorted(truth["label"].unique())
    metric = MeanAveragePrecision(iou_thresholds=[0.5], class_metrics=True)
    for name in names:
        true, seen = truth[truth["image_id"] == name], found[found["image_id"] == name]
        metric.update(
            [
                {
                    "boxes": torch.tensor(seen[CORNERS].to_numpy(np.float32)).reshape(-1, 4),
                    "scores": torch.tensor(seen["score"].to_numpy(np.float32)),
                    "labels": torch.tensor([labels.index(label) for label in seen["label"]], dtype=torch.int64),
                }
            ],
            [
                {
                    "boxes": torch.tensor(true[CORNERS].to_numpy(np.float32)).reshape(-1, 4),
                    "labels": torch.tensor([labels.index(label) for label in true["label"]], dtype=torch.int64),
                }
            ],
        )
    result = metric.compute()
    scores = score_detections(truth, found, names)
    assert scores.map50 == pytest.approx(float(result["map_50"]), abs=1e-6)
    assert [part.ap50 for part in scores.per_class.values()] == pytest.approx(
        result["map_per_class"].tolist(), abs=1e-6
    )
