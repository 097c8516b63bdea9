"""A planned import made into ``WORKSPACE/data``: images first, in a hidden folder, the tables last.

The same command goes on after a kill; done once more it does nothing. `data/import/` says where each row came from.
"""

from __future__ import annotations

import csv
import io
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from kit import __version__
from kit.boxes.geometry import CORNERS
from kit.core.errors import KitError
from kit.core.files import explaining_write_errors, make_folder, remove_partials, require_free_space, write_text
from kit.core.json_files import fingerprint, read_record, write_record
from kit.core.locks import exclusive
from kit.core.progress import Track, silent
from kit.core.text_files import text_sha256
from kit.data.groups import GROUP_COLUMNS, GROUPS
from kit.importing.dicom import patient_mark
from kit.importing.forms.boxed_set import picture_files
from kit.importing.labels import MAP_COLUMNS
from kit.importing.pictures import Job, convert, is_converted, on_all_cores
from kit.importing.plan import ImportOptions, Plan, PlannedImage, named_paths, settings
from kit.importing.record import RECORD, ImportRecord, record_path
from kit.schemas.csv_text import Fault, TableError
from kit.schemas.file_names import COMPETITION_FILES, MAPPING, TABLE, TEST, TRAIN
from kit.schemas.tables import ANNOTATION_COLUMNS, MAPPING_COLUMNS

_PARTS = (
    TRAIN,
    TEST,
    GROUPS,
    MAPPING,
    RECORD,
    TABLE,
)  # in the order in which they appear: the table completes them
_SALT_BYTES = 32
_DIGITS = 3  # of a corner's pixels
_TEXTS = (".csv", ".json", ".xml", ".yaml", ".yml", ".txt")  # what the readers read beside pictures
_FIX = "fetch such files anew, or move them out of the set with their rows; then run the same command again"


def finished_import(options: ImportOptions) -> ImportRecord | None:
    """The record of this very import in its workspace; None if there is none yet.

    Raises KitError if the workspace holds other data, another import, or one of a source that has changed since.
    """
    data = options.workspace / "data"
    path = record_path(data)
    _require_apart(options)
    other = "choose another folder with --into"
    if not (data / TABLE).exists():
        there = [name for name in COMPETITION_FILES if (data / name).exists()]
        if there and not _staging(options).exists():
            raise KitError(f"no data yet in {data}", f"{there[0]}, which no import put there", other)
        return None
    if not path.exists():
        raise KitError(f"no data yet in {data}", f"{TABLE}, which no import put there", other)
    again = f"delete {data} to import anew, or {other}"
    record = read_record(path, ImportRecord, again)
    changed = [key for key, value in settings(options).items() if record.settings.get(key) != value]
    if changed:
        found = ", ".join(
            "another --labels" if key == "--labels" else f"{key} {record.settings.get(key)}" for key in changed
        )
        raise KitError(f"{data} to be made as this command makes it", f"an import with {found}", again)
    if record.source_sha256 != source_state(options.source):
        raise KitError(
            f"{data} to be made of {options.source} as it is now", "a source that has changed since", again
        )
    return record


def source_state(source: Path) -> str:
    """A fingerprint of a source's files: paths, sizes and times of pictures, the text of everything else small."""
    root = source.parent if source.is_file() else source
    pictures = picture_files(root)
    stats = [path.stat() for path in pictures]
    state = [
        (name, stat.st_size, stat.st_mtime_ns)
        for name, stat in zip(named_paths(pictures, source), stats, strict=True)
    ]
    everything = [source] if source.is_file() else sorted(root.rglob("*"))
    texts = [path for path in everything if path.suffix.lower() in _TEXTS and path.is_file()]
    return fingerprint([state, [(name, text_sha256(path)) for name, path in
                                zip(named_paths(texts, source), texts, strict=True)]])  # fmt: skip


