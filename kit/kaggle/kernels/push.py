"""Train a run on Kaggle's machines: what would be pushed, and the push, which starts one session.

What is known of a push is in ``push_log``; what becomes of its session in ``output``.
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
    """What a push would send."""

    run: Run
    config: Config
    preset: str
    competition: str
    continues: Path | None  # the checkpoint that it goes on from

    def lines(self, hours: float | None) -> list[str]:
        """What is shown before it is sent; ``hours`` of GPU that are left, None where nobody knows."""
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
    """What would be pushed for a run: a new one, or the local one that has not finished. Needs no data."""
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
    before = read_push(run).preset if record_path(run).exists() else DEFAULT_PRESET
    return PushPlan(run, config, preset_name or before, slug, continues)


def script(plan: PushPlan, push_id: str) -> str:
    """The file that would be pushed."""
    facts = {
        "id": push_id,
        "run": plan.run.name,
        "preset": plan.preset,
        "continues": _continued(plan),
    }
    return kernel_script(plan.config, facts, requirements(), pack_source(), git_state())


def require_hours(hours: float | None) -> None:
    """Raises KitError where no GPU time is left this week."""
    if hours is not None and hours <= 0:
        raise KitError(
            "GPU hours at Kaggle", "none left this week",
            "wait for the new week (https://www.kaggle.com/settings), or `invoke train` here",
        )  # fmt: skip


def is_repeated(plan: PushPlan, push: Push) -> bool:
    """Whether a push was of this very run with these very knobs, patience apart."""
    asked = json.loads(json.dumps(plan.config.as_dict()))
    return push.continues_sha256 == _continued(plan) and all(
        push.config.get(section) == values for section, values in asked.items() if section != "kaggle"
    )


def require_idle(kernels: Kernels, plan: PushPlan, again: bool) -> None:
    """Raises KitError where an earlier push of the run still works, or waits to be pulled and not ``again``."""
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
            f"the output of version {earlier.version} to be here", "it is complete and was not pulled",
            f"`invoke kernel.pull --run {run.name}`; --again pushes a new version without it",
        )  # fmt: skip
    if state == GONE:
        log.warning("version %d of %s is gone from Kaggle", earlier.version, earlier.kernel)


def push(kernels: Kernels, plan: PushPlan, push_id: str) -> Push:
    """Upload what the run goes on from, then the script, exactly once: recorded before and after.

    Raises KitError where Kaggle refused it, and where nobody knows: the same command then looks for it first.
    """
    run = plan.run
    slug = f"kit-{slug_of(run.name)}"
    kernel, sources = f"{kernels.username}/{slug}", []
    if plan.continues is not None:
        sources = [f"{kernel}-run"]
        _upload_run(kernels, run, sources[0], slug, push_id)
    knobs, continues = plan.config.as_dict(), _continued(plan)
    attempt = Push(push_id, kernel, 0, "", plan.preset, knobs, continues, time.time())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / slug
        write_text(place / "kernel.py", script(plan, push_id))
        write_json(place / "kernel-metadata.json", _metadata(kernel, slug, plan, sources))
        push_log.record_open(run, attempt)
        try:
            made = kernels.push(place, kernel)
        except Refused:
            push_log.close(run, attempt)
            raise
        except Unanswered as error:
            return _found_after_loss(kernels, run, attempt, error)
    pushed = dataclasses.replace(attempt, kernel=made.kernel, version=made.version, url=made.url)
    push_log.record_arrived(run, pushed)
    if made.unmounted:
        raise not_mounted(made.unmounted, f"version {made.version} runs without it, and will fail")
    return pushed


def _found_after_loss(kernels: Kernels, run: Run, attempt: Push, lost: Unanswered) -> Push:
    found = None
    with contextlib.suppress(KitError):  # then the next command looks
        found = push_log.find_push(kernels, run, attempt)
    if found is None:
        raise KitError(
            lost.expected, f"{lost.found}; whether it arrived is not known",
            "the same command looks for it on Kaggle before it sends anything",
        ) from lost  # fmt: skip
    return found


def _continued(plan: PushPlan) -> str:
    """The state that a push goes on from; "" for a start."""
    return "" if plan.continues is None else state_sha256(plan.run.folder)


def _upload_run(kernels: Kernels, run: Run, dataset: str, slug: str, push_id: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = make_folder(Path(folder) / "dataset")
        with zipfile.ZipFile(place / RUN_ARCHIVE, "w") as archive:
            for path in sorted(run.folder.rglob("*")):
                if path.is_file() and not path.name.startswith("."):
                    archive.write(path, path.relative_to(run.folder).as_posix())
        meta = {"id": dataset, "title": f"{slug}-run", "licenses": [{"name": "unknown"}]}
        write_text(place / "dataset-metadata.json", json.dumps(meta))
        kernels.save_dataset(place, dataset, f"before push {push_id}")


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
