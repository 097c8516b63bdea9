"""The audit of a workspace: made once for each state of its data, stored as audit.json and audit.html."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from kit import __version__
from kit.config import Config
from kit.core.errors import KitError
from kit.core.json_files import fingerprint, read_record, write_record
from kit.core.locks import locked_folder
from kit.core.progress import Track, silent
from kit.core.text_files import text_sha256
from kit.data.audit import CHECKS, AuditInput, findings, require_checks
from kit.data.competition import AUDIT, OpenedData, data_folder, has_test, open_all_files, patients
from kit.data.duplicates import Prints, comparable_prints, duplicate_groups, groups_of_copies, small_copies
from kit.data.finding import FAULT, LEVELS, NOTE, WARNING, Finding
from kit.data.groups import read_groups
from kit.data.inversion import (
    LIST_NAME,
    InvertedImages,
    compared_images,
    inverted_images,
    listed_images,
    write_list,
)
from kit.data.pixel_cache import PixelCache
from kit.data.provenance import has_own_table
from kit.schemas.file_names import MAPPING, TABLE, TEST, TRAIN
from kit.schemas.image_headers import ImageFacts
from kit.schemas.missing_images import unread_images
from kit.schemas.tables import mapped_images, no_finding_boxes, read_annotations

_FORMAT = 5
T = TypeVar("T")
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Audit:
    """The findings on a workspace's data, worst first, the page that shows them, and the opened data."""

    findings: tuple[Finding, ...]
    page: Path
    opened: OpenedData = field(compare=False, repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Findings by level: fault, warning, note."""
        levels = [finding.level for finding in self.findings]
        return {level: levels.count(level) for level in LEVELS}

    @property
    def nothing_found(self) -> tuple[str, ...]:
        """The checks that found nothing."""
        return tuple(name for name in CHECKS if name not in {finding.check for finding in self.findings})


@dataclass(frozen=True)
class _StoredFinding:
    """A finding as it stands in audit.json."""

    level: str
    check: str
    text: str
    do: str
    rows: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        if self.level not in LEVELS or self.check not in CHECKS:
            raise ValueError(f"a finding of level {self.level!r}, check {self.check!r}")


@dataclass(frozen=True)
class _StoredAudit:
    """The content of audit.json; ``key`` changes with the data and with the kit's version."""

    key: str
    kit_version: str
    fault: int
    warning: int
    note: int
    nothing_found: tuple[str, ...]
    findings: tuple[_StoredFinding, ...]


def audit_workspace(
    workspace: Path, config: Config, track: Track = silent, opened: Mapping[str, PixelCache] | None = None
) -> Audit:
    """Audit ``WORKSPACE/data`` into ``WORKSPACE/audit``, or read the audit there if it is of the same data.

    ``train/`` and ``train.csv`` are required; ``test/`` and the mapping are checked if they exist. ``opened`` has
    the caches of both as they lie in their files (``open_all_files``), if they are open already. Raises
    TableError for a train.csv that is no table of boxes (a row may name an image of either half), KitError for a
    missing folder.
    """
    data, folder = data_folder(workspace), workspace / AUDIT
    files = opened or open_all_files(workspace, config, track)
    own, groups = has_own_table(data), read_groups(data)
    unread = [path for part in files for path in unread_images(data / part)]
    key = _key(data, files, own, config, unread, groups)
    stored = _stored(folder, key, files)
    if stored is not None:
        return Audit(stored, folder / "audit.html", OpenedData(_as_configured(files, config, folder)))
    prints = _prints(files, track)
    inverted = _inverted(prints)
    with locked_folder(folder):
        write_list(folder, _list(files, inverted))
    caches = _as_configured(files, config, folder)
    train, test = caches[TRAIN].facts, caches[TEST].facts if TEST in caches else {}
    annotations = audited_annotations(data, OpenedData(caches), config)
    comparable = comparable_prints(prints, _by_path(files, lambda pixels: pixels.facts), inverted)
    # A split asks for those of train/ too, and finds them stored.
    in_train = groups_of_copies(files[TRAIN], track, prints.copies[: len(files[TRAIN].digests)])
    checked = AuditInput(
        annotations,
        own,
        train,
        test,
        {*test, *(mapped_images(data / MAPPING) if has_test(workspace) else ())},
        patients(sorted({*train, *test}), config.data.patient_pattern, groups),
        comparable,
        config.data,
        unread,
        inverted,
        _by_path(files, lambda pixels: pixels.levels),
        groups,
        no_finding_boxes(data / TABLE, _readable(caches)),
        duplicate_groups(comparable, len(files[TRAIN].digests), in_train),
    )
    audit = Audit(tuple(findings(checked)), folder / "audit.html", OpenedData(caches, annotations))
    with locked_folder(folder):
        _write(audit, folder, key)
    return audit


def audited_annotations(data: Path, opened: OpenedData, config: Config) -> pd.DataFrame:
    """The rows of train.csv as the audit judges them, on images of train/ and of test/, read unless opened."""
    if opened.annotations is not None:
        return opened.annotations
    fuse = config.data.repeated_boxes == "fuse"
    return read_annotations(data / TABLE, _readable(opened.pixels), every_image=True, repeats=fuse)


def _readable(pixels: Mapping[str, PixelCache]) -> dict[str, ImageFacts]:
    """All images of train/, the readable ones of test/: training finds the same faults, whatever test/ holds."""
    of_test = pixels[TEST].facts if TEST in pixels else {}
    return {**{name: facts for name, facts in of_test.items() if not facts.fault}, **pixels[TRAIN].facts}


def require_sound(audit: Audit, allowed: Sequence[str]) -> None:
    """Raise KitError for faults whose check is not ``allowed``; log the other checks and what they found."""
    require_checks(allowed)
    faults = [finding for finding in audit.findings if finding.level == FAULT and finding.check not in allowed]
    if faults:
        raise KitError(
            "data without faults", "; ".join(f"{fault.check}: {fault.text}" for fault in faults),
            f"{'; '.join(fault.do for fault in faults)}; every row is in {audit.page}",
        )  # fmt: skip
    warned = [finding for finding in audit.findings if finding.level != NOTE]
    if warned:
        log.info("audit: %s; see %s", ", ".join(finding.check for finding in warned), audit.page)
    for finding in warned:
        log.warning("%s: %s; %s", finding.check, finding.text, finding.do)


def _key(
    data: Path,
    caches: Mapping[str, PixelCache],
    own_table: bool,
    config: Config,
    unread: Sequence[str],
    groups: Mapping[str, str],
) -> str:
    """A fingerprint of everything that the findings depend on: images by pixels and faults, not by file times."""
    tables = [text_sha256(data / name) if (data / name).is_file() else "" for name in (TABLE, MAPPING)]
    pixels = {
        part: [(name, facts.fault or cache.digests[name], facts.tag) for name, facts in cache.facts.items()]
        for part, cache in caches.items()
    }
    data_knobs = config.data
    knobs = [
        data_knobs.patient_pattern, data_knobs.largest_patient_share, data_knobs.repeated_boxes,
        data_knobs.orientation, data_knobs.invert,
    ]  # fmt: skip
    return fingerprint(
        [_FORMAT, __version__, pixels, own_table, tables, knobs, list(unread), *([groups] if groups else [])]
    )


def _as_configured(files: Mapping[str, PixelCache], config: Config, folder: Path) -> dict[str, PixelCache]:
    """The images of each part, turned and inverted as the knobs say."""
    listed = config.data.invert == "listed"
    return {
        part: pixels.treated(config.data.orientation, listed_images(folder, part, pixels.digests) if listed else ())
        for part, pixels in files.items()
    }


def _inverted(prints: Prints) -> list[str]:
    """The images that are inverted against those of train/, named ``train/NAME`` and ``test/NAME``."""
    is_training = np.array([name.startswith(f"{TRAIN}/") for name in prints.names], dtype=bool)
    found = inverted_images(prints.copies, is_training)
    return [name for name, is_inverted in zip(prints.names, found, strict=True) if is_inverted]


def _list(files: Mapping[str, PixelCache], inverted: Sequence[str]) -> InvertedImages:
    names = [name.partition("/") for name in inverted]
    return InvertedImages(
        {part: tuple(name for of, _, name in names if of == part) for part in files},
        {part: compared_images(pixels.digests) for part, pixels in files.items()},
    )


def _by_path(caches: Mapping[str, PixelCache], values: Callable[[PixelCache], Mapping[str, T]]) -> dict[str, T]:
    """A value of every image, by ``train/NAME`` and ``test/NAME``."""
    return {f"{part}/{name}": value for part, cache in caches.items() for name, value in values(cache).items()}


def _prints(caches: Mapping[str, PixelCache], track: Track) -> Prints:
    """The prints of all readable images, named ``train/NAME`` and ``test/NAME``."""
    digests = _by_path(caches, lambda pixels: pixels.digests)
    copies = np.concatenate(small_copies(list(caches.values()), track))
    return Prints(tuple(digests), tuple(digests.values()), copies)


def _stored(folder: Path, key: str, files: Mapping[str, PixelCache]) -> tuple[Finding, ...] | None:
    """The findings in audit.json; None if they are of other data, damaged or edited: then they are made anew."""
    path, others = folder / "audit.json", (folder / "audit.html", folder / LIST_NAME)
    if not path.is_file() or not all(other.is_file() for other in others):
        return None
    try:
        for part, pixels in files.items():
            listed_images(folder, part, pixels.digests)
        stored = read_record(path, _StoredAudit, "")
    except KitError:
        return None
    if stored.key != key:
        return None
    return tuple(
        Finding(finding.level, finding.check, finding.text, finding.do, pd.DataFrame(list(finding.rows)))
        for finding in stored.findings
    )


def _write(audit: Audit, folder: Path, key: str) -> None:
    """Write the page and, last, audit.json, whose key says that both are there."""
    from kit.reports.audit_page import write_audit_page  # on use: it loads matplotlib

    images = _by_path(audit.opened.pixels, lambda pixels: pixels.facts)
    write_audit_page(audit.page, audit.findings, images, audit.opened.annotations)
    stored = tuple(
        _StoredFinding(finding.level, finding.check, finding.text, finding.do, _records(finding.rows))
        for finding in audit.findings
    )
    fault, warning, note = audit.counts[FAULT], audit.counts[WARNING], audit.counts[NOTE]
    content = _StoredAudit(key, __version__, fault, warning, note, audit.nothing_found, stored)
    write_record(folder / "audit.json", content)


def _records(rows: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    return tuple({str(name): value for name, value in row.items()} for row in rows.to_dict("records"))
