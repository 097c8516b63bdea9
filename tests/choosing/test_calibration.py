"""p(true positive): nothing to learn, equal to scikit-learn, rising with the score, known probabilities."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from stores import detector, one_box_images
from threadpoolctl import threadpool_limits

from kit.boxes.geometry import CORNERS
from kit.boxes.nearest_truth import hits_alone
from kit.choosing.calibration import (
    LEAST_HITS,
    PRIOR_HITS,
    TIE_SHARE,
    Calibration,
    ClassTerms,
    Curve,
    ExtraTerm,
    _isotonic,
    _ridge_logistic,
    best_rivals,
    evidence,
    fit,
    probability,
)
from kit.core.json_files import read_record, write_record

SIZES = {"1.png": (100, 100)}
HALF_SIDE = (0, 0, 25, 100)  # a quarter of the image: its side is a half


def case(seed, images=300, shift=(0.0,) * 4):
    """Candidates of many sizes whose scores also depend on the agreement, whether right, and the image sizes."""
    truth, _, sizes = one_box_images(seed, images)
    table = detector(truth, seed + 1, shift=shift)
    right = hits_alone(truth, table, 0.5)
    rng = np.random.default_rng(seed + 2)
    shrink = rng.uniform(0.1, 1, len(table)) ** (1 + right)
    table["x_max"] = table["x_min"] + shrink * (table["x_max"] - table["x_min"])
    table["agreement"] = rng.integers(1, 6, len(table)) / 5
    return table, right, sizes


def one(score, label="Mass", agreement=1.0, box=HALF_SIDE):
    columns = ["image_id", *CORNERS, "score", "label", "agreement"]
    return pd.DataFrame([("1.png", *box, score, label, agreement)], columns=columns)


def test_without_a_right_and_a_wrong_candidate_there_is_nothing_to_learn():
    table, right, sizes = case(0, 20)
    assert fit(table.iloc[:0], right[:0], sizes) is None
    assert fit(table[right], right[right], sizes) is None
    assert fit(table[~right], right[~right], sizes) is None


def test_no_candidates_have_no_probability():
    learned = fit(*case(0, 40))
    assert probability(learned, case(0, 40)[0].iloc[:0], {}).shape == (0,)


def test_the_arithmetic_by_hand():
    learned = Calibration(
        constant=-0.5, score=2.0, rival=-0.3, agreement=0.5,
        terms={"Mass": ClassTerms(offset=1.0, size=3.0, square=0.25)},
        pooled=Curve((0.0, 10.0), (0.0, 1.0), 0.75), curves={"Nodule": Curve((-1.0, 1.0), (0.2, 0.4), 1.0)},
    )  # fmt: skip
    size = np.log(0.5) + 1.5
    alone = -0.3 * np.log(0.001 / 0.999)
    expected = 2 * np.log(0.6 / 0.4) + 0.5 * 0.8 + 1 + 3 * size + 0.25 * size**2
    assert evidence(learned, one(0.6, agreement=0.8), SIZES)[0] == pytest.approx(expected + alone)
    pair = pd.concat([one(0.6, agreement=0.8), one(0.9, "Nodule"), one(0.1, "Nodule")])
    seen = expected - 0.3 * np.log(9)
    assert evidence(learned, pair, SIZES)[0] == pytest.approx(seen)
    assert probability(learned, pair, SIZES)[0] == pytest.approx(
        (1 - TIE_SHARE) * (0.75 * seen / 10 + 0.25 / (1 + np.exp(0.5 - seen))) + TIE_SHARE * 0.6
    )
    # A class without terms has the score, the rival and the agreement alone; its own curve is flat past its ends.
    far = 2 * np.log(9) - 0.3 * np.log(0.6 / 0.4) + 0.5
    assert evidence(learned, pair, SIZES)[1] == pytest.approx(far)
    assert probability(learned, pair, SIZES)[1] == pytest.approx((1 - TIE_SHARE) * 0.4 + TIE_SHARE * 0.9)


def test_the_best_rival_is_of_another_class_on_the_same_image():
    table = pd.concat([one(0.9), one(0.5), one(0.3, "Nodule"), one(0.2, "Effusion"), one(0.8, "Nodule")])
    table["image_id"] = ["1.png"] * 4 + ["2.png"]
    odds = np.array([4.0, 1.0, -1.0, -2.0, 3.0])
    none = np.log(0.001 / 0.999)
    assert best_rivals(table, odds).tolist() == pytest.approx([-1.0, -1.0, 4.0, 4.0, none])
    assert best_rivals(table.iloc[:2], odds[:2]).tolist() == pytest.approx([none, none])
    assert best_rivals(table.iloc[:0], odds[:0]).shape == (0,)


def test_of_two_classes_that_are_taken_for_each_other_p_knows_that_one_is_wrong():
    # Each image has one box and two candidates on it, of the true class and of its double; only the difference
    # of their scores says which is right, and many images are faint as a whole.
    rng = np.random.default_rng(0)
    images = 600
    common = rng.normal(-2, 2, images)
    apart = rng.normal(1, 1, images)
    parts = []
    for half, label in ((0.5, "Mass"), (-0.5, "Nodule")):
        score = 1 / (1 + np.exp(-(common + half * apart)))
        parts.append(pd.concat([one(0.5, label)] * images, ignore_index=True).assign(score=score))
        parts[-1]["image_id"] = [f"{number}.png" for number in range(images)]
    table = pd.concat(parts, ignore_index=True)
    right = np.repeat([True, False], images)
    swapped = rng.random(images) < 0.5  # so that neither class is the right one more often
    table["label"] = np.where(np.tile(swapped, 2), table["label"].map({"Mass": "Nodule", "Nodule": "Mass"}),
                              table["label"])  # fmt: skip
    sizes = dict.fromkeys(table["image_id"], (100, 100))
    learned = fit(table, right, sizes)
    assert learned.rival < -0.5
    p = probability(learned, table, sizes)
    # Nothing but the difference counts: the best p of a faint image is as high as that of a bright one.
    best = np.maximum(p[:images], p[images:])
    assert abs(np.corrcoef(best, common)[0, 1]) < 0.2
    assert best.mean() == pytest.approx((p[:images] > p[images:]).mean(), abs=0.05)


@pytest.mark.parametrize("share", [1.0, 0.05], ids=["hits", "rare hits"])
@pytest.mark.parametrize("seed", [0, 1])
def test_our_lines_of_numpy_equal_scikit_learn(seed, share):
    table, right, sizes = case(seed)
    right &= np.random.default_rng(seed).random(len(right)) < share
    learned = fit(table, right, sizes)
    labels = sorted(table["label"].unique())
    own = np.array([[label == each for each in labels] for label in table["label"]], dtype=float)
    score = table["score"].to_numpy()
    odds = np.log(score / (1 - score))
    sides = (table["x_max"] - table["x_min"]) * (table["y_max"] - table["y_min"])
    size = np.log(np.sqrt(sides.to_numpy()) / 1000)[:, None] + 1.5
    rival = best_rivals(table, odds)
    columns = [odds[:, None], rival[:, None], table[["agreement"]], own, own * size, own * size**2]
    theirs = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(np.hstack(columns), right)
    seen = evidence(learned, table, sizes)
    expected = theirs.decision_function(np.hstack(columns)) - theirs.intercept_[0]
    assert seen == pytest.approx(expected, abs=1e-6)
    modelled = theirs.predict_proba(np.hstack(columns))[:, 1]

    p = (probability(learned, table, sizes) - TIE_SHARE * score) / (1 - TIE_SHARE)
    for label in labels:
        rows = (table["label"] == label).to_numpy()
        few = right[rows].sum() < LEAST_HITS
        assert (label in learned.curves) != few
        pool = np.ones(len(table), dtype=bool) if few else rows
        steps = IsotonicRegression().fit_transform(seen[pool], right[pool])
        blocks = pd.DataFrame({"p": steps, "at": seen[pool]}).groupby("p").mean()
        between = IsotonicRegression(out_of_bounds="clip").fit(blocks["at"].to_numpy(), blocks.index.to_numpy())
        trust = right[pool].sum() / (right[pool].sum() + PRIOR_HITS)
        wanted = trust * between.predict(seen[rows]) + (1 - trust) * modelled[rows]
        assert p[rows] == pytest.approx(wanted, abs=1e-6)


def test_a_class_with_few_hits_is_read_off_the_curve_of_all():
    table, right, sizes = case(3, images=60)
    hits = table["label"][right].value_counts()
    learned = fit(table, right, sizes)
    assert set(learned.curves) == set(hits[hits >= LEAST_HITS].index) < set(hits.index)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([10, 40, 300]))
def test_within_a_class_p_rises_strictly_with_the_score_where_all_else_is_equal(seed, images):
    table, right, sizes = case(seed, images)
    learned = fit(table, right, sizes)
    scores = np.sort(np.random.default_rng(seed).random(200))
    for label in ("Mass", "Nodule", "never seen"):
        row = one(0.5, label).iloc[[0] * 200].assign(score=scores).reset_index(drop=True)
        p = probability(learned, row, SIZES)
        assert (np.diff(p) > 0).all()
        assert ((p >= 0) & (p <= 1)).all()


def test_scores_of_exactly_0_and_1_are_no_harm():
    learned = fit(*case(4, 100))
    low, high = (probability(learned, one(score), SIZES)[0] for score in (0.0, 1.0))
    assert 0 <= low < high <= 1


def test_scores_that_mislead_still_order_the_candidates():
    table, right, sizes = case(5, 200)
    table["score"] = 1 - table["score"]
    learned = fit(table, right, sizes)
    assert (learned.score, learned.terms) == (1, {})
    assert (np.diff(probability(learned, pd.concat([one(0.2), one(0.4), one(0.9)]), SIZES)) > 0).all()


def test_a_further_column_stays_a_term_where_scores_mislead():
    table, right, sizes = case(8)
    table["score"] = 1 - table["score"]
    table["extra"] = 6.0 * right + np.random.default_rng(9).normal(0, 1, len(table))
    without, learned = (fit(table, right, sizes, extra) for extra in ((), ("extra",)))
    assert (learned.score, learned.extra["extra"].factor > 0) == (1.0, True)
    gaps = []
    for model in (without, learned):
        p = probability(model, table, sizes)
        gaps.append(p[right].mean() - p[~right].mean())
    assert gaps[1] > gaps[0] + 0.1


def test_the_numbers_survive_json_exactly(tmp_path):
    table, right, sizes = case(6, 100)
    learned = fit(table, right, sizes)
    write_record(tmp_path / "learned.json", learned)
    again = read_record(tmp_path / "learned.json", Calibration, "")
    assert again == learned
    assert (probability(again, table, sizes) == probability(learned, table, sizes)).all()


def test_scores_moved_apart_by_class_come_back_together():
    # One class's log-odds are 3 too high, another's 2 too low: on new images p is right on average, class by
    # class, in the upper and in the lower half of its candidates.
    shift = (3.0, 0.0, -2.0, 0.0)
    table, right, sizes = case(7, 2000, shift)
    learned = fit(table, right, sizes)
    new, right, sizes = case(1007, 2000, shift)
    p = probability(learned, new, sizes)
    for label in ("Effusion", "Mass", "Nodule"):
        rows = (new["label"] == label).to_numpy()
        high = p[rows] > np.median(p[rows])
        assert p[rows][high].mean() == pytest.approx(right[rows][high].mean(), abs=0.03)
        assert p[rows][~high].mean() == pytest.approx(right[rows][~high].mean(), abs=0.03)


def with_extra(table, right, seed, missing=0.0):
    """The candidates with a column that knows something of what is right, a share of its values missing."""
    rng = np.random.default_rng(seed)
    known = rng.random(len(table)) >= missing
    return table.assign(seen=np.where(known, rng.normal(40 + 2.0 * right, 1), np.nan))


def test_the_factors_are_the_same_to_the_last_bit_with_any_number_of_threads():
    rng = np.random.default_rng(0)
    rows = 20_000  # with so many columns their sums are divided among the threads
    shared, own = np.ones((rows, 1)), rng.normal(size=(rows, 27))
    right = rng.random(rows) < 1 / (1 + np.exp(2 - own[:, 0]))
    learned = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            learned.append(_ridge_logistic(shared, own, np.zeros(rows, dtype=np.int64), right)[1].tolist())
    assert learned[0] == learned[1]


def test_a_score_that_is_no_number_is_refused():
    table, right, sizes = case(0, 40)
    table.loc[3, "score"] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit(table, right, sizes)


def exact_steps(x, right):
    """The isotonic regression by pooling adjacent violators, in fractions: middles and heights of the steps."""
    steps = []
    for at in sorted(set(x.tolist())):
        here = x == at
        steps.append((Fraction(int(right[here].sum())), int(here.sum()), Fraction(at) * int(here.sum())))
        while len(steps) > 1 and steps[-2][0] / steps[-2][1] >= steps[-1][0] / steps[-1][1]:
            last = steps.pop()
            steps[-1] = tuple(one + other for one, other in zip(steps[-1], last, strict=True))
    return [float(total / count) for _, count, total in steps], [float(hits / count) for hits, count, _ in steps]


def evidence_with_ties():
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, rng.integers(2, 40), rng.integers(2, 60)) / 7
        yield x, rng.random(len(x)) < rng.random()


def equal_steps():
    """Two neighbouring steps of one height, which scipy's running means leave apart."""
    for seed, share in ((325, 0.5), (495, 0.3), (1148, 0.3), (1323, 0.3)):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(300, 3000))
        yield np.arange(count) / 1, rng.random(count) < share


