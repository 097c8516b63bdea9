"""What the exact fit of the calibration is worth, against that of scikit-learn's default solver.

python tests/support/two_fits.py [REPEATS]

Simulated detectors, 40 false candidates an image, scores of two classes too high or too low: the rules are fitted
on 52, 150 or 348 images, once with each fit, and judge 600 other images. Prints a row of a Markdown table for each:
the mean score of both, the mean of the paired differences with its 95% interval, and the largest one.
"""

import sys
from unittest.mock import patch

import numpy as np
from sklearn.linear_model import LogisticRegression
from stores import answered, detector, one_box_images

from kit.choosing import calibration
from kit.choosing.selection import fit_rules
from kit.metrics.average_precision import mean_average_precision

LEARNED, JUDGED = (52, 150, 348), 600
RULES = ("calibrated", "calibrated-frequency")


def of_scikit_learn(shared, own, number, right):
    """The same model as ``_ridge_logistic``, by the solver lbfgs with its usual tolerance."""
    is_class = np.eye(number.max() + 1)[number]
    design = np.hstack([shared[:, 1:], *(is_class * column[:, None] for column in own.T)])
    model = LogisticRegression(max_iter=1000).fit(design, right)
    factors = model.coef_[0]
    last = shared.shape[1] - 1
    return np.append(model.intercept_, factors[:last]), factors[last:].reshape(own.shape[1], -1).T


def store(seed, images):
    """The truth of an image each, candidates, and the images' sizes."""
    truth, _, sizes = one_box_images(seed, images)
    return truth, detector(truth, seed + 1, strength=1.5, false_per_image=40, shift=(2.0, 0.0, -2.0, 0.0)), sizes


def scores(seed, images):
    """By rule the scores of both fits on other images: ours, scikit-learn's."""
    truth, table, sizes = store(seed, images)
    other_truth, other_table, other_sizes = store(seed + 5000, JUDGED)
    ours = fit_rules(table, truth, sizes)
    with patch.object(calibration, "_ridge_logistic", of_scikit_learn):
        theirs = fit_rules(table, truth, sizes)
    return {
        name: [
            mean_average_precision(answered(rules[name].judge(other_table, other_sizes), other_truth))
            for rules in (ours, theirs)
        ]
        for name in RULES
    }


def main(repeats):
    for images in LEARNED:
        found = [scores(seed, images) for seed in range(repeats)]
        for name in RULES:
            ours, theirs = np.array([one[name] for one in found]).T
            apart = ours - theirs
            half = 1.96 * apart.std(ddof=1) / np.sqrt(repeats)
            cells = (
                str(images), name, f"{ours.mean():.4f}", f"{theirs.mean():.4f}",
                f"{apart.mean():+.4f} ({apart.mean() - half:+.4f} to {apart.mean() + half:+.4f})",
                f"{np.abs(apart).max():.4f}",
            )  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