def carry_out(plan: Plan, track: Track = silent) -> ImportRecord:
    """Convert the images that are not converted yet, write the tables, and move all into ``WORKSPACE/data``.

    Raises TableError with every image that cannot be decoded; what is converted stays for the next try.
    """
    options, staging = plan.options, _staging(plan.options)
    make_folder(options.workspace)
    with exclusive(options.workspace / ".import.lock", f"one import into {options.workspace} at a time"):
        _take_back(staging, options.workspace / "data")
        jobs = _jobs(plan, staging)
        remove_partials(staging)
        _remove_others(staging, {job.goal for job in jobs})
        left = [job for job in jobs if not is_converted(job)]
        for folder in {job.goal.parent for job in jobs}:
            make_folder(folder)
        pixels = sum(width * height for width, height in (image.size_px for image in (*plan.train, *plan.test)))
        require_free_space(staging, pixels // 2, f"room for the images in {staging}")  # a PNG takes about half
        faults = _faults(left, on_all_cores(convert, left, "converting", track))
        if faults:
            raise TableError(options.source, faults, _FIX)
        record = _record(plan)
        _write_tables(plan, staging, _salt(staging), record)
        with explaining_write_errors(options.workspace / "data"):
            make_folder(options.workspace / "data")
            for name in _PARTS:
                if (staging / name).exists():
                    (staging / name).replace(options.workspace / "data" / name)
            shutil.rmtree(staging)
        return record


def _staging(options: ImportOptions) -> Path:
    return options.workspace / ".import"


def _require_apart(options: ImportOptions) -> None:
    """Raise KitError if the workspace lies in the source: its pictures would be taken for the set's."""
    root = options.source.parent if options.source.is_file() else options.source
    if options.workspace.resolve().is_relative_to(root.resolve()):
        raise KitError(f"a workspace outside {root}", f"{options.workspace}", "choose another folder with --into")


def _take_back(staging: Path, data: Path) -> None:
    """Undo the moves of an import that was killed while it moved: ``data`` had no table yet."""
    if staging.exists() and not (data / TABLE).exists():
        for name in _PARTS:
            if (data / name).exists() and not (staging / name).exists():
                (data / name).replace(staging / name)


def _jobs(plan: Plan, staging: Path) -> list[Job]:
    """The images to make; another --size begins anew in the same folder."""
    size_file, size = staging / "size", str(plan.options.size_px)
    if staging.exists() and (not size_file.exists() or size_file.read_text(encoding="utf-8") != size):
        for folder in (TRAIN, TEST):
            shutil.rmtree(staging / folder, ignore_errors=True)
    make_folder(staging)
    write_text(size_file, size)
    parts = ((TRAIN, plan.train), (TEST, plan.test))
    return [
        Job(image.picture.path, staging / folder / image.image_id, plan.options.size_px)
        for folder, images in parts
        for image in images
    ]


def _remove_others(staging: Path, goals: set[Path]) -> None:
    """Delete converted images that this plan does not have: of other labels, readers or shares before."""
    for folder in (TRAIN, TEST):
        for path in (staging / folder).glob("*"):
            if path not in goals:
                path.unlink()


def _faults(jobs: Sequence[Job], results: Sequence[str]) -> list[Fault]:
    return [
        Fault(job.source, None, result, "an image that can be decoded")
        for job, result in zip(jobs, results, strict=True)
        if result
    ]


def _salt(staging: Path) -> bytes:
    """The secret of this import's hashes: it lives until the import ends, so that nobody can try all IDs later."""
    path = staging / "salt"
    path.touch(mode=0o600)
    if path.stat().st_size != _SALT_BYTES:  # new, or a kill left it half written: an empty one would hide nothing
        path.write_bytes(secrets.token_bytes(_SALT_BYTES))
    return path.read_bytes()


def _record(plan: Plan) -> ImportRecord:
    options = plan.options
    digests = [text_sha256(path) for path in plan.tables]
    return ImportRecord(
        options.form, options.source.name, __version__, settings(options), source_state(options.source),
        dict(zip(named_paths(plan.tables, options.source), digests, strict=True)), len(plan.train), len(plan.test),
        len(plan.boxes), plan.notes,
    )  # fmt: skip


def _write_tables(plan: Plan, staging: Path, salt: bytes, record: ImportRecord) -> None:
    """Everything of ``data/`` but the images; the salt ends here."""
    folder, source = make_folder(staging / RECORD), plan.options.source
    numbers = [
        [f"{round(value, _DIGITS):.10g}" for value in corners]
        for corners in plan.boxes[CORNERS].to_numpy().tolist()
    ]
    labels, names = plan.boxes["label"].tolist(), plan.boxes["image_id"].tolist()
    rows = zip(names, numbers, labels, strict=True)
    _write_csv(staging / TABLE, ANNOTATION_COLUMNS, ((name, *corners, label) for name, corners, label in rows))
    origins = [
        (line, name, " ".join(dict.fromkeys(named_paths([path for path, _ in places], source))),
         " ".join(str(number) for _, number in places))
        for line, (name, places) in enumerate(zip(names, plan.boxes["origins"], strict=True), start=2)
    ]  # fmt: skip
    _write_csv(folder / "rows.csv", ("line", "image_id", "file", "lines"), origins)
    images = [(TRAIN, image) for image in plan.train] + [(TEST, image) for image in plan.test]
    _write_csv(
        folder / "images.csv",
        ("image_id", "folder", "source", "part", "width_px", "height_px", "source_width_px", "source_height_px"),
        ((image.image_id, part, named_paths([image.picture.path], source)[0], image.picture.part, *image.size_px,
          image.facts.width_px, image.facts.height_px) for part, image in images),
    )  # fmt: skip
    _write_csv(folder / "labels.csv", MAP_COLUMNS, plan.labels[["label", "becomes"]].itertuples(index=False))
    _write_groups(staging / GROUPS, [image for _, image in images], salt)
    if plan.test:
        ids = ((number, image.image_id) for number, image in enumerate(plan.test, start=1))
        _write_csv(staging / MAPPING, MAPPING_COLUMNS, ids)
    write_record(record_path(staging), record)
    (staging / "salt").unlink(missing_ok=True)


def _write_groups(path: Path, images: Sequence[PlannedImage], salt: bytes) -> None:
    """groups.csv, if any patient is known."""
    known = [(image.image_id, patient_mark(image.patient, salt)) for image in images if image.patient]
    if known:
        _write_csv(path, GROUP_COLUMNS, known)
    else:
        path.unlink(missing_ok=True)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
