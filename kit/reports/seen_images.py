"""Test and held-out images that earlier stages of a run's weights were trained on: found, shown, refused.

A test image that the weights saw breaks the rules; a held-out one makes the local score dishonest. The run's own
training images are no fault: the audit compares them with the test.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.config import Config, load
from kit.core.errors import KitError, first_few
from kit.core.progress import Track, silent
from kit.data.audit import SEEN_HELD_OUT, SEEN_TEST, require_checks
from kit.data.competition import has_test, open_files
from kit.data.duplicates import common_pictures
from kit.data.finding import counted
from kit.data.images import Grey
from kit.runs.folder import Run, read_finished, read_split
from kit.runs.members import read_ensemble
from kit.runs.seen import Seen, prints_of, read_allowed, read_seen, record_allowed, seen_path
from kit.schemas.file_names import TEST, TRAIN
from kit.schemas.image_headers import ImageFacts

PAGE = "seen-images.html"
_WHAT = {SEEN_TEST: "test image", SEEN_HELD_OUT: "held-out image"}
_SHOWN = 3
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Sighting:
    """An image of the test, or held out, that an earlier stage saw: under another name, perhaps changed."""

    check: str
    image: ImageFacts
    seen_name: str
    stage: str
    copy: Grey

    @property
    def image_id(self) -> str:
        """The image's name in this workspace."""
        return self.image.path.name

    @property
    def trained_by(self) -> str:
        """The workspace and run of the stage: ``workspace/run``."""
        return self.stage.partition(" ")[2]

    def text(self) -> str:
        """Both names and the stage in words."""
        return f"{self.image_id} as {self.seen_name} of {self.trained_by}"


def require_unseen(run: Run, allow: Collection[str] = (), track: Track = silent) -> None:
    """Refuse a finished run whose weights saw test or held-out images in an earlier stage, unless that is allowed.

    For an ensemble those that any member saw. What is allowed now is recorded in the run. Raises KitError for what
    is not, and for a lost or changed ``seen.parquet``.
    """
    members = (
        [Run(run.workspace, each.run) for each in read_ensemble(run).members] if run.ensemble.exists() else [run]
    )
    judge(run, members, load(run.config), read_split(run).validation, allow, track)


def judge(
    run: Run,
    members: Sequence[Run],
    config: Config,
    held_out: Collection[str],
    allow: Collection[str] = (),
    track: Track = silent,
) -> None:
    """The same for the members of a run that need not exist yet, and for the images that it has ``held_out``."""
    require_checks(allow)
    before = Seen.nothing()
    for member in members:
        before = before.joined(stages_before(member))
    refuse(run, sightings(run.workspace, config, before, held_out, track), allow, config.model.weights)


def stages_before(run: Run) -> Seen:
    """What a finished run's weights saw before its own training; its folds have all started from the same."""
    if run.adopted.exists():
        log.info("run %s is adopted: which images its detector was trained on is not known to kit", run.name)
        return Seen.nothing()
    known = read_finished(run).seen
    if not known:
        log.info("run %s is of an earlier version of kit, which did not record the images that its weights saw",
                 run.name)  # fmt: skip
        return Seen.nothing()
    do = f"restore it from a copy, or train under another --run NAME than {run.name}"
    folds = run.in_folds(len(read_split(run).folds))
    seen = [read_seen(seen_path(fold), known.get(fold.title, ""), do) for fold in folds]
    return seen[0].before()


def sightings(
    workspace: Path, config: Config, before: Seen, held_out: Collection[str], track: Track = silent
) -> list[Sighting]:
    """The images of ``test/`` and those ``held_out`` that are among the images seen before; one pair for each."""
    if not before.stages:
        return []
    found = []
    for part, check in ((TEST, SEEN_TEST), (TRAIN, SEEN_HELD_OUT)):
        if part == TEST and not has_test(workspace):
            continue
        files = open_files(workspace, part, config, track)
        prints = prints_of(files, files.digests if part == TEST else held_out, track)
        pairs = common_pictures(before.prints, prints, before.hashes)
        _, first = np.unique(pairs[:, 1], return_index=True)
        found += [
            Sighting(
                check, files.facts[prints.names[own]], before.prints.names[index], before.stages[index],
                before.prints.copies[index],
            )
            for index, own in pairs[first].tolist()
        ]  # fmt: skip
    return found


def refuse(run: Run, found: Sequence[Sighting], allow: Collection[str], weights: str) -> None:
    """Write the page of what was found; record what is allowed, raise KitError for the rest.

    ``weights`` is the run's ``model.weights``: the workspace around them may have the original pictures.
    """
    if not found:
        return
    by_check = {check: [one for one in found if one.check == check] for check in _WHAT}
    texts = {check: sightings_text(check, some) for check, some in by_check.items() if some}
    page = run.folder / PAGE
    _write_page(page, run, found, weights)
    missing = [check for check in texts if check not in {*allow, *read_allowed(run).images}]
    if missing:
        flags = " ".join(f"--allow {check}" for check in missing)
        raise KitError(
            f"weights for run {run.name!r} that saw no test image and no held-out image before its own training",
            "; ".join(texts[check] for check in missing),
            f"look at the pairs in {page}; start from weights that saw none, or leave these images out of the "
            f"earlier stage and train it anew; {flags} goes on all the same, and the run keeps that",
        )  # fmt: skip
    for check, text in texts.items():
        log.warning("%s, allowed: %s; see %s", check, text, page)
    record_allowed(run, {check: [one.image_id for one in by_check[check]] for check in texts})


def _write_page(path: Path, run: Run, found: Sequence[Sighting], weights: str) -> None:
    """The pairs side by side; on the right the original if its workspace is at hand, else the copy.

    Only the pictures that the page shows are read.
    """
    from kit.reports.seen_page import PICTURED, Pair, Side, original, workspaces_at_hand, write_seen_page

    pairs: list[Pair] = []
    for one in found:
        texts = f"{_WHAT[one.check]} {one.image_id}", f"{one.seen_name}, trained on by {one.trained_by}"
        if len(pairs) >= PICTURED:
            pairs.append(Pair(_WHAT[one.check], *(Side(text, None) for text in texts)))
            continue
        folders = workspaces_at_hand(run.workspace, one.trained_by.partition("/")[0], weights)
        picture = original(one.seen_name, one.copy, folders)
        kept = "" if picture is not None else "; the 64 x 64 copy"
        seen = Side.shown(f"{texts[1]}{kept}", one.copy if picture is None else picture)
        pairs.append(Pair(_WHAT[one.check], Side.of(texts[0], one.image), seen))
    write_seen_page(path, f"Run {run.name}: images that an earlier stage saw", pairs)


def sightings_text(check: str, found: Sequence[Sighting]) -> str:
    """How many images were seen, and the first ones."""
    verb = "was" if len(found) == 1 else "were"
    names = first_few([one.text() for one in found], _SHOWN)
    return f"{counted(len(found), _WHAT[check])} {verb} trained on by an earlier stage ({names})"
