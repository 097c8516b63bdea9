"""A synthetic competition in the shape of the real one: drawn radiographs, their tables and their truth.

Every image has its own random generator, so that it does not depend on the images drawn before it. The truth of
the test images is written outside ``data/``, to score submissions as the server would.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kit.core.errors import KitError
from kit.core.files import write_text
from kit.core.progress import Track, silent
from kit.core.threads import Threads
from kit.data.synthetic.radiographs import Finding, draw_anatomy, render
from kit.schemas.file_names import COMPETITION_FILES, MAPPING, TABLE, TEST, TRAIN

__all__ = ["LABELS", "STATISTICS", "TRUTH", "Finding", "draw_findings", "plan", "render", "write_competition"]


@dataclass(frozen=True)
class FindingStatistics:
    """A label's number of boxes, and the mean and standard deviation of position and size, as image shares."""

    boxes: int
    x: tuple[float, float]
    y: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    smallest: float  # no side of a box is shorter
    lobes: float = 0.9  # how closely the centres keep to the two lungs: 0 one cluster, 1 two points


# NIH's boxed set, 984 boxes on 880 images. A Mass is never as small as a Nodule: size tells the two apart.
STATISTICS = {
    "Atelectasis": FindingStatistics(180, (0.51, 0.21), (0.57, 0.12), (0.21, 0.15), (0.14, 0.07), 0.09),
    "Cardiomegaly": FindingStatistics(146, (0.58, 0.05), (0.57, 0.06), (0.47, 0.05), (0.37, 0.06), 0.25, 0.0),
    "Effusion": FindingStatistics(153, (0.50, 0.28), (0.56, 0.12), (0.22, 0.12), (0.31, 0.19), 0.10),
    "Infiltrate": FindingStatistics(123, (0.53, 0.18), (0.53, 0.12), (0.29, 0.18), (0.29, 0.13), 0.14),
    "Mass": FindingStatistics(85, (0.51, 0.20), (0.45, 0.12), (0.17, 0.13), (0.19, 0.13), 0.11),
    "Nodule": FindingStatistics(79, (0.53, 0.25), (0.48, 0.15), (0.07, 0.02), (0.07, 0.02), 0.05),
    "Pneumonia": FindingStatistics(120, (0.51, 0.19), (0.56, 0.10), (0.27, 0.15), (0.30, 0.14), 0.12),
    "Pneumothorax": FindingStatistics(98, (0.46, 0.22), (0.33, 0.19), (0.19, 0.08), (0.24, 0.17), 0.09),
}
LABELS = tuple(STATISTICS)
BOXES_PER_TRAIN_IMAGE = (617, 83, 9, 1)  # images with 1, 2, 3, 4 boxes among the 710 of the competition
BODY = (0.09, 0.88)  # boxes keep between these shares of the image, across and down
LARGEST_SIDE = (0.55, 0.65)  # width, height
SIDE_CORRELATION = 0.9  # of the logarithms of width and height

SHARED_PATIENTS = 263 / 880  # images whose patient has another image
FOLLOW_UPS = (2, 2, 3, 2, 3)  # images of such patients, repeated: 12 / 5 is close to the 263 / 109 of NIH
LARGEST_PATIENT = 0.1  # share of the train images; more would look like a wrong data.patient_pattern
PATIENT_NUMBERS = 30_805
FIRST_FOLLOW_UPS = 30

HEADER = "image_id,x_min,y_min,x_max,y_max,label"
TRUTH = "test_truth.csv"
README = "README.md"
STAGING = ".phantoms.partial"


@dataclass(frozen=True)
class PlannedImage:
    """The name, patient and labels of an image, before it is drawn."""

    image_id: str
    patient: int
    labels: tuple[str, ...]


