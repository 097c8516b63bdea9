"""One box per ID: the floor, cases by hand, and what must hold for every table of answers."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from kit.boxes.geometry import CORNERS
from kit.choosing.location_prior import Prior, PriorBox, fit_prior
from kit.choosing.one_box import (
    ANSWER_COLUMNS,
    answers_to_detections,
    decide,
    one_box_truth,
    prior_answers,
    submission_text,
    validation_mapping,
)
from kit.core.errors import KitError
from kit.core.json_files import read_record, write_record
from kit.metrics.average_precision import score_detections

HEART = PriorBox("Cardiomegaly", (0.25, 0.5, 0.75, 0.75), 0.8, 0.013)
LUNG = PriorBox("Effusion", (0.1, 0.1, 0.4, 0.9), 0.1, 0.001)
PRIOR = Prior((HEART, LUNG))
SIZES = {"1.png": (100, 200), "2.png": (100, 200), "3.png": (64, 64)}
A, B, C = (10, 10, 50, 50), (20, 20, 60, 60), (0, 0, 30, 40)


def candidates(*rows):
    """Rows of (image_id, box, score, label)."""
    return pd.DataFrame(
        [(image, *box, value, value, label) for image, box, value, label in rows],
        columns=["image_id", *CORNERS, "confidence", "value", "label"],
    )


def mapping(*image_ids):
    """IDs from 11 on, one per name."""
    return pd.DataFrame({"ID": np.arange(11, 11 + len(image_ids)), "image_id": list(image_ids)})


def truth_of(*rows):
    """Rows of (image_id, box, label)."""
    return pd.DataFrame(
        [(image, *box, label) for image, box, label in rows], columns=["image_id", *CORNERS, "label"]
    )


def random_case(seed, images=12, rows=60):
    """Candidates that stick out of the image, repeat each other, tie, or have no area; some images have none."""
    rng = np.random.default_rng(seed)
    names = [f"{number:03d}.png" for number in range(images)]
    low = rng.uniform(-60, 220, (rows, 2)).round(int(rng.integers(0, 4)))
    table = pd.DataFrame(np.hstack([low, low + rng.uniform(-5, 90, (rows, 2))]), columns=CORNERS)
    table["image_id"] = rng.choice(names[: images - 3], rows)
    table["confidence"] = table["value"] = rng.choice(np.round(rng.random(8), 9), rows)
    table["label"] = rng.choice(["Mass", "Nodule", "Effusion"], rows)
    again = table.sample(rows // 3, replace=True, random_state=seed).assign(label="Pneumonia")
    asked = rng.choice(names, images + 6)
    sizes = {name: (int(rng.integers(40, 300)), int(rng.integers(40, 300))) for name in names}
    return pd.concat([table, again]), mapping(*asked), sizes


def read_back(table):
    """The table in the file, its numbers parsed by Python and not by pandas' faster reader."""
    text = pd.read_csv(io.StringIO(submission_text(table)), dtype=str)
    return text.astype({"ID": int, **dict.fromkeys([*CORNERS, "confidence"], float)})


def test_no_candidates_are_answered_by_the_prior_and_no_ids_by_nothing():
    decision = decide(candidates(), mapping("2.png", "3.png"), PRIOR, SIZES)
    assert decision.fallback_ids == (11, 12)
    assert decision.table.values.tolist() == [
        [11, "2.png", 25, 100, 75, 150, 1e-6, "Cardiomegaly"],
        [12, "3.png", 16, 32, 48, 48, 1e-6, "Cardiomegaly"],
    ]
    nobody = decide(candidates(("1.png", A, 0.9, "Mass")), mapping(), PRIOR, {})
    assert (nobody.table.columns.tolist(), len(nobody.table), nobody.fallback_ids) == (ANSWER_COLUMNS, 0, ())


def test_each_id_gets_the_best_box_of_its_image_in_the_order_of_the_mapping():
    found = candidates(
        ("1.png", A, 0.2, "Mass"), ("2.png", A, 0.3, "Nodule"), ("1.png", B, 0.7, "Effusion"),
        ("elsewhere.png", A, 0.9, "Mass"),
    )  # fmt: skip
    decision = decide(found, mapping("2.png", "1.png"), PRIOR, SIZES)
    assert decision.fallback_ids == ()
    assert decision.table.values.tolist() == [
        [11, "2.png", *A, 0.3, "Nodule"],
        [12, "1.png", *B, 0.7, "Effusion"],
    ]
    assert decision.table["ID"].dtype == np.int64


