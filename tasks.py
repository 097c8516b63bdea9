"""The verbs of the kit: `invoke --list` shows them, `invoke --help VERB` explains one."""

import functools
import logging
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from invoke import Collection, Context, Exit, Task, task

from kit.core.errors import KitError

INTERRUPTED = 130
ID_BYTES = 4
WORKSPACE = {"workspace": "folder that holds data/, runs/ and submissions/ (default: this one)"}
SET = {"set": "KEY=VALUE, a knob of kit/config.py; may be repeated"}
AFTERWARDS = {"set": "KEY=VALUE, a knob that acts on stored detections: competition., fusion. or decision."}
PATIENCE = {"set": "KEY=VALUE, a knob of the section kaggle., for this call"}
RUN = {"run": "name of a run (default: the one that finished last)"}


def verb(**options: Any) -> Callable[[Callable[..., None]], Any]:
    """A task whose KitError is an exit without a traceback, and whose interruption says how to go on."""

    def decorate(body: Callable[..., None]) -> Any:
        @functools.wraps(body)
        def guarded(*args: Any, **kwargs: Any) -> None:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            _say_aloud()
            try:
                body(*args, **kwargs)
            except KitError as error:
                raise Exit(str(error), code=1) from None
            except KeyboardInterrupt:
                raise Exit("stopped; the same command goes on from here", code=INTERRUPTED) from None

        return task(**options)(guarded)

    return decorate


@verb(
    iterable=["set_"],
    help=WORKSPACE
    | SET
    | {
        "competition": "its name or its address on Kaggle (default: the one in data/, else competition.slug)",
        "force": "fetch anew what came from Kaggle before",
    },
)
def download(
    context: Context,
    competition: str | None = None,
    force: bool = False,
    set_: Iterable[str] | None = None,
    workspace: str = ".",
) -> None:
    """Bring the competition's files into data/, verified; goes on after a cut or a kill."""
    from kit.config import override
    from kit.kaggle.download import download as fetch
    from kit.runs.folder import workspace_config

    config = override(workspace_config(Path(workspace)), set_ or ())
    found, already = fetch(Path(workspace), config, competition, force, _bar)
    origin = {"kaggle": "from Kaggle", "hand": "put there by hand", "mounted": "linked to Kaggle's own copy"}
    print(
        f"competition {found.slug}: {'all is there' if already else 'checked'}, {len(found.files)} files "
        f"({sum(found.files.values()) / 2**20:.1f} MiB) in {Path(workspace) / 'data'}, {origin[found.origin]}"
    )
    if not already:
        from kit.reports.audit_report import audit_workspace

        _show_audit(audit_workspace(Path(workspace), config, _bar))


@verb(iterable=["set_"], help=WORKSPACE | SET)
def explore(context: Context, set_: Iterable[str] | None = None, workspace: str = ".") -> None:
    """Describe the data: tables here, figures and explore.html in WORKSPACE/explore."""
    from kit.config import override
    from kit.reports.dataset_report import describe
    from kit.runs.folder import workspace_config

    config = override(workspace_config(Path(workspace)), set_ or ())
    report = describe(Path(workspace), config, _bar)
    for title, table in report.tables.items():
        _show(title, table)
    print(f"page: {report.page}")


@verb(iterable=["set_"], help=WORKSPACE | SET)
def audit(context: Context, set_: Iterable[str] | None = None, workspace: str = ".") -> None:
    """Look for what is wrong with the data: a table here, audit.html and audit.json in WORKSPACE/audit."""
    from kit.config import override
    from kit.reports.audit_report import audit_workspace
    from kit.runs.folder import workspace_config

    config = override(workspace_config(Path(workspace)), set_ or ())
    _show_audit(audit_workspace(Path(workspace), config, _bar))


