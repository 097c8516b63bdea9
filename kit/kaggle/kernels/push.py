"""Push a run to Kaggle, which starts one session that trains it: plan the push, check it, send it once.

``push_log`` records the pushes; ``output`` follows the session and downloads its result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.config import DEFAULT_PRESET, Config, load, override, preset
from kit.core.errors import KitError
from kit.core.files import make_folder, write_text
from kit.core.json_files import write_json
from kit.core.source_tree import git_state, pack_source, requirements
from kit.data.provenance import downloaded_slug
from kit.kaggle.errors import Refused, Unanswered
from kit.kaggle.kernels import push_log
from kit.kaggle.kernels.api import Kernels, not_mounted
from kit.kaggle.kernels.output import COMPLETE, GONE, QUEUED, RUNNING, current_session, is_pulled
from kit.kaggle.kernels.push_log import Push, read_push, record_path, slug_of
from kit.kaggle.kernels.script import kernel_script
from kit.kaggle.kernels.session import RUN_ARCHIVE, state_sha256
from kit.runs.folder import Run
from kit.runs.knobs import require_same_knobs

log = logging.getLogger("kit")


@dataclass(frozen=True)
class PushPlan:
    """What a push sends: the run, its knobs, its preset, the competition's slug."""

    run: Run
    config: Config
    preset: str
    competition: str
    continues: Path | None  # the checkpoint that the training continues from

    def lines(self, hours: float | None) -> list[str]:
        """The plan as text; ``hours`` are the GPU hours left this week, None if unknown."""
        start = "from the start" if self.continues is None else f"from {self.continues}"
        return [
            f"run:         {self.run.name}, preset {self.preset}, {self.config.data.folds} fold(s), {start}",
            f"competition: https://www.kaggle.com/competitions/{self.competition}",
            f"machine:     {self.config.kernel.machine}, internet {self.config.kernel.internet}, private",
            f"stops after: {self.config.kernel.max_hours:g} hours",
            f"GPU hours:   {'unknown' if hours is None else f'{hours:.1f} left this week'}",
        ]


def plan_push(
    workspace: Path, name: str, preset_name: str | None, assignments: Sequence[str], folds: int | None
) -> PushPlan:
    """Plan the push of a new run, or of a local one that has not finished. Needs no data.

    Args:
        workspace: The folder that holds runs/ and kernels/.
        name: The name of the run.
        preset_name: The preset; by default the last push's, and the run's own knobs if it exists.
        assignments: Knobs as KEY=VALUE.
        folds: The number of folds; by default that of the preset or of the run.

    Returns:
        The plan; its competition is the one in data/ unless ``assignments`` names another.

    Raises:
        KitError: The run has finished, or the knobs differ from those that it was started with.
    """
    run = Run(workspace, name)
    more = [*assignments, *([] if folds is None else [f"data.folds={folds}"])]
    continues = None
    if run.config.exists():
        if run.finished.exists():
            raise KitError(
                "a run that has not finished", f"{name} has", "`invoke evaluate` shows it; or another --run"
            )
        stored = load(run.config)
        config = override(preset(preset_name) if preset_name else stored, more)
        config = dataclasses.replace(config, model=stored.model)
        require_same_knobs(run, stored, config)
        checkpoints = sorted(run.folder.glob("**/last.ckpt"))
        continues = checkpoints[0] if checkpoints else None
    else:
        config = override(preset(preset_name or DEFAULT_PRESET), more)
    slug = downloaded_slug(workspace) or config.competition.slug
    if any(text.strip().startswith("competition.slug") for text in assignments):
        slug = config.competition.slug
    config = config.replace({"competition.slug": slug})
    last_preset = read_push(run).preset if record_path(run).exists() else DEFAULT_PRESET
    return PushPlan(run, config, preset_name or last_preset, slug, continues)


def script(plan: PushPlan, push_id: str) -> str:
    """The text of the script that the push sends."""
    facts = {"id": push_id, "run": plan.run.name, "preset": plan.preset, "continues": _continued_state(plan)}
    return kernel_script(plan.config, facts, requirements(), pack_source(), git_state())


def require_hours(hours: float | None) -> None:
    """Raise KitError if no GPU time is left this week."""
    if hours is not None and hours <= 0:
        raise KitError(
            "GPU hours at Kaggle", "none left this week",
            "wait for the new week (https://www.kaggle.com/settings), or `invoke train` here",
        )  # fmt: skip


