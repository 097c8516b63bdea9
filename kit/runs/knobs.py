"""A run keeps the knobs it was started with, except those that act on stored detections or describe the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kit.config import Config, differences, knobs, load, override, save
from kit.core.errors import KitError
from kit.runs.folder import Run
from kit.runs.locks import using_results


def adjust(run: Run, assignments: Sequence[str]) -> None:
    """Change knobs of a run that act on its stored detections. Raises KitError for any other.

    The caller holds the run's lock (``using_results``) while it uses them: another command may change them next.
    """
    config = load(run.config)
    wanted = override(config, assignments)
    require_same_knobs(run, config, wanted)
    if wanted != config:
        save(wanted, run.config)


def save_knobs(run: Run, wanted: Callable[[], Config]) -> None:
    """Write the knobs that are wanted of a finished run, if they differ from those that it has.

    ``wanted`` is called again under the run's lock: another command may have changed a knob in between.
    """
    if wanted() != load(run.config):
        with using_results(run):
            save(wanted(), run.config)


def require_same_knobs(run: Run, stored: Config, wanted: Config, every_knob: bool = False) -> None:
    """Raise KitError if a knob differs that a run may not change; with ``every_knob``, if any knob differs."""
    changed = differences(stored, wanted)
    if every_knob:
        changed = {key: (stored.get(key), wanted.get(key)) for key in knobs() if stored.get(key) != wanted.get(key)}
    if changed:
        listed = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
        raise KitError(
            f"run {run.name!r} to keep its knobs", listed,
            "leave out the options that change them, or choose another --run NAME; "
            f"`invoke evaluate --run {run.name} --set ...` may change those of competition., fusion. and decision.",
        )  # fmt: skip