@verb(
    iterable=["set_", "allow"],
    help=WORKSPACE
    | SET
    | {
        "run": "name of the run (default: the preset's)",
        "preset": "recipe: seed, laptop or demo (default: seed where there is a GPU, else laptop)",
        "folds": "how many folds to train, each held out once (default: one split)",
        "fold": "train only this one of the folds, counted from 0; whichever ends last finishes the run",
        "allow": "a fault of the audit that shall not stop the training; may be repeated",
    },
)
def train(
    context: Context,
    run: str | None = None,
    preset: str | None = None,
    folds: str | None = None,
    fold: str | None = None,
    set_: Iterable[str] | None = None,
    allow: Iterable[str] | None = None,
    workspace: str = ".",
) -> None:
    """Start a run, go on with it after a kill, or say that it is finished."""
    from kit.config import DEFAULT_PRESET, override
    from kit.config import preset as recipe

    knobs = (*(set_ or ()), *([f"data.folds={folds}"] if folds is not None else []))
    override(recipe(preset or DEFAULT_PRESET), knobs)  # a mistyped knob shows before the slow imports
    from kit.training.train import train

    trained = train(Path(workspace), run, preset, knobs, _bar, tuple(allow or ()), _whole("--fold", fold))
    if trained is None:
        return
    if trained.finished is None:
        print(f"run {trained.run.name}: fold {fold} is trained; the run is finished when every fold is")
        return
    end = trained.finished
    print(
        f"run {trained.run.name} {'was finished before' if trained.already else 'is finished'}: "
        f"{_counted(end.epochs)} epochs, keeps {end.kept} (epoch {_counted(end.epoch)})"
    )


@verb(
    iterable=["of", "weight", "set_"],
    help=WORKSPACE
    | AFTERWARDS
    | {
        "run": "name of the ensemble",
        "of": "a run whose detections go in; two or more",
        "weight": "how much a run counts, in the order of --of (default: all 1)",
    },
)
def ensemble(
    context: Context,
    run: str = "",
    of: Iterable[str] | None = None,
    weight: Iterable[str] | None = None,
    set_: Iterable[str] | None = None,
    workspace: str = ".",
) -> None:
    """Make a run of several runs, for evaluate and predict like any other; it follows its members."""
    from kit.runs import ensemble as ensembles
    from kit.runs.folder import Run

    weights = [_number("--weight", text) for text in weight or ()]
    made = ensembles.ensemble(Run(Path(workspace), run), tuple(of or ()), weights, tuple(set_ or ()))
    print(f"run {run}: an ensemble of {', '.join(one.run for one in made.members)}")


@verb(
    iterable=["set_"],
    help=WORKSPACE
    | SET
    | {
        "run": "name of the run that it becomes",
        "detections": "CSV, parquet or COCO results (JSON), made elsewhere",
        "held_out": "text file of the images of train/ that were held out, one a line (default: all of them)",
    },
)
def adopt(
    context: Context,
    run: str = "",
    detections: str = "",
    held_out: str | None = None,
    set_: Iterable[str] | None = None,
    workspace: str = ".",
) -> None:
    """Bring in detections that were made elsewhere as a run: evaluate, predict and ensemble take it."""
    from kit.runs.adoption import adopt as bring_in
    from kit.runs.folder import Run

    images = Path(held_out) if held_out else None
    found = bring_in(Run(Path(workspace), run), Path(detections), images, tuple(set_ or ()), _bar)
    print(
        f"run {run} {'was adopted before' if found.already else 'is adopted'}: {found.validation_rows} detections "
        f"on {found.images} held-out images, {found.test_rows} on test images"
    )
    if found.without:
        print(f"{found.without} held-out images have no detection: they count as images where nothing was found")


@verb(iterable=["set_"], help=WORKSPACE | RUN | AFTERWARDS)
def evaluate(
    context: Context, run: str | None = None, set_: Iterable[str] | None = None, workspace: str = "."
) -> None:
    """Score a run's stored validation detections: report.json, report.html, figures."""
    chosen = _run(workspace, run)
    from kit.evaluation.report import evaluate
    from kit.runs.knobs import adjust

    adjust(chosen, tuple(set_ or ()))
    _show_report(evaluate(chosen, _bar))
    print(f"report: {chosen.folder / 'report.html'}")


@verb(
    iterable=["run"],
    help=WORKSPACE | {"run": "name of a run; give it twice, the first is judged against the second"},
)
def compare(context: Context, run: Iterable[str] | None = None, workspace: str = ".") -> None:
    """Say whether a run is better, worse or the same but for noise, on the same held-out images."""
    from kit.runs.folder import existing

    names = list(run or ())
    if len(names) != 2:
        raise KitError("two runs to compare", ", ".join(names) or "none", "`invoke compare --run A --run B`")
    first, second = (existing(Path(workspace), name) for name in names)
    from kit.evaluation import comparison

    _show_comparison(comparison.compare(first, second, _bar))
    print(f"comparison: {comparison.comparison_folder(first, second) / 'comparison.json'}")