@pytest.mark.parametrize("cases", [evidence_with_ties, equal_steps])
def test_the_curve_is_the_isotonic_regression_in_exact_fractions_joined_at_the_middles_of_its_steps(cases):
    for x, right in cases():
        curve = _isotonic(x, right, 10)
        middles, heights = exact_steps(x, right)
        assert curve.p == tuple(heights)
        assert curve.at == pytest.approx(middles)


def test_steps_that_are_apart_by_the_last_bit_alone_keep_their_order():
    for at in np.random.default_rng(0).uniform(-8, 8, 300):
        x = np.repeat([at, np.nextafter(at, 9)], [6, 13])
        assert _isotonic(x, x > at, 150).at == (at, np.nextafter(at, 9))


def test_a_further_column_is_a_term_by_its_name_and_its_arithmetic_by_hand():
    learned = Calibration(
        constant=0.0, score=1.0, rival=0.0, agreement=0.0, terms={}, pooled=Curve((0.0,), (0.0,), 0.0), curves={},
        extra={"seen": ExtraTerm(factor=0.5, usual=40.0, missing=-0.25, lowest=30.0, highest=44.0)},
    )  # fmt: skip
    table = pd.concat([one(0.5)] * 5).assign(seen=[44.0, 40.0, np.nan, 1e9, -np.inf])
    assert evidence(learned, table, SIZES).tolist() == pytest.approx([0.5 * 4, 0.0, -0.25, 0.5 * 4, -5.0])
    assert evidence(learned, one(0.5), SIZES).tolist() == pytest.approx([-0.25])  # a table without the column


