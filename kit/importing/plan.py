"""What an import will make: which images, which boxes, from which rows. All faults are found before any pixel is.

Pictures are known by their headers here; what the pixels themselves hold shows when they are converted.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.core.errors import KitError, first_few
from kit.core.json_files import fingerprint
from kit.core.progress import Track, silent
from kit.core.text_files import read_text
from kit.data.finding import counted
from kit.importing.dicom import require_pydicom
from kit.importing.forms.boxed_set import FIX, BoxedSet, Picture, bare_name
from kit.importing.forms.forms import read_set
from kit.importing.labels import mapped, read_label_map, suggestion
from kit.importing.pictures import PictureFacts, is_dicom, on_all_cores, picture_facts, size_after
from kit.importing.readers import FUSE, boxes_by_readers
from kit.schemas.csv_text import LINE, Fault, TableError
from kit.schemas.foreign.content import by_cause
from kit.schemas.image_headers import lies_on_its_side
from kit.schemas.no_finding import stands_for_no_finding
from kit.schemas.row_checks import AREA, IMAGE_CHECKS, INSIDE, LABEL, clip_to_image, failed_checks

_SEED = 1  # of the empty images that --empty draws
_MANY = 5  # images with one fault that share a line


@dataclass(frozen=True)
class ImportOptions:
    """What was asked for; ``empty_share`` is the share of the images without a box that is kept."""

    form: str
    source: Path
    workspace: Path
    labels: Path | None = None
    readers: str = FUSE
    size_px: int = 1024
    empty_share: float = 1.0


@dataclass(frozen=True)
class PlannedImage:
    """An image of the workspace and the file that it is made of; ``patient`` is still in clear here."""

    image_id: str
    picture: Picture
    facts: PictureFacts
    size_px: tuple[int, int]
    patient: str


@dataclass(frozen=True)
class Plan:
    """An import before it is carried out.

    ``boxes`` has image_id, corners in pixels of the new image, label, and origins: (file, line) of each source row.
    """

    options: ImportOptions
    train: tuple[PlannedImage, ...]
    test: tuple[PlannedImage, ...]
    boxes: pd.DataFrame
    labels: pd.DataFrame  # label, boxes, becomes, near
    notes: tuple[str, ...]
    tables: tuple[Path, ...]


def plan_import(options: ImportOptions, track: Track = silent) -> Plan:
    """Read a set and check it against its pictures' headers.

    Raises TableError with all faults of tables and pictures together, KitError for options that do not fit.
    """
    found = read_set(options.form, options.source)
    everyone = {**found.pictures, **found.test}
    if any(is_dicom(picture.path) for picture in everyone.values()):
        require_pydicom()
    paths = [picture.path for picture in everyone.values()]
    facts = dict(zip(everyone, on_all_cores(picture_facts, paths, "reading headers", track), strict=True))
    rows, empty = _with_findings(_in_pixels(found, facts))
    names = _names(found, options.source)
    faults = [*found.faults, *_picture_faults(everyone, facts, names), *_size_faults(found, facts)]
    rows, wrong = _checked(rows)
    if faults or wrong:
        joined = by_cause([*faults, *wrong])
        raise TableError(options.source, joined, "; ".join(dict.fromkeys(fault.do or FIX for fault in joined)))
    targets = read_label_map(options.labels, set(rows["label"])) if options.labels else {}
    becomes = mapped(set(rows["label"]), targets)
    table = _label_table(rows, becomes)
    rows = rows.assign(label=rows["label"].map(becomes)) if len(rows) else rows
    boxes, read = boxes_by_readers(rows[rows["label"] != ""], found.readers, options.readers)
    keys, notes = _kept(found, set(boxes["image"]), read, options.empty_share)
    if boxes.empty:
        raise KitError(
            "at least one box to import", f"none of {len(rows)} boxes is left",
            "give fewer labels an empty target in --labels, or name the set's folder with --source",
        )  # fmt: skip
    repeated = len(rows[rows["label"] != ""]) - sum(map(len, boxes["rows"]))
    patients, nobody = _patients(everyone, facts)
    planned = {
        key: PlannedImage(names[key], picture, facts[key], size_after(facts[key], options.size_px), patients[key])
        for key, picture in everyone.items()
    }
    origins = list(zip(rows["file"], rows[LINE].tolist(), strict=True))
    notes = [
        *found.notes,
        *empty,
        *notes,
        *nobody,
        *([f"left out: {counted(repeated, 'box', 'boxes')} of other readers"] if repeated > 0 else []),
    ]
    train, test = (
        tuple(sorted((planned[key] for key in part), key=lambda image: image.image_id))
        for part in (keys, found.test)
    )
    moved = _scaled(boxes, planned, dict(zip(rows.index, origins, strict=True)))
    return Plan(options, train, test, moved, table, tuple(notes), tuple(found.tables))


def _in_pixels(found: BoxedSet, facts: Mapping[str, PictureFacts]) -> pd.DataFrame:
    """The rows whose picture is there, with the sides of their pictures, corners in pixels."""
    rows = found.rows[found.rows["image"].isin(list(found.pictures))].reset_index(drop=True)
    sizes = [_fitting(facts[str(key)], part) for key, part in rows.groupby("image", sort=False)[CORNERS]]
    of_image = dict(zip(rows["image"].drop_duplicates(), sizes, strict=True))
    sides = np.array([of_image[key] for key in rows["image"]], dtype=np.int64).reshape(-1, 2)
    if found.in_fractions:
        rows[CORNERS] = rows[CORNERS].to_numpy() * np.tile(sides, 2)
    return rows.assign(width_px=sides[:, 0], height_px=sides[:, 1])


def _with_findings(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows without those that say "No finding" with a stand-in for a box, and a note on these."""
    cells = rows[CORNERS].astype(str).astype(object)
    stand_ins = stands_for_no_finding(rows["label"].astype(object), cells, rows[["width_px", "height_px"]])
    count = int(stand_ins.sum())
    return rows[~stand_ins], [
        f"{counted(count, 'row')} with a label such as No finding, and no box"
    ] if count else []