@verb(iterable=["set_"], help=WORKSPACE | RUN | AFTERWARDS | {"message": "what this submission is, for the list"})
def predict(
    context: Context,
    run: str | None = None,
    message: str | None = None,
    set_: Iterable[str] | None = None,
    workspace: str = ".",
) -> None:
    """Answer the test images with a run: the next numbered submission, checked before it is filed."""
    chosen = _run(workspace, run)
    from kit.evaluation.predict import predict
    from kit.runs.knobs import adjust

    adjust(chosen, tuple(set_ or ()))
    submission = predict(chosen, message, _bar)
    print(f"submission {submission.number:04d}: {submission.csv}")


@verb(
    help=WORKSPACE | SET | {"file": "CSV to check (default: the newest submission's)"},
    iterable=["set_"],
)
def validate(
    context: Context, file: str | None = None, set_: Iterable[str] | None = None, workspace: str = "."
) -> None:
    """Check a submission file against the mapping, row by row."""
    from kit.config import override
    from kit.runs.folder import workspace_config
    from kit.schemas.tables import validate_submission
    from kit.submission.folders import newest

    path = Path(file) if file else newest(Path(workspace) / "submissions").csv
    config = override(workspace_config(Path(workspace)), set_ or ())
    table = validate_submission(path, Path(workspace) / "data", config.competition.expected_ids)
    print(f"{path}: valid, {len(table)} IDs")


@verb(
    iterable=["set_"],
    help=WORKSPACE
    | PATIENCE
    | {
        "message": "what this submission is, for Kaggle's list (default: what it was filed with)",
        "submission": "number of a submission (default: the newest valid one)",
        "dry-run": "show what would be sent; needs neither an account nor a network",
        "yes": "do not ask before sending",
        "again": "send bytes that were uploaded before once more",
    },
)
def submit(
    context: Context,
    message: str | None = None,
    submission: str | None = None,
    dry_run: bool = False,
    yes: bool = False,
    again: bool = False,
    set_: Iterable[str] | None = None,
    workspace: str = ".",
) -> None:
    """Send a submission to Kaggle exactly once and wait for its score."""
    from kit.submission import preview, upload
    from kit.submission.attempts import uploading

    place = Path(workspace)
    number = _whole("--submission", submission, first=1)
    knobs = _patience(place, set_ or ())
    if dry_run:
        _dry_run(place, number, message)
        return
    wire = _connected(knobs)
    with uploading(place):
        outgoing = preview.outgoing(place, number, message, _predicting(message))
        plan = upload.prepare(wire, outgoing, again, knobs, _clock())
        attempt = plan.attempt or _asked_and_sent(wire, plan, knobs, yes)
        print(f"ref {attempt.ref}: uploaded{'' if plan.step == 'send' else ' before'}")
        attempt = attempt if plan.step == "done" else upload.wait(wire, plan, attempt, knobs, _clock())
        upload.tell(outgoing, attempt, print)


@verb(help=WORKSPACE | {"refresh": "ask Kaggle for scores that were pending"})
def submissions(context: Context, refresh: bool = False, workspace: str = ".") -> None:
    """List the submissions with their local and public scores, the best marked; a plot of both."""
    from kit.submission import scoreboard
    from kit.submission.folders import read_submissions

    folder = Path(workspace) / "submissions"
    if refresh:
        _refresh(Path(workspace))
    _show_rows("submissions", scoreboard.COLUMNS, scoreboard.rows(read_submissions(folder)))
    if refresh or scoreboard.plot_is_stale(folder):
        scoreboard.draw(folder)
    if (folder / scoreboard.PLOT_NAME).exists():
        print(f"plot: {folder / scoreboard.PLOT_NAME}")