def test_a_further_column_equals_scikit_learn_on_its_standard_form():
    table, right, sizes = case(0, 60)
    table = with_extra(table, right, 0, missing=0.3)
    learned = fit(table, right, sizes, ["seen"])
    values = table["seen"].to_numpy()
    known = ~np.isnan(values)
    apart = np.where(known, (values - values[known].mean()) / values[known].std(), 0)
    bare = [np.log(table["score"] / (1 - table["score"])), table["agreement"]]
    bare.insert(1, best_rivals(table, bare[0].to_numpy()))
    own = np.array([[label == each for each in sorted(set(table["label"]))] for label in table["label"]], float)
    sides = (table["x_max"] - table["x_min"]) * (table["y_max"] - table["y_min"])
    size = np.log(np.sqrt(sides.to_numpy()) / 1000)[:, None] + 1.5
    columns = np.hstack([np.stack(bare, axis=1), own, own * size, own * size**2])
    columns = np.hstack([columns, np.stack([apart, ~known], axis=1) / np.sqrt(3)])  # a ridge of 3
    theirs = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(columns, right)
    expected = theirs.decision_function(columns) - theirs.intercept_[0]
    assert evidence(learned, table, sizes) == pytest.approx(expected, abs=1e-6)


def test_a_missing_value_is_not_that_of_0_and_a_column_without_any_value_says_nothing():
    table, right, sizes = case(1, 100)
    some = with_extra(table, right, 1, missing=0.3)
    some.loc[right & some["seen"].isna(), "seen"] = 42.0  # only wrong candidates have none
    learned = fit(some, right, sizes, ["seen"])
    term = learned.extra["seen"]
    assert term.factor > 0.5
    assert term.missing < -0.3
    assert term.missing > term(np.array([0.0]))[0]
    none = fit(table.assign(seen=np.nan), right, sizes, ["seen"])
    assert none.extra["seen"] == ExtraTerm(0.0, 0.0, 0.0, 0.0, 0.0)
    alike = fit(table.assign(seen=7.0), right, sizes, ["seen"])
    assert alike.extra["seen"] == ExtraTerm(0.0, 7.0, 0.0, 7.0, 7.0)


