"""Fusion: zero detections, cases by hand, and agreement with torchvision and ensemble-boxes."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from box_tables import COLUMNS, LEFT, NEAR_LEFT, RIGHT, SIDE, SOURCES, random_detections
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from torchvision.ops import box_iou

from kit.boxes.fusion import CANDIDATE_COLUMNS, fuse, suppress, weighted_boxes_fusion
from kit.boxes.geometry import CORNERS, area
from kit.config import FUSION_METHODS, FusionConfig

with warnings.catch_warnings():
    # ensemble-boxes compiles its three-dimensional fusion with numba when imported; what numba says about
    # that or about this numpy is none of ours.
    warnings.simplefilter("ignore")
    import ensemble_boxes

COMPARED = ["image_id", *CORNERS, "score", "label"]


def detections(*rows):
    """Rows of (run, view, image_id, box, score, label)."""
    return pd.DataFrame(
        [(run, 0, view, image, *box, score, label) for run, view, image, box, score, label in rows],
        columns=COLUMNS,
    )


def sorted_values(table):
    """Comparable rows: by image, label, score and corners, whatever the order of ties."""
    by = ["image_id", "label", "score", *CORNERS]
    return table.assign(score=table["score"].round(6)).sort_values(by)[COMPARED].reset_index(drop=True)


def reference_fusion(table, sources, iou, weights=None):
    """The same through ensemble-boxes, image by image."""
    labels = sorted(table["label"].unique())
    parts = []
    for image_id, rows in table.groupby("image_id"):
        each = [rows[(rows["run"] == run) & (rows["view"] == view)] for run, view in sources]
        boxes, scores, numbers = ensemble_boxes.weighted_boxes_fusion(
            [part[CORNERS].to_numpy(np.float64) / SIDE for part in each],
            [part["score"].to_numpy(np.float64) for part in each],
            [part["label"].map(labels.index).to_numpy(np.int64) for part in each],
            weights=weights,
            iou_thr=iou,
        )
        part = pd.DataFrame(boxes * SIDE, columns=CORNERS)
        names = [labels[int(number)] for number in numbers]
        parts.append(part.assign(image_id=image_id, score=scores, label=names))
    return pd.concat(parts)[COMPARED]


def assert_equal_to_the_reference(table, iou, weights=None, sources=SOURCES):
    ours = sorted_values(weighted_boxes_fusion(table, sources, iou, weights))
    reference = sorted_values(reference_fusion(table, sources, iou, weights))
    assert ours[["image_id", "label"]].values.tolist() == reference[["image_id", "label"]].values.tolist()
    assert ours["score"].to_numpy() == pytest.approx(reference["score"].to_numpy(), abs=1e-5)
    assert ours[CORNERS].to_numpy() / SIDE == pytest.approx(reference[CORNERS].to_numpy() / SIDE, abs=1e-5)


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_no_detections_give_no_candidates(method):
    empty = detections()
    fused = fuse(empty, FusionConfig(method=method), SOURCES)
    assert fused.columns.tolist() == CANDIDATE_COLUMNS
    assert len(fused) == 0


def test_suppression_by_hand_pools_the_views_and_keeps_the_best_of_overlapping():
    table = detections(
        ("a", "plain", "1.png", NEAR_LEFT, 0.5, "Mass"),  # IoU 80 / 100 with the best: goes
        ("a", "flip", "1.png", LEFT, 0.9, "Mass"),
        ("a", "plain", "1.png", RIGHT, 0.2, "Mass"),  # far away: stays
        ("a", "plain", "2.png", NEAR_LEFT, 0.5, "Mass"),  # another image: stays
    )
    assert suppress(table, SOURCES, 0.3).drop(columns="spread").values.tolist() == [
        ["1.png", *LEFT, 0.9, "Mass", 2 / 3],
        ["1.png", *RIGHT, 0.2, "Mass", 1 / 3],
        ["2.png", *NEAR_LEFT, 0.5, "Mass", 1 / 3],
    ]


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_the_spread_by_hand(method):
    table = detections(
        ("a", "plain", "1.png", LEFT, 0.9, "Mass"),
        ("a", "flip", "1.png", NEAR_LEFT, 0.5, "Mass"),
        ("b", "plain", "1.png", RIGHT, 0.2, "Mass"),
    )
    found = fuse(table, FusionConfig(method=method, iou=0.3), SOURCES).set_index("x_min")
    # Only y_max differs: 10 and 8, about (.9 x 10 + .5 x 8) / 1.4: a quarter of that variance.
    mean = (0.9 * 10 + 0.5 * 8) / 1.4
    variance = (0.9 * (10 - mean) ** 2 + 0.5 * (8 - mean) ** 2) / 1.4
    high = 10 if method == "suppress" else mean
    assert found["spread"][0] == pytest.approx(np.sqrt(variance / 4 / (10 * high)), rel=1e-5)
    assert np.isnan(found["spread"][100])  # a single box has none


def test_the_spread_of_many_boxes_is_their_weighted_standard_deviation():
    table = random_detections(5, boxes=9, images=1, classes=1)
    corners = table[CORNERS].to_numpy(np.float64)
    for method in FUSION_METHODS:
        table[CORNERS] = np.float32([0, 0, 400, 400]) + corners / 50  # all overlap: one candidate
        found = fuse(table, FusionConfig(method=method, iou=0.3), SOURCES)
        boxes, weights = table[CORNERS].to_numpy(np.float64), table["score"].to_numpy(np.float64)
        aside = boxes - np.average(boxes, axis=0, weights=weights)
        variance = np.average(np.square(aside).mean(axis=1), weights=weights)
        expected = np.sqrt(variance / area(found[CORNERS].to_numpy(np.float64)))
        assert found["spread"].to_numpy() == pytest.approx(expected, rel=1e-3)


def test_two_overlapping_boxes_of_two_classes_survive_although_suppression_across_classes_deletes_one():
    table = detections(
        ("a", "plain", "1.png", LEFT, 0.9, "Cardiomegaly"),
        ("a", "plain", "1.png", NEAR_LEFT, 0.5, "Effusion"),
    )
    boxes, scores = torch.tensor([LEFT, NEAR_LEFT]).float(), torch.tensor([0.9, 0.5])
    assert torchvision.ops.nms(boxes, scores, 0.3).tolist() == [0]
    assert suppress(table, SOURCES, 0.3)["label"].tolist() == ["Cardiomegaly", "Effusion"]
    assert weighted_boxes_fusion(table, SOURCES, 0.3)["label"].tolist() == ["Cardiomegaly", "Effusion"]


def test_an_overlap_of_exactly_the_limit_keeps_both_boxes():
    table = detections(
        ("a", "plain", "1.png", LEFT, 0.9, "Mass"),
        ("a", "plain", "1.png", (0, 0, 10, 5), 0.5, "Mass"),  # IoU 50 / 100
    )
    assert len(suppress(table, SOURCES, 0.5)) == len(weighted_boxes_fusion(table, SOURCES, 0.5)) == 2
    assert len(suppress(table, SOURCES, 0.499)) == len(weighted_boxes_fusion(table, SOURCES, 0.499)) == 1


def test_of_equal_scores_the_first_row_stays():
    rows = [("a", "plain", "1.png", box, 0.5, "Mass") for box in (NEAR_LEFT, LEFT)]
    assert suppress(detections(*rows), SOURCES, 0.3)["y_max"].tolist() == [8]
    assert suppress(detections(*rows[::-1]), SOURCES, 0.3)["y_max"].tolist() == [10]


def test_suppression_does_not_need_fresh_row_labels_and_leaves_its_input_alone():
    table = random_detections(0).sample(frac=0.5, random_state=0)
    before = table.copy()
    assert_frame_equal(suppress(table, SOURCES, 0.3), suppress(table.reset_index(drop=True), SOURCES, 0.3))
    assert_frame_equal(table, before)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5, 0.7]), st.integers(0, 150))
def test_suppression_equals_torchvision_per_image_and_class(seed, iou, boxes):
    table = random_detections(seed, boxes)
    kept = suppress(table, SOURCES, iou)
    expected = []
    for _, rows in table.groupby(["image_id", "label"]):
        found = torchvision.ops.nms(
            torch.tensor(rows[CORNERS].to_numpy(np.float64)), torch.tensor(rows["score"].to_numpy()), iou
        )
        expected.append(rows.iloc[found.numpy()])
    assert len(kept) == sum(map(len, expected))
    if boxes:
        reference = pd.concat(expected).astype(dict.fromkeys(CORNERS, np.float64))
        assert_frame_equal(sorted_values(kept), sorted_values(reference))


def test_weighted_fusion_by_hand():
    table = detections(
        ("a", "plain", "1.png", (0, 0, 10, 10), 0.6, "Mass"),
        ("a", "flip", "1.png", (0, 0, 10, 8), 0.3, "Mass"),
        ("b", "plain", "1.png", (100, 0, 110, 10), 0.75, "Mass"),
    )
    fused = weighted_boxes_fusion(table, SOURCES, 0.5)
    # Two of three sources agree: y_max (.6 x 10 + .3 x 8) / .9 and score mean(.6, .3) x 2/3; the third stands
    # alone: its score x 1/3.
    assert fused["score"].tolist() == pytest.approx([0.45 * 2 / 3, 0.75 / 3])
    assert fused[CORNERS].to_numpy() == pytest.approx(
        np.array([[0, 0, 10, (0.6 * 10 + 0.3 * 8) / 0.9], [100, 0, 110, 10]]), abs=1e-5
    )


def test_a_source_that_saw_nothing_still_counts():
    table = detections(("a", "plain", "1.png", LEFT, 0.6, "Mass"))
    alone = weighted_boxes_fusion(table, SOURCES[:1], 0.5)
    among_three = weighted_boxes_fusion(table, SOURCES, 0.5)
    assert alone["score"].tolist() == pytest.approx([0.6])
    assert among_three["score"].tolist() == pytest.approx([0.6 / 3])


def test_weights_belong_to_sources_by_hand():
    table = detections(
        ("a", "plain", "1.png", (0, 0, 10, 10), 0.6, "Mass"), ("b", "plain", "1.png", (0, 0, 10, 8), 0.6, "Mass")
    )
    fused = weighted_boxes_fusion(table, [("a", "plain"), ("b", "plain")], 0.5, [3, 1])
    # Weighted scores 1.8 and .6: y_max (1.8 x 10 + .6 x 8) / 2.4, score mean(1.8, .6) x 2 / (3 + 1).
    assert fused["y_max"].tolist() == pytest.approx([9.5])
    assert fused["score"].tolist() == pytest.approx([0.6])


def test_a_box_without_area_and_a_cluster_of_zero_scores_do_no_harm():
    table = detections(
        ("a", "plain", "1.png", (5, 5, 5, 9), 0.9, "Mass"),
        ("a", "plain", "1.png", LEFT, 0.0, "Mass"),
        ("a", "flip", "1.png", LEFT, 0.0, "Mass"),
    )
    fused = weighted_boxes_fusion(table, SOURCES, 0.5)
    assert fused[CORNERS].to_numpy() == pytest.approx(np.array([LEFT]))
    assert fused["score"].tolist() == pytest.approx([0])


def test_a_row_of_an_unnamed_source_is_an_error():
    table = detections(("a", "zoom_in", "1.png", LEFT, 0.9, "Mass"))
    with pytest.raises(ValueError, match="zoom_in"):
        weighted_boxes_fusion(table, SOURCES, 0.5)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0, 1.0]])
def test_every_source_has_one_positive_weight(weights):
    with pytest.raises(ValueError, match="one positive weight per source"):
        weighted_boxes_fusion(random_detections(0), SOURCES, 0.5, weights)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10**6), st.sampled_from([0.3, 0.55, 0.7]), st.integers(1, 150),
    st.sampled_from([None, [1.0, 2.0, 0.5]]),
)  # fmt: skip
def test_weighted_fusion_equals_ensemble_boxes(seed, iou, boxes, weights):
    assert_equal_to_the_reference(random_detections(seed, boxes), iou, weights)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 150))
def test_weighted_fusion_equals_ensemble_boxes_where_scores_tie(seed, boxes):
    assert_equal_to_the_reference(random_detections(seed, boxes, coarse=True), 0.55)


def test_weighted_fusion_equals_ensemble_boxes_with_empty_sources_and_long_groups():
    table = random_detections(1, boxes=600, images=2, classes=1)
    assert_equal_to_the_reference(table, 0.55)
    assert_equal_to_the_reference(table, 0.55, sources=[("c", "plain"), *SOURCES, ("c", "flip")])
    assert_equal_to_the_reference(table[table["run"] == "b"], 0.55)


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_candidates_are_sorted_by_image_and_falling_score(method):
    fused = fuse(random_detections(3), FusionConfig(method=method, iou=0.5), SOURCES)
    expected = fused.sort_values(["image_id", "score"], ascending=[True, False], kind="stable")
    assert fused.index.tolist() == list(range(len(fused)))
    assert_frame_equal(fused, expected.reset_index(drop=True))


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_only_the_named_sources_are_fused(method):
    table = random_detections(4)
    config, plain = FusionConfig(method=method), [("a", "plain"), ("b", "plain")]
    assert_frame_equal(fuse(table, config, plain), fuse(table[table["view"] == "plain"], config, plain))


def test_fusing_counts_every_source_also_one_that_saw_nothing():
    table = detections(("a", "plain", "1.png", LEFT, 0.6, "Mass"), ("b", "plain", "1.png", LEFT, 0.6, "Mass"))
    four = [(run, view) for run in "ab" for view in ("plain", "flip")]
    fused = fuse(table, FusionConfig(method="wbf"), four)
    assert fused["score"].tolist() == pytest.approx([0.6 * 2 / 4])
    assert fused["agreement"].tolist() == [2 / 4]
    # Three times the weight: weighted scores 1.8 and .6, mean 1.2 x 2 members / (3 + 3 + 1 + 1).
    weighted = fuse(table, FusionConfig(method="wbf"), four, [3, 3, 1, 1])
    assert weighted["score"].tolist() == pytest.approx([1.2 * 2 / 8])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.4, 0.7]))
def test_agreement_counts_each_source_of_a_candidate_once(seed, iou):
    table = random_detections(seed, boxes=60)
    for method in ("suppress", "wbf_or"):
        fused = fuse(table, FusionConfig(method=method, iou=iou), SOURCES)
        alone = fuse(table, FusionConfig(method=method, iou=0.999), SOURCES)
        assert fused["agreement"].isin([1 / 3, 2 / 3, 1]).all()
        assert (alone["agreement"] == 1 / 3).all()
        one_source = table.assign(run="a", view="plain")
        assert (fuse(one_source, FusionConfig(method=method, iou=iou), SOURCES[:1])["agreement"] == 1).all()


def test_suppression_counts_the_sources_of_what_it_removed_and_of_nothing_else():
    table = detections(
        ("a", "plain", "1.png", LEFT, 0.9, "Mass"), ("a", "plain", "1.png", NEAR_LEFT, 0.8, "Mass"),
        ("b", "plain", "1.png", NEAR_LEFT, 0.7, "Mass"), ("a", "flip", "1.png", RIGHT, 0.6, "Mass"),
        ("a", "flip", "1.png", LEFT, 0.5, "Nodule"),
    )  # fmt: skip
    assert suppress(table, SOURCES, 0.3)["agreement"].tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 3])


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1 / 3, 0.5, 0.6]),
    st.lists(st.floats(0.05, 20), min_size=3, max_size=3),
)
def test_weighted_fusion_equals_ensemble_boxes_where_overlaps_are_exactly_at_the_limit(seed, iou, weights):
    """Boxes of a coarse grid: an overlap of the limit is frequent, and one rounding decides what a box joins."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 4, (60, 2)) * 64
    table = pd.DataFrame(np.hstack([low, low + rng.integers(1, 5, (60, 2)) * 64]), columns=CORNERS)
    source = rng.integers(0, 3, 60)
    table = table.astype(np.float32).assign(
        run=[SOURCES[number][0] for number in source], view=[SOURCES[number][1] for number in source],
        fold=0, image_id="1.png", label="Mass", score=rng.uniform(0.01, 1, 60),
    )  # fmt: skip
    assert_equal_to_the_reference(table, iou, weights)


