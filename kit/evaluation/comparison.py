"""Two runs on the same held-out images: is one measurably better, or is the difference noise?

Each run answers through its own rule, and both are scored on the same resamples of the patients.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from kit.choosing import one_box
from kit.core.errors import KitError
from kit.core.json_files import without_nan, write_json
from kit.core.locks import locked_folder
from kit.core.progress import Track, silent
from kit.evaluation.held_out import HeldOut, score_held_out
from kit.evaluation.report import current_report
from kit.metrics import average_precision
from kit.metrics.average_precision import Matches
from kit.metrics.bootstrap import Interval, Intervals, paired_difference
from kit.reports import comparison_charts, figures
from kit.runs.ensemble import refresh
from kit.runs.folder import Run, read_split
from kit.runs.locks import using_results


def compare(a: Run, b: Run, track: Track = silent) -> dict[str, Any]:
    """``a`` minus ``b`` with verdicts, written with a figure to ``WORKSPACE/comparisons/A-vs-B/``.

    Only images that both runs held out are compared; their number is part of the result. Raises KitError where
    there are none, and where both are the same run.
    """
    if a.name == b.name:
        raise KitError("two different runs", f"{a.name!r} twice", "name another run with the second --run")
    for run in (a, b):
        refresh(run)
    held = {run.name: read_split(run).validation for run in (a, b)}
    common = set(held[a.name]) & set(held[b.name])
    if not common:
        raise KitError(
            "two runs that held out some of the same images",
            f"none in common among {len(held[a.name])} of {a.name!r} and {len(held[b.name])} of {b.name!r}",
            "train both on the same split: the same training.seed and data.validation_share, or --folds",
        )
    chosen = {}
    for run in (a, b):
        with using_results(run):
            chosen[run.name] = current_report(run, track)
    ours, theirs = score_held_out(a, track), score_held_out(b, track)
    asked = set(ours.mapping["image_id"]) & common
    seed = ours.config.training.seed

    def part(first: Matches, second: Matches) -> dict[str, Any]:
        found = paired_difference(first, second, ours.patients, seed)
        scores = {
            run.name: average_precision.mean_average_precision(each)
            for run, each in zip((a, b), (first, second), strict=True)
        }
        return {"map50": scores} | _judged(found)

    result = {
        "runs": [a.name, b.name],
        "rules": {name: report["decision"]["chosen"] for name, report in chosen.items()},
        "images": {
            "many_box": len(common),
            "one_box": len(asked),
            "patients": len({ours.patients[image_id] for image_id in common}),
            "held_out": {name: len(images) for name, images in held.items()},
        },
        "many_box": part(_many_box(ours, common), _many_box(theirs, common)),
        "one_box": part(*(_one_box(each, asked, chosen[each.run.name]) for each in (ours, theirs))),
    }
    result = without_nan(result)
    with locked_folder(comparison_folder(a, b)) as folder:
        figures.save(comparison_charts.differences(result), folder / "comparison.png")
        write_json(folder / "comparison.json", result)
    return result


def comparison_folder(a: Run, b: Run) -> Path:
    """Where the comparison of two runs lies."""
    return a.workspace / "comparisons" / f"{a.name}-vs-{b.name}"


def verdict(found: Interval) -> str:
    """What a paired difference (first minus second) says of the first: ``better``, ``worse`` or ``noise``."""
    if found.low > 0:
        return "better"
    return "worse" if found.high < 0 else "noise"


def _judged(found: Intervals) -> dict[str, Any]:
    def row(interval: Interval) -> dict[str, Any]:
        return {
            "difference": interval.value,
            "low": interval.low,
            "high": interval.high,
            "verdict": verdict(interval),
        }

    return row(found.overall) | {"per_class": {label: row(each) for label, each in found.per_class.items()}}


def _many_box(held: HeldOut, images: Collection[str]) -> Matches:
    truth, candidates = (table[table["image_id"].isin(images)] for table in (held.truth, held.candidates))
    return average_precision.match(truth, candidates, images)


def _one_box(held: HeldOut, images: Collection[str], report: dict[str, Any]) -> Matches:
    judged = held.judged[report["decision"]["chosen"]]
    answers = one_box.answers_to_detections(held.answers(judged, report["threshold"]["applied"]).table)
    truth, given = (table[table["image_id"].isin(images)] for table in (held.one_box_truth, answers))
    return average_precision.match(truth, given, images)