def write_competition(
    workspace: Path,
    seed: int,
    train_images: int = 400,
    test_images: int = 170,
    size_px: int = 256,
    *,
    track: Track = silent,
) -> None:
    """Write ``workspace/data`` (images, train.csv, mapping) and, outside it, ``workspace/test_truth.csv``.

    ``data/train.csv`` appears last, so that a killed attempt never looks complete; the next call removes its files.

    Args:
        workspace: The folder that gets ``data/``. A README.md in ``data/`` is kept.
        seed: Every file is a function of the seed and the next three numbers.
        train_images: The number of images of train/.
        test_images: The number of images of test/, one ID each.
        size_px: The side of the images.
        track: Shows the progress.

    Raises:
        KitError: If ``data/`` holds other files than a README.md, or the disk refuses.
    """
    data, staging = workspace / "data", workspace / STAGING
    _clear_killed_attempt(data, staging)
    others = sorted(path.name for path in data.iterdir() if path.name != README) if data.exists() else []
    if others:
        raise KitError(
            f"{data} to be empty (but for {README}) before a synthetic competition is written there",
            ", ".join(others),
            "choose another --workspace, or move these files away",
        )
    try:
        _write_pieces(staging, seed, plan(seed, train_images, test_images), train_images, size_px, track)
        (staging / TRUTH).replace(workspace / TRUTH)
        data.mkdir(exist_ok=True)
        for name in COMPETITION_FILES:
            (staging / name).rename(data / name)
        staging.rmdir()
    except OSError as error:
        raise KitError(
            f"to write a synthetic competition under {workspace}", str(error),
            "make room or choose another --workspace; the next attempt removes unfinished files",
        ) from error  # fmt: skip


def plan(seed: int, train_images: int, test_images: int) -> list[PlannedImage]:
    """Patients and labels of all images, the train images first; every test image has one label.

    Labels and boxes per image are apportioned by largest remainder, so that every label occurs among 8 train images
    or more. An image has a label once at most.
    """
    rng = np.random.default_rng([seed, 0])
    frequencies = [row.boxes for row in STATISTICS.values()]
    sizes = 1 + np.repeat(np.arange(len(BOXES_PER_TRAIN_IMAGE)), deal(BOXES_PER_TRAIN_IMAGE, train_images))
    left = deal(frequencies, int(sizes.sum()))
    chosen: list[tuple[str, ...]] = []
    # Images with several boxes choose first, while all labels are left to choose from.
    for size in sizes[::-1]:
        picks = rng.choice(len(LABELS), size=size, replace=False, p=left / left.sum())
        left[picks] -= 1
        chosen.append(tuple(LABELS[pick] for pick in sorted(picks)))
    train = [chosen[index] for index in rng.permutation(train_images)]
    tested = np.repeat(np.arange(len(LABELS)), deal(frequencies, test_images))
    labels = train + [(LABELS[index],) for index in rng.permutation(tested)]
    patients = _patients(rng, train_images + test_images, int(LARGEST_PATIENT * train_images))
    return [PlannedImage(*row) for row in zip(_image_ids(rng, patients), patients, labels, strict=True)]


def deal(weights: Sequence[int], count: int) -> np.ndarray:
    """Split ``count`` in proportion to the weights by largest remainder."""
    shares = np.asarray(weights) * (count / sum(weights))
    dealt = np.floor(shares).astype(int)
    dealt[np.argsort(dealt - shares, kind="stable")[: count - dealt.sum()]] += 1
    return dealt


def draw_findings(rng: np.random.Generator, labels: Sequence[str], size_px: int) -> tuple[Finding, ...]:
    """A box in pixels for each label: sides lognormal, centres normal about the two lungs, all in the body."""
    return tuple(_draw_finding(rng, label, size_px) for label in labels)


def _draw_finding(rng: np.random.Generator, label: str, size_px: int) -> Finding:
    row = STATISTICS[label]
    common, own = rng.normal(size=2)
    other = SIDE_CORRELATION * common + np.sqrt(1 - SIDE_CORRELATION**2) * own
    width = np.clip(_lognormal(row.width, common), row.smallest, LARGEST_SIDE[0])
    height = np.clip(_lognormal(row.height, other), row.smallest, LARGEST_SIDE[1])
    # The sum of both terms has variance 1, whatever the share of the lobes.
    lung = rng.choice((-1, 1)) * row.lobes + rng.normal() * np.sqrt(1 - row.lobes**2)
    x = np.clip(row.x[0] + row.x[1] * lung, BODY[0] + width / 2, 1 - BODY[0] - width / 2)
    y = np.clip(row.y[0] + row.y[1] * rng.normal(), BODY[0] + height / 2, BODY[1] - height / 2)
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return Finding(label, *(round(float(corner) * size_px, 2) for corner in corners))