def test_only_the_ratios_of_weights_count_also_of_very_large_and_very_small_ones():
    table, weights = random_detections(5), [3.0, 1.0, 0.7]
    plain = weighted_boxes_fusion(table, SOURCES, 0.5, weights)
    for factor in (2.0**400, 2.0**-400):
        scaled = [weight * factor for weight in weights]
        assert_frame_equal(weighted_boxes_fusion(table, SOURCES, 0.5, scaled), plain)


def plain_votes(table, iou, weights, method):
    """The same box by box: the clusters of each image and class, and the scores of a method."""
    weight_of = dict(zip(SOURCES, weights, strict=True))
    found = []
    for (image_id, label), rows in table.groupby(["image_id", "label"]):
        boxes = [
            (weight_of[row.run, row.view], row.score, np.array([getattr(row, corner) for corner in CORNERS]))
            for row in rows.itertuples()
        ]
        clusters = []
        for weight, p, box in sorted(boxes, key=lambda each: -each[0] * each[1]):
            centres = np.array([mean(members) for members in clusters]).reshape(-1, 4)
            overlaps = box_iou(torch.from_numpy(box[None]), torch.from_numpy(centres))[0].tolist()
            best = int(np.argmax(overlaps)) if overlaps else -1
            if overlaps and overlaps[best] > iou:
                clusters[best].append((weight, p, box))
            else:
                clusters.append([(weight, p, box)])
        for members in clusters:
            if method == "wbf_or":
                score = 1 - np.prod([(1 - p) ** weight for weight, p, _ in members])
            else:
                score = min(1, sum(weight * p for weight, p, _ in members) / sum(weights))
            found.append((image_id, *mean(members), score, label))
    return pd.DataFrame(found, columns=COMPARED)


