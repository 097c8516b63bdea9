"""Drawn chest radiographs: a patient's anatomy, eight findings of different appearance, and the film.

Lengths are shares of the image side; brightness runs from 0 (air) to 1 (bone) until the last step. No real image
was used: what a detector learns here does not carry over to patients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

Plane = Float32[np.ndarray, "h w"]
Rng = np.random.Generator
Corners = tuple[float, float, float, float]

STRENGTH = (0.9, 1.25)  # of a finding against its usual brightness
ANATOMY_SPREAD = 0.06  # standard deviation of a patient's measures, share of the average
RIB_PERIOD = 2 * np.pi
HEART_LEAN = 0.35  # how far the ellipse of the heart leans towards its apex, at the lower right
BRONCHI = (-0.7, 0.0, 0.7)  # where they end at the outer edge, from the top (-1) to the bottom (1)
BRONCHUS = 0.014  # half the thickness of a bronchus
PLATE_DISTANCE = 0.05  # between two plates of an Atelectasis


@dataclass(frozen=True)
class Finding:
    """A box with its label, absolute pixels of the image."""

    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True)
class Anatomy:
    """The measures of a patient's chest; the defaults are the average."""

    lung_offset: float = 0.215
    lung_width: float = 0.37
    apex: float = 0.09
    base: float = 0.76
    dome: float = 0.07
    rib_spacing: float = 0.082
    rib_tilt: float = 0.45
    rib_contrast: float = 0.11
    spine_width: float = 0.085
    body_width: float = 0.90
    fat: float = 0.54
    heart_left: float = 0.385
    heart_top: float = 0.455
    heart_width: float = 0.29
    heart_height: float = 0.29


def draw_anatomy(rng: Rng) -> Anatomy:
    """A random patient: every measure deviates from the average by a normal share, at most two deviations."""
    average = dataclasses.asdict(Anatomy())
    return Anatomy(**{name: value * (1 + ANATOMY_SPREAD * _normal(rng)) for name, value in average.items()})


def render(
    rng: Rng, findings: Sequence[Finding], size_px: int, anatomy: Anatomy | None = None
) -> UInt8[np.ndarray, "h w"]:
    """Draw a radiograph, shape (size_px, size_px).

    Without ``findings`` it is healthy, without ``anatomy`` that of a random patient. Patient, chest, findings and
    film have generators of their own: with the same ``rng``, images with and without a finding differ in the
    finding alone. Raises KeyError for an unknown label.
    """
    patient_rng, chest_rng, finding_rng, film_rng = rng.spawn(4)
    y, x = np.mgrid[0:size_px, 0:size_px].astype(np.float32) / np.float32(size_px)
    patient = anatomy or draw_anatomy(patient_rng)
    boxes = [(finding.label, _Frame.of(_shares(finding, size_px), x, y)) for finding in findings]
    hearts = [box for label, box in boxes if label == "Cardiomegaly"]
    heart = hearts[0] if hearts else _Frame.of(_normal_heart(patient), x, y)
    density = _chest(chest_rng, patient, heart, x, y)
    for label, box in boxes:
        density = PAINTERS[label](finding_rng, density, box, finding_rng.uniform(*STRENGTH))
    return _film(film_rng, density, x, y)


@dataclass(frozen=True)
class _Frame:
    """The coordinates of a box over the whole image: u and v run from -1 to 1 inside the box."""

    u: Plane
    v: Plane
    width: float
    height: float
    lateral: float  # the side of u that is away from the spine: -1 or 1

    @classmethod
    def of(cls, corners: Corners, x: Plane, y: Plane) -> _Frame:
        left, top, right, bottom = corners
        u, v = (2 * x - left - right) / (right - left), (2 * y - top - bottom) / (bottom - top)
        return cls(u, v, right - left, bottom - top, 1.0 if left + right > 1 else -1.0)

    def inside(self, roundness: float, soft: float) -> Plane:
        """1 inside, falling to 0 towards the box over ``soft``; roundness 2 is an ellipse, 8 almost the box."""
        radius = (np.abs(self.u) ** roundness + np.abs(self.v) ** roundness) ** (1 / roundness)
        return self.edge(radius, soft)

    def edge(self, radius: Plane, soft: float) -> Plane:
        """1 for a small radius, falling to 0 at radius 1."""
        return _ramp((1 - radius) * (min(self.width, self.height) / 2), soft)


