"""Image scores as evidence: their columns by hand, what they bring where they know something, and as mere noise."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from stores import answered, classifier, detector, one_box_images

from kit.boxes.nearest_truth import hits_alone
from kit.choosing.calibration import best_rivals
from kit.choosing.devices import weigh_terms
from kit.choosing.image_evidence import DEVICE, evidence_columns, with_image_evidence
from kit.choosing.selection import SelectionRule, choose_rule, judge_out_of_fold, patient_groups
from kit.metrics.average_precision import mean_average_precision

IMAGES = 200
LEARNED = ("calibrated", "calibrated-frequency")
LABEL, ANOTHER = evidence_columns(["c"])


def table(*rows):
    return pd.DataFrame(rows, columns=["image_id", "label", "score"])


def test_no_candidates_and_no_scores_have_their_columns():
    candidates = table(("1.png", "Mass", 0.5))
    assert with_image_evidence(candidates.iloc[:0], {"c": candidates}).columns.tolist()[-2:] == [LABEL, ANOTHER]
    bare = with_image_evidence(candidates, {"c": candidates.iloc[:0]})
    assert bare[[LABEL, ANOTHER]].isna().all(axis=None)
    assert with_image_evidence(candidates, {}).equals(candidates)


def test_the_log_odds_of_the_candidates_label_and_of_the_best_other_one():
    candidates = table(
        ("1.png", "Mass", 0.5), ("1.png", "Nodule", 0.5), ("2.png", "Mass", 0.5), ("3.png", "Mass", 1)
    )
    candidates = pd.concat([candidates, table(("1.png", "Effusion", 0.5))], ignore_index=True)
    scores = table(
        ("1.png", "Mass", 0.9), ("1.png", "Nodule", 0.2), ("1.png", "Edema", 0.5), ("2.png", "Mass", 1.0)
    )
    seen = with_image_evidence(candidates, {"c": scores})
    most = np.log((1 - 1e-6) / 1e-6)
    assert seen[LABEL].tolist() == pytest.approx([np.log(9), np.log(0.25), most, np.nan, np.nan], nan_ok=True)
    assert seen[ANOTHER].tolist() == pytest.approx([0, np.log(9), np.nan, np.nan, np.log(9)], nan_ok=True)


def test_each_classifier_has_columns_of_its_own():
    candidates = table(("1.png", "Mass", 0.5))
    seen = with_image_evidence(candidates, {"c": candidates, "d": candidates.iloc[:0]})
    assert [*evidence_columns(["c", "d"])] == [LABEL, ANOTHER, "d: label", "d: another label"]
    assert seen[LABEL].tolist() == [0]
    assert seen["d: label"].isna().all()


def store(seed, auc):
    """Candidates of 200 images with the evidence of a classifier of this AUC; truth, patients, sizes, groups."""
    truth, patients, sizes = one_box_images(seed, IMAGES)
    scores = {"c": classifier(truth, seed + 2000, auc)}
    candidates = with_image_evidence(detector(truth, seed + 1000), scores)
    return candidates, truth, patients, sizes, patient_groups(truth, truth["image_id"], patients, seed)


def by_rule(seed, auc, columns):
    """Each rule's cross-fitted mAP with these columns as terms."""
    candidates, truth, _, sizes, groups = store(seed, auc)
    rules = judge_out_of_fold(candidates, truth, sizes, groups, columns)
    return {name: mean_average_precision(answered(rows, truth)) for name, rows in rules.items()}


def plain_by_rule(seed, auc, columns):
    """The mAP of a logistic model without penalty on the same features, through the same rules and groups."""
    candidates, truth, _, _, groups = store(seed, auc)
    right, group = hits_alone(truth, candidates, 0.5), candidates["image_id"].map(groups).to_numpy()
    odds = np.log(candidates["score"] / (1 - candidates["score"])).to_numpy()
    features = [odds, best_rivals(candidates, odds), pd.get_dummies(candidates["label"]), candidates[list(columns)]]
    features = np.column_stack(features).astype(float)
    found = {}
    for name in LEARNED:
        judged = []
        for number in range(5):
            learned, judging = group != number, group == number
            model = LogisticRegression(C=1e6, max_iter=5000).fit(features[learned], right[learned])
            shares = truth.loc[truth["image_id"].map(groups) != number, "label"].value_counts(normalize=True)
            p = model.predict_proba(features[judging])[:, 1]
            judged.append(SelectionRule(name, None, dict(shares)).valued(candidates[judging].assign(confidence=p)))
        found[name] = mean_average_precision(answered(pd.concat(judged).sort_index(), truth))
    return found


def gains(of, auc, draws):
    """What the evidence brings by rule, the mean over several stores."""
    drawn = [[of(seed, auc, columns) for columns in (evidence_columns(["c"]), ())] for seed in range(draws)]
    return {rule: np.mean([with_[rule] - without[rule] for with_, without in drawn]) for rule in LEARNED}


@pytest.mark.slow
@pytest.mark.parametrize("auc", [0.7, 0.85, 0.95])
def test_evidence_brings_nine_tenths_of_what_a_plain_logistic_model_makes_of_it(auc):
    ours, plain = gains(by_rule, auc, 20), gains(plain_by_rule, auc, 20)
    for rule in LEARNED:
        assert plain[rule] > 0
        assert ours[rule] >= 0.9 * plain[rule]


def test_evidence_makes_p_surer_of_what_is_right():
    candidates, truth, _, sizes, groups = store(0, 0.85)
    right = hits_alone(truth, candidates, 0.5)

    def surprise(columns):
        p = judge_out_of_fold(candidates, truth, sizes, groups, columns)["calibrated"]["confidence"].to_numpy()
        return -np.log(np.where(right, p, 1 - p)).mean()

    assert surprise(evidence_columns(["c"])) < 0.95 * surprise(())


def on_the_scored_path(seed, auc):
    """What the evidence brings through the rule that is used; it is left out if it is measurably worse."""
    candidates, truth, patients, sizes, groups = store(seed, auc)

    def scored(columns):
        rules = judge_out_of_fold(candidates, truth, sizes, groups, columns)
        matched = {name: answered(rows, truth) for name, rows in rules.items()}
        return matched[choose_rule(matched, patients, seed)[0]]

    kept, devices = weigh_terms({DEVICE: evidence_columns(["c"])}, scored, patients, seed)
    return (devices[DEVICE].with_ - devices[DEVICE].without) if kept else 0.0


@pytest.mark.parametrize("draws", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_evidence_that_is_noise_does_no_harm(draws):
    found = [on_the_scored_path(seed, 0.5) for seed in range(draws)]
    assert np.mean(found) == pytest.approx(0, abs=0.005)
    assert min(found) >= -0.02