def mean(members):
    return sum(weight * p * box for weight, p, box in members) / sum(weight * p for weight, p, _ in members)


@pytest.mark.parametrize("method", ["wbf_or", "wbf_sum"])
@settings(deadline=None, max_examples=4)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.6]), st.sampled_from([[1.0] * 3, [2.0, 1.0, 0.5]]))
def test_votes_equal_a_plain_reimplementation(method, seed, iou, weights):
    table = random_detections(seed, boxes=50)
    ours = sorted_values(weighted_boxes_fusion(table, SOURCES, iou, weights, method))
    plain = sorted_values(plain_votes(table, iou, weights, method))
    assert ours[["image_id", "label"]].values.tolist() == plain[["image_id", "label"]].values.tolist()
    assert ours["score"].to_numpy() == pytest.approx(plain["score"].to_numpy(), abs=2e-6)
    assert ours[CORNERS].to_numpy() == pytest.approx(plain[CORNERS].to_numpy(), abs=1e-2)


def test_votes_by_hand():
    table = detections(
        ("a", "plain", "1.png", LEFT, 0.6, "Mass"), ("a", "plain", "1.png", LEFT, 0.5, "Mass"),
        ("a", "plain", "1.png", LEFT, 0.4, "Mass"), ("b", "plain", "1.png", LEFT, 0.5, "Mass"),
        ("b", "plain", "1.png", RIGHT, 0.7, "Mass"),
    )  # fmt: skip
    two = [("a", "plain"), ("b", "plain")]

    def scores(method, weights=None):
        return weighted_boxes_fusion(table, two, 0.5, weights, method)["score"].tolist()

    # Two sources, four members: wbf caps at two of them, the sum does not, and ends at 1.
    assert scores("wbf") == pytest.approx([0.5 * 2 / 2, 0.7 / 2])
    assert scores("wbf_sum") == pytest.approx([2.0 / 2, 0.7 / 2])
    assert scores("wbf_or") == pytest.approx([1 - 0.4 * 0.5 * 0.6 * 0.5, 0.7])
    # The weights 3 and 1 of the two sources: factors in the sum, exponents in the product.
    assert scores("wbf_sum", [3, 1]) == pytest.approx([1.0, 0.7 / 4])
    assert scores("wbf_or", [3, 1]) == pytest.approx([1 - (0.4 * 0.5 * 0.6) ** 3 * 0.5, 0.7])


