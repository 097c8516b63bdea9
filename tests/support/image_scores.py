"""The toy competition with detections and with image scores that were made elsewhere, and an ensemble of both."""

import numpy as np
import pandas as pd
from toy import TOY_TEST_IMAGES, toy_config

from kit.boxes.geometry import CORNERS

IDS = (f"competition.expected_ids={TOY_TEST_IMAGES}",)
COLUMNS = ["image_id", *CORNERS, "score", "label"]


def scores_of(workspace, seed=0):
    """A classifier's scores of all images and labels; it knows something."""
    from kit.data.competition import load_test, load_training

    data, test = load_training(workspace, toy_config()), load_test(workspace, toy_config())
    truth = pd.concat([data.annotations, pd.read_csv(workspace / "test_truth.csv")])
    shown = set(zip(truth["image_id"], truth["label"], strict=True))
    pairs = [(name, label) for name in (*data.image_ids, *test.image_ids) for label in data.labels]
    rng = np.random.default_rng(seed)
    odds = rng.normal([2.0 * (pair in shown) for pair in pairs], 1) - 1
    return pd.DataFrame(pairs, columns=["image_id", "label"]).assign(score=1 / (1 + np.exp(-odds)))


def boxes_of(workspace):
    """Detections: the true boxes, and as many of a wrong class with scores hardly lower, on both halves."""
    from kit.data.competition import load_training

    data = load_training(workspace, toy_config())
    right = pd.concat([data.annotations, pd.read_csv(workspace / "test_truth.csv")], ignore_index=True)
    rng = np.random.default_rng(1)
    wrong = right.assign(label=rng.permutation(right["label"].to_numpy()))
    table = pd.concat([right.assign(score=rng.uniform(0.25, 0.65, len(right))),
                       wrong.assign(score=rng.uniform(0.2, 0.6, len(right)))], ignore_index=True)  # fmt: skip
    return table.drop_duplicates(["image_id", *CORNERS, "label"])[COLUMNS]


def make(workspace):
    """Runs 'boxes' and 'scores', adopted from the files of their names, and 'both' of them."""
    from kit.runs.adoption import adopt
    from kit.runs.ensemble import ensemble
    from kit.runs.folder import Run
    from kit.runs.score_adoption import adopt_image_scores

    for name, table in (("boxes", boxes_of(workspace)), ("scores", scores_of(workspace))):
        (workspace / f"{name}.csv").write_text(table.to_csv(index=False))
    adopt(Run(workspace, "boxes"), workspace / "boxes.csv", assignments=IDS)
    adopt_image_scores(Run(workspace, "scores"), workspace / "scores.csv", assignments=IDS)
    ensemble(Run(workspace, "both"), ["boxes"], classifiers=["scores"])