@verb(help={"workspace": "folder of the demo (default: demo)", "fresh": "delete an earlier demo and start anew"})
def demo(context: Context, fresh: bool = False, workspace: str = "demo") -> None:
    """Go the whole road on a synthetic competition: about two minutes on two cores, no account, no GPU."""
    from kit.demo import clear, finished_demo, run_demo

    if fresh:
        clear(Path(workspace))
    result = finished_demo(Path(workspace)) or run_demo(Path(workspace), time.monotonic, _bar)
    print(
        f"one-box mAP@0.5 on the {result.test_images} test images: {result.score:.3f} "
        f"(location prior alone: {result.prior_score:.3f}; on the validation images: {result.local_score:.3f})\n"
        f"submission: {result.submission}\nreport:     {result.report}\nfigures:    {result.figures}\n"
        f"`invoke submit --dry-run --workspace {workspace}` shows what would be sent to Kaggle:"
    )
    _dry_run(Path(workspace), int(Path(result.submission).parent.name.partition("-")[0]), None)


@verb(
    help=WORKSPACE | {"json": "where to write it (default: WORKSPACE/bench.json)", "only": "one benchmark by name"}
)
def bench(context: Context, json: str | None = None, only: str | None = None, workspace: str = ".") -> None:
    """Measure speed against what one would otherwise run: one table, also as JSON; under ten minutes."""
    goal = Path(json) if json else Path(workspace) / "bench.json"
    _run_tools(
        [
            sys.executable,
            "-m",
            "tests.benchmarks",
            "--json",
            str(goal.resolve()),
            *(["--only", only] if only else []),
        ]
    )


@verb(
    iterable=["set_"],
    help=WORKSPACE
    | SET
    | {
        "run": "name of the run that shall be trained there",
        "preset": "recipe: seed, laptop or demo (default: seed)",
        "folds": "folds that are trained, each held out once",
        "dry_run": "write the script that would be pushed, and stop",
        "yes": "do not ask",
        "again": "push anew although the last session's output was not pulled",
    },
)
def push(
    context: Context,
    run: str,
    preset: str | None = None,
    set_: Iterable[str] | None = None,
    folds: int | None = None,
    dry_run: bool = False,
    yes: bool = False,
    again: bool = False,
    workspace: str = ".",
) -> None:
    """Train a run on Kaggle's GPUs: the kit and the run's knobs as one private script."""
    from kit.core.files import write_text
    from kit.kaggle.kernels.push import is_repeated, plan, script
    from kit.kaggle.kernels.push_log import pushing, settle

    planned = plan(Path(workspace), run, preset, tuple(set_ or ()), folds)
    if dry_run:
        path = Path(workspace) / "kernels" / f"{planned.run.name}.py"
        write_text(path, script(planned, "dry-run"))
        print("\n".join([*planned.lines(None), f"script:      {path}", "dry run: nothing was sent"]))
        return
    wire = _kernels(planned.config.kaggle)
    with pushing(planned.run):
        made = settle(wire, planned.run, planned.config.kaggle)
        if made is None or not is_repeated(planned, made):  # else it is the same command once more
            made = _asked_and_pushed(wire, planned, again, yes)
    print(f"version {made.version}: {made.url}\n`invoke kernel.status --run {run} --wait`, then kernel.pull")


@verb(
    iterable=["set_"],
    help=WORKSPACE | SET | {"run": "name of a run that was pushed", "wait": "look again until the session ends"},
)
def status(
    context: Context, run: str, wait: bool = False, set_: Iterable[str] | None = None, workspace: str = "."
) -> None:
    """What became of a pushed run: its state, its last metrics, the tail of its log."""
    from kit.config import Config, override
    from kit.kaggle.kernels import output
    from kit.kaggle.kernels.push_log import last_push, require_pushed
    from kit.runs.folder import Run

    knobs, home = override(Config(), set_ or ()), Run(Path(workspace), run)
    require_pushed(home)
    wire, before = _kernels(knobs.kaggle), ""
    pushed = last_push(wire, home)
    for session in output.looks(wire, pushed, knobs.kernel.poll_seconds):
        works = session.status in (output.QUEUED, output.RUNNING)
        if not (wait and works):
            break
        said = "\n".join(output.lines(session, tail=0))
        if said != before:
            print(said, flush=True)
        before = said
    print("\n".join(output.lines(session)))
    if not works and session.status != output.COMPLETE:
        raise Exit(code=1)