def _fitting(facts: PictureFacts, corners: pd.DataFrame) -> tuple[int, int]:
    """The picture's sides; those of the turned picture if it has such a tag and only this one fits the boxes."""
    width, height = facts.width_px, facts.height_px
    if lies_on_its_side(facts.tag):
        right, bottom = corners["x_max"].max(), corners["y_max"].max()
        if (right > width or bottom > height) and right <= height and bottom <= width:
            return height, width
    return width, height


def _checked(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Fault]]:
    """The rows with corners moved onto the border where they are less than a pixel outside, and the faults."""
    readable = rows[rows["width_px"] > 0].assign(image_id=rows["image"].map(bare_name))
    faults = [
        fault
        for path, part in readable.groupby("file", sort=False)
        for fault in failed_checks(Path(str(path)), part, (AREA, INSIDE, LABEL))
    ]
    return clip_to_image(rows), faults


def _picture_faults(
    pictures: Mapping[str, Picture], facts: Mapping[str, PictureFacts], names: Mapping[str, str]
) -> list[Fault]:
    """Pictures that cannot be used, a line each or one for many with one reason; names that no table takes."""
    faults = []
    reasons: dict[str, list[Path]] = {}
    for key, picture in pictures.items():
        if facts[key].fault:
            reasons.setdefault(facts[key].fault, []).append(picture.path)
    for why, paths in reasons.items():
        is_many = len(paths) > _MANY
        value = f"{why}; {paths[0].name} and {len(paths) - 1} more" if is_many else why
        faults += [
            Fault(path, None, value, "a PNG, JPEG or DICOM image of one grey frame",
                  "fetch such files anew, or move them out of the set, with their rows")
            for path in (paths[:1] if is_many else paths)
        ]  # fmt: skip
    table = pd.DataFrame({"image_id": list(names.values()), LINE: 0})
    for fault in failed_checks(Path("names"), table, IMAGE_CHECKS[:1]):
        faults.append(dataclasses.replace(fault, file=Path(repr(fault.value)), line=None, do="rename the file"))
    return faults


def _size_faults(found: BoxedSet, facts: Mapping[str, PictureFacts]) -> list[Fault]:
    """One fault for all pictures of another size than the set states: its boxes are not of these pixels."""
    wrong = [
        key
        for key, size in found.stated.items()
        if not facts[key].fault and size not in _possible_sizes(facts[key])
    ]
    if not wrong:
        return []
    first = facts[wrong[0]]
    more = f" and {len(wrong) - 1} pictures more" if len(wrong) > 1 else ""
    width, height = found.stated[wrong[0]]
    return [
        Fault(found.pictures[wrong[0]].path, None, f"{first.width_px} x {first.height_px} px{more}",
              f"{width} x {height} px, as the set states, since its boxes are of these",
              "give the set's own pictures, or correct the sizes with the boxes")
    ]  # fmt: skip


def _possible_sizes(facts: PictureFacts) -> set[tuple[int, int]]:
    size = (facts.width_px, facts.height_px)
    return {size, size[::-1]} if lies_on_its_side(facts.tag) else {size}


