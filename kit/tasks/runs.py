"""Tasks for runs: train, combine, adopt, score and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context

from kit.core.errors import KitError
from kit.core.number_text import between
from kit.tasks.command import (
    ALLOW_SEEN,
    RUN,
    SET,
    SET_AFTERWARDS,
    WORKSPACE,
    chosen_run,
    command,
    number,
    view_command,
    whole_number,
)
from kit.tasks.console import progress_bar, show_table

if TYPE_CHECKING:
    from kit.choosing.fusion_settings import FusionChoice
    from kit.reports.report_file import Comparison, Report, Verdict


@command(
    iterable=["set_", "allow"],
    help=WORKSPACE
    | SET
    | {
        "run": "name of the run (default: the preset's name)",
        "preset": "recipe: seed, laptop, demo, dfine, rfdetr (default: seed with a GPU, else laptop)",
        "folds": "number of folds to train, each held out once (default: one split)",
        "fold": "train only this fold, counted from 0; the process that ends last finishes the run",
        "allow": "a fault found by the audit, seen-test-images or seen-held-out-images, that does not stop the "
        "training; may be repeated",
    },
)
def train(
    context: Context,
    run: str | None = None,
    preset: str | None = None,
    folds: str | None = None,
    fold: str | None = None,
    set_: Sequence[str] | None = None,
    allow: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Train a run, or continue it after an interruption; a finished run stays as it is."""
    from kit.config import override
    from kit.config import preset as recipe
    from kit.presets import DEFAULT_PRESET

    knobs = (*(set_ or ()), *([f"data.folds={folds}"] if folds is not None else []))
    override(recipe(preset or DEFAULT_PRESET), knobs)  # a mistyped knob shows before the slow imports
    from kit.training.train import train

    only = whole_number("--fold", fold)
    trained = train(Path(workspace), run, preset, knobs, progress_bar, tuple(allow or ()), only)
    if trained is None:  # a further process of the same training: the first one reports
        return
    if trained.finished is None:
        print(f"run {trained.run.name}: fold {fold} is trained; the run is finished when every fold is")
        return
    end = trained.finished
    print(
        f"run {trained.run.name} {'was finished before' if trained.already else 'is finished'}: "
        f"{_listed(end.epochs)} epochs, keeps {end.kept} (epoch {_listed(end.epoch)})"
    )