def _lognormal(mean_and_sd: tuple[float, float], draw: float) -> float:
    mean, sd = mean_and_sd
    variance = np.log1p((sd / mean) ** 2)
    return float(mean * np.exp(np.sqrt(variance) * draw - variance / 2))


def _patients(rng: np.random.Generator, images: int, largest: int) -> list[int]:
    """The patient's number of each image; about three images in ten share theirs with another image."""
    sizes: list[int] = []
    shared = round(SHARED_PATIENTS * images) if largest > 1 else 0
    while shared - sum(sizes) > 1:
        sizes.append(min(FOLLOW_UPS[len(sizes) % len(FOLLOW_UPS)], largest, shared - sum(sizes)))
    sizes += [1] * (images - sum(sizes))
    numbers = 1 + rng.choice(PATIENT_NUMBERS, size=len(sizes), replace=False)
    return [int(number) for number in rng.permutation(np.repeat(numbers, sizes))]


def _image_ids(rng: np.random.Generator, patients: Sequence[int]) -> list[str]:
    """Names like NIH's, patient and follow-up; the follow-ups of a patient count up from a random number."""
    follow_up = {patient: int(rng.integers(FIRST_FOLLOW_UPS)) for patient in dict.fromkeys(patients)}
    names = []
    for patient in patients:
        names.append(f"{patient:08d}_{follow_up[patient]:03d}.png")
        follow_up[patient] += 1 + int(rng.integers(2))
    return names


def _write_pieces(
    folder: Path, seed: int, images: Sequence[PlannedImage], train_images: int, size_px: int, track: Track
) -> None:
    (folder / TRAIN).mkdir(parents=True)
    (folder / TEST).mkdir()
    train_rows: list[str] = []
    truth_rows: list[str] = []

    def draw(index: int) -> Sequence[Finding]:
        planned = images[index]
        rng = np.random.default_rng([seed, 1, index])
        findings = draw_findings(rng, planned.labels, size_px)
        anatomy = draw_anatomy(np.random.default_rng([seed, 2, planned.patient]))
        path = folder / (TRAIN if index < train_images else TEST) / planned.image_id
        Image.fromarray(render(rng, findings, size_px, anatomy)).save(path)
        return findings

    with contextlib.closing(Threads()) as threads:
        drawn = threads.map(draw, range(len(images)))
        for index, findings in enumerate(track(drawn, "drawing radiographs", len(images))):
            rows = train_rows if index < train_images else truth_rows
            rows += [_row(images[index].image_id, finding) for finding in findings]
    mapping = [f"{number},{planned.image_id}" for number, planned in enumerate(images[train_images:])]
    _write_table(folder / TRUTH, HEADER, truth_rows)
    _write_table(folder / MAPPING, "ID,image_id", mapping)
    _write_table(folder / TABLE, HEADER, train_rows)


def _write_table(path: Path, header: str, rows: Sequence[str]) -> None:
    write_text(path, "\n".join((header, *rows)) + "\n")


def _row(image_id: str, box: Finding) -> str:
    return f"{image_id},{box.x_min:.2f},{box.y_min:.2f},{box.x_max:.2f},{box.y_max:.2f},{box.label}"


def _clear_killed_attempt(data: Path, staging: Path) -> None:
    """Remove the staging folder, and the files that a killed attempt had moved from it into ``data``.

    If it still holds train.csv, the attempt was killed while moving: its other files lie in ``data``.
    """
    if (staging / TABLE).exists():
        for name in (TRAIN, TEST):
            if not (staging / name).exists():
                shutil.rmtree(data / name, ignore_errors=True)
        if not (staging / MAPPING).exists():
            (data / MAPPING).unlink(missing_ok=True)
    shutil.rmtree(staging, ignore_errors=True)
