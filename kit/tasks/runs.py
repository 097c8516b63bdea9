"""Tasks for runs: train, combine, adopt, score and compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from invoke import Context

from kit.core.errors import KitError
from kit.tasks.command import RUN, SET, SET_AFTERWARDS, WORKSPACE, chosen_run, command, number, whole_number
from kit.tasks.console import progress_bar, show_table


@command(
    iterable=["set_", "allow"],
    help=WORKSPACE
    | SET
    | {
        "run": "name of the run (default: the preset's name)",
        "preset": "recipe: seed, laptop or demo (default: seed with a GPU, else laptop)",
        "folds": "number of folds to train, each held out once (default: one split)",
        "fold": "train only this fold, counted from 0; the process that ends last finishes the run",
        "allow": "a fault found by the audit that does not stop the training; may be repeated",
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
    from kit.config import DEFAULT_PRESET, override
    from kit.config import preset as recipe

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
    iterable=["of", "weight", "set_"],
    help=WORKSPACE
    | SET_AFTERWARDS
    | {
        "run": "name of the ensemble",
        "of": "a run whose detections are combined; two or more",
        "weight": "weight of a run, in the order of --of (default: 1 each)",
    },
)
def ensemble(
    context: Context,
    run: str = "",
    of: Sequence[str] | None = None,
    weight: Sequence[str] | None = None,
    set_: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Combine runs into an ensemble: a run like any other that follows its members."""
    weights = [number("--weight", text) for text in weight or ()]
    from kit.runs.ensemble import ensemble
    from kit.runs.folder import Run

    made = ensemble(Run(Path(workspace), run), tuple(of or ()), weights, tuple(set_ or ()))
    print(f"run {run}: an ensemble of {', '.join(member.run for member in made.members)}")


@command(
    iterable=["set_"],
    help=WORKSPACE
    | SET
    | {
        "run": "name of the new run",
        "detections": "file of detections made elsewhere: CSV, parquet or COCO results (JSON)",
        "held_out": "text file of the held-out images of train/, one per line (default: all of them)",
    },
)
def adopt(
    context: Context,
    run: str = "",
    detections: str = "",
    held_out: str | None = None,
    set_: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Import detections made elsewhere as a run for evaluate, predict and ensemble."""
    from kit.runs.adoption import adopt
    from kit.runs.folder import Run

    images = Path(held_out) if held_out else None
    arrival = adopt(Run(Path(workspace), run), Path(detections), images, tuple(set_ or ()), progress_bar)
    print(
        f"run {run} {'was adopted before' if arrival.already else 'is adopted'}: "
        f"{arrival.validation_rows} detections on {arrival.images} held-out images, "
        f"{arrival.test_rows} on test images"
    )
    if arrival.without:
        print(f"{arrival.without} held-out images have no detection: they count as images where nothing was found")


@command(iterable=["set_"], help=WORKSPACE | RUN | SET_AFTERWARDS, aliases=["eval"])
def evaluate(
    context: Context, run: str | None = None, set_: Sequence[str] | None = None, workspace: str = "."
) -> None:
    """Score a run's stored validation detections: report.json, report.html and figures."""
    chosen = chosen_run(Path(workspace), run)
    from kit.evaluation.report import evaluate
    from kit.runs.knobs import adjust

    adjust(chosen, tuple(set_ or ()))
    _show_report(evaluate(chosen, progress_bar))
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


def _show_report(report: Mapping[str, Any]) -> None:
    many_box, one_box = report["many_box"], report["one_box"]
    expected, decision, losses = report["expected_on_leaderboard"], report["decision"], report["losses"]
    show_table(
        f"run {report['run']}",
        ("score", "mAP@0.5", "95%", "images"),
        [
            ("many boxes per image", many_box["map50"], _interval(many_box), many_box["images"]),
            ("one box, as submitted", one_box["map50"], _interval(one_box), one_box["images"]),
            ("expected on the leaderboard", expected["mean"], _interval(expected), expected["images"]),
        ],
    )
    rules = [
        (rule, scores["map50"], _interval(scores), "used" if rule == decision["chosen"] else "")
        for rule, scores in decision["rules"].items()
    ]
    references = [(f"({name})", decision[name]["map50"], "", "") for name in ("oracle", "random", "prior")]
    show_table("how the one box is chosen", ("rule", "mAP@0.5", "95%", ""), [*rules, *references])
    show_table(
        "per class",
        ("class", "AP@0.5", "95%", "one box", "95%", "boxes"),
        [
            (label, scores["ap50"], _interval(scores),
             scores["one_box_ap50"], _interval(scores, "one_box_"), scores["boxes"])
            for label, scores in report["per_class"].items()
        ],
    )  # fmt: skip
    show_table(
        "errors by cause (mAP gained if this cause alone were repaired)",
        ("cause", "one box", "many boxes"),
        [
            (cause, losses["one_box"]["causes"][cause]["gain"], loss["gain"])
            for cause, loss in losses["many_box"]["causes"].items()
        ],
    )


def _show_comparison(comparison: Mapping[str, Any]) -> None:
    first, second = comparison["runs"]
    for key, title in (("many_box", "many boxes"), ("one_box", "one box")):
        overall = comparison[key]
        rows = [("mean over the classes", overall), *overall["per_class"].items()]
        show_table(
            f"{first} against {second}, {title}, on the same {comparison['images'][key]} images",
            ("", "difference", "95%", f"{first} is"),
            [(label, row["difference"], _interval(row), row["verdict"]) for label, row in rows],
        )


def _interval(scores: Mapping[str, Any], prefix: str = "") -> str:
    low, high = scores[f"{prefix}low"], scores[f"{prefix}high"]
    return "" if low is None else f"{low:.3f} to {high:.3f}"


def _listed(by_fold: Sequence[int]) -> str:
    return ", ".join(map(str, by_fold))
