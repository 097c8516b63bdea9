"""What a first stage brings on half of the synthetic competition, against random weights, by seed of the training.

python tests/support/two_stages.py FOLDER 0 1 2
"""

import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from kit.choosing import one_box
from kit.config import Config
from kit.data.competition import patients
from kit.data.synthetic.generator import LABELS, TRUTH, write_competition
from kit.demo import DEMO_SEED
from kit.evaluation.predict import predict
from kit.metrics import average_precision, bootstrap
from kit.submission.folders import read_submissions
from kit.training.train import train

FIRST_SEED, IMAGES, EPOCHS = 107, 400, 8
RULES = {"chosen": (), "score": ("decision.rule=score",)}
RANDOM, FIRST = "random", "first-stage"


def first_stage_set(workspace: Path) -> None:
    """400 radiographs of another seed, under other label names, without a test part."""
    if workspace.exists():
        return
    partial = workspace.with_name("first.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_competition(partial, FIRST_SEED, IMAGES, 1)
    shutil.rmtree(partial / "data" / "test")
    (partial / "data" / "ID_to_Image_Mapping.csv").unlink()
    table = pd.read_csv(partial / "data" / "train.csv")
    others = {label: f"finding {number}" for number, label in enumerate(LABELS[::-1], 1)}
    table["label"] = table["label"].map(others)
    table.to_csv(partial / "data" / "train.csv", index=False, float_format="%.2f")
    partial.rename(workspace)


def half_of_the_demo(workspace: Path, seed: int) -> None:
    """The demo's competition with half of its training images: whole patients, drawn by the seed."""
    if workspace.exists():
        return
    partial = workspace.with_name(f"{workspace.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_competition(partial, DEMO_SEED)
    table = pd.read_csv(partial / "data" / "train.csv")
    names = sorted(path.name for path in (partial / "data" / "train").iterdir())
    patient_of = patients(names, Config().data.patient_pattern, {})
    order = np.random.default_rng(seed).permutation(sorted(set(patient_of.values())))
    in_order = [name for patient in order for name in names if patient_of[name] == patient]
    kept = set(in_order[: len(names) // 2])
    for name in set(names) - kept:
        (partial / "data" / "train" / name).unlink()
    table[table["image_id"].isin(kept)].to_csv(partial / "data" / "train.csv", index=False, float_format="%.2f")
    partial.rename(workspace)


def train_seed(folder: Path, seed: int) -> None:
    """The first stage of one seed, and both trainings on the half, each with a submission by two rules."""
    first_stage_set(folder / "first")
    half_of_the_demo(folder / f"half-{seed}", seed)
    knobs = [f"training.seed={seed}", f"training.max_epochs={EPOCHS}"]
    first = train(folder / "first", f"seed-{seed}", "demo", knobs)
    starts = {RANDOM: [], FIRST: [f"model.weights={first.run.best}"]}
    for name, start in starts.items():
        trained = train(folder / f"half-{seed}", name, "demo", knobs + start)
        filed = {one.origin.message for one in read_submissions(folder / f"half-{seed}" / "submissions")}
        for rule, assignments in RULES.items():
            if f"{name} {rule}" not in filed:
                predict(trained.run, f"{name} {rule}", assignments=assignments)


def print_scores(folder: Path, seeds: list[int]) -> None:
    """One-box mAP@0.5 on the test's truth: each seed, and the mean of the seeds on the same resampled patients."""
    for rule in RULES:
        gains, drawn = [], []
        for seed in seeds:
            truth = pd.read_csv(folder / f"half-{seed}" / TRUTH)
            images = sorted(set(truth["image_id"]))
            people = patients(images, Config().data.patient_pattern, {})
            filed = {one.origin.message: one for one in read_submissions(folder / f"half-{seed}" / "submissions")}
            matches = {
                name: average_precision.match(
                    truth, one_box.answers_to_detections(pd.read_csv(filed[f"{name} {rule}"].csv)), images
                )
                for name in (RANDOM, FIRST)
            }
            levels = [
                bootstrap.map_intervals(matches[name], people, seed=0).overall.value for name in (RANDOM, FIRST)
            ]
            gain = bootstrap.paired_difference(matches[FIRST], matches[RANDOM], people, seed=0).overall
            print(
                f"{rule:8} seed {seed}: random {levels[0]:.3f}, first stage {levels[1]:.3f}, "
                f"difference {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
            )
            gains.append(gain.value)
            drawn.append(_resampled_gain(matches, images, people))
        low, high = np.nanquantile(np.mean(drawn, axis=0), (0.025, 0.975))
        print(f"{rule:8} mean of {len(seeds)} seeds: {np.mean(gains):+.3f} ({low:+.3f} to {high:+.3f})")


def _resampled_gain(matches, images, people):
    """The gain in each of 1000 resamples of the patients, which are the same for every seed of the training."""
    _, patient = np.unique([people[image] for image in images], return_inverse=True)
    count = patient.max() + 1
    copies = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 1000).astype(float)
    means = {
        name: np.nanmean(list(bootstrap.resampled(matched, patient, copies).values()), axis=0)
        for name, matched in matches.items()
    }
    return means[FIRST] - means[RANDOM]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    where, numbers = Path(sys.argv[1]), [int(text) for text in sys.argv[2:]]
    for number in numbers:
        train_seed(where, number)
        print_scores(where, numbers[: numbers.index(number) + 1])