def is_repeated(plan: PushPlan, push: Push) -> bool:
    """Whether a push sent the same state of the run with the same knobs, those of the section kaggle. aside."""
    knobs = json.loads(json.dumps(plan.config.as_dict()))
    return push.continues_sha256 == _continued_state(plan) and all(
        push.config.get(section) == values for section, values in knobs.items() if section != "kaggle"
    )


def require_idle(kernels: Kernels, plan: PushPlan, again: bool) -> None:
    """Raise KitError if the last push's session still runs, or was not pulled and ``again`` is false."""
    run = plan.run
    if not record_path(run).exists():
        return
    earlier = read_push(run)
    state = current_session(kernels, earlier).status
    if state in (QUEUED, RUNNING):
        raise KitError(
            f"no other session of run {run.name}", f"version {earlier.version} is {state}",
            f"`invoke kernel.status --run {run.name} --wait`",
        )  # fmt: skip
    if state == COMPLETE and not is_pulled(run, earlier) and not again:
        raise KitError(
            f"the output of version {earlier.version} in {run.folder}", "it is complete and was not pulled",
            f"`invoke kernel.pull --run {run.name}`; --again pushes a new version without it",
        )  # fmt: skip
    if state == GONE:
        log.warning("version %d of %s is gone from Kaggle", earlier.version, earlier.kernel)


def push(kernels: Kernels, plan: PushPlan, push_id: str) -> Push:
    """Upload the state that the run continues from, then the script, exactly once; the push as recorded.

    Raises Refused if Kaggle did not take it, and KitError if that is unknown: the same command then first looks
    for it on Kaggle.
    """
    run = plan.run
    slug = f"kit-{slug_of(run.name)}"
    kernel, sources = f"{kernels.username}/{slug}", []
    if plan.continues is not None:
        sources = [f"{kernel}-run"]
        _upload_run(kernels, run, sources[0], slug, push_id)
    knobs, continues = plan.config.as_dict(), _continued_state(plan)
    attempt = Push(push_id, kernel, 0, "", plan.preset, knobs, continues, time.time())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / slug
        write_text(folder / "kernel.py", script(plan, push_id))
        write_json(folder / "kernel-metadata.json", _metadata(kernel, slug, plan, sources))
        push_log.record_open(run, attempt)
        try:
            answer = kernels.push(folder, kernel)
        except Refused:
            push_log.close(run, attempt)
            raise
        except Unanswered as error:
            return _find_unanswered(kernels, run, attempt, error)
    pushed = dataclasses.replace(attempt, kernel=answer.kernel, version=answer.version, url=answer.url)
    push_log.record_arrived(run, pushed)
    if answer.unmounted:
        raise not_mounted(answer.unmounted, f"version {answer.version} runs without it, and will fail")
    return pushed


def _find_unanswered(kernels: Kernels, run: Run, attempt: Push, error: Unanswered) -> Push:
    """Look once for a push without an answer. Raises KitError if it is not on Kaggle, or not yet."""
    pushed = None
    with contextlib.suppress(KitError):  # the next command looks again
        pushed = push_log.find_push(kernels, run, attempt)
    if pushed is None:
        raise KitError(
            error.expected, f"{error.found}; whether it arrived is not known",
            "the same command looks for it on Kaggle before it sends anything",
        ) from error  # fmt: skip
    return pushed


def _continued_state(plan: PushPlan) -> str:
    """The state that the training continues from, as ``state_sha256``; "" if it starts anew."""
    return "" if plan.continues is None else state_sha256(plan.run.folder)


def _upload_run(kernels: Kernels, run: Run, dataset: str, slug: str, push_id: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_folder(Path(temporary) / "dataset")
        with zipfile.ZipFile(folder / RUN_ARCHIVE, "w") as archive:
            for path in sorted(run.folder.rglob("*")):
                if path.is_file() and not path.name.startswith("."):
                    archive.write(path, path.relative_to(run.folder).as_posix())
        meta = {"id": dataset, "title": f"{slug}-run", "licenses": [{"name": "unknown"}]}
        write_text(folder / "dataset-metadata.json", json.dumps(meta))
        kernels.save_dataset(folder, dataset, f"before push {push_id}")


def _metadata(kernel: str, slug: str, plan: PushPlan, datasets: list[str]) -> dict[str, object]:
    return {
        "id": kernel,
        "title": slug,
        "code_file": "kernel.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": plan.config.kernel.internet == "on",
        "machine_shape": plan.config.kernel.machine,
        "competition_sources": [plan.competition],
        "dataset_sources": datasets,
        "kernel_sources": [],
    }
