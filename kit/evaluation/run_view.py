"""The page of a run's held-out images, and of two runs side by side: every error can be opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from kit.choosing.one_box import Decision, answers_to_detections
from kit.config import load
from kit.core.locks import locked_folder
from kit.core.number_text import between, decimal
from kit.core.progress import Track, silent
from kit.data.competition import load_training
from kit.evaluation.comparison import common_images, comparison_folder, using_both
from kit.evaluation.held_out import HeldOut, score_held_out
from kit.evaluation.report import current_report
from kit.metrics.average_precision import match
from kit.metrics.error_analysis import RIGHT, DetectionCauses, detection_causes
from kit.metrics.image_cost import image_costs
from kit.reports.report_file import Report
from kit.reports.view_data import COMPARISON, RUN, ScoredPath, Side, View, ViewedImage, path_scores
from kit.reports.view_page import write_view
from kit.runs.folder import Run
from kit.runs.guards import require_detector, require_same_truth
from kit.runs.locks import using_results

COST, COST_OF_ALL = "cost, one box", "cost, all candidates"
CONFIDENCE = "confidence of the answer"
OF_VIEWS, OF_RUNS = "disagreement of the views", "disagreement of the runs"


def view_run(run: Run, track: Track = silent) -> tuple[Path, ...]:
    """Write ``runs/NAME/view.html`` of a finished run's held-out images, evaluated first if need be; its paths."""
    require_detector(run)
    with using_results(run):
        data = load_training(run.workspace, load(run.config), track)
        report = current_report(run, track, data)
        held = score_held_out(run, track, data, report.fusion_choice)
        images = held.split.validation
        side, costs = _side(held, report, images)
        lead = [_scores_line(report), f"{len(images)} held-out images with {len(held.truth)} true boxes."]
        orders = {
            COST: costs["one"],
            COST_OF_ALL: costs["many"],
            CONFIDENCE: _confidences(side),
            OF_RUNS if run.ensemble.exists() else OF_VIEWS: disagreement(held.candidates),
        }
        view = View(
            RUN, f"Run {run.name}: the held-out images", lead, held.split.labels, _images(held, images), held.truth,
            (side,), orders,
        )  # fmt: skip
        return write_view(run.folder / "view.html", view, track)


def view_two_runs(a: Run, b: Run, track: Track = silent) -> tuple[Path, ...]:
    """Write ``comparisons/A-vs-B/view.html``: the images that both runs held out, with both runs' boxes; its paths.

    Raises KitError if there are none, and if both are the same run.
    """
    with using_both(a, b):
        images = sorted(common_images(a, b))
        require_same_truth(a, b)
        data = load_training(a.workspace, load(a.config), track)
        reports = [current_report(run, track, data) for run in (a, b)]
        held = [
            score_held_out(run, track, data, report.fusion_choice)
            for run, report in zip((a, b), reports, strict=True)
        ]
        (first, first_costs), (second, second_costs) = (
            _side(run, report, images) for run, report in zip(held, reports, strict=True)
        )
        truth = _on(held[0].truth, images)
        gained = {
            name: second_costs["one"][name] - cost
            for name, cost in first_costs["one"].items()
            if name in second_costs["one"]
        }
        orders = {
            f"gained by {a.name}": gained,
            f"gained by {b.name}": {name: -value for name, value in gained.items()},
            f"{a.name}: {COST}": first_costs["one"],
            f"{b.name}: {COST}": second_costs["one"],
        }
        lead = [*map(_scores_line, reports), f"{len(images)} images that both held out: the charts are of these."]
        labels = sorted({*held[0].split.labels, *held[1].split.labels})
        view = View(
            COMPARISON, f"{a.name} and {b.name} on the same images", lead, labels, _images(held[0], images), truth,
            (first, second), orders,
        )  # fmt: skip
        with locked_folder(comparison_folder(a, b)) as folder:
            return write_view(folder / "view.html", view, track)


def disagreement(candidates: pd.DataFrame) -> dict[str, float]:
    """By image, the share of the sources (views, folds, runs) without a candidate, weighed by its score, 0..1.

    ``candidates`` has image_id, score and agreement; an image without a candidate is missing.
    """
    weights = np.maximum(candidates["score"].to_numpy(np.float64), 1e-9)
    lonely = weights * (1 - candidates["agreement"].to_numpy(np.float64))
    table = pd.DataFrame({"image_id": candidates["image_id"], "weight": weights, "lonely": lonely})
    sums = table.groupby("image_id", observed=True)[["lonely", "weight"]].sum()
    return {str(name): float(value) for name, value in (sums["lonely"] / sums["weight"]).items()}


