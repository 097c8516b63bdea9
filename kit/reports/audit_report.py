"""The audit of a workspace: made once per state of its data, kept as audit.json and audit.html, asked by train."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from kit import __version__
from kit.config import Config
from kit.core.errors import KitError, closest_names
from kit.core.files import sha256
from kit.core.json_files import fingerprint, read_record, write_json
from kit.core.locks import locked_folder
from kit.core.progress import Track, silent
from kit.data.audit import BOXES, CHECKS, DUPLICATES, FAULT, NOTE, WARNING, Finding, Material, findings
from kit.data.competition import OpenedData, data_folder, has_test, open_pixels, patients
from kit.data.duplicates import Prints, take_prints
from kit.data.images import Grey
from kit.data.pixel_cache import PixelCache
from kit.data.provenance import has_own_table
from kit.reports.figures import COLUMNS, PREDICTION, Mark, Shown, save, sheet, short
from kit.reports.html import Section, write_page
from kit.schemas.file_names import MAPPING, TABLE, TEST, TRAIN
from kit.schemas.tables import mapped_images, read_annotations

_FORMAT = 1
_SHOWN_ROWS = 200
_SHOWN_IMAGES = 16
_TITLE_LETTERS = 28
_LINE_PT = 1.4
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Audit:
    """What was found in a workspace's data, worst first, the page that shows it, and the opened data."""

    findings: tuple[Finding, ...]
    page: Path
    opened: OpenedData = field(compare=False, repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Findings by level: fault, warning, note."""
        levels = [one.level for one in self.findings]
        return {level: levels.count(level) for level in (FAULT, WARNING, NOTE)}

    @property
    def nothing_found(self) -> tuple[str, ...]:
        """The checks that found nothing."""
        return tuple(name for name in CHECKS if name not in {one.check for one in self.findings})


@dataclass(frozen=True)
class _Told:
    """A finding as it stands in audit.json."""

    level: str
    check: str
    text: str
    do: str
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class _Memory:
    """The content of audit.json; ``key`` is of the state of the data and of the kit."""

    key: str
    kit_version: str
    fault: int
    warning: int
    note: int
    nothing_found: tuple[str, ...]
    findings: tuple[_Told, ...]


def audit_workspace(workspace: Path, config: Config, track: Track = silent) -> Audit:
    """Audit ``WORKSPACE/data`` into ``WORKSPACE/audit``; while the data stay as they are, read what is there.

    Needs ``train/`` and ``train.csv``; ``test/`` and the mapping are judged where they are. Raises TableError for a
    train.csv that is no table of boxes (a row may name an image of either half), KitError for a missing folder.
    """
    data, folder = data_folder(workspace), workspace / "audit"
    caches = {
        part: open_pixels(workspace, part, config, track)
        for part in (TRAIN, TEST)
        if part == TRAIN or (data / part).is_dir()
    }
    own = has_own_table(data)
    key = _key(data, caches, own, config)
    stored = _stored(folder, key)
    if stored is not None:
        return Audit(stored, folder / "audit.html", OpenedData(caches))
    train, test = caches[TRAIN].facts, caches[TEST].facts if TEST in caches else {}
    # The same faults as a training would find, whatever the test half holds.
    readable_test = {name: facts for name, facts in test.items() if not facts.fault}
    annotations = read_annotations(data / TABLE, {**readable_test, **train}, every_image=True)
    material = Material(
        annotations,
        own,
        train,
        test,
        {*test, *(mapped_images(data / MAPPING) if has_test(workspace) else ())},
        patients(sorted({*train, *test}), config.data.patient_pattern),
        _prints(caches, track),
    )
    audit = Audit(tuple(findings(material)), folder / "audit.html", OpenedData(caches, annotations))
    with locked_folder(folder):
        _write(audit, folder, key)
    return audit


def require_sound(audit: Audit, allowed: Sequence[str]) -> None:
    """Raise KitError for the faults that are not allowed by name; say in one line what else was found."""
    unknown = [name for name in allowed if name not in CHECKS]
    if unknown:
        raise KitError(
            "the name of a check after --allow", repr(unknown[0]), f"nearest: {closest_names(unknown[0], CHECKS)}"
        )
    faults = [one for one in audit.findings if one.level == FAULT and one.check not in allowed]
    if faults:
        raise KitError(
            "data without faults", "; ".join(f"{one.check}: {one.text}" for one in faults),
            f"{'; '.join(one.do for one in faults)}; every row is in {audit.page}",
        )  # fmt: skip
    warned = [one.check for one in audit.findings if one.level != NOTE]
    if warned:
        log.info("audit: %s; see %s", ", ".join(warned), audit.page)


def _key(data: Path, caches: Mapping[str, PixelCache], own_table: bool, config: Config) -> str:
    """Changes with everything that the findings depend on: images by their pixels and faults, not by file times."""
    tables = [sha256(data / name) if (data / name).is_file() else "" for name in (TABLE, MAPPING)]
    pixels = {
        part: [(name, facts.fault or cache.digests[name]) for name, facts in cache.facts.items()]
        for part, cache in caches.items()
    }
    return fingerprint([_FORMAT, __version__, pixels, own_table, tables, config.data.patient_pattern])


def _prints(caches: Mapping[str, PixelCache], track: Track) -> Prints:
    """The prints of all readable images, named ``train/NAME`` and ``test/NAME``."""
    digests = {f"{part}/{name}": digest for part, cache in caches.items() for name, digest in cache.digests.items()}

    def read(name: str) -> Grey:
        part, _, image_id = name.partition("/")
        return caches[part].read(image_id)

    return take_prints(digests, read, track)


def _stored(folder: Path, key: str) -> tuple[Finding, ...] | None:
    path, page = folder / "audit.json", folder / "audit.html"
    if not path.is_file() or not page.is_file():
        return None
    try:
        memory = read_record(path, _Memory, "")
    except KitError:  # broken: it is made anew
        return None
    if memory.key != key:
        return None
    return tuple(
        Finding(one.level, one.check, one.text, one.do, pd.DataFrame(list(one.rows))) for one in memory.findings
    )


def _write(audit: Audit, folder: Path, key: str) -> None:
    """Draw the sheets, write the page and, last, the JSON whose key says that both are there."""
    paths = {
        f"{part}/{name}": facts.path
        for part, pixels in audit.opened.pixels.items()
        for name, facts in pixels.facts.items()
    }
    sheets = {DUPLICATES: _pairs, BOXES: _boxes}
    sections = []
    for one in audit.findings:
        figures = []
        if one.check in sheets:
            figures = [folder / f"{one.check}.png"]
            save(sheet(sheets[one.check](one.rows, paths), COLUMNS), figures[0])
        sections.append(_section(one, figures))
    if audit.nothing_found:
        sections.append(Section("Nothing found", f"These checks found nothing: {', '.join(audit.nothing_found)}."))
    write_page(
        audit.page, "The audit",
        "Faults stop a training, warnings want a look, notes are good to know.",
        {f"{level}s": str(count) for level, count in audit.counts.items()}, sections,
    )  # fmt: skip
    told = [_Told(one.level, one.check, one.text, one.do, _records(one.rows)) for one in audit.findings]
    counts = audit.counts
    memory = _Memory(
        key, __version__, counts[FAULT], counts[WARNING], counts[NOTE], audit.nothing_found, tuple(told)
    )
    write_json(folder / "audit.json", asdict(memory))


def _records(rows: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    return tuple({str(name): value for name, value in row.items()} for row in rows.to_dict("records"))


def _section(one: Finding, figures: Sequence[Path]) -> Section:
    more = f" The first {_SHOWN_ROWS} of {len(one.rows):,} rows." if len(one.rows) > _SHOWN_ROWS else ""
    table = one.rows.head(_SHOWN_ROWS).rename(columns=lambda name: name.replace("_", " "))
    answers = table.select_dtypes(bool).columns
    table = table.assign(**{name: table[name].map({True: "yes", False: "no"}) for name in answers})
    return Section(
        f"{one.level.capitalize()}: {one.check}", f"{one.text}. What to do: {one.do}.{more}", figures, table
    )


def _pairs(rows: pd.DataFrame, paths: dict[str, Path]) -> list[Shown]:
    """Each copy beside the first of its group, two pairs in a row."""
    shown: list[Shown] = []
    for number, group in rows.groupby("group"):
        first, *copies = group["image"]
        for copy in copies:
            names = (f"{number}: {first}", f"{number}: {copy}")
            shown += [
                (short(name, _TITLE_LETTERS), paths[image], [])
                for name, image in zip(names, (first, copy), strict=True)
            ]
    return shown[:_SHOWN_IMAGES]


def _boxes(rows: pd.DataFrame, paths: dict[str, Path]) -> list[Shown]:
    """The most improbable boxes on their images, with what is odd about them and how far."""
    shown: list[Shown] = []
    for row in rows.head(_SHOWN_IMAGES).to_dict("records"):
        place = next(f"{part}/{row['image_id']}" for part in (TRAIN, TEST) if f"{part}/{row['image_id']}" in paths)
        corners = (row["x_min"], row["y_min"], row["x_max"], row["y_max"])
        mark = Mark(corners, short(str(row["label"])), PREDICTION, _LINE_PT)
        shown.append((short(f"{row['image_id']}: {row['odd']}", _TITLE_LETTERS), paths[place], [mark]))
    return shown