@verb(iterable=["set_"], help=WORKSPACE | SET | {"run": "name of a run that was pushed"})
def pull(context: Context, run: str, set_: Iterable[str] | None = None, workspace: str = ".") -> None:
    """Bring a pushed run home as runs/NAME, every file as the kernel's manifest says."""
    from kit.config import Config, override
    from kit.kaggle.kernels import output
    from kit.kaggle.kernels.push_log import last_push, pushing, require_pushed
    from kit.kaggle.kernels.session import FINISHED, STOPPED
    from kit.runs.folder import Run

    knobs, home = override(Config(), set_ or ()), Run(Path(workspace), run)
    require_pushed(home)
    wire = _kernels(knobs.kaggle)
    with pushing(home):
        manifest = output.pull(wire, home, last_push(wire, home), print)
    ends = {
        FINISHED: "it is finished: `invoke evaluate`, `invoke predict`, `invoke submit`",
        STOPPED: f"it stopped itself in time: `invoke kernel.push --run {run}` goes on with it",
    }
    print(f"run {run}: {len(manifest.files)} files in {home.folder}; {ends[manifest.ended]}")


@task(help={"slow": "run the slow tests instead of the fast ones"})
def test(context: Context, slow: bool = False) -> None:
    """Run the fast test suite (under three minutes), or the slow rest."""
    _run_tools([sys.executable, "-m", "pytest", "-m", "slow" if slow else "not slow"])


@task
def lint(context: Context) -> None:
    """Check the format, the style and the types."""
    _run_tools(
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "mypy"],
    )


def _run(workspace: str, name: str | None) -> Any:
    from kit.runs.folder import existing, newest_finished

    if name:
        return existing(Path(workspace), name)
    chosen = newest_finished(Path(workspace))
    print(f"run {chosen.name}: the one that finished last")
    return chosen


def _patience(workspace: Path, assignments: Iterable[str]) -> Any:
    """The section kaggle of the workspace's knobs. Raises KitError for knobs of another section."""
    from kit.config import override
    from kit.runs.folder import workspace_config

    others = [text for text in assignments if not text.strip().startswith("kaggle.")]
    if others:
        raise KitError("--set with a knob of the section kaggle.", repr(others[0]), "set others in `invoke train`")
    return override(workspace_config(workspace), assignments).kaggle


def _dry_run(workspace: Path, number: int | None, message: str | None) -> None:
    from kit.submission import preview

    outgoing = preview.outgoing(workspace, number, message, _predicting(message))
    print("\n".join(preview.lines(outgoing, "unknown (a dry run asks nobody)")))
    print("dry run: nothing was sent")


def _predicting(message: str | None) -> Callable[[Any], Any]:
    def predict(run: Any) -> Any:
        from kit.evaluation.predict import predict

        return predict(run, message, _bar)

    return predict


def _connected(knobs: Any) -> Any:
    from kit.kaggle.competition_api import connect

    return connect(knobs)


def _clock() -> Any:
    from kit.submission.attempts import Clock

    return Clock(time.time, time.sleep)


def _ask(question: str, yes: bool) -> None:
    if not yes:
        print(f"{question} [y/N] ", end="", flush=True)
        answer = sys.stdin.readline().strip()
        if not sys.stdin.isatty():
            print(answer)  # as a terminal does
        if answer.lower() not in ("y", "yes"):
            raise KitError("y on standard input", "another answer, or none", "nothing was sent; --yes does not ask")


def _asked_and_pushed(wire: Any, planned: Any, again: bool, yes: bool) -> Any:
    from kit.kaggle.kernels.push import push, require_hours, require_idle

    require_idle(wire, planned, again)
    hours = wire.gpu_hours()
    print("\n".join(planned.lines(hours)))
    require_hours(hours)
    _ask("push it?", yes)
    return push(wire, planned, secrets.token_hex(ID_BYTES))


def _kernels(knobs: Any) -> Any:
    from kit.kaggle.kernels.api import connect_kernels

    return connect_kernels(knobs)


def _asked_and_sent(wire: Any, plan: Any, knobs: Any, yes: bool) -> Any:
    """Show the plan, ask on standard input unless told not to, send."""
    from kit.submission import preview, upload

    print("\n".join(preview.lines(plan.outgoing, upload.limit_text(plan.limits))))
    _ask("send it?", yes)
    return upload.send(wire, plan, knobs, lambda: secrets.token_hex(ID_BYTES), _clock())


def _refresh(workspace: Path) -> None:
    from kit.submission.attempts import refresh

    changed = refresh(_connected(_patience(workspace, ())), workspace / "submissions")
    print(f"{changed} of the uploads changed")