def test_a_certain_vote_is_certain_and_one_of_0_changes_nothing():
    rows = [("a", "plain", "1.png", LEFT, 0.3, "Mass"), ("b", "plain", "1.png", LEFT, 0.0, "Mass")]
    sure = [*rows, ("a", "flip", "1.png", LEFT, 1.0, "Mass")]
    fused = [weighted_boxes_fusion(detections(*of), SOURCES, 0.5, None, "wbf_or")["score"].tolist()
             for of in (rows, sure)]  # fmt: skip
    assert fused == [pytest.approx([0.3]), [1.0]]


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_a_detection_below_the_skip_score_does_not_vote(method):
    rows = [("a", "plain", "1.png", LEFT, 0.6, "Mass"), ("b", "plain", "1.png", NEAR_LEFT, 0.1, "Mass")]
    table = detections(*rows, ("a", "flip", "1.png", RIGHT, 0.05, "Mass")).astype({"score": np.float32})
    config = FusionConfig(method, 0.5)
    alone, both = fuse(table[:1], config, SOURCES), fuse(table[:2], config, SOURCES)
    assert_frame_equal(fuse(table, replace(config, skip_score=0.2), SOURCES), alone)
    assert_frame_equal(fuse(table, replace(config, skip_score=0.1), SOURCES), both)  # exactly at it: it votes
    assert len(fuse(table, replace(config, skip_score=1.0), SOURCES)) == 0
