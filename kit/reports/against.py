"""Two sets compared before anything is trained: the images of a first stage that are in another workspace too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.config import Config
from kit.core.errors import KitError, first_few
from kit.core.progress import Track, silent
from kit.data.audit import SEEN_HELD_OUT, SEEN_TEST
from kit.data.competition import AUDIT, data_folder, open_files
from kit.data.duplicates import common_pictures
from kit.data.finding import FAULT, WARNING, Finding, counted
from kit.data.pixel_cache import PixelCache
from kit.reports.seen_page import PICTURED, Pair, Side, write_seen_page
from kit.runs.seen import prints_of
from kit.schemas.file_names import TABLE, TEST, TRAIN

_SHOWN = 3
_COLUMNS = ["image", "other_image"]


@dataclass(frozen=True)
class CommonImages:
    """What two sets have in common: findings, worst first, and the page that shows the pairs; None without any."""

    findings: tuple[Finding, ...]
    page: Path | None


def compare_sets(workspace: Path, other: Path, config: Config, track: Track = silent) -> CommonImages:
    """The images of ``other/data/train`` that are in ``test/`` of the workspace (a fault) or in its ``train/``.

    Copies count that were renamed, compressed again, resized, brightened, inverted, mirrored or slightly cropped.
    Raises KitError if one of the folders holds no set.
    """
    if other.resolve() == workspace.resolve():
        raise KitError("--against another workspace", str(other), "name the one of the first stage's set")
    data_folder(workspace)
    for path in (other / "data" / TRAIN, other / "data" / TABLE):
        if not path.exists():
            raise KitError(
                f"--against a workspace with a set of images: {other / 'data' / TRAIN} and {TABLE}", f"no {path}",
                "name a folder that `invoke import --into` or `invoke download --workspace` made",
            )  # fmt: skip
    theirs = open_files(other, TRAIN, config, track)
    seen = prints_of(theirs, theirs.digests, track)
    findings: list[Finding] = []
    pairs: list[Pair] = []
    for part in (TEST, TRAIN):
        if not (workspace / "data" / part).is_dir():
            continue
        ours = open_files(workspace, part, config, track)
        prints = prints_of(ours, ours.digests, track)
        common = common_pictures(seen, prints)
        _, first = np.unique(common[:, 1], return_index=True)
        names = [(prints.names[own], seen.names[index]) for index, own in common[first].tolist()]
        if names:
            findings.append(_finding(part, names, other))
            pictured = max(PICTURED - len(pairs), 0)
            pairs += [_pair(part, ours, theirs, other, *both) for both in names[:pictured]]
            pairs += [_named(part, other, *both) for both in names[pictured:]]
    page = workspace / AUDIT / f"against-{re.sub(r'[^A-Za-z0-9._-]', '_', other.resolve().name)}.html"
    if not pairs:
        page.unlink(missing_ok=True)
        return CommonImages((), None)
    return CommonImages(
        tuple(findings), write_seen_page(page, f"Images that are in {other.resolve().name} too", pairs)
    )


def _finding(part: str, names: Sequence[tuple[str, str]], other: Path) -> Finding:
    shown = first_few([f"{own} as {name}" for own, name in names], _SHOWN)
    text = (
        f"{counted(len(names), 'image')} of {part}/ {'is' if len(names) == 1 else 'are'} in {other} too ({shown})"
    )
    rows = pd.DataFrame([(f"{part}/{own}", name) for own, name in names], columns=_COLUMNS)
    leave_out = f"delete them from {other / 'data' / TRAIN}, and their rows from its {TABLE}, before it is trained"
    if part == TEST:
        return Finding(FAULT, SEEN_TEST, text, f"{leave_out}: weights that saw a test image break the rules", rows)
    return Finding(
        WARNING, SEEN_HELD_OUT, text,
        f"{leave_out}: those that are held out here would make the local score too high", rows,
    )  # fmt: skip


def _pair(part: str, ours: PixelCache, theirs: PixelCache, other: Path, own: str, name: str) -> Pair:
    """A pair with its pictures."""
    named = _named(part, other, own, name)
    return Pair(
        named.kind,
        Side.of(named.own.text, ours.facts[own].turned()),
        Side.of(named.seen.text, theirs.facts[name].turned()),
    )


def _named(part: str, other: Path, own: str, name: str) -> Pair:
    """A pair without pictures."""
    kind = "test image" if part == TEST else "training image"
    return Pair(kind, Side(f"{kind} {own}", None), Side(f"{name} of {other.resolve().name}", None))
