"""Making an ensemble of runs whose weights saw no test and no held-out images in an earlier stage."""

from __future__ import annotations

from collections.abc import Sequence

from kit.config import load
from kit.core.progress import Track, silent
from kit.reports.seen_images import judge
from kit.runs.ensemble import ensemble, member_run, require_combinable
from kit.runs.folder import Run, read_split
from kit.runs.members import Ensemble


def combine(
    run: Run,
    of: Sequence[str],
    weights: Sequence[float] = (),
    assignments: Sequence[str] = (),
    allow: Sequence[str] = (),
    track: Track = silent,
    classifiers: Sequence[str] = (),
) -> Ensemble:
    """Make the ensemble with ``kit.runs.ensemble.ensemble``, which says what the arguments are.

    Raises KitError as that does, and for test or held-out images that an earlier stage of a member's weights saw
    unless ``allow`` names it.
    """
    require_combinable(run, of, weights, assignments, classifiers)  # before a page or a permission is written
    members = [member_run(run, name) for name in of]
    held_out = set.intersection(*(set(read_split(member).validation) for member in members))
    judge(run, members, load(members[0].config), held_out, allow, track)
    return ensemble(run, of, weights, assignments, classifiers)
