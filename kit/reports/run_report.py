"""The report on an evaluated run: its figures, its page, and the words and tables of each section."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kit.core.number_text import DASH, between
from kit.core.progress import silent
from kit.metrics.average_precision import precision_recall
from kit.metrics.bootstrap import Expected
from kit.reports import report_file, run_charts
from kit.reports.figures import TRUTH, Drawings, Figure, Mark, save_all, sheet, short
from kit.reports.html import Section, cell, write_page
from kit.reports.pictures import drawn_images, marks, on_image, prediction_marks
from kit.reports.report_file import Report
from kit.runs.members import Member

_HASH_SHOWN = 12
_GRID_IMAGES, _PAIR_IMAGES = 4, 6
_PAIR_PREDICTIONS, _GRID_PREDICTIONS = 5, 2
_TITLE_LETTERS = 36


def run_page(path: Path, report: Report, figures: Mapping[str, Path]) -> Path:
    """Write the page of an evaluated run from the content of its ``report.json`` and return its path."""
    images, weights, fusion = report.images, report.weights, report.fusion
    many, one, expected = report.many_box, report.one_box, report.expected_on_leaderboard
    hashes = ", ".join(f"{name} {digest[:_HASH_SHOWN]}…" for name, digest in weights.sha256.items())
    several = f"{images.folds} folds, each " if images.folds > 1 else ""
    trained = f" {several}trained on {images.training:,} images;" if images.training is not None else ""
    lead = (
        f"Kit {report.kit_version}. Weights: {weights.kept}, SHA-256 {hashes};{trained} validated on "
        f"{images.validation:,} with {images.boxes:,} boxes. Views: {_looks(report.members)}, "
        f"fused by {fusion.method} at IoU {fusion.iou}."
    )
    headline = {
        f"one-box mAP@0.5, {between(one.low, one.high, DASH)}": cell(one.map50),
        f"expected on the leaderboard, {between(expected.low, expected.high, DASH)}": cell(expected.mean),
        f"many-box mAP@0.5, {between(many.low, many.high, DASH)}": cell(many.map50),
        "the prior's floor": cell(one.prior_map50),
        "images for one-box": cell(one.images),
    }
    sections = [
        Section(
            "Scores",
            "One-box takes the submission's own path: one box per image, on the validation images that have "
            "exactly one true box, as every test image has. Compare it with the public score. Many-box scores "
            "every stored box on all validation images and says how good the detector is, whatever is chosen "
            "from it. The prior's floor is what one fixed box for all images scores, without looking at any; a "
            f"model at that level has learned nothing. {one.fallbacks:,} of the one-box answers fell back to "
            "the prior's box because nothing was found. The three variants read the same precision-recall curve "
            "at 101 points (COCO), as an area, and at 11 points (VOC). Only scores on equally many images can be "
            "compared, and on about a hundred images a difference below .04 proves nothing; `invoke compare` says "
            "whether two runs differ. The intervals hold 95% of a thousand resamples of the patients; they do not "
            "cover the choice of the epoch or the luck of the training. Each image is judged "
            f"by weights that saw no image of its patient. {_shared_patients(images)}",
            table=_score_table(many, one),
        ),
        Section(
            "Expected on the leaderboard",
            _expectation(expected),
        ),
        Section(
            "The choice of the one box",
            "Every rule chooses on the same candidates. score: the highest score. calibrated: the highest "
            "probability of being right, learned from score, class, size and the share of views that agree. "
            "calibrated-frequency: that probability over the class's share of the boxes, since each class counts "
            "the same. No image was judged by a rule that had seen it. Used is the first of "
            "calibrated-frequency, calibrated and score that is not measurably worse than a later one, unless "
            "decision.rule names another. The oracle chooses and ranks with the truth known: what is missing to "
            "it a better choice could bring, what it misses only a better detector. A random candidate and the "
            "location prior are the floors. Where there are folds, the test's candidates are also averaged over "
            "them before the same rule chooses; that step cannot be scored here, since the folds were trained on "
            "these images.",
            [figures["rules"]],
            _rule_table(report.decision),
        ),
        Section(
            "What was lost",
            "Every wrong box has one cause, and so has every true box that was missed. Duplicate: on a box that a "
            "higher one had taken. Wrong place: the right class, overlapping its box by .1 to .5. Wrong class: on "
            "a box of another class. Background: none of these. Missed: true boxes that nobody took and nothing "
            "of the wrong class or place points to. The bars are the mAP that would be gained if the cause alone "
            "were repaired (after TIDE, Bolya et al. 2020); they do not add up. Many faint wrong boxes weigh "
            "little.",
            [figures["losses"]],
            _loss_table(report.losses),
        ),
        Section(
            "Classes",
            "The mean over these classes is the score. A class without a true box has no average precision and "
            "drops out of the mean; with few boxes it is mostly chance, as the 95% intervals say.",
            [figures["per-class"]],
            _class_table(report.per_class),
        ),
        Section(
            "Precision and recall",
            "Walking down the scores from the left: how many of the true boxes were found (recall), and how "
            "many of the boxes given so far are right (precision). A curve that ends early never finds the rest.",
            [figures["precision-recall"]],
        ),
        Section(
            "Threshold",
            "What the scores would be if only candidates of at least this score were kept. Many-box can only "
            "fall. One-box changes where the rule's choice falls away, and where a real box gives way to the "
            "prior's.",
            [figures["threshold"]],
            _threshold_table(report.threshold),
        ),
        Section(
            "Confidences",
            "Above, the score of every candidate; below, the confidence of the answers that were chosen among "
            "them. The upper counts grow tenfold from line to line.",
            [figures["confidences"]],
        ),
        Section(
            "Detections per image",
            "Many faint boxes are harmless: ranked low, they cost nothing.",
            [figures["detections-per-image"]],
        ),
        *_training_sections(report, figures),
        Section(
            "Random validation images",
            "Truth in green; predictions in red, the answer in a thick line with its confidence, the best other "
            "candidates in thin lines with their scores. The seed draws the images.",
            [figures["grid"]],
        ),
        Section(
            "Truth beside predictions",
            "Left the truth, right what was predicted, in the same colours and lines.",
            [place for name, place in figures.items() if name.startswith("image-")],
        ),
    ]
    return write_page(path, f"Run {report.run}", lead, headline, sections)


def _expectation(part: Expected) -> str:
    way = "with replacement, since there are not twice as many" if part.replacement else "without replacement"
    return (
        f"Mean {cell(part.mean)}, 95% of them from {between(part.low, part.high, DASH)}: the one-box mAP of "
        f"{part.draws} draws of {part.images:,} of these images, as many as the test has ({way}). The level of "
        "a mAP itself moves with the number of images, so this, and not the score above, is what the public score "
        "should be held against."
    )


def _rule_table(part: report_file.Choice) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = [
        (
            name,
            scores.map50,
            scores.low,
            scores.high,
            "; ".join(
                f"{gap.difference:+.3f} ({between(gap.low, gap.high, DASH)}) against {other}"
                for other, gap in scores.against.items()
                if not math.isnan(gap.difference)
            ),
            "used" if name == part.chosen else "",
        )
        for name, scores in part.rules.items()
    ]
    references = {"oracle": part.oracle, "random candidate": part.random, "location prior": part.prior}
    rows += [(name, reference.map50, None, None, "", "") for name, reference in references.items()]
    columns = ["rule", "one-box mAP@0.5", "from", "to", "paired difference (95%)", ""]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _loss_table(part: report_file.LossesByPath) -> pd.DataFrame:
    one, many = part.one_box, part.many_box
    rows: list[tuple[Any, ...]] = [
        (cause, one.causes[cause].count, one.causes[cause].gain, found.count, found.gain)
        for cause, found in many.causes.items()
    ]
    rows.append(("true boxes found", one.found, None, many.found, None))
    rows.append(("true boxes", one.boxes, None, many.boxes, None))
    columns = ["cause", "one box: number", "one box: mAP gained", "many boxes: number", "many boxes: mAP gained"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _looks(members: Sequence[Member]) -> str:
    if len(members) == 1:
        return ", ".join(members[0].views)
    return "; ".join(f"{one.run} ({', '.join(one.views)}; weight {one.weight:g})" for one in members)


def _shared_patients(images: report_file.ImageCounts) -> str:
    share = images.test_patients_in_train_share
    if share is None:
        return "There are no test images here."
    return (
        f"Of the test images {share:.0%} show a patient who is also in train; there the public score may be higher."
    )


def _training_sections(report: Report, figures: Mapping[str, Path]) -> list[Section]:
    """How the run was trained; nothing where it was not: an ensemble, adopted detections."""
    if not report.training:
        return []
    return [
        Section(
            "Training",
            "The mAP in the loop only picks the epoch whose weights are kept (dashed line): it is measured "
            "without the test-time views and without the choice of one box. Quote the scores above. The epoch was "
            "chosen on the images that are scored, and no interval covers that choice: the range of the last ten "
            "epochs says how much of it may be luck.",
            [place for name, place in figures.items() if name.startswith("history")],
            _training_table(report.training),
        ),
    ]


def _training_table(folds: Sequence[report_file.FoldTraining]) -> pd.DataFrame:
    columns = {
        "fold": list(range(len(folds))),
        "chosen epoch": [part.epoch for part in folds],
        "epochs": [part.epochs for part in folds],
        "in-loop mAP@0.5, chosen": [part.chosen_map50 for part in folds],
        "last epoch": [part.last_map50 for part in folds],
        "lowest of the last ten": [part.last_ten_low for part in folds],
        "highest of the last ten": [part.last_ten_high for part in folds],
    }
    return pd.DataFrame(columns)


def _score_table(many: report_file.ManyBoxScores, one: report_file.OneBoxScores) -> pd.DataFrame:
    names = {
        "map50": "mAP@0.5, 101 points",
        "low": "its interval from",
        "high": "to",
        "map50_area": "mAP@0.5, area",
        "map50_11": "mAP@0.5, 11 points",
        "map50_95": "mAP@[.5:.95]",
        "prior_map50": "the prior's mAP@0.5",
        "images": "images",
        "boxes": "true boxes",
        "fallbacks": "answers by the prior",
    }
    rows = [(text, getattr(one, key, None), getattr(many, key, None)) for key, text in names.items()]
    return pd.DataFrame(rows, columns=["score", "one box", "many boxes"], dtype=object)


def _class_table(per_class: Mapping[str, report_file.ClassScores]) -> pd.DataFrame:
    rows = [
        {
            "class": label,
            "one-box AP@0.5": part.one_box_ap50,
            "one-box 95%": between(part.one_box_low, part.one_box_high, DASH),
            "many-box AP@0.5": part.ap50,
            "many-box 95%": between(part.low, part.high, DASH),
            "area": part.ap50_area,
            "11 points": part.ap50_11,
            "true boxes": part.boxes,
            "detections": part.detections,
        }
        for label, part in per_class.items()
    ]
    return pd.DataFrame(rows, dtype=object)


def _threshold_table(threshold: report_file.Thresholds) -> pd.DataFrame:
    said = {threshold.best: "best", threshold.applied: "applied"}
    if threshold.best == threshold.applied:
        said = {threshold.best: "best, applied"}
    rows = [
        (f"{point.threshold:.2f}", point.one_box_map50, point.map50, said.get(point.threshold, ""))
        for point in threshold.curve
    ]
    return pd.DataFrame(rows, columns=["threshold", "one box", "many boxes", "note"], dtype=object)


@dataclass(frozen=True)
class RunReport:
    """The PNG files of an evaluated run and the page that shows them."""

    figures: tuple[Path, ...]
    page: Path


def run_report(
    report: Report,
    truth: pd.DataFrame,
    candidates: pd.DataFrame,
    answers: pd.DataFrame,
    histories: Sequence[pd.DataFrame],
    image_paths: Mapping[str, Path],
    folder: Path,
    seed: int,
) -> RunReport:
    """Show an evaluated run: PNG files in ``folder/figures`` and one self-contained ``folder/report.html``.

    ``image_paths`` names every validation image; ``truth``,
    ``candidates`` (with score), ``answers`` (with confidence) and each fold's history may have zero rows.
    ``seed`` draws the images that are shown.
    """
    drawn = drawn_images(image_paths, seed)

    def true(image_id: str) -> list[Mark]:
        return marks(on_image(truth, image_id), TRUTH)

    def predicted(image_id: str, most: int) -> list[Mark]:
        return prediction_marks(on_image(candidates, image_id), on_image(answers, image_id), most)

    def shown(image_id: str, boxes: list[Mark], part: str = "") -> tuple[str, Path, list[Mark]]:
        return short(image_id, _TITLE_LETTERS) + part, image_paths[image_id], boxes

    def pair(image_id: str) -> Figure:
        found = predicted(image_id, _PAIR_PREDICTIONS)
        return sheet([shown(image_id, true(image_id), " · truth"), shown(image_id, found, " · predictions")], 2)

    def grid() -> Figure:
        chosen = drawn[:_GRID_IMAGES]
        return sheet([shown(name, predicted(name, _GRID_PREDICTIONS) + true(name)) for name in chosen], 2)

    drawings: Drawings = {
        "per-class": lambda: run_charts.per_class(report.per_class),
        "rules": lambda: run_charts.rules(report.decision),
        "losses": lambda: run_charts.losses(report.losses),
        "threshold": lambda: run_charts.threshold(report.threshold),
        "precision-recall": lambda: run_charts.precision_recall(precision_recall(truth, candidates, drawn)),
        "confidences": lambda: run_charts.confidences(candidates, answers),
        "detections-per-image": lambda: run_charts.detections_per_image(candidates, drawn),
        **{
            "history" if len(histories) == 1 else f"history-fold-{fold}": functools.partial(
                run_charts.history, history, report.training[fold].epoch
            )
            for fold, history in enumerate(histories)
        },
        "grid": grid,
        **{
            f"image-{number}": functools.partial(pair, name)
            for number, name in enumerate(drawn[-_PAIR_IMAGES:], start=1)
        },
    }
    figures = save_all(folder / "figures", drawings, silent)
    return RunReport(tuple(figures.values()), run_page(folder / "report.html", report, figures))
