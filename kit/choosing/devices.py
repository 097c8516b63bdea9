"""Devices that may make the choice of the one box better, each measured by what the answers score without it.

A term of p, learned with a penalty, stays unless it is measurably worse; a setting leaves its usual value only if
it is measurably better. Measured means: the paired 95% interval of the gain does not hold 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kit.core.json_files import FloatOrNaN
from kit.metrics.average_precision import Matches, mean_average_precision
from kit.metrics.bootstrap import Interval, paired_difference


@dataclass(frozen=True)
class Device:
    """Whether a device is used, the cross-fitted one-box mAP@0.5 with and without it, and why, in a sentence."""

    kept: bool
    with_: FloatOrNaN
    without: FloatOrNaN
    gain: Interval  # with minus without, paired by patient
    why: str


def term_device(with_: Matches, without: Matches, patients: Mapping[str, str], seed: int) -> Device:
    """Terms of p are kept unless the interval of their gain lies below 0; both are answers on the same images."""
    gap = paired_difference(with_, without, patients, seed).overall
    why = "It is not measurably worse than without it."
    if gap.below_0:
        why = "It is measurably worse than without it."
    if gap.above_0:
        why = "It is measurably better than without it."
    return _device(not gap.below_0, with_, without, gap, why)


def setting_device(with_: Matches, without: Matches, patients: Mapping[str, str], seed: int) -> Device:
    """A setting is kept only if the interval of its gain lies above 0; both are answers on the same images."""
    gap = paired_difference(with_, without, patients, seed).overall
    why = "It is measurably better than" if gap.above_0 else "It is not measurably better than"
    return _device(gap.above_0, with_, without, gap, f"{why} the usual value.")


def weigh_terms(
    groups: Mapping[str, Sequence[str]],
    answered: Callable[[tuple[str, ...]], Matches],
    patients: Mapping[str, str],
    seed: int,
) -> tuple[tuple[str, ...], dict[str, Device]]:
    """The columns that stay terms of p, and by device what its group of columns brought.

    Each group is measured beside all others; one that is left out is no longer there when the next is measured.

    Args:
        groups: By device its columns of the candidates; an empty group is passed over.
        answered: The cross-fitted answers with these columns as terms, matched with the truth.
        patients: The patient of every image.
        seed: Of the resamples.
    """
    kept = {name: tuple(columns) for name, columns in groups.items() if columns}
    measured: dict[tuple[str, ...], Matches] = {}
    devices = {}

    def matches(of: Mapping[str, tuple[str, ...]]) -> Matches:
        columns = tuple(column for group in of.values() for column in group)
        if columns not in measured:
            measured[columns] = answered(columns)
        return measured[columns]

    for name in list(kept):
        others = {other: columns for other, columns in kept.items() if other != name}
        devices[name] = term_device(matches(kept), matches(others), patients, seed)
        if not devices[name].kept:
            kept = others
    return tuple(column for group in kept.values() for column in group), devices


def _device(kept: bool, with_: Matches, without: Matches, gap: Interval, why: str) -> Device:
    return Device(kept, mean_average_precision(with_), mean_average_precision(without), gap, why)