def test_ids_of_one_image_get_different_boxes_and_the_same_corners_under_another_class_are_no_second_box():
    found = candidates(
        ("1.png", A, 0.9, "Mass"), ("1.png", A, 0.8, "Nodule"),
        ("1.png", (10.001, 10, 50, 50), 0.7, "Effusion"),  # the same once written
        ("1.png", B, 0.6, "Effusion"),
    )  # fmt: skip
    table = decide(found, mapping("1.png", "2.png", "1.png"), PRIOR, SIZES).table
    assert table[["label", "confidence"]].values.tolist() == [
        ["Mass", 0.9], ["Cardiomegaly", 1e-6], ["Effusion", 0.6],
    ]  # fmt: skip


def test_where_candidates_run_out_the_prior_goes_on_with_boxes_not_given_before():
    heart = candidates(("1.png", (25, 100, 75, 150), 0.9, "Mass"))
    decision = decide(heart, mapping("1.png", "1.png", "1.png"), PRIOR, SIZES)
    assert decision.fallback_ids == (12, 13)
    assert decision.table["label"].tolist() == ["Mass", "Effusion", "Cardiomegaly"]
    # Both boxes of the prior are given: the first again, at .8 of its sides 50 and 50 around (50, 125).
    assert decision.table[CORNERS].values.tolist()[2] == [30, 105, 70, 145]


def test_more_ids_than_different_boxes_are_an_error_that_names_the_image():
    with pytest.raises(KitError, match=r"1\.png"):
        decide(candidates(), mapping(*["1.png"] * 11), PRIOR, SIZES)


def test_the_value_chooses_and_the_confidence_is_written():
    found = candidates(("1.png", A, 0.9, "Mass"), ("1.png", B, 0.3, "Nodule"))
    found["value"] = [1.0, 2.0]
    table = decide(found, mapping("1.png", "1.png"), PRIOR, SIZES).table
    assert table[["label", "confidence"]].values.tolist() == [["Nodule", 0.3], ["Mass", 0.9]]


def test_boxes_are_clipped_to_the_image_and_those_without_area_there_are_passed_over():
    found = candidates(
        ("3.png", (64, 0, 90, 30), 0.9, "Mass"),  # wholly outside
        ("3.png", (5, 5, 5.004, 30), 0.8, "Mass"),  # 5.00 to 5.00 once written
        ("3.png", (-9, 10, 70, 99), 0.7, "Mass"),
    )
    assert decide(found, mapping("3.png"), PRIOR, SIZES).table.values.tolist() == [
        [11, "3.png", 0, 10, 64, 64, 0.7, "Mass"]
    ]


def test_confidence_stays_within_0_and_1():
    found = candidates(("1.png", A, 1.2, "Mass"), ("2.png", A, 0.0, "Mass"))
    assert decide(found, mapping("1.png", "2.png"), PRIOR, SIZES).table["confidence"].tolist() == [1, 0]


def test_of_equal_scores_the_first_candidate_answers():
    rows = [("1.png", A, 0.5, "Mass"), ("1.png", B, 0.5, "Nodule")]
    assert decide(candidates(*rows), mapping("1.png"), PRIOR, SIZES).table["label"].tolist() == ["Mass"]
    assert decide(candidates(*rows[::-1]), mapping("1.png"), PRIOR, SIZES).table["label"].tolist() == ["Nodule"]


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_a_single_id_gets_the_box_that_the_first_of_several_gets(seed):
    table, _, sizes = random_case(seed)
    once = mapping(*sorted(sizes))
    with_repeats = mapping(*sorted(sizes), *sorted(sizes)[:2])
    several = decide(table, with_repeats, PRIOR, sizes)
    assert_frame_equal(decide(table, once, PRIOR, sizes).table, several.table[: len(once)])


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_texts_as_categories_are_decided_alike(seed):
    table, _, sizes = random_case(seed)
    once, coded = mapping(*sorted(sizes)), table.astype({"image_id": "category", "label": "category"})
    assert_frame_equal(decide(coded, once, PRIOR, sizes).table, decide(table, once, PRIOR, sizes).table)


