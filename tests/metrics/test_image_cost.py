"""What an image costs: by hand, and equal to scoring anew with the image's rows replaced."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.boxes.geometry import CORNERS
from kit.metrics.average_precision import match, mean_average_precision
from kit.metrics.image_cost import image_costs

COLUMNS = ["image_id", *CORNERS, "label"]
PLACES = [(0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50)]


def table(rows, *more):
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *more])
    return frame.astype(dict.fromkeys(CORNERS, float))


def test_without_images_or_true_boxes_nothing_is_lost():
    empty, none = table([]), table([], "score").astype({"score": float})
    assert image_costs(match(empty, none, [])) == {}
    lone = table([("a", 0, 0, 9, 9, "Mass", 0.5)], "score")
    assert image_costs(match(empty, lone, ["a", "b"])) == {"a": 0.0, "b": 0.0}


def test_a_missed_box_costs_what_finding_it_would_bring():
    truth = table([("a", *PLACES[0], "Mass"), ("b", *PLACES[0], "Mass")])
    found = table([("a", *PLACES[0], "Mass", 0.9), ("c", *PLACES[0], "Mass", 0.8)], "score")
    costs = image_costs(match(truth, found, ["a", "b", "c"]))
    # The curve reaches recall .5 at precision 1: 51 of 101 points. Repairing b reaches 1 at 1.
    # The false box on c lies behind the only hit, a has no error: neither costs anything.
    assert costs == pytest.approx({"a": 0, "b": 1 - 51 / 101, "c": 0})


def test_a_false_box_before_a_hit_costs_what_removing_it_would_bring():
    truth = table([("a", *PLACES[0], "Mass")])
    found = table([("a", *PLACES[0], "Mass", 0.5), ("b", *PLACES[0], "Mass", 0.8)], "score")
    # The hit comes second: precision 1/2 at every recall. Without b's box it is 1; a's own hit ranked first too.
    assert image_costs(match(truth, found, ["a", "b"])) == pytest.approx({"a": 0.5, "b": 0.5})


@given(st.integers(0, 10**6))
@settings(max_examples=12)
def test_the_cost_is_that_of_scoring_anew_with_the_image_replaced(seed):
    rng = np.random.default_rng(seed)
    names, labels = [f"{number}.png" for number in range(rng.integers(1, 7))], ["Mass", "Nodule", "Edema"]

    def drawn(count):
        return [
            (names[rng.integers(len(names))], *PLACES[rng.integers(3)], labels[rng.integers(3)])
            for _ in range(count)
        ]

    truth = table(drawn(rng.integers(0, 9))).drop_duplicates(ignore_index=True)
    found = table([(*row, rng.integers(1, 9) / 10) for row in drawn(rng.integers(0, 25))], "score")
    found = found.astype({"score": float})
    matches = match(truth, found, names)
    costs = image_costs(matches)
    before = mean_average_precision(matches)
    for name in names:
        perfect = truth[truth["image_id"] == name].assign(score=2.0)
        again = pd.concat([perfect, found[found["image_id"] != name]], ignore_index=True).astype({"score": float})
        gained = mean_average_precision(match(truth, again, names)) - before if len(truth) else 0.0
        assert costs[name] == pytest.approx(gained, abs=1e-12)


def test_many_images_are_repaired_in_blocks_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(20)]
    truth = table([(name, *PLACES[rng.integers(3)], "Mass") for name in names])
    found = table([(name, *PLACES[rng.integers(3)], "Mass", rng.random()) for name in names * 3], "score")
    whole = image_costs(match(truth, found, names))
    monkeypatch.setattr("kit.metrics.image_cost._IMAGES_AT_ONCE", 7)
    assert image_costs(match(truth, found, names)) == pytest.approx(whole)