def _chest(rng: Rng, patient: Anatomy, heart: _Frame, x: Plane, y: Plane) -> Plane:
    shift_x, shift_y, turn = (0.008 * _normal(rng) for _ in range(3))
    x, y = x - shift_x + turn * (y - 0.5), y - shift_y
    off = np.abs(x - 0.5)
    shoulder = 0.02 + 0.35 * np.maximum(off - 0.14, 0) ** 1.3
    body = _ramp(y - shoulder, 0.02) * _ramp(patient.body_width / 2 + 0.04 * np.cos(6 * y) - off, 0.02)
    density = body * (patient.fat + 0.08 * _cloud(rng, x, 4) + 0.18 * _ramp(y - patient.base, 0.12))
    vessels = _cloud(rng, x, 40) * np.exp(-((off - 0.1) ** 2) / 0.03)
    lungs = _lung(patient, x, y, -1) + _lung(patient, x, y, 1)
    density -= lungs * (density - 0.25 - 0.05 * _cloud(rng, x, 9) - 0.05 * vessels)
    hilum = np.exp(-(((off - 0.09) / 0.045) ** 2) - ((y - 0.44) / 0.07) ** 2)
    density += 0.14 * hilum * (1 + 0.3 * vessels)
    density += 0.85 * _heart(heart) * np.maximum(0.64 + 0.04 * heart.v - density, 0)
    return density + body * _bones(patient, off, y)


def _bones(patient: Anatomy, off: Plane, y: Plane) -> Plane:
    along = (y - patient.rib_tilt * off + 1.1 * off**2) / patient.rib_spacing
    cage = _ramp(patient.lung_offset + patient.lung_width / 2 + 0.02 - off, 0.02) * _ramp(0.80 - y, 0.1)
    ribs = cage * patient.rib_contrast * _ramp(np.cos(RIB_PERIOD * along) - 0.25, 0.7)
    collar = _ramp(0.014 - np.abs(y - 0.15 - 0.25 * (off - 0.2)), 0.01) * _ramp(off - 0.04, 0.02)
    discs = _ramp(np.cos(RIB_PERIOD * y / 0.06) - 0.6, 0.3)
    spine = _ramp(patient.spine_width - off, 0.06) * (0.2 - 0.06 * discs) * _ramp(0.9 - y, 0.5)
    return ribs + 0.12 * collar + spine


def _lung(patient: Anatomy, x: Plane, y: Plane, side: int) -> Plane:
    depth = np.clip((y - patient.apex) / (patient.base - patient.apex), 0, 1)
    middle = 0.5 + side * (patient.lung_offset - 0.05 * (1 - depth))
    across = (x - middle) / (patient.lung_width / 2 * (0.55 + 0.5 * depth**0.6))
    floor = patient.base + side * 0.012 - patient.dome * (1 - across**2)
    wall = 1 - across**2 - np.maximum(1 - 3 * depth, 0) ** 2
    return _ramp(floor - y, 0.012) * _ramp(wall, 0.14)


def _heart(box: _Frame) -> Plane:
    """A leaning ellipse that touches all four sides of the box."""
    squared = (box.u**2 - 2 * HEART_LEAN * box.u * box.v + box.v**2) / (1 - HEART_LEAN**2)
    return box.edge(np.sqrt(np.maximum(squared, 0)), 0.014)


def _normal_heart(patient: Anatomy) -> Corners:
    left, top = patient.heart_left, patient.heart_top
    return left, top, left + patient.heart_width, top + patient.heart_height


def _shares(box: Finding, size_px: int) -> Corners:
    return box.x_min / size_px, box.y_min / size_px, box.x_max / size_px, box.y_max / size_px


def _film(rng: Rng, density: Plane, x: Plane, y: Plane) -> UInt8[np.ndarray, "h w"]:
    """Exposure, contrast and a gradient across the film are random; the brightest levels are compressed."""
    lean_x, lean_y, offset = (0.04 * _normal(rng) for _ in range(3))
    gain, grain = rng.uniform(0.8, 1.15), rng.uniform(0.010, 0.028)
    bright = 0.7
    density = density - 0.45 * np.maximum(density - bright, 0)
    exposed = 0.45 + offset + gain * (density - 0.45) + lean_x * (x - 0.5) + lean_y * (y - 0.5)
    exposed += grain * rng.standard_normal(density.shape, dtype=np.float32)
    return np.round(255 * np.clip(exposed, 0, 1)).astype(np.uint8)


def _ramp(distance: Plane, soft: float) -> Plane:
    return np.clip(distance / soft, 0, 1)


def _cloud(rng: Rng, like: Plane, cells: int) -> Plane:
    """Smooth noise of unit variance: values on a coarse grid, joined by bell-shaped weights."""
    at = np.linspace(0, cells, like.shape[0], dtype=np.float32)[:, None]
    bell = np.exp(-2 * (at - np.arange(cells + 1, dtype=np.float32)) ** 2)
    bell /= np.sqrt((bell**2).sum(axis=1, keepdims=True))
    return bell @ rng.standard_normal((cells + 1, cells + 1), dtype=np.float32) @ bell.T