@command(
    iterable=["of", "with_", "weight", "set_", "allow"],
    help=WORKSPACE
    | SET_AFTERWARDS
    | ALLOW_SEEN
    | {
        "run": "name of the ensemble",
        "of": "a run whose detections are combined; two or more, or one with --with",
        "with": "a run of image scores, used as evidence for the choice of the box; may be repeated",
        "weight": "weight of a run, in the order of --of (default: 1 each)",
    },
)
def ensemble(
    context: Context,
    run: str = "",
    of: Sequence[str] | None = None,
    with_: Sequence[str] | None = None,
    weight: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    allow: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Combine runs into an ensemble: a run like any other that follows its members."""
    weights = [number("--weight", text) for text in weight or ()]
    from kit.evaluation.combine import combine
    from kit.runs.folder import Run

    goal, allowed = Run(Path(workspace), run), tuple(allow or ())
    made = combine(
        goal, tuple(of or ()), weights, tuple(set_ or ()), allowed, progress_bar, tuple(with_ or ())
    )  # fmt: skip
    beside = f", with the image scores of {', '.join(made.classifiers)}" if made.classifiers else ""
    print(f"run {run}: an ensemble of {', '.join(member.run for member in made.members)}{beside}")


@command(
    iterable=["set_"],
    help=WORKSPACE
    | SET
    | {
        "run": "name of the new run",
        "detections": "file or folder of detections made elsewhere: CSV, parquet, JSON, YOLO's text files",
        "image_scores": "instead: CSV or parquet of a classifier's scores of whole images (image_id,label,score)",
        "held_out": "text file of the held-out images of train/, one per line (default: all of them)",
        "images": "COCO data set (JSON) whose ids of images and categories the detections use",
        "clip": "cut off boxes at the border of their image; without it, boxes a pixel or more over are refused",
    },
)
def adopt(
    context: Context,
    run: str = "",
    detections: str = "",
    image_scores: str = "",
    held_out: str | None = None,
    images: str | None = None,
    clip: bool = False,
    set_: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Import detections, or scores of whole images, made elsewhere as a run."""
    if bool(detections) == bool(image_scores):
        raise KitError(
            "one of --detections FILE and --image-scores FILE", "both" if detections else "none",
            "`invoke adopt --run NAME --detections FILE`, and scores of whole images as a run of their own: "
            "`invoke adopt --run OTHER --image-scores FILE`",
        )  # fmt: skip
    if image_scores:
        if images or clip:
            raise KitError(
                "--image-scores with --held-out at most", "--images or --clip", "leave it out: scores have no boxes"
            )
        _adopt_image_scores(run, image_scores, held_out, set_, workspace)
        return
    from kit.runs.adoption import adopt
    from kit.runs.folder import Run

    held, ids = (Path(name) if name else None for name in (held_out, images))
    goal = Run(Path(workspace), run)
    arrival = adopt(goal, Path(detections), held, tuple(set_ or ()), progress_bar, ids, clip)
    if arrival.label_map:
        print(f"labels by number: {arrival.label_map}")
    print(
        f"run {run} {'was adopted before' if arrival.already else 'is adopted'}: "
        f"{arrival.validation_rows} detections on {arrival.images} held-out images, "
        f"{arrival.test_rows} on test images"
    )
    if arrival.without:
        print(f"{arrival.without} held-out images have no detection: they count as images where nothing was found")


def _adopt_image_scores(
    run: str, path: str, held_out: str | None, set_: Sequence[str] | None, workspace: str
) -> None:
    from kit.runs.folder import Run
    from kit.runs.score_adoption import adopt_image_scores

    held = Path(held_out) if held_out else None
    arrival = adopt_image_scores(Run(Path(workspace), run), Path(path), held, tuple(set_ or ()), progress_bar)
    print(
        f"run {run} {'was adopted before' if arrival.already else 'is adopted'}: {arrival.scores} image scores, "
        f"read as {arrival.scale}, of {len(arrival.labels)} labels on {arrival.images} held-out and "
        f"{arrival.test_images} test images"
    )
    print(
        "scores of held-out images are taken as out of fold: that a classifier has never seen these images cannot "
        "be known from its scores"
    )
    if arrival.without or arrival.test_without:
        print(f"without a score: {arrival.without} held-out images, {arrival.test_without} test images")
    if arrival.labels_without:
        print(f"without any score: {', '.join(arrival.labels_without)}")
    print(f"next: `invoke ensemble --run BOTH --of DETECTOR --with {run}`")


@command(iterable=["set_", "allow"], help=WORKSPACE | RUN | SET_AFTERWARDS | ALLOW_SEEN, aliases=["eval"])
def evaluate(
    context: Context,
    run: str | None = None,
    set_: Sequence[str] | None = None,
    allow: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Score a run's stored validation detections: report.json, report.html and figures."""
    chosen = chosen_run(Path(workspace), run)
    from kit.evaluation.report import evaluate

    _show_report(evaluate(chosen, progress_bar, tuple(set_ or ()), tuple(allow or ())))
    print(f"images: `{view_command(workspace, '--run', chosen.name)}`")
    print(f"report: {chosen.folder / 'report.html'}")


@command(
    iterable=["run"],
    help=WORKSPACE | {"run": "name of a run; given twice, the first is compared against the second"},
)
def compare(context: Context, run: Sequence[str] | None = None, workspace: str = ".") -> None:
    """Compare two runs on the same held-out images: better, worse, or equal within noise."""
    from kit.runs.folder import existing

    names = list(run or ())
    if len(names) != 2:
        raise KitError("two runs to compare", ", ".join(names) or "none", "`invoke compare --run A --run B`")
    first, second = (existing(Path(workspace), name) for name in names)
    from kit.evaluation.comparison import compare, comparison_folder

    _show_comparison(compare(first, second, progress_bar))
    print(f"comparison: {comparison_folder(first, second) / 'comparison.json'}")


def _show_report(report: Report) -> None:
    many_box, one_box, expected = report.many_box, report.one_box, report.expected_on_leaderboard
    decision, losses = report.decision, report.losses
    show_table(
        f"run {report.run}",
        ("score", "mAP@0.5", "95%", "images"),
        [
            ("many boxes per image", many_box.map50, between(many_box.low, many_box.high), many_box.images),
            ("one box, as submitted", one_box.map50, between(one_box.low, one_box.high), one_box.images),
            ("expected on the leaderboard", expected.mean, between(expected.low, expected.high), expected.images),
        ],
    )
    rules = [
        (rule, score.map50, between(score.low, score.high), "used" if rule == decision.chosen else "")
        for rule, score in decision.rules.items()
    ]
    references = [
        ("(oracle)", decision.oracle.map50, "", ""),
        ("(random)", decision.random.map50, "", ""),
        ("(prior)", decision.prior.map50, "", ""),
    ]
    show_table("how the one box is chosen", ("rule", "mAP@0.5", "95%", ""), [*rules, *references])
    if report.ceiling:
        show_table(
            "where the ceiling lies (what the oracle scores above the chosen answers)",
            ("wrong", "mAP@0.5", "answers"),
            [(name, part.gain, part.answers) for name, part in report.ceiling.parts.items()],
        )
    if report.devices:
        show_table(
            "what was tried to choose better (one box, mAP@0.5)",
            ("device", "with", "without", "gain", "95%", ""),
            [
                (name.replace("_", " "), tried.with_, tried.without, tried.gain.value,
                 between(tried.gain.low, tried.gain.high), "used" if tried.kept else "not used")
                for name, tried in report.devices.items()
            ],
        )  # fmt: skip
    if report.fusion_choice:
        _show_fusion(report.fusion_choice)
    for name, labels in report.classifiers.items():
        show_table(
            f"image scores of {name} by themselves, on held-out images",
            ("class", "AUC", "95%", "images", "with a box"),
            [
                (label, score.auc, between(score.low, score.high), score.images, score.positives)
                for label, score in labels.items()
            ],
        )
    show_table(
        "per class",
        ("class", "AP@0.5", "95%", "one box", "95%", "boxes"),
        [
            (label, scores.ap50, between(scores.low, scores.high),
             scores.one_box_ap50, between(scores.one_box_low, scores.one_box_high), scores.boxes)
            for label, scores in report.per_class.items()
        ],
    )  # fmt: skip
    show_table(
        "errors by cause (mAP gained if this cause alone were repaired)",
        ("cause", "one box", "many boxes"),
        [(cause, losses.one_box.causes[cause].gain, loss.gain) for cause, loss in losses.many_box.causes.items()],
    )


def _show_fusion(choice: FusionChoice) -> None:
    show_table(
        f"how views and runs are fused: {choice.used} (usual: {choice.usual})",
        ("method", "scores from", *(f"IoU {iou:g}" for iou in choice.ious)),
        [(method, f"{skip_score:g}", *scores) for method, skip_score, scores in choice.rows],
    )


def _show_comparison(comparison: Comparison) -> None:
    first, second = comparison.runs
    for title, overall, images in (
        ("many boxes", comparison.many_box, comparison.images.many_box),
        ("one box", comparison.one_box, comparison.images.one_box),
    ):
        rows: list[tuple[str, Verdict]] = [("mean over the classes", overall), *overall.per_class.items()]
        show_table(
            f"{first} against {second}, {title}, on the same {images} images",
            ("", "difference", "95%", f"{first} is"),
            [(label, row.difference, between(row.low, row.high), row.verdict) for label, row in rows],
        )


def _listed(by_fold: Sequence[int]) -> str:
    return ", ".join(map(str, by_fold))
