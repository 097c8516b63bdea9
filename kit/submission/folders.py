"""Numbered submission folders: ``submissions/0007-slug/`` with a CSV and its manifest.

A folder is written whole and then renamed; its CSV and origin never change afterwards, the fields of its uploads
do. Numbers are never reused: the index keeps those of deleted folders.
"""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import os
import re
import shlex
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from kit.core.errors import KitError
from kit.core.files import PARTIAL_SUFFIX, make_folder, remove_partials, sha256, write_text
from kit.core.json_files import read_json, read_record, require_moment, write_json
from kit.core.locks import locked
from kit.core.redaction import redact
from kit.core.text_files import decoded
from kit.runs.stages import Stage
from kit.submission.messages import slug

CSV_NAME, MANIFEST_NAME, INDEX_NAME, LOCK_NAME = "submission.csv", "manifest.json", "index.csv", ".lock"
INDEX_COLUMNS = (
    "number", "folder", "created_at", "message", "run", "local_score", "public_score", "status", "ref", "reason",
)  # fmt: skip
NEWER_COLUMNS = {"ref", "reason"}  # an index of an older version lacks them
OPEN, FAILED, PENDING, COMPLETE, ERROR = "open", "failed", "pending", "complete", "error"
FINAL = (COMPLETE, ERROR)
BY_HAND = "by hand"  # in place of a run; no run has a space in its name
_WITHOUT_REF, _WITH_REF = (OPEN, FAILED), (PENDING, *FINAL)
_FOLDER = re.compile(r"(\d{4,})-[a-z0-9-]+")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Origin:
    """What a submission was made from; never changes once it is written. ``run`` is `BY_HAND` if a user made it.

    ``local_interval`` holds 95% of the resampled ``local_score``; ``expected`` has the expected score on the
    leaderboard under ``mean``, ``low`` and ``high``. ``stages`` are the trainings that led to each of ``weights``,
    with their data sets. None or empty if unknown.
    """

    message: str
    run: str
    local_score: float | None
    weights: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    git: Mapping[str, Any] = field(default_factory=dict)
    fallbacks: int = 0
    local_interval: tuple[float, float] | None = None
    expected: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, tuple[Stage, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.expected and set(self.expected) != {"mean", "low", "high"}:
            raise ValueError(f"an expected score of {', '.join(self.expected)}, not mean, low and high")


@dataclass(frozen=True)
class Attempt:
    """An upload, recorded before it begins; its id identifies it in Kaggle's list.

    ``status``: open (it is unknown whether Kaggle has it), failed (Kaggle does not have it), or Kaggle's own
    pending, complete or error, under ``ref``. ``again`` is whether it was sent with ``--again``. ``told`` is
    whether `submit` has shown the final status; until then, repeating the command shows it instead of uploading
    again.
    """

    id: str
    competition: str
    message: str
    again: bool
    csv_sha256: str
    at: str
    status: str = OPEN
    ref: int | None = None
    public_score: float | None = None
    reason: str = ""
    told: bool = False

    def __post_init__(self) -> None:
        if self.status not in _WITHOUT_REF + _WITH_REF or (self.ref is None) != (self.status in _WITHOUT_REF):
            raise ValueError(f"an attempt with status {self.status!r} and ref {self.ref}")
        require_moment(self.at)


@dataclass(frozen=True)
class Submission:
    """A filed submission. The fields after ``csv_sha256`` describe its uploads and are empty before the first.

    ``status``, ``ref``, ``public_score`` and ``reason`` are those of the newest attempt that reached Kaggle, or of
    the newest if none did.
    """

    folder: Path
    number: int
    created_at: str
    origin: Origin
    csv_sha256: str
    status: str = ""
    public_score: float | None = None
    ref: int | None = None
    reason: str = ""
    attempts: tuple[Attempt, ...] = ()

    def __post_init__(self) -> None:
        require_moment(self.created_at)

    @property
    def csv(self) -> Path:
        """The path of the CSV file, which is uploaded."""
        return self.folder / CSV_NAME


def write_submission(folder: Path, text: str, origin: Origin, check: Callable[[Path], object]) -> Submission:
    """File a CSV text under the next number of ``folder`` and add it to the index.

    ``check`` is called with the path of the file before it is filed; if it raises, nothing is filed. Two processes
    at the same time get two numbers. A kill leaves at most a hidden folder, which the next call removes.
    """
    make_folder(folder)
    with locked(folder / LOCK_NAME):
        remove_partials(folder)
        read_submissions(folder)  # what the index cannot be made of is refused before anything is filed
        number = 1 + max([0, *_used_numbers(folder)])
        name = f"{number:04d}-{slug(origin.message)}"
        partial = folder / f".{name}.{os.getpid()}{PARTIAL_SUFFIX}"
        partial.mkdir()
        try:
            write_text(partial / CSV_NAME, text)
            check(partial / CSV_NAME)
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
            submission = Submission(folder / name, number, now, origin, sha256(partial / CSV_NAME))
            write_json(partial / MANIFEST_NAME, _manifest(submission))
            partial.rename(folder / name)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        write_index(folder)
    return submission


def read_submissions(folder: Path) -> list[Submission]:
    """All filed submissions by number. Raises KitError with the path of a manifest that is broken, or is a copy."""
    filed = sorted((_read(path) for path in _folders(folder)), key=lambda one: (one.number, one.folder.name))
    for one, other in itertools.pairwise(filed):
        if one.number == other.number:
            raise KitError(
                f"each number once in {folder}", f"{one.folder.name} and {other.folder.name}",
                f"move the copy out of {folder}: of two, nobody knows which one was uploaded",
            )  # fmt: skip
    _require_none_renamed(folder, {one.number for one in filed})
    return filed


def _require_none_renamed(folder: Path, numbers: Collection[int]) -> None:
    """Raise KitError for a submission under a name that is none: without it an older one would be the newest.

    A copy, whose number another folder has, is passed over.
    """
    for path in sorted(folder.glob(f"*/{MANIFEST_NAME}")):
        name = path.parent.name
        if name.startswith(".") or _FOLDER.fullmatch(name):
            continue
        do = f"restore {path} from a copy, or move {path.parent} out of {folder}"
        content = read_json(path, do)
        number = content.get("number") if isinstance(content, dict) else None
        if type(number) is int and number not in numbers:
            rows = [row["folder"] for row in _index_rows(folder) if row["number"] == str(number)]
            back = folder / (rows[0] if rows else f"{number:04d}-submission")
            raise KitError(
                f"the folder of submission {number:04d} under the name that it was filed with", str(path.parent),
                f"rename it back: mv {shlex.quote(str(path.parent))} {shlex.quote(str(back))}",
            )  # fmt: skip


def newest(folder: Path) -> Submission:
    """The submission with the highest number. Raises KitError if there is none, or its manifest is missing."""
    submissions = read_submissions(folder)
    if not submissions:
        raise KitError(f"a submission in {folder}", "none", "`invoke predict` files one, or name one with --file")
    numbered = [path for path in folder.glob("*/") if _FOLDER.fullmatch(path.name)]
    last = max(numbered, key=_number)
    if _number(last) > submissions[-1].number:
        raise KitError(
            f"{last / MANIFEST_NAME}, of the newest submission", "no such file",
            f"restore it from a copy, or move {last} away; --submission N names another one",
        )  # fmt: skip
    return submissions[-1]


def of_bytes(folder: Path, digest: str) -> Submission | None:
    """The newest submission whose CSV has this SHA-256, as it was filed and still; None if there is none."""
    for submission in reversed(read_submissions(folder)):
        if submission.csv_sha256 == digest and submission.csv.is_file() and sha256(submission.csv) == digest:
            return submission
    return None


def record_attempt(submission: Submission, attempt: Attempt) -> Submission:
    """Write an attempt, new or known by its id, to the manifest, then to the index; the submission as written.

    Another process may have written meanwhile: a final status stays, and so does ``told``. Raises KitError if the
    disk refuses; the manifest is then unchanged.
    """
    with locked(submission.folder.parent / LOCK_NAME):
        stored = _read(submission.folder)
        earlier = next((other for other in stored.attempts if other.id == attempt.id), attempt)
        shown = replace(attempt, reason=redact(attempt.reason))  # it quotes Kaggle or its client
        changed = with_attempt(stored, _merged(earlier, shown))
        write_json(submission.folder / MANIFEST_NAME, _manifest(changed))
        write_index(submission.folder.parent)
    return changed


def with_attempt(submission: Submission, attempt: Attempt) -> Submission:
    """The submission with this attempt, which replaces the attempt with its id or is added at the end."""
    attempts = {other.id: other for other in submission.attempts} | {attempt.id: attempt}
    arrived = [other for other in attempts.values() if other.ref is not None]
    current = (arrived or list(attempts.values()))[-1]
    return replace(
        submission,
        attempts=tuple(attempts.values()),
        status=current.status,
        ref=current.ref,
        public_score=current.public_score,
        reason=current.reason,
    )


def _merged(stored: Attempt, attempt: Attempt) -> Attempt:
    is_older = stored.status in FINAL and attempt.status not in FINAL
    return replace(stored if is_older else attempt, told=stored.told or attempt.told)


def tidy(folder: Path) -> None:
    """Clear up after a kill: delete half-written files and bring the index up to date with the manifests."""
    make_folder(folder)
    with locked(folder / LOCK_NAME):
        for parent in (folder, *_folders(folder)):
            remove_partials(parent)
        write_index(folder)


def write_index(folder: Path) -> None:
    """Write ``index.csv``: a line for each submission; the lines of deleted folders stay."""
    lines = {row["number"]: row for row in _index_rows(folder)}
    for submission in read_submissions(folder):
        lines[str(submission.number)] = {
            "number": str(submission.number),
            "folder": submission.folder.name,
            "created_at": submission.created_at,
            "message": submission.origin.message,
            "run": submission.origin.run,
            "local_score": _as_text(submission.origin.local_score),
            "public_score": _as_text(submission.public_score),
            "status": submission.status,
            "ref": "" if submission.ref is None else str(submission.ref),
            "reason": submission.reason,
        }
    text = io.StringIO()
    writer = csv.DictWriter(text, INDEX_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines[number] for number in sorted(lines, key=int))
    path = folder / INDEX_NAME
    if not path.is_file() or path.read_bytes() != text.getvalue().encode():
        write_text(path, text.getvalue())


def _read(folder: Path) -> Submission:
    path = folder / MANIFEST_NAME
    do = f"restore {path} from a copy, or move the folder away: its number stays taken"
    submission = read_record(path, Submission, do, {"folder": folder})
    number = _FOLDER.fullmatch(folder.name)
    if number is None or submission.number != int(number[1]):
        raise KitError(f"{path} to have its folder's number", str(submission.number), do)
    return submission


def _manifest(submission: Submission) -> dict[str, Any]:
    values = {item.name: getattr(submission, item.name) for item in fields(Submission) if item.name != "folder"}
    attempts = [asdict(attempt) for attempt in submission.attempts]
    return values | {"origin": asdict(submission.origin), "attempts": attempts}


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/") if _FOLDER.fullmatch(path.name) and (path / MANIFEST_NAME).exists()]


def _number(folder: Path) -> int:
    return int(folder.name.partition("-")[0])


def _used_numbers(folder: Path) -> list[int]:
    named = [int(match[1]) for path in folder.glob("*/") if (match := _FOLDER.fullmatch(path.name))]
    return named + [int(row["number"]) for row in _index_rows(folder)]


def _index_rows(folder: Path) -> list[dict[str, str]]:
    path = folder / INDEX_NAME
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(io.StringIO(decoded(path.read_bytes()), newline=""), strict=True)
        header, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad_index(path, str(error)) from error
    older = [name for name in INDEX_COLUMNS if name not in NEWER_COLUMNS]
    if sorted(header) not in (sorted(INDEX_COLUMNS), sorted(older)):
        raise _bad_index(path, f"line 1: {','.join(header)}")
    numbers: set[str] = set()
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values() or not _NUMBER.fullmatch(row["number"]) or row["number"] in numbers:
            raise _bad_index(path, f"line {line}: {list(row.values())}")
        numbers.add(row["number"])
    return rows


def _bad_index(path: Path, found: str) -> KitError:
    return KitError(
        f"{path} to have the columns {','.join(INDEX_COLUMNS)} and whole numbers, each once",
        found,
        f"restore {path}, or delete it: it is made anew from the manifests",
    )


def _as_text(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
