"""Terms of p about the place, and factors on the sides, tried on all images that a demo's run was not trained on.

python tests/support/places_tried.py demo
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.choosing import one_box
from kit.choosing.box_scale import fit_box_scale, scaled_out_of_fold
from kit.choosing.location_prior import fit_prior
from kit.choosing.places import PLACE_COLUMNS, fit_places, with_places
from kit.choosing.selection import judge_out_of_fold, patient_groups
from kit.config import Config, FusionConfig
from kit.data.competition import load_test, load_training, patients
from kit.data.synthetic.generator import TRUTH
from kit.metrics.average_precision import match, mean_average_precision
from kit.metrics.bootstrap import paired_difference
from kit.runs.folder import Run, read_split
from kit.runs.members import fused, members
from kit.schemas.detections import with_categories
from kit.schemas.image_headers import image_sizes

SEEDS = (0, 1, 2)  # of the five groups of patients
RULES = ("calibrated-frequency", "calibrated")
FUSIONS = (FusionConfig("suppress", 0.3), FusionConfig("wbf", 0.4))
TERMS = ((), *((name,) for name in PLACE_COLUMNS), PLACE_COLUMNS)


def main(workspace: Path) -> None:
    """Print a line per fusion, terms and rule: the one-box mAP, the gain over no terms, and its interval."""
    run = Run(workspace, "demo")
    training, test = load_training(workspace, Config()), load_test(workspace, Config())
    held = set(read_split(run).validation)
    is_held = training.annotations["image_id"].isin(held)
    table = pd.concat([training.annotations[is_held], pd.read_csv(workspace / TRUTH)], ignore_index=True)
    boxes = table.groupby("image_id")["image_id"].transform("size")
    truth = table[boxes == 1][["image_id", *CORNERS, "label"]].reset_index(drop=True)
    images = sorted(truth["image_id"])
    sizes = image_sizes(training.pixels.facts) | image_sizes(test.pixels.facts)
    rows = pd.concat([pd.read_parquet(run.detections(half)) for half in ("validation", "test")], ignore_index=True)
    mapping = one_box.validation_mapping(truth, repeats=False)
    learned = training.annotations[~is_held]
    prior, people = fit_prior(learned, sizes), patients(images, Config().data.patient_pattern, {})

    def answered(judged):
        answers = one_box.decide(judged, mapping, prior, sizes)
        return match(truth, one_box.answers_to_detections(answers.table), images)

    def show(name, tried, usual):
        scores, before = ([mean_average_precision(found) for found in each] for each in (tried, usual))
        gap = paired_difference(tried[0], usual[0], people, 0).overall
        gain = np.mean(scores) - np.mean(before)
        print(f"{name:60} {np.mean(scores):.3f}   {gain:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})", flush=True)

    print(f"{len(images)} images with one box; gains against no terms, in brackets the first draw's interval")
    for fusion in FUSIONS:
        candidates = fused(with_categories(rows), members(run), fusion)
        candidates = candidates[candidates["image_id"].isin(images)].reset_index(drop=True)
        candidates = with_places(candidates, fit_places(learned, sizes), sizes)
        groups = [patient_groups(truth, images, people, seed) for seed in SEEDS]
        usual = [judge_out_of_fold(candidates, truth, sizes, group) for group in groups]
        for terms in TERMS:
            judged = [judge_out_of_fold(candidates, truth, sizes, group, terms) for group in groups]
            for rule in RULES:
                found, before = ([answered(each[rule]) for each in tables] for tables in (judged, usual))
                show(f"{fusion.method}, {rule}: {', '.join(terms) or 'no terms'}", found, before)
        scaled = [
            scaled_out_of_fold(each, candidates, truth, sizes, group)
            for each, group in zip(usual, groups, strict=True)
        ]
        for rule in RULES:
            found, before = ([answered(each[rule]) for each in tables] for tables in (scaled, usual))
            show(f"{fusion.method}, {rule}: factors on the sides", found, before)
        print(fit_box_scale(candidates, truth))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
