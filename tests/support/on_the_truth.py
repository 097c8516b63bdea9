"""Every submission of a demo's folder scored on the synthetic test's truth, and against the first one.

python tests/support/on_the_truth.py demo
"""

import sys
from pathlib import Path

import pandas as pd

from kit.choosing import one_box
from kit.config import Config
from kit.data.competition import patients
from kit.data.synthetic.generator import TRUTH
from kit.metrics import average_precision, bootstrap
from kit.submission.folders import read_submissions

SEED = 0


def main(workspace: Path) -> None:
    """Print a line per submission: one-box mAP@0.5 with its 95% interval, and the paired difference."""
    truth = pd.read_csv(workspace / TRUTH)
    images = sorted(set(truth["image_id"]))
    people = patients(images, Config().data.patient_pattern, {})
    matched = {}
    for submission in read_submissions(workspace / "submissions"):
        answers = one_box.answers_to_detections(pd.read_csv(submission.csv))
        matched[f"{submission.number:04d} {submission.origin.message}"] = average_precision.match(
            truth, answers, images
        )
    first = next(iter(matched.values()))
    for name, matches in matched.items():
        level = bootstrap.map_intervals(matches, people, SEED).overall
        gain = bootstrap.paired_difference(matches, first, people, SEED).overall
        print(
            f"{name:28} {level.value:.3f} ({level.low:.3f} to {level.high:.3f})   "
            f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
