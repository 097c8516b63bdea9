"""The audit of a workspace: made once for each state of its data, stored as audit.json and audit.html."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import __version__
from kit.config import Config
from kit.core.errors import KitError, closest_names
from kit.core.json_files import fingerprint, read_record, write_record
from kit.core.locks import locked_folder
from kit.core.progress import Track, silent
from kit.core.text_files import text_sha256
from kit.data.audit import CHECKS, AuditInput, findings
from kit.data.competition import OpenedData, data_folder, has_test, open_pixels, patients
from kit.data.duplicates import Prints, small_copies
from kit.data.finding import FAULT, LEVELS, NOTE, WARNING, Finding
from kit.data.pixel_cache import PixelCache
from kit.data.provenance import has_own_table
from kit.schemas.file_names import MAPPING, TABLE, TEST, TRAIN
from kit.schemas.missing_images import unread_images
from kit.schemas.tables import mapped_images, read_annotations

_FORMAT = 2
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


def audit_workspace(workspace: Path, config: Config, track: Track = silent) -> Audit:
    """Audit ``WORKSPACE/data`` into ``WORKSPACE/audit``, or read the audit there if it is of the same data.

    ``train/`` and ``train.csv`` are required; ``test/`` and the mapping are checked if they exist. Raises
    TableError for a train.csv that is no table of boxes (a row may name an image of either half), KitError for a
    missing folder.
    """
    data, folder = data_folder(workspace), workspace / "audit"
    caches = {
        part: open_pixels(workspace, part, config, track)
        for part in (TRAIN, TEST)
        if part == TRAIN or (data / part).is_dir()
    }
    own = has_own_table(data)
    unread = [path for part in caches for path in unread_images(data / part)]
    key = _key(data, caches, own, config, unread)
    stored = _stored(folder, key)
    if stored is not None:
        return Audit(stored, folder / "audit.html", OpenedData(caches))
    train, test = caches[TRAIN].facts, caches[TEST].facts if TEST in caches else {}
    # Training finds the same faults, whatever the test half holds.
    readable_test = {name: facts for name, facts in test.items() if not facts.fault}
    annotations = read_annotations(
        data / TABLE, {**readable_test, **train}, every_image=True, repeats=config.data.repeated_boxes == "fuse"
    )
    checked = AuditInput(
        annotations,
        own,
        train,
        test,
        {*test, *(mapped_images(data / MAPPING) if has_test(workspace) else ())},
        patients(sorted({*train, *test}), config.data.patient_pattern),
        _prints(caches, track),
        config.data,
        unread,
    )
    audit = Audit(tuple(findings(checked)), folder / "audit.html", OpenedData(caches, annotations))
    with locked_folder(folder):
        _write(audit, folder, key)
    return audit


def require_sound(audit: Audit, allowed: Sequence[str]) -> None:
    """Raise KitError for faults whose check is not ``allowed``; log the other checks and what they found."""
    unknown = [name for name in allowed if name not in CHECKS]
    if unknown:
        raise KitError(
            "the name of a check after --allow", repr(unknown[0]), f"nearest: {closest_names(unknown[0], CHECKS)}"
        )
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
    data: Path, caches: Mapping[str, PixelCache], own_table: bool, config: Config, unread: Sequence[str]
) -> str:
    """A fingerprint of everything that the findings depend on: images by pixels and faults, not by file times."""
    tables = [text_sha256(data / name) if (data / name).is_file() else "" for name in (TABLE, MAPPING)]
    pixels = {
        part: [(name, facts.fault or cache.digests[name]) for name, facts in cache.facts.items()]
        for part, cache in caches.items()
    }
    knobs = [config.data.patient_pattern, config.data.largest_patient_share, config.data.repeated_boxes]
    return fingerprint([_FORMAT, __version__, pixels, own_table, tables, knobs, list(unread)])


def _prints(caches: Mapping[str, PixelCache], track: Track) -> Prints:
    """The prints of all readable images, named ``train/NAME`` and ``test/NAME``."""
    digests = {f"{part}/{name}": digest for part, cache in caches.items() for name, digest in cache.digests.items()}
    copies = np.concatenate([small_copies(cache, track) for cache in caches.values()])
    return Prints(tuple(digests), tuple(digests.values()), copies)


def _stored(folder: Path, key: str) -> tuple[Finding, ...] | None:
    """The findings in audit.json; None if they are of other data, or damaged: then they are made anew."""
    path, page = folder / "audit.json", folder / "audit.html"
    if not path.is_file() or not page.is_file():
        return None
    try:
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

    paths = {
        f"{part}/{name}": facts.path
        for part, pixels in audit.opened.pixels.items()
        for name, facts in pixels.facts.items()
    }
    write_audit_page(audit.page, audit.findings, paths)
    stored = tuple(
        _StoredFinding(finding.level, finding.check, finding.text, finding.do, _records(finding.rows))
        for finding in audit.findings
    )
    fault, warning, note = audit.counts[FAULT], audit.counts[WARNING], audit.counts[NOTE]
    content = _StoredAudit(key, __version__, fault, warning, note, audit.nothing_found, stored)
    write_record(folder / "audit.json", content)


def _records(rows: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    return tuple({str(name): value for name, value in row.items()} for row in rows.to_dict("records"))
