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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.config import Config, ModelConfig, load, override, preset
from kit.core.errors import KitError
from kit.core.files import sha256, write_text
from kit.core.json_files import write_json
from kit.core.source_tree import git_state, pack_source, requirements
from kit.data.audit import require_checks
from kit.data.groups import GROUPS, read_groups
from kit.data.provenance import downloaded_slug
from kit.kaggle.errors import Refused, Unanswered
from kit.kaggle.kernels import dataset, push_log
from kit.kaggle.kernels.api import Kernels, not_mounted
from kit.kaggle.kernels.machine import (
    MACHINES,
    extras,
    machine_knobs,
    require_machine,
    usable_gpus,
    weights_file,
    without_machine,
)
from kit.kaggle.kernels.output import COMPLETE, GONE, QUEUED, RUNNING, current_session, is_pulled
from kit.kaggle.kernels.push_log import Push, read_push, record_path, slug_of
from kit.kaggle.kernels.script import kernel_script
from kit.kaggle.kernels.session import GROUPS_FILE, MOUNTED_SEEN_FILE, WEIGHTS_FILE, state_sha256
from kit.presets import DEFAULT_PRESET
from kit.runs.folder import Run
from kit.runs.knobs import require_same_knobs
from kit.runs.seen import SEEN_FILE, read_seen, recorded_sha256

log = logging.getLogger("kit")


@dataclass(frozen=True)
class PushPlan:
    """What a push sends: the run, its knobs, its preset ("" for the run's own knobs), the competition's slug."""

    run: Run
    config: Config
    preset: str
    competition: str
    continues: Path | None  # the checkpoint that the training continues from
    kept: tuple[str, ...] = ()  # the run's knobs, KEY=VALUE, that describe this machine and are not sent
    weights: Path | None = None  # the file that the training starts from, which is sent along
    weights_sha256: str = ""
    allow: tuple[str, ...] = ()  # faults found by the audit that do not stop the training
    groups: Path | None = None  # groups.csv, which is sent along
    groups_sha256: str = ""

    @property
    def files(self) -> dict[str, Path]:
        """The files that are sent along, by their names there."""
        seen = self.weights.with_name(SEEN_FILE) if self.weights else None  # of a checkpoint of kit alone
        named = {WEIGHTS_FILE: self.weights, GROUPS_FILE: self.groups}
        if seen is not None and seen.exists():
            named[MOUNTED_SEEN_FILE] = seen
        return {name: path for name, path in named.items() if path is not None}

    @property
    def sends_along(self) -> bool:
        """Whether there is a data set beside the script: the run's state, a file of weights, groups.csv."""
        return self.continues is not None or bool(self.files)

    def lines(self, hours: float | None, again: bool = False) -> list[str]:
        """The plan as text; ``hours`` are the GPU hours left this week, None if unknown."""
        recipe = f"preset {self.preset}" if self.preset else f"the knobs of {self.run.config}"
        start = "from the start" if self.continues is None else f"from {self.continues}"
        kernel, folds = self.config.kernel, self.config.data.folds
        gpus = 0 if self.config.trainer.accelerator == "cpu" else MACHINES[kernel.machine]
        used = usable_gpus(self.config, gpus)
        use = f"{used} of {folds} folds at a time, " if folds > 1 else ""
        use += f"on {used} of its {gpus} GPU(s)" if gpus else "on its CPU (trainer.accelerator=cpu)"
        lines = [
            f"run:         {self.run.name}, {recipe}, {folds} fold(s), {start}",
            f"competition: https://www.kaggle.com/competitions/{self.competition}",
            f"machine:     {kernel.machine}, {use}, internet {kernel.internet}, private",
        ]
        if self.kept:
            lines.append(f"not sent:    {', '.join(self.kept)}: this machine's")
        if self.sends_along:
            is_there = not again and dataset.is_uploaded(self.run, _sent_along(self))
            state = "is there already" if is_there else "is uploaded"
            parts = [] if self.continues is None else [f"the run ({_mebibytes(*dataset.run_files(self.run))})"]
            parts += [f"{path} ({_mebibytes(path)})" for path in self.files.values()]
            lines.append(f"data set:    {' and '.join(parts)}, private; it {state}")
        if self.allow:
            lines.append(f"allowed:     {', '.join(self.allow)}")
        return [
            *lines,
            f"stops after: {kernel.max_hours:g} hours",
            f"GPU hours:   {'unknown' if hours is None else f'{hours:.1f} left this week'}",
        ]


