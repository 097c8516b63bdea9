"""Two runs on the same held-out images: is one measurably better, is the difference noise, or unknown?

Each run answers through its own rule, and both are scored on the same resamples of the patients.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from kit.choosing.one_box import answers_to_detections
from kit.config import load
from kit.core.errors import KitError
from kit.core.json_files import write_record
from kit.core.locks import locked_folder
from kit.core.progress import Track, silent
from kit.data.competition import load_training
from kit.evaluation.held_out import HeldOut, score_held_out
from kit.evaluation.report import current_report
from kit.metrics.average_precision import Matches, match, mean_average_precision
from kit.metrics.bootstrap import Interval, paired_difference
from kit.reports.report_file import ComparedImages, ComparedScores, Comparison, Report, Verdict
from kit.runs.ensemble import refresh
from kit.runs.folder import Run, read_split
from kit.runs.guards import require_detector, require_same_truth
from kit.runs.locks import using_results


def compare(a: Run, b: Run, track: Track = silent) -> Comparison:
    """``a`` minus ``b`` with verdicts, written with a figure to ``WORKSPACE/comparisons/A-vs-B/``.

    Only images that both runs held out are compared; their number is part of the result. Raises KitError if
    there are none, and if both are the same run.
    """
    with using_both(a, b):
        return _compared_runs(a, b, track)


@contextlib.contextmanager
def using_both(a: Run, b: Run) -> Iterator[None]:
    """Lock the results of two finished runs. Raises KitError if both are the same run, or one has not finished."""
    if a.name == b.name:
        raise KitError("two different runs", f"{a.name!r} twice", "name another run with the second --run")
    with contextlib.ExitStack() as stack:
        # An ensemble comes before its members, as in `predict`: nobody waits for a lock that waits for this one.
        for run in sorted((a, b), key=lambda run: (not run.ensemble.exists(), run.name)):
            stack.enter_context(using_results(run))
        for run in (a, b):
            refresh(run)
            require_detector(run)
        yield


def common_images(a: Run, b: Run) -> set[str]:
    """The images that both runs held out. Raises KitError if there are none."""
    images = [set(read_split(run).validation) for run in (a, b)]
    common = images[0] & images[1]
    if not common:
        raise KitError(
            "two runs that held out some of the same images",
            f"none in common among {len(images[0])} of {a.name!r} and {len(images[1])} of {b.name!r}",
            "train both on the same split (the same training.seed and data.validation_share, or --folds), or adopt "
            "both with the same --held-out",
        )
    return common


def _compared_runs(a: Run, b: Run, track: Track) -> Comparison:
    """Compare two runs whose locks the caller holds."""
    common = common_images(a, b)
    require_same_truth(a, b)
    data = load_training(a.workspace, load(a.config), track)
    reports = {run.name: current_report(run, track, data) for run in (a, b)}
    held = [score_held_out(run, track, data, reports[run.name].fusion_choice) for run in (a, b)]
    one_box_images = set(held[0].mapping["image_id"]) & common
    comparison = Comparison(
        runs=(a.name, b.name),
        rules={name: report.decision.chosen for name, report in reports.items()},
        images=ComparedImages(
            many_box=len(common),
            one_box=len(one_box_images),
            patients=len({held[0].patients[image_id] for image_id in common}),
            held_out={run.name: len(read_split(run).validation) for run in (a, b)},
        ),
        many_box=_compared(held, [_many_box(run, common) for run in held]),
        one_box=_compared(held, [_one_box(run, one_box_images, reports[run.run.name]) for run in held]),
    )
    from kit.reports import comparison_charts, figures  # they load matplotlib

    with locked_folder(comparison_folder(a, b)) as folder:
        figures.save(comparison_charts.differences(comparison), folder / "comparison.png")
        write_record(folder / "comparison.json", comparison)
    return comparison


def comparison_folder(a: Run, b: Run) -> Path:
    """The folder that the comparison of two runs is written to."""
    return a.workspace / "comparisons" / f"{a.name}-vs-{b.name}"


def verdict(gap: Interval) -> str:
    """What a paired difference (first minus second) says of the first: ``better``, ``worse`` or ``noise``.

    ``unknown`` if the interval has no ends, as with fewer than two patients.
    """
    if math.isnan(gap.low) or math.isnan(gap.high):
        return "unknown"
    if gap.above_0:
        return "better"
    return "worse" if gap.below_0 else "noise"


def _compared(held: Sequence[HeldOut], matches: Sequence[Matches]) -> ComparedScores:
    """The first run's matches against the second's, on the first one's patients and seed."""
    first, second = matches
    gaps = paired_difference(first, second, held[0].patients, held[0].config.training.seed)

    def judged(gap: Interval) -> Verdict:
        return Verdict(gap.value, gap.low, gap.high, verdict(gap))

    return ComparedScores(
        **vars(judged(gaps.overall)),
        map50={run.run.name: mean_average_precision(found) for run, found in zip(held, matches, strict=True)},
        per_class={label: judged(gap) for label, gap in gaps.per_class.items()},
    )


def _many_box(held: HeldOut, images: Collection[str]) -> Matches:
    truth, candidates = (table[table["image_id"].isin(images)] for table in (held.truth, held.candidates))
    return match(truth, candidates, images)


def _one_box(held: HeldOut, images: Collection[str], report: Report) -> Matches:
    answers = held.answers(held.judged[report.decision.chosen], report.threshold.applied)
    tables = held.one_box_truth, answers_to_detections(answers.table)
    truth, detections = (table[table["image_id"].isin(images)] for table in tables)
    return match(truth, detections, images)