def _run_tools(*commands: list[str]) -> None:
    for command in commands:
        code = subprocess.run(command, check=False, cwd=Path(__file__).parent).returncode
        if code:
            raise Exit(code=code)


def _say_aloud() -> None:
    log = logging.getLogger("kit")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def _bar(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description, total, console=Console(stderr=True))


def _show(title: str, table: Any) -> None:
    _show_rows(title, tuple(map(str, table.columns)), table.itertuples(index=False))


def _show_rows(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=Text(title))  # Text: what came from a file is no markup
    for number, column in enumerate(columns):
        shown.add_column(Text(column), no_wrap=number == 0)  # a class's name is never cut short
    for row in rows:
        shown.add_row(*(Text(_cell(value)) for value in row))
    Console().print(shown)


def _whole(flag: str, text: str | None, first: int = 0) -> int | None:
    if text is not None and (not text.isdecimal() or int(text) < first):
        expected = f"{flag} to be a whole number, counted from {first}"
        raise KitError(expected, repr(text), f"write {flag} {first}, for example")
    return None if text is None else int(text)


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise KitError(f"{flag} to be a number", repr(text), f"write {flag} 1, for example") from None


def _counted(by_fold: Iterable[int]) -> str:
    return ", ".join(map(str, by_fold))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _show_audit(audit: Any) -> None:
    rows = [(one.check, one.level, one.text) for one in audit.findings]
    rows += [(name, "ok", "nothing found") for name in audit.nothing_found]
    _show_rows("audit", ("check", "level", "what"), rows)
    for one in audit.findings:
        if one.level != "note":
            print(f"{one.check}: {one.do}")
    print(f"page: {audit.page}")
    if audit.counts["fault"]:
        raise Exit(code=1)


def _show_report(report: dict[str, Any]) -> None:
    many, one, expected = report["many_box"], report["one_box"], report["expected_on_leaderboard"]
    rules, chosen = report["decision"]["rules"], report["decision"]["chosen"]
    _show_rows(
        f"run {report['run']}",
        ("score", "mAP@0.5", "95%", "images"),
        [
            ("many boxes per image", many["map50"], _ends(many), many["images"]),
            ("one box, as submitted", one["map50"], _ends(one), one["images"]),
            ("expected on the leaderboard", expected["mean"], _ends(expected), expected["images"]),
        ],
    )
    _show_rows(
        "how the one box is chosen",
        ("rule", "mAP@0.5", "95%", ""),
        [
            *(
                (f"{name}", part["map50"], _ends(part), "used" if name == chosen else "")
                for name, part in rules.items()
            ),
            *((f"({name})", report["decision"][name]["map50"], "", "") for name in ("oracle", "random", "prior")),
        ],
    )
    _show_rows(
        "per class",
        ("class", "AP@0.5", "95%", "one box", "95%", "boxes"),
        [
            (label, part["ap50"], _ends(part), part["one_box_ap50"], _ends(part, "one_box_"), part["boxes"])
            for label, part in report["per_class"].items()
        ],
    )
    _show_rows(
        "what was lost (mAP gained if it alone were repaired)",
        ("cause", "one box", "many boxes"),
        [
            (cause, report["losses"]["one_box"]["causes"][cause]["gain"], part["gain"])
            for cause, part in report["losses"]["many_box"]["causes"].items()
        ],
    )


def _show_comparison(result: dict[str, Any]) -> None:
    first, second = result["runs"]
    for key, name in (("many_box", "many boxes"), ("one_box", "one box")):
        part = result[key]
        rows = [("mean over the classes", part), *part["per_class"].items()]
        _show_rows(
            f"{first} against {second}, {name}, on the same {result['images'][key]} images",
            ("", "difference", "95%", f"{first} is"),
            [(label, row["difference"], _ends(row), row["verdict"]) for label, row in rows],
        )


def _ends(part: dict[str, Any], prefix: str = "") -> str:
    low, high = part[f"{prefix}low"], part[f"{prefix}high"]
    return "" if low is None else f"{low:.3f} to {high:.3f}"


_OF_KERNELS = (push, status, pull)
namespace = Collection(
    *(one for one in list(globals().values()) if isinstance(one, Task) and one not in _OF_KERNELS)
)
namespace.add_collection(Collection("kernel", *_OF_KERNELS))