def plan_push(
    workspace: Path,
    name: str,
    preset_name: str | None,
    assignments: Sequence[str],
    folds: int | None,
    allow: Sequence[str] = (),
) -> PushPlan:
    """Plan the push of a new run, or of a local one that has not finished. Needs no data.

    Args:
        workspace: The folder that holds runs/ and kernels/.
        name: The name of the run.
        preset_name: The preset; by default the run's own knobs if it exists here, else the last push's preset.
        assignments: Knobs as KEY=VALUE; those that describe a machine are meant for Kaggle's.
        folds: The number of folds; by default that of the preset or of the run.
        allow: Checks of the audit whose faults do not stop the training.

    Returns:
        The plan; its competition is the one in data/ unless ``assignments`` names another.

    Raises:
        KitError: The run has finished, the knobs differ from those that it was started with, or they cannot
            work on Kaggle's machine.
        TableError: groups.csv is broken.
    """
    require_checks(allow)
    run = Run(workspace, name)
    more = [*assignments, *([] if folds is None else [f"data.folds={folds}"])]
    stored, continues = None, None
    recipe = preset_name or ""
    if run.config.exists():
        if run.finished.exists():
            raise KitError(
                "a run that has not finished", f"{name} has", "`invoke evaluate` shows it; or another --run"
            )
        stored = load(run.config)
        base = preset(preset_name) if preset_name else stored
        checkpoints = sorted(run.folder.glob("**/last.ckpt"))
        continues = checkpoints[0] if checkpoints else None
    else:
        recipe = recipe or (read_push(run).preset if record_path(run).exists() else "") or DEFAULT_PRESET
        base = preset(recipe)
    config = override(without_machine(base), more)
    kept: tuple[str, ...] = ()
    if stored is not None:
        config = dataclasses.replace(config, model=_with_norms_of(stored.model, config.model))
        require_same_knobs(run, stored, config)
        changed = [key for key in machine_knobs() if stored.get(key) != config.get(key)]
        kept = tuple(f"{key}={stored.get(key)}" for key in changed)
    needs_weights = not all(fold.last.exists() for fold in run.in_folds(config.data.folds))
    require_machine(config, needs_weights)
    weights = weights_file(config) if needs_weights else None
    slug = downloaded_slug(workspace) or config.competition.slug
    if any(text.strip().startswith("competition.slug") for text in assignments):
        slug = config.competition.slug
    return PushPlan(
        run, config.replace({"competition.slug": slug}), recipe, slug, continues, kept, weights,
        "" if weights is None else _readable(weights), tuple(allow), *_groups(workspace / "data"),
    )  # fmt: skip


def _groups(data: Path) -> tuple[Path, str] | tuple[None, str]:
    """The path of groups.csv and its SHA-256, None and "" if there is none. Raises TableError for a broken one."""
    path = data / GROUPS
    read_groups(data)
    return (path, sha256(path)) if path.exists() else (None, "")


def _readable(weights: Path) -> str:
    """The SHA-256 of a file of weights. Raises KitError if it is none, or of kit without its ``seen.parquet``.

    A session would find out after its start.
    """
    from kit.detectors.checkpoints import load_checkpoint  # loads torch, which a push without such a file needs not

    other = "name another file with --set model.weights=PATH, or --set model.weights=none"
    seen = recorded_sha256(load_checkpoint(weights, other))
    if seen:  # it is sent along, and the training there wants it
        read_seen(weights.with_name(SEEN_FILE), seen, f"copy it from the run that made {weights.name}, or {other}")
    return sha256(weights)


def _with_norms_of(stored: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """The wanted knobs and the weights that they mean; norms that they leave open are those of the stored run."""
    norm = stored.norm if wanted.norm == "auto" else wanted.norm
    return dataclasses.replace(
        wanted,
        weights=wanted.start,
        norm=norm,
        norm_eps=stored.norm_eps if wanted.norm_eps < 0 else wanted.norm_eps,
    )


def script(plan: PushPlan, push_id: str) -> str:
    """The text of the script that the push sends."""
    facts = {
        "id": push_id,
        "run": plan.run.name,
        "preset": plan.preset or DEFAULT_PRESET,
        "continues": _continued_state(plan),
        **({"weights": plan.weights_sha256} if plan.weights else {}),
        **({"groups": plan.groups_sha256} if plan.groups else {}),
        **({"allow": ",".join(plan.allow)} if plan.allow else {}),
    }
    needed = requirements(*extras(plan.config.model.detector))
    return kernel_script(plan.config, facts, needed, pack_source(), git_state())


def require_hours(hours: float | None) -> None:
    """Raise KitError if no GPU time is left this week."""
    if hours is not None and hours <= 0:
        raise KitError(
            "GPU hours at Kaggle", "none left this week",
            "wait for the new week (https://www.kaggle.com/settings), or `invoke train` here",
        )  # fmt: skip


def is_repeated(plan: PushPlan, push: Push) -> bool:
    """Whether a push sent the same state of the run with the same knobs, those of the section kaggle. aside."""
    knobs, defaults = (json.loads(json.dumps(config.as_dict())) for config in (plan.config, Config()))
    sent = (push.continues_sha256, push.weights_sha256, push.groups_sha256, push.allow)
    wanted = (_continued_state(plan), plan.weights_sha256, plan.groups_sha256, plan.allow)
    return sent == wanted and all(
        defaults[section] | dict(push.config.get(section, {})) == values  # a knob is newer than the push if missing
        for section, values in knobs.items()
        if section != "kaggle"
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


def push(kernels: Kernels, plan: PushPlan, push_id: str, again: bool = False) -> Push:
    """Upload what is sent along, then the script, exactly once; the push as recorded.

    A state that was uploaded before is not uploaded again, unless ``again`` is true and a push has used it.

    Raises Refused if Kaggle did not take it, and KitError if that is unknown: the same command then first looks
    for it on Kaggle.
    """
    run = plan.run
    slug = f"kit-{slug_of(run.name)}"
    kernel, sources = f"{kernels.username}/{slug}", []
    knobs, continues = plan.config.as_dict(), _continued_state(plan)
    if plan.sends_along:
        sources = [f"{kernel}-run"]
        dataset.provide(kernels, run, sources[0], _sent_along(plan), plan.config.kaggle, again, plan.files)
    attempt = Push(
        push_id, kernel, 0, "", plan.preset, knobs, continues, time.time(), plan.weights_sha256, plan.allow,
        plan.groups_sha256,
    )  # fmt: skip
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
    if sources:
        dataset.mark_used(run)
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


def _sent_along(plan: PushPlan) -> str:
    """What tells the data set of a push from another: the state, and the files if there are any."""
    digests = (plan.weights_sha256, plan.groups_sha256 and f"groups {plan.groups_sha256}")
    return "+".join([_continued_state(plan), *filter(None, digests)])


def _mebibytes(*paths: Path) -> str:
    return f"{sum(path.stat().st_size for path in paths) / 2**20:.1f} MiB"


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
