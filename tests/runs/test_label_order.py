"""Labels in another order than the truth's are told from those of a weak detector."""

import numpy as np
import pandas as pd
import pytest

from kit.boxes.geometry import CORNERS
from kit.runs.label_order import agreement, labels_on_truth, other_order

LABELS = ["Atelectasis", "Effusion", "Mass", "Nodule", "Pneumonia"]


def pairs_of(found, true):
    return pd.DataFrame({"label": found, "true_label": true})


def test_no_boxes_have_no_order():
    truth = pd.DataFrame([("a.png", 0.0, 0.0, 9.0, 9.0, "Mass")], columns=["image_id", *CORNERS, "label"])
    pairs = labels_on_truth(truth.assign(score=1.0)[:0], truth)
    assert len(pairs) == 0
    assert (agreement(pairs), other_order(pairs)) == ("0 of 0", "")


def test_the_surest_box_of_an_image_that_lies_on_a_true_one_counts():
    columns = ["image_id", *CORNERS, "label"]
    truth = pd.DataFrame([("a.png", 0, 0, 10, 10, "Mass"), ("a.png", 50, 50, 60, 60, "Nodule")], columns=columns)
    rows = pd.DataFrame(
        [("a.png", 0, 0, 10, 9, "Mass", 0.3),
         ("a.png", 50, 50, 60, 59, "Effusion", 0.6),
         ("a.png", 30, 30, 40, 40, "Mass", 0.9)],
        columns=[*columns, "score"],
    )  # fmt: skip
    assert labels_on_truth(rows, truth).to_numpy().tolist() == [["Effusion", "Nodule"]]
    assert labels_on_truth(rows[::2], truth).to_numpy().tolist() == [["Mass", "Mass"]]


@pytest.mark.parametrize(
    "order", [[4, 3, 2, 1, 0], [1, 2, 3, 4, 0], [1, 0, 3, 4, 2]], ids=["back", "shift", "swap"]
)
def test_another_order_is_named_also_if_a_box_in_ten_is_confused(order):
    true = [LABELS[i % 5] for i in range(40)]
    found = [LABELS[order[i % 5]] for i in range(40)]
    found[::13] = [LABELS[0]] * 4
    said = other_order(pairs_of(found, true))
    assert "have it if they are read in another order" in said
    assert f"{LABELS[order[1]]} as {LABELS[1]}" in said
    assert "Mass as Mass" not in said
    assert other_order(pairs_of(true, true)) == ""


@pytest.mark.parametrize("shares", [[0.2] * 5, [0.6, 0.1, 0.1, 0.1, 0.1], [0.8, 0.05, 0.05, 0.05, 0.05]])
@pytest.mark.parametrize("labels", [2, 5])
def test_a_detector_that_guesses_its_labels_is_no_false_alarm(labels, shares):
    rng = np.random.default_rng(0)
    shares = np.array(shares[:labels]) / sum(shares[:labels])
    for count in (20, 32, 100):
        for _ in range(20):
            true = rng.choice(LABELS[:labels], count, p=shares)
            for found in (rng.choice(LABELS[:labels], count), rng.choice(LABELS[:labels], count, p=shares)):
                assert other_order(pairs_of(found, true)) == ""


@pytest.mark.parametrize("label", LABELS)
def test_a_detector_of_one_label_is_no_false_alarm(label):
    true = [LABELS[i % 5] for i in range(40)]
    assert other_order(pairs_of([label] * 40, true)) == ""
    assert other_order(pairs_of([label] * 40, ["Mass"] * 40)) == ""


def test_few_boxes_say_nothing():
    assert other_order(pairs_of(["Mass", "Nodule"] * 9, ["Nodule", "Mass"] * 9)) == ""
    assert other_order(pairs_of(["Mass", "Nodule"] * 10, ["Nodule", "Mass"] * 10)) != ""