def _names(found: BoxedSet, source: Path) -> dict[str, str]:
    """The image_id of every picture: its name with .png, with the folders before it if the name is there twice."""
    root = source.parent if source.is_file() else source
    everyone = {**found.pictures, **found.test}
    counts = Counter(picture.path.stem.casefold() for picture in everyone.values())
    names = {}
    for key, picture in everyone.items():
        path = picture.path
        inside = path.relative_to(root) if path.is_relative_to(root) else Path(*path.parts[1:])
        stem = path.stem if counts[path.stem.casefold()] == 1 else "_".join(inside.with_suffix("").parts)
        names[key] = f"{stem}.png"
    twice = [name for name, count in Counter(name.casefold() for name in names.values()).items() if count > 1]
    if twice:
        raise KitError("pictures whose names stay apart with their folders before them", first_few(twice),
                       "rename one of each pair of files")  # fmt: skip
    return names


def _kept(
    found: BoxedSet, boxed: set[str], read: frozenset[str] | None, empty_share: float
) -> tuple[list[str], list[str]]:
    """The pictures to import, and notes on the others."""
    judged = set(found.pictures) if read is None else set(read) & set(found.pictures)
    unboxed = (set(found.unboxed) & judged) - boxed
    empty = sorted(judged - boxed - unboxed)
    drawn = sorted(empty, key=lambda key: hashlib.sha256(f"{_SEED}/{key}".encode()).digest())
    kept_empty = drawn[: round(empty_share * len(empty))]
    notes = []
    if len(judged) < len(found.pictures):
        notes.append(
            f"left out: {counted(len(found.pictures) - len(judged), 'image')} that the reader did not read"
        )
    if unboxed:
        shown = first_few(map(bare_name, sorted(unboxed)), 3)
        notes.append(f"left out: {counted(len(unboxed), 'image')} with findings that nobody boxed: {shown}")
    if len(kept_empty) < len(empty):
        notes.append(f"left out: {len(empty) - len(kept_empty)} of {counted(len(empty), 'image')} without a box")
    return [*sorted(boxed & judged), *kept_empty], notes


def _patients(
    pictures: Mapping[str, Picture], facts: Mapping[str, PictureFacts]
) -> tuple[dict[str, str], list[str]]:
    """Who is on each image: the file's own patient, else the table's; "" if neither knows, or all name one."""
    patients = {key: f"patient {facts[key].patient}" if facts[key].patient else picture.patient
                for key, picture in pictures.items()}  # fmt: skip
    named = set(patients.values()) - {""}
    if len(named) == 1 and len(patients) > 1:
        return dict.fromkeys(patients, ""), ["all images name one patient: taken for no name at all"]
    return patients, []


def _label_table(rows: pd.DataFrame, becomes: Mapping[str, str]) -> pd.DataFrame:
    counts = rows["label"].value_counts()
    lines = [(label, int(counts[label]), target, suggestion(label)) for label, target in becomes.items()]
    return pd.DataFrame(lines, columns=["label", "boxes", "becomes", "near"])


def _scaled(
    boxes: pd.DataFrame, planned: Mapping[str, PlannedImage], origins: Mapping[int, tuple[Path, int]]
) -> pd.DataFrame:
    """The boxes by image, in pixels of the new images."""
    images = [planned[key] for key in boxes["image"]]
    scales = np.array(
        [(image.size_px[0] / image.facts.width_px, image.size_px[1] / image.facts.height_px) for image in images]
    ).reshape(-1, 2)
    moved = boxes.assign(image_id=[image.image_id for image in images])
    moved[CORNERS] = boxes[CORNERS].to_numpy() * np.tile(scales, 2)
    moved["origins"] = boxes["rows"].map(lambda numbers: tuple(origins[number] for number in numbers))
    order = moved.sort_values("image_id", kind="stable")
    return order[["image_id", *CORNERS, "label", "origins"]].reset_index(drop=True)


def settings(options: ImportOptions) -> dict[str, str | int | float]:
    """The options that decide what is made, as JSON; the source and the workspace may move."""
    text = read_text(options.labels, "the file after --labels", "correct the path") if options.labels else ""
    return {
        "--from": options.form, "--labels": fingerprint(text)[:12] if text else "", "--readers": options.readers,
        "--size": options.size_px, "--empty": options.empty_share,
    }  # fmt: skip


def named_paths(paths: Sequence[Path], source: Path) -> list[str]:
    """Paths below the source, with slashes; of files elsewhere the whole path."""
    root = source.parent if source.is_file() else source
    return [path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix() for path in paths]