def _normal(rng: Rng) -> float:
    return float(np.clip(rng.normal(), -2, 2))


def _atelectasis(rng: Rng, density: Plane, box: _Frame, strength: float) -> Plane:
    """Bright plates, one above the other, the first and the last at the edges of the box."""
    gaps = max(1, round(box.height / PLATE_DISTANCE) - 1)
    bend = rng.uniform(-0.12, 0.12) * box.u + rng.uniform(-0.1, 0.1) * (box.u**2 - 0.5)
    phase = (box.v / 0.8 + bend + 1) / 2 * gaps
    plate = _ramp(np.cos(RIB_PERIOD * phase) + 0.35, 1.1)
    return density + strength * box.inside(6.0, 0.016) * (0.06 + 0.27 * plate)


def _cardiomegaly(rng: Rng, density: Plane, box: _Frame, strength: float) -> Plane:
    """The heart of the chest is as large as the box already; this makes it denser."""
    return density + strength * rng.uniform(0.04, 0.08) * _heart(box)


def _effusion(rng: Rng, density: Plane, box: _Frame, strength: float) -> Plane:
    """Fluid in the box, opaque at the bottom; its surface rises along the outer wall."""
    outward = np.clip((box.u * box.lateral + 1) / 2, 0, 1)
    surface = rng.uniform(-0.2, 0.3) * (1 - outward) - outward**2
    fluid = box.inside(8.0, 0.012) * _ramp((box.v - surface) * (box.height / 2), 0.02)
    return density + strength * fluid * (0.32 + 0.08 * box.v)


def _infiltrate(rng: Rng, density: Plane, box: _Frame, strength: float) -> Plane:
    """Cotton-like patches with clear lung between them."""
    patches = _ramp(_cloud(rng, box.u, 32) - 0.1, 1.2)
    return density + strength * box.inside(4.0, 0.02) * (0.03 + 0.42 * patches)


def _mass(rng: Rng, density: Plane, box: _Frame, strength: float) -> Plane:
    """A ball with a sharp border, denser than anything else of its size."""
    ball = np.sqrt(np.maximum(1 - box.u**2 - box.v**2, 0))
    return density + strength * (rng.uniform(0.26, 0.36) * ball + 0.32 * box.inside(2.0, 0.012))


def _nodule(rng: Rng, density: Plane, box: _Frame, strength: float) -> Plane:
    """A small ball with a dense core."""
    return density + strength * rng.uniform(0.48, 0.58) * box.inside(2.0, 0.014)


def _pneumonia(rng: Rng, density: Plane, box: _Frame, strength: float) -> Plane:
    """A dense, woolly area in which air-filled bronchi show as dark branches that start near the spine."""
    outward = np.clip((box.u * box.lateral + 0.9) / 1.7, 0, 1)
    length = _ramp(outward, 0.02) * _ramp(1 - outward, 0.1)
    air = np.zeros_like(density)
    for end in BRONCHI:
        bend = rng.uniform(0.5, 1.1)
        waver = 0.06 * np.sin(RIB_PERIOD * (outward + rng.uniform(0, 1)))
        distance = np.abs(box.v - end * outward**bend - waver) * (box.height / 2)
        air = np.maximum(air, _ramp(BRONCHUS * (1.3 - 0.6 * outward) - distance, BRONCHUS / 2) * length)
    wool = 1 + 0.06 * _cloud(rng, box.u, 18)
    return density + strength * box.inside(3.5, 0.025) * wool * (0.38 - 0.40 * air)


def _pneumothorax(rng: Rng, density: Plane, box: _Frame, strength: float) -> Plane:
    """Air without lung markings behind a thin bright pleural line; the ribs remain faintly visible."""
    air = box.inside(3.0, 0.012)
    rim = np.clip(air - box.inside(3.0, 0.044) * 1.5, 0, 1)
    left_over = rng.uniform(0.04, 0.09) + 0.2 * np.maximum(density - 0.3, 0)
    inner = _ramp(0.7 - np.maximum(box.u * box.lateral, -box.v), 0.6)
    return density - 0.9 * air * (density - left_over) + strength * 0.34 * rim * (0.3 + 0.7 * inner)


Painter = Callable[[Rng, Plane, _Frame, float], Plane]
PAINTERS: dict[str, Painter] = {
    "Atelectasis": _atelectasis,
    "Cardiomegaly": _cardiomegaly,
    "Effusion": _effusion,
    "Infiltrate": _infiltrate,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
}