def answered_right(
    one: pd.DataFrame,
    one_causes: DetectionCauses,
    many: pd.DataFrame,
    many_causes: DetectionCauses,
    truth: pd.DataFrame,
) -> dict[str, bool]:
    """By image with true boxes: whether all its answers are hits.

    An image without an answer, as it has more boxes than answers, is right if as many of its best candidates as it
    has true boxes are all hits.
    """
    hits = pd.Series(one_causes.cause == RIGHT, index=one["image_id"].to_numpy(object))
    of_answers = hits.groupby(level=0).all()
    boxes = truth.groupby("image_id").size()
    ranked = many.assign(hit=many_causes.cause == RIGHT).sort_values("score", ascending=False, kind="stable")
    ranked = ranked[ranked.groupby("image_id").cumcount() < ranked["image_id"].map(boxes).fillna(0)]
    found = ranked.groupby("image_id")["hit"].sum().reindex(boxes.index, fill_value=0)
    of_candidates = found == boxes
    return {
        str(name): bool(of_answers[name] if name in of_answers.index else of_candidates[name])
        for name in boxes.index
    }


def _side(held: HeldOut, report: Report, images: Collection[str]) -> tuple[Side, Mapping[str, Mapping[str, float]]]:
    """A run's detections on some of its held-out images, and what these cost with one box and with many."""
    answers = held.answers(held.judged[report.decision.chosen], report.threshold.applied)
    of_one = set(held.mapping["image_id"]) & set(images)
    truth, one_truth = _on(held.truth, images), _on(held.one_box_truth, of_one)
    candidates, one = _on(held.candidates, images), _on(answers_to_detections(answers.table), of_one)
    causes, one_causes = detection_causes(truth, candidates, images), detection_causes(one_truth, one, of_one)
    matches, one_matches = match(truth, candidates, images), match(one_truth, one, of_one)
    nothing = (float("nan"), float("nan"))
    is_whole = len(images) == len(held.split.validation)  # the report's intervals are of all held-out images
    classes = report.per_class if is_whole else {}
    ends = dict.fromkeys(held.split.labels, (nothing, nothing)) | {
        label: ((scores.low, scores.high), (scores.one_box_low, scores.one_box_high))
        for label, scores in classes.items()
    }
    side = Side(
        held.run.name,
        ScoredPath(
            one, of_one, one_causes, path_scores(one_matches, {label: pair[1] for label, pair in ends.items()})
        ),
        ScoredPath(
            candidates, images, causes, path_scores(matches, {label: pair[0] for label, pair in ends.items()})
        ),
        prior_images(answers),
        answered_right(one, one_causes, candidates, causes, truth),
    )
    return side, {"one": image_costs(one_matches), "many": image_costs(matches)}


def prior_images(answers: Decision) -> set[str]:
    """The images of which an ID is answered with the location prior."""
    return set(answers.table.loc[answers.table["ID"].isin(answers.fallback_ids), "image_id"])


def _images(held: HeldOut, names: Collection[str]) -> dict[str, ViewedImage]:
    fold_of = held.split.fold_of
    return {name: ViewedImage(held.data.pixels, name, held.patients[name], fold_of[name]) for name in names}


def _confidences(side: Side) -> dict[str, float]:
    best = side.one.detections.groupby("image_id")["score"].max()
    return {str(name): float(value) for name, value in best.items()}


def _on(table: pd.DataFrame, images: Collection[str]) -> pd.DataFrame:
    rows = table[table["image_id"].isin(set(images))].reset_index(drop=True)
    return rows.astype({"image_id": object, "label": object})  # candidates have categories


def _scores_line(report: Report) -> str:
    one, many = report.one_box, report.many_box
    return (
        f"{report.run}: mAP@0.5 {decimal(one.map50, '–')} with one box ({between(one.low, one.high, '–')}), "
        f"{decimal(many.map50, '–')} with all candidates ({between(many.low, many.high, '–')})."
    )
