"""Comparing two runs: what is refused, what is written, and verdicts on stores whose answer is known."""

import json
import math

import pandas as pd
import pytest
from stores import detector, one_box_images
from toy import second_run

from kit.config import load, save
from kit.core.errors import KitError
from kit.core.json_files import read_json, read_record, write_json
from kit.evaluation.comparison import compare, comparison_folder, verdict
from kit.metrics.average_precision import match
from kit.metrics.bootstrap import Interval, paired_difference
from kit.reports import comparison_charts
from kit.reports.report_file import ComparedImages, ComparedScores, Comparison, Verdict
from kit.runs.ensemble import ensemble
from kit.runs.folder import Run, read_split
from kit.runs.guards import require_same_truth

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def runs(evaluated):
    """The toy run 'demo', and 'half', which lost every second detection."""
    demo = Run(evaluated, "demo")
    half = second_run(demo, "half")
    stored = half.detections("validation")
    pd.read_parquet(stored).iloc[::2].to_parquet(stored, index=False)
    return demo, half


def test_the_verdict_is_the_side_of_0_on_which_the_whole_interval_lies():
    assert verdict(Interval(0.1, 0.01, 0.2)) == "better"
    assert verdict(Interval(-0.1, -0.2, -0.01)) == "worse"
    for low, high in ((-0.1, 0.2), (0.0, 0.2), (-0.2, 0.0), (7e-18, 0.2), (-0.2, -7e-18)):
        assert verdict(Interval(0.05, low, high)) == "noise"


@pytest.mark.parametrize("difference", [0.05, math.nan])
def test_a_difference_that_cannot_be_measured_is_no_noise(difference):
    assert verdict(Interval(difference, math.nan, math.nan)) == "unknown"


def test_the_verdict_on_images_of_one_patient_is_unknown():
    truth, patients, _ = one_box_images(0, 20)
    first, second = (match(truth, detector(truth, seed, 2.0), truth["image_id"]) for seed in (1, 2))
    alone = dict.fromkeys(patients, "one")
    assert verdict(paired_difference(first, second, alone, 0).overall) == "unknown"
    assert verdict(paired_difference(first, second, patients, 0).overall) != "unknown"


def test_a_run_is_not_compared_with_itself(evaluated):
    with pytest.raises(KitError, match="two different runs"):
        compare(Run(evaluated, "demo"), Run(evaluated, "demo"))


@pytest.mark.parametrize(
    ("knob", "ours", "theirs"), [("repeated_boxes", "keep", "fuse"), ("orientation", "ignore", "exif")]
)
def test_runs_with_other_true_boxes_are_refused_until_they_have_the_same(knob, ours, theirs, runs):
    demo, half = runs
    config = load(half.config)
    save(config.replace({f"data.{knob}": theirs}), half.config)
    for join in (lambda: compare(demo, half), lambda: ensemble(Run(demo.workspace, "both"), ("demo", "half"))):
        with pytest.raises(KitError, match=rf"data\.{knob}={ours} and {theirs}") as caught:
            join()
        assert f"--set data.{knob}={ours}" in caught.value.do
    save(config, half.config)
    require_same_truth(demo, half)


def test_runs_without_a_common_image_are_refused_with_their_numbers(runs):
    demo, half = runs
    held = read_split(demo).validation
    for run, images in ((demo, held[::2]), (half, held[1::2])):
        write_json(run.split, read_json(run.split, "") | {"folds": [list(images)]})
        stored = run.detections("validation")
        table = pd.read_parquet(stored)
        table[table["image_id"].isin(images)].to_parquet(stored, index=False)
    with pytest.raises(KitError, match=f"none in common among {len(held[::2])}"):
        compare(demo, half)