def test_every_image_may_have_a_prior_of_its_own():
    priors = {"1.png": Prior((HEART,)), "2.png": Prior((LUNG,))}
    table = decide(candidates(), mapping("1.png", "2.png"), priors, SIZES).table
    assert table["label"].tolist() == ["Cardiomegaly", "Effusion"]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_every_answer_lies_inside_its_image_and_no_image_gets_a_box_twice(seed):
    found, asked, sizes = random_case(seed)
    before = found.copy()
    decision = decide(found, asked, PRIOR, sizes)
    table = decision.table
    assert_frame_equal(table[["ID", "image_id"]], asked, check_dtype=False)
    width, height = np.array([sizes[name] for name in table["image_id"]]).T
    assert ((table["x_min"] >= 0) & (table["x_min"] < table["x_max"]) & (table["x_max"] <= width)).all()
    assert ((table["y_min"] >= 0) & (table["y_min"] < table["y_max"]) & (table["y_max"] <= height)).all()
    assert table["confidence"].between(0, 1).all()
    assert not table.duplicated(["image_id", *CORNERS]).any()
    fallen = table["ID"].isin(decision.fallback_ids)
    assert (table.loc[fallen, "confidence"] == 1e-6).all()
    assert_frame_equal(found, before)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_the_file_holds_the_very_numbers_of_the_table_so_that_both_score_alike(seed):
    found, asked, sizes = random_case(seed)
    table = decide(found, asked, PRIOR, sizes).table
    file = read_back(table)
    assert_frame_equal(file, table, check_dtype=False, check_exact=True)
    truth = answers_to_detections(table).drop(columns="score").sample(frac=0.5, random_state=seed)
    in_memory = score_detections(truth, answers_to_detections(table), asked["image_id"])
    assert score_detections(truth, answers_to_detections(file), asked["image_id"]) == in_memory


def test_the_submission_text_by_hand():
    table = decide(candidates(("1.png", A, 1 / 3, "Mass")), mapping("1.png", "2.png"), PRIOR, SIZES).table
    assert submission_text(table) == (
        "ID,image_id,x_min,y_min,x_max,y_max,confidence,label\n"
        "11,1.png,10.00,10.00,50.00,50.00,0.33333333,Mass\n"
        "12,2.png,25.00,100.00,75.00,150.00,0.00000100,Cardiomegaly\n"
    )
    nothing = decide(candidates(), mapping(), PRIOR, SIZES).table
    assert submission_text(nothing) == "ID,image_id,x_min,y_min,x_max,y_max,confidence,label\n"


def test_a_label_with_a_comma_survives_the_file():
    table = decide(candidates(("1.png", A, 0.5, 'Mass, "large"')), mapping("1.png"), PRIOR, SIZES).table
    assert read_back(table)["label"].tolist() == ['Mass, "large"']


def test_the_prior_is_the_median_box_and_ranks_by_recall_times_precision():
    sizes = {f"{number}.png": (100, 200) for number in range(4)}
    truth = truth_of(
        ("0.png", (20, 100, 60, 180), "Mass"), ("1.png", (20, 100, 60, 180), "Mass"),
        ("2.png", (22, 104, 62, 184), "Mass"), ("3.png", (0, 0, 10, 20), "Nodule"),
        ("0.png", (50, 100, 60, 120), "Nodule"),
    )  # fmt: skip
    mass, nodule = fit_prior(truth, sizes).ranked
    assert (mass.label, mass.box) == ("Mass", (0.2, 0.5, 0.6, 0.9))
    # Three of three boxes hit, on three of four images, in one of two classes.
    assert (mass.hit_rate, mass.value) == (1, pytest.approx(3 / 3 * 3 / 4 / 2))
    assert (nodule.label, nodule.box) == ("Nodule", (0.25, 0.25, 0.35, 0.35))
    assert (nodule.hit_rate, nodule.value) == (0, 0)


def test_the_prior_is_the_same_in_a_picture_of_another_size():
    small = truth_of(("1.png", (25, 50, 75, 150), "Mass"), ("1.png", (10, 10, 30, 60), "Nodule"))
    large = small.assign(**{name: small[name] * 3 for name in CORNERS})
    assert fit_prior(small, {"1.png": (100, 200)}) == fit_prior(large, {"1.png": (300, 600)})


