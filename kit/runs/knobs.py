"""A run keeps the knobs it was started with, except those that act on stored detections or describe the machine."""

from __future__ import annotations

from collections.abc import Sequence

from kit.config import (
    Config,
    differences,
    load,
    override,
    save,
)
from kit.core.errors import KitError
from kit.runs.folder import (
    Run,
)


def adjust(run: Run, assignments: Sequence[str]) -> None:
    """Change knobs of a run that act on its stored detections. Raises KitError for any other."""
    config = load(run.config)
    wanted = override(config, assignments)
    require_same_knobs(run, config, wanted)
    save_knobs(run, wanted)


def save_knobs(run: Run, config: Config) -> None:
    """Write the knobs of a run, if they differ from those that it has."""
    if config != load(run.config):
        save(config, run.config)


def require_same_knobs(run: Run, stored: Config, wanted: Config) -> None:
    """Raise KitError if a knob differs that a run may not change."""
    changed = differences(stored, wanted)
    if changed:
        listed = "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
        raise KitError(
            f"the knobs that run {run.name!r} was started with", listed,
            f"`invoke train --run {run.name}` goes on with it as it is; another --run NAME starts anew",
        )  # fmt: skip