@pytest.mark.slow
def test_two_runs_are_compared_both_ways_through_their_own_rules(runs):
    demo, half = runs
    compared = compare(demo, half)
    compare(half, demo)
    folder = comparison_folder(demo, half)
    assert folder == demo.workspace / "comparisons" / "demo-vs-half"
    assert read_record(folder / "comparison.json", Comparison, "") == compared
    there, back = (
        json.loads((comparison_folder(*pair) / "comparison.json").read_text())
        for pair in ((demo, half), (half, demo))
    )
    assert (folder / "comparison.png").stat().st_size > 0
    scores = {run.name: json.loads(run.report.read_text()) for run in runs}
    held = len(read_split(demo).validation)
    assert there["images"]["many_box"] == held
    for key in ("many_box", "one_box"):
        assert there[key]["map50"] == {name: report[key]["map50"] for name, report in scores.items()}
        assert there[key]["difference"] == pytest.approx(-back[key]["difference"])
        opposite = {"better": "worse", "worse": "better", "noise": "noise", "unknown": "unknown"}
        assert there[key]["verdict"] == opposite[back[key]["verdict"]]
        assert set(there[key]["per_class"]) <= set(scores["demo"]["per_class"])


@pytest.mark.parametrize("ends", [(math.nan, math.nan), (-0.1, 0.3)])
def test_the_figure_draws_what_is_known(ends):
    def row(difference):
        return difference, *ends, verdict(Interval(difference, *ends))

    maps = {"a": 0.2, "b$": 0.1}
    per_class = {"Mass": Verdict(*row(0.1)), "Nodule": Verdict(*row(math.nan))}
    comparison = Comparison(
        ("a", "b$"), dict.fromkeys(maps, "score"), ComparedImages(5, 4, 3, {"a": 5, "b$": 6}),
        ComparedScores(*row(0.1), maps, per_class), ComparedScores(*row(0.1), maps, {}),
    )  # fmt: skip
    first, second = comparison_charts.differences(comparison).axes
    lines = len(first.lines)
    assert lines == 1 + 2 * (1 if math.isnan(ends[0]) else 2)  # the line at 0; the mean and one class
    assert len(second.lines) == 1 + (1 if math.isnan(ends[0]) else 2)


class TestVerdictsOnKnownStores:
    """A test of the test: detectors drawn from the same model, and from a better one."""

    def verdicts(self, count, images, strengths, seed=0):
        found = []
        for number in range(seed, seed + count):
            truth, patients, _ = one_box_images(number, images)
            first, second = (
                match(truth, detector(truth, 10_000 * side + number, strength), truth["image_id"])
                for side, strength in zip((1, 2), strengths, strict=True)
            )
            found.append(verdict(paired_difference(first, second, patients, number).overall))
        return [found.count(word) for word in ("better", "worse", "noise")]

    def test_a_clearly_better_detector_is_better_and_the_other_way_round_worse(self):
        assert self.verdicts(5, 150, (3.0, 1.0)) == [5, 0, 0]
        assert self.verdicts(5, 150, (1.0, 3.0)) == [0, 5, 0]

    def test_two_of_a_kind_are_mostly_noise(self):
        # Of 40 repeats at 95% fewer than 33 are noise in one of a thousand series.
        assert self.verdicts(40, 60, (2.0, 2.0))[2] >= 33

    @pytest.mark.slow
    def test_two_of_a_kind_are_noise_in_about_95_of_100_repeats(self):
        # Binomial: 95% of 400 is 380 with a deviation of 4.4. Measured over detectors and numbers of images: 92.3%
        # to 95.3%; percentile intervals are a little narrow.
        better, worse, noise = self.verdicts(400, 107, (2.0, 2.0), seed=1000)
        assert 360 <= noise <= 393
        assert abs(better - worse) <= 20

    @pytest.mark.slow
    def test_a_known_difference_is_found_more_often_on_more_images(self):
        few, many = (self.verdicts(40, images, (2.0, 1.6))[0] for images in (60, 400))
        assert few < many
        assert many >= 28  # measured: 32
