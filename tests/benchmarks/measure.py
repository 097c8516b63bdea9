"""A row of the table, and two ways timed in turn: A B A B, so that a machine that drifts slows both alike."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

NOT_MEASURED = "not measured"
Kind = Literal["times less", "times as much", "apart"]
Clock = Callable[[], float]
WALL: Clock = time.perf_counter
CPU: Clock = time.process_time  # of all threads of this process: what a core would need by itself

# Why the limits are where they are, by a benchmark's name: said where one is missed.
WHY = {
    "samples": "the limit is what is left of the seed's work if an image is decoded once and travels as bytes",
    "epoch": "the limit leaves a twentieth for loading, the schedule, the checks and the progress",
    "scores": "the limit is near the number of thresholds, at each of which the seed runs the network again",
    "views": "the limit leaves a tenth for making the views and turning their boxes back",
    "fusion": "the limit is what arrays bring over loops, box by box",
    "resamples": "the limit is what weighing the matches anew brings over matching each resample",
    "startup": "the limit is what a user waits for gladly before anything is said",
    "cold": "the limits leave a quarter for the audit and the first batch, and three fifths for all but training",
    "stored": "the limits are what is left once every look-up is one of codes, and nothing is made twice",
    "growth": "the limit leaves a seventh for what the processor's caches no longer hold",
    "gpu": "the limits are those of the CPU: a twentieth for loading and checks, a tenth for the views",
    "pages": "the limits are what a browser opens at once and what a laptop has free",
    "importing": "the limit leaves a third for headers, checks, durable files and the tables",
    "memory": "one Python object per image, copied as its references are counted, would take ten times the limit",
}


@dataclass(frozen=True)
class Row:
    """One comparison. ``limit`` holds for ``ratio``, ``ceiling`` for ``ours``; None: shown without one."""

    name: str
    what: str
    against: str
    unit: str
    ours: float
    other: float
    kind: Kind
    limit: float | None = None
    ceiling: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """other / ours where less is better by a factor, ours / other where it is a surplus, or the difference."""
        if self.kind == "apart":
            return self.ours - self.other
        if not self.ours or not self.other:
            return math.nan
        return self.other / self.ours if self.kind == "times less" else self.ours / self.other

    @property
    def reached(self) -> bool | None:
        """Whether every limit of the row holds; None where it has none."""
        if (self.limit is None and self.ceiling is None) or math.isnan(self.ours):
            return None
        return self._ratio_holds and (self.ceiling is None or self.ours <= self.ceiling)

    @property
    def verdict(self) -> str:
        """Reached, or by how much not, and the note."""
        if math.isnan(self.ours):
            said = NOT_MEASURED
        elif self.reached is None:
            said = "no limit"
        elif self.reached:
            said = "reached"
        else:
            missed = []
            if not self._ratio_holds:
                missed.append(f"missed: {self.ratio:.3g} against {self.limit:g}")
            if self.ceiling is not None and self.ours > self.ceiling:
                missed.append(f"missed: {self.ours:.3g} {self.unit} against {self.ceiling:g}")
            said = "; ".join([*missed, WHY[self.name]])
        return f"{said} ({self.note})" if self.note else said

    @property
    def limits(self) -> str:
        """The limits as they are read: '>= 6', '<= 1.05', '<= 0.3 s'."""
        parts = []
        if self.limit is not None:
            sign = ">=" if self.kind == "times less" else "<="
            parts.append(f"{sign} {self.limit:g}{' ' + self.unit if self.kind == 'apart' else ''}")
        if self.ceiling is not None:
            parts.append(f"< {self.ceiling:g} {self.unit}")
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self) | {"ratio": self.ratio, "reached": self.reached, "verdict": self.verdict}
        lost = {name for name, value in values.items() if isinstance(value, float) and math.isnan(value)}
        return values | dict.fromkeys(lost)  # JSON has no NaN

    @property
    def _ratio_holds(self) -> bool:
        if self.limit is None:
            return True
        return self.ratio >= self.limit if self.kind == "times less" else self.ratio <= self.limit


def not_measured(name: str, what: str, why: str) -> Row:
    """A row without figures, and why."""
    return Row(name, what, "", "", math.nan, math.nan, "apart", note=why)


def timed(work: Callable[[], object], clock: Clock = WALL) -> float:
    """Seconds of one call."""
    started = clock()
    work()
    return clock() - started


def in_turn(
    ours: Callable[[], object], other: Callable[[], object], repeats: int, clock: Clock = WALL
) -> tuple[float, float]:
    """Median seconds of both, called in turn ``repeats`` times, after nothing: warm up before."""
    pairs = [(timed(ours, clock), timed(other, clock)) for _ in range(repeats)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")
