"""Each device of the one-box choice, alone and with the others, scored on the test images' truth.

python tests/support/devices_on_the_truth.py WORKSPACE NAME=RUN,RUN,... [KEY=VALUE,KEY=VALUE ...] [+OTHER,OTHER,...]

The workspace has a ``test_truth.csv`` (the synthetic one does). RUNs are finished trainings of one recipe with
different seeds. Each KEY=VALUE,... is a device's knobs; without any it is every device. With +OTHER,... the scores
of whole images are evidence for the runs, in their order: the best score of each class in the out-of-fold
detections of run OTHER, which has five folds. Prints a row of a Markdown table for each: the score of each run and
its paired difference to the same run without, the mean of the differences, and in how many runs the report kept
each device; then the oracle and a random choice. The runs' knobs are as before at the end.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from kit.choosing import one_box
from kit.choosing.selection import oracle, shuffled
from kit.config import AUTO, load
from kit.core.progress import silent
from kit.data.competition import load_test, load_training, patients
from kit.data.synthetic.generator import TRUTH
from kit.evaluation.held_out import RANDOM_CHOICES
from kit.evaluation.joined_folds import candidates_by_report
from kit.evaluation.report import current_report
from kit.metrics.average_precision import match, mean_average_precision
from kit.metrics.bootstrap import map_intervals, paired_difference
from kit.runs.ensemble import ensemble, refresh
from kit.runs.folder import Run, read_split
from kit.runs.image_scores import scores_of_test
from kit.runs.knobs import adjust
from kit.runs.locks import using_results
from kit.runs.members import members
from kit.runs.out_of_fold import detections
from kit.runs.score_adoption import adopt_image_scores
from kit.schemas.detections import with_categories
from kit.schemas.image_headers import image_sizes

SEED = 0
KEYS = ("fusion.method", "fusion.iou", "fusion.skip_score", "decision.localisation", "decision.box_scale")
OPEN = ("fusion.method=auto,fusion.iou=auto", "decision.localisation=auto", "decision.box_scale=auto")
DEVICES = ("fusion.method=wbf_or", "fusion.method=wbf_sum", *OPEN, ",".join(OPEN))


class Scored:
    """A run's answers to the test images under some knobs, matched with the truth."""

    def __init__(self, run, base, knobs, with_limits=False):
        truth = pd.read_csv(run.workspace / TRUTH)
        images = sorted(set(truth["image_id"]))
        with using_results(run):
            for assignments in (base, knobs):  # one after the other: `auto` takes what it finds as the usual value
                adjust(run, assignments)
            refresh(run)
            config = load(run.config)
            data = load_test(run.workspace, config, silent)
            report = current_report(run, silent, load_training(run.workspace, config, silent))
            sizes = image_sizes(data.pixels.facts)
            rows = with_categories(detections(run, data, silent))
            judged = candidates_by_report(report, rows, members(run), sizes, scores_of_test(run))

        def matched(table):
            of = one_box.decide(table, data.mapping, report.prior, sizes, config.decision.fallback_confidence)
            return match(truth, one_box.answers_to_detections(of.table), images)

        self.matches = matched(judged)
        self.patients = patients(images, config.data.patient_pattern, {})
        self.kept = [name for name, device in report.devices.items() if device.kept]
        self.interval = map_intervals(self.matches, self.patients, SEED).overall
        if with_limits:
            rng = np.random.default_rng(SEED)
            drawn = [mean_average_precision(matched(shuffled(judged, rng))) for _ in range(RANDOM_CHOICES)]
            self.oracle = mean_average_precision(matched(oracle(judged, truth)))
            self.random = float(np.mean(drawn))

    def minus(self, other):
        """The paired difference to other answers."""
        return paired_difference(self.matches, other.matches, self.patients, SEED).overall


def with_evidence(run, other):
    """The run beside the scores of whole images that another run's out-of-fold detections give."""
    classifier, both = (
        Run(run.workspace, f"{other.name}-images"),
        Run(run.workspace, f"{run.name}-with-{other.name}"),
    )
    tables = {part: pd.read_parquet(other.detections(part)) for part in ("validation", "test")}
    fold_of = {image_id: fold for fold, images in enumerate(read_split(other).folds) for image_id in images}
    best = {
        part: table.groupby(["image_id", "label", "fold"], as_index=False)["score"].max()
        for part, table in tables.items()
    }
    held_out = best["validation"]
    scores = pd.concat([held_out[held_out["image_id"].map(fold_of) == held_out["fold"]], best["test"]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        scores.to_csv(path, index=False)
        adopt_image_scores(classifier, path)
    ensemble(both, [run.name], classifiers=[classifier.name])
    return both


def text(interval, sign=""):
    """A value with its interval, as a cell."""
    return f"{interval.value:{sign}.3f} ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"


def print_row(name, found, usual):
    """One device: level and gain in each run, the mean gain, what the reports kept."""
    gains = [mine.minus(other) for mine, other in zip(found, usual, strict=True)]
    cells = [f"{mine.interval.value:.3f}, {text(gain, '+')}" for mine, gain in zip(found, gains, strict=True)]
    kept = [device for mine in found for device in mine.kept]
    counts = ", ".join(f"{device} {kept.count(device)}" for device in sorted(set(kept))) or "none"
    mean = sum(gain.value for gain in gains) / len(gains)
    print(f"| {name} | {' | '.join(cells)} | {mean:+.3f} | {counts} |", flush=True)


def main(workspace, recipe, *words):
    """Print the table of one recipe."""
    title, _, names = recipe.partition("=")
    runs = [Run(workspace, name) for name in names.split(",")]
    others = [Run(workspace, name) for word in words if word.startswith("+") for name in word[1:].split(",")]
    devices = [word for word in words if not word.startswith("+")] or DEVICES
    base = {run: [f"{key}={load(run.config).get(key)}" for key in KEYS] for run in runs}
    if any(knob.endswith(AUTO) for knobs in base.values() for knob in knobs):
        sys.exit("a run has a device already: evaluate it without one first")

    def scored(run, knobs, with_limits=False, of=None):
        return Scored(run, base[of or run], [part for part in knobs.split(",") if part], with_limits)

    print(f"| {title} | {' | '.join(run.name for run in runs)} | mean difference | kept in |")
    print(f"|---|{'---|' * len(runs)}---|---|")
    usual = [scored(run, "", with_limits=True) for run in runs]
    print(f"| as it is | {' | '.join(text(one.interval) for one in usual)} | | |", flush=True)
    for knobs in devices:
        print_row(f"`{knobs}`", [scored(run, knobs) for run in runs], usual)
    if others:
        both = [with_evidence(run, other) for run, other in zip(runs, others, strict=True)]
        for name, knobs in (("image scores", ""), ("image scores and every `auto`", ",".join(OPEN))):
            print_row(name, [scored(one, knobs, of=run) for one, run in zip(both, runs, strict=True)], usual)
    for name in ("oracle", "random"):
        label = {"oracle": "oracle", "random": f"random choice, mean of {RANDOM_CHOICES}"}[name]
        print(f"| {label} | {' | '.join(f'{getattr(one, name):.3f}' for one in usual)} | | |")
    for run in runs:
        scored(run, "")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
