"""Groups are dealt to folds whole, and what they hold is spread evenly."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.choosing.balanced_folds import balanced_folds, count_boxes, random_orders


def test_no_boxes_and_no_groups_are_no_counts():
    none = pd.DataFrame({"image_id": [], "label": []}, dtype=object)
    assert count_boxes(none, [])[1].shape == (0, 1)
    assert balanced_folds(np.zeros((0, 1), dtype=np.int64), 5, 0)[0].tolist() == []
    labels, counts = count_boxes(none, [["a"], ["b", "c"]])
    assert (labels, counts.tolist()) == ([], [[1], [2]])


def test_counts_are_the_boxes_of_each_label_and_the_images():
    boxes = pd.DataFrame([("a", "Mass"), ("c", "Mass"), ("c", "Effusion")], columns=["image_id", "label"])
    labels, counts = count_boxes(boxes, [["a", "b"], ["c"]])
    assert labels == ["Effusion", "Mass"]
    assert counts.tolist() == [[0, 1, 2], [1, 1, 1]]


def test_the_largest_group_comes_first_and_the_others_fill_the_other_fold():
    # 4 images, then 2 + 1 + 1: adding to the fold of 4 would cost 2 * 4 * g, to the other less.
    fold_of, filled = balanced_folds(np.array([[1], [4], [2], [1]]), 2, seed=0)
    assert len(set(fold_of[[0, 2, 3]])) == 1 and fold_of[1] != fold_of[0]
    assert filled.tolist() == [[4], [4]]


def test_the_first_order_is_that_of_the_seed_alone():
    assert random_orders(9, 3, 2)[0].tolist() == np.random.default_rng(3).permutation(9).tolist()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(0, 60))
def test_what_the_folds_hold_is_what_their_groups_hold(seed, folds, groups):
    counts = np.random.default_rng(seed).integers(1, 9, (groups, 3))
    fold_of, filled = balanced_folds(counts, folds, seed, candidates=4)
    assert filled.tolist() == [counts[fold_of == fold].sum(axis=0).tolist() for fold in range(folds)]
    if groups > 3 * folds:
        assert (
            filled[:, -1].max() - filled[:, -1].min()
        ) <= 2 * 8  # the largest group twice: 11 at most in 1,500 draws