@pytest.mark.parametrize("known", [7, 75, 100, 250])
@pytest.mark.parametrize("value", [0.1, 0.3, math.log(9), -math.log(4), 13.815509557963774])
def test_a_column_whose_values_are_one_number_has_no_factor_and_others_than_it_change_nothing(value, known):
    """The mean of equal numbers may be rounded, and their deviation above 0."""
    table, right, sizes = case(1, 100)
    column = np.full(len(table), np.nan)
    column[:known] = value
    column[0] = np.nextafter(value, 99)  # as a mean over several models gives
    right[known:] &= np.random.default_rng(0).random(len(right) - known) < 0.2  # missing says something
    learned = fit(table.assign(seen=column), right, sizes, ["seen"])
    assert learned.extra["seen"].factor == 0.0
    assert learned.extra["seen"].missing < 0
    p = [probability(learned, table.assign(seen=seen), sizes) for seen in (value, value + 0.5, value - 0.5)]
    assert np.array_equal(p[0], p[1]) and np.array_equal(p[0], p[2])


def test_values_far_from_all_that_were_learned_from_count_as_the_nearest_of_them():
    table, right, sizes = case(2, 100)
    table = table.assign(seen=2.0 + 1e-3 * np.random.default_rng(0).normal(size=len(table)) + 1e-3 * right)
    learned = fit(table, right, sizes, ["seen"])
    edges = table["seen"].min(), table["seen"].max()
    for edge, beyond in zip(edges, (-5.0, 9.0), strict=True):
        p = [probability(learned, table.assign(seen=seen), sizes) for seen in (edge, beyond)]
        assert np.array_equal(*p)


def test_the_unit_of_a_further_column_does_not_matter_and_its_term_survives_json(tmp_path):
    table, right, sizes = case(2, 100)
    table = with_extra(table, right, 2, missing=0.1)
    learned = fit(table, right, sizes, ["seen"])
    scaled = table.assign(seen=1000 * table["seen"] - 5)
    p = probability(learned, table, sizes)
    assert probability(fit(scaled, right, sizes, ["seen"]), scaled, sizes) == pytest.approx(p, abs=1e-6)
    write_record(tmp_path / "learned.json", learned)
    assert read_record(tmp_path / "learned.json", Calibration, "") == learned


def test_without_further_columns_nothing_changes():
    table, right, sizes = case(3, 100)
    bare, beside = fit(table, right, sizes), fit(with_extra(table, right, 3), right, sizes)
    assert bare == beside
    assert bare.extra == {}
