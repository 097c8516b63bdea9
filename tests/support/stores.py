"""Synthetic stores of detections whose right answer is known by construction."""

from statistics import NormalDist

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.metrics.average_precision import match

SIDE = 1000
LABELS = ("Effusion", "Mass", "Nodule", "Pneumonia")
# A true box lies in the first cell of a grid, a false candidate in one of the others: none overlaps another.
CELL, CELLS = 200, 25
COMMON_TO_RARE = (0.4, 0.3, 0.2, 0.1)


def one_box_images(seed, images=200, shares=COMMON_TO_RARE, per_patient=2):
    """Truth with one box on each image, the images' patients, and their sizes."""
    rng = np.random.default_rng(seed)
    names = [f"{number // per_patient:08d}_{number % per_patient:03d}.png" for number in range(images)]
    truth = pd.DataFrame(_boxes(np.zeros(images, dtype=int)), columns=CORNERS)
    truth.insert(0, "image_id", names)
    truth["label"] = rng.choice(LABELS[: len(shares)], images, p=shares)
    patients = {name: name[:8] for name in names}
    return truth, patients, dict.fromkeys(names, (SIDE, SIDE))


def detector(truth, seed, strength=2.0, false_per_image=5, shift=(0.0,) * 4, found=0.85):
    """Candidates of a detector that finds a share ``found`` of the boxes, among false ones of random classes.

    The evidence of a right candidate is normal around ``strength``, of a false one around 0, both with variance
    1. The score is its log-odds' sigmoid, moved by the class's ``shift``: with no shift, scores of all classes
    mean the same.
    """
    rng = np.random.default_rng(seed)
    labels = truth["label"].to_numpy(object)
    images = len(truth)
    kept = rng.random(images) < found
    false = np.repeat(np.arange(images), rng.poisson(false_per_image, images))
    image = np.concatenate([np.flatnonzero(kept), false])
    right = np.arange(len(image)) < kept.sum()
    wrong_labels = rng.choice(LABELS, len(false), p=COMMON_TO_RARE)
    table = pd.DataFrame(_boxes(np.where(right, 0, rng.integers(1, CELLS, len(image)))), columns=CORNERS)
    table["image_id"] = truth["image_id"].to_numpy(object)[image]
    table["label"] = np.concatenate([labels[kept], wrong_labels])
    evidence = rng.normal(np.where(right, strength, 0.0), 1)
    moved = dict(zip(LABELS, shift, strict=True))
    odds = strength * evidence - strength**2 / 2 + np.log(found / false_per_image)
    table["score"] = 1 / (1 + np.exp(-odds - table["label"].map(moved).to_numpy(float)))
    table["agreement"] = 1.0
    table = table.sort_values(["image_id", "score"], ascending=[True, False], kind="stable")
    return table[["image_id", *CORNERS, "score", "label", "agreement"]].reset_index(drop=True)


VIEWS = ("plain", "flip", "bright")


def independent_views(truth, seed, **detector_knobs):
    """Raw detections of three views that err independently: each finds boxes, and false ones, of its own."""
    knobs = {"found": 0.6, "false_per_image": 3, "strength": 1.5} | detector_knobs
    tables = [detector(truth, 100 * seed + number, **knobs).assign(view=view) for number, view in enumerate(VIEWS)]
    return pd.concat(tables, ignore_index=True).assign(run="a", fold=0)


def copied_views(truth, seed, noise=0.0, **detector_knobs):
    """Raw detections of three views that see the same; ``noise`` moves each score's log-odds, and little else."""
    rng = np.random.default_rng(seed)
    once = detector(truth, seed, **detector_knobs)
    odds = np.log(once["score"] / (1 - once["score"]))
    tables = [
        once.assign(view=view, score=1 / (1 + np.exp(-odds - rng.normal(0, noise, len(odds))))) for view in VIEWS
    ]
    return pd.concat(tables, ignore_index=True).assign(run="a", fold=0)


def best(judged):
    """One box per image: the highest value, with its confidence as score."""
    ordered = judged.sort_values(["image_id", "value"], ascending=[True, False], kind="stable")
    return ordered.drop_duplicates("image_id").assign(score=lambda rows: rows["confidence"])


def answered(judged, truth):
    return match(truth, best(judged), truth["image_id"])


def equal_up_to_rounding(more):
    """Two matchings of one score and the patients: the mean of their differences by class is 1e-17, not 0.

    The first finds 9, 7, 5, 2, 3 of each patient's 10 boxes of a class, the second as many of other classes; the
    difference lies above 0 if ``more``, else below. Each patient's images are alike, so every resample is.
    """
    names = [f"{patient}{number}" for patient in "ab" for number in range(10)]
    labels = "VWXYZ"
    box = dict(zip(CORNERS, (0.0, 0.0, 9.0, 9.0), strict=True))
    truth = pd.DataFrame([{"image_id": name, **box, "label": label} for name in names for label in labels])

    def finding(*counts):
        count = truth["label"].map(dict(zip(labels, counts, strict=True)))
        found = truth[truth["image_id"].str[1:].astype(int) < count]
        return match(truth, found.assign(score=0.5), names)

    pair = finding(9, 7, 5, 2, 3), finding(9, 2, 5, 3, 7)
    return (*(pair if more else pair[::-1]), {name: name[0] for name in names})


def _boxes(cell):
    low = np.stack([cell % 5, cell // 5], axis=1) * CELL + 20.0
    return np.hstack([low, low + 160.0])


def classifier(truth, seed, auc, labels=LABELS):
    """Scores of whole images: log-odds around 0 where the image lacks the label, higher where it shows it.

    Both are normal with variance 1, so far apart that the area under the ROC curve is ``auc``; .5 is noise.
    """
    rng = np.random.default_rng(seed)
    apart = 2**0.5 * NormalDist().inv_cdf(auc)
    table = pd.DataFrame(
        [(name, label) for name in truth["image_id"].unique() for label in labels], columns=["image_id", "label"]
    )
    shown = set(zip(truth["image_id"], truth["label"], strict=True))
    is_shown = np.array([pair in shown for pair in zip(table["image_id"], table["label"], strict=True)])
    return table.assign(score=1 / (1 + np.exp(-(rng.normal(apart * is_shown, 1) - 1))))