def test_the_prior_survives_json_exactly(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (30, 2))
    truth = pd.DataFrame(np.hstack([low, low + rng.uniform(1, 50, (30, 2))]), columns=CORNERS)
    truth = truth.assign(image_id="1.png", label=rng.choice(["Mass", "Nodule", "Effusion"], 30))
    prior = fit_prior(truth, SIZES)
    write_record(tmp_path / "prior.json", prior)
    assert read_record(tmp_path / "prior.json", Prior, "") == prior


def test_a_prior_needs_a_box_and_boxes_need_an_area():
    with pytest.raises(KitError, match="location prior"):
        fit_prior(truth_of(), SIZES)
    with pytest.raises(KitError, match="location prior"):
        fit_prior(truth_of(("1.png", (5, 5, 5, 5), "Mass")), SIZES)
    with pytest.raises(ValueError, match="at least one"):
        Prior(())
    with pytest.raises(ValueError, match="ordered corners"):
        PriorBox("Mass", (0.5, 0.1, 0.4, 0.9), 0, 0)


def test_the_floor_gives_every_id_the_most_valuable_box_and_a_repeated_image_the_next():
    table = prior_answers(PRIOR, mapping("1.png", "2.png", "1.png"), SIZES, 0.5)
    assert table["label"].tolist() == ["Cardiomegaly", "Cardiomegaly", "Effusion"]
    assert table["confidence"].tolist() == [0.5] * 3


def test_validation_asks_as_the_test_does():
    truth = truth_of(("2.png", A, "Mass"), ("3.png", A, "Mass"), ("3.png", B, "Effusion"), ("1.png", C, "Nodule"))
    single = validation_mapping(truth, repeats=False)
    assert single.values.tolist() == [[1, "1.png"], [2, "2.png"]]
    assert one_box_truth(truth, single)["label"].tolist() == ["Mass", "Nodule"]
    repeated = validation_mapping(truth, repeats=True)
    assert repeated.values.tolist() == [[1, "1.png"], [2, "2.png"], [3, "3.png"], [4, "3.png"]]
    assert len(one_box_truth(truth, repeated)) == 4
    nothing = validation_mapping(truth_of(), repeats=False)
    assert (len(nothing), nothing["ID"].dtype, len(one_box_truth(truth, nothing))) == (0, np.int64, 0)


def test_what_is_validated_is_what_is_submitted():
    # Three candidates on each of two images, of which one box each is right. Scored with many boxes the lower
    # ones count too; the submission has one box per image, and so has its validation.
    found = candidates(
        ("1.png", A, 0.9, "Mass"), ("1.png", B, 0.8, "Nodule"),
        ("2.png", B, 0.7, "Nodule"), ("2.png", C, 0.6, "Mass"),
    )  # fmt: skip
    truth = truth_of(("1.png", A, "Mass"), ("2.png", C, "Mass"))
    many_boxes = score_detections(truth, found.rename(columns={"confidence": "score"}), ["1.png", "2.png"])
    asked = validation_mapping(truth, repeats=False)
    validated = decide(found, asked, PRIOR, SIZES).table
    one_box = score_detections(one_box_truth(truth, asked), answers_to_detections(validated), asked["image_id"])
    assert many_boxes.map50_area == 1
    assert one_box.map50_area == 1 / 2

    # The test's mapping, with IDs of its own, through the same call and through the file.
    submitted = read_back(decide(found, mapping("1.png", "2.png"), PRIOR, SIZES).table)
    assert_frame_equal(submitted.drop(columns="ID"), validated.drop(columns="ID"), check_dtype=False)
    assert score_detections(truth, answers_to_detections(submitted), ["1.png", "2.png"]) == one_box


def test_twenty_thousand_images_are_decided_in_one_go():
    rng = np.random.default_rng(0)
    names = [f"{number:05d}.png" for number in range(20_000)]
    low = rng.uniform(0, 90, (100_000, 2))
    found = pd.DataFrame(np.hstack([low, low + 5]), columns=CORNERS)
    found = found.assign(image_id=np.repeat(names, 5), value=rng.random(100_000), label="Mass")
    found["confidence"] = found["value"]
    decision = decide(found, mapping(*names), PRIOR, dict.fromkeys(names, (100, 100)))
    best = found.groupby("image_id")["value"].max()
    assert decision.table["confidence"].to_numpy() == pytest.approx(best.to_numpy(), abs=1e-8)
