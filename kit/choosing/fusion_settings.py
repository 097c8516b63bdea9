"""How views and runs are fused, chosen on held-out images: the settings tried, and one that is measurably better.

The choice is cross-fitted too: each group of images is answered by the setting that is best on the other groups,
and these answers are compared with those of the usual setting. So the interval of the gain covers the choice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kit.choosing.devices import Device, setting_device
from kit.config import AUTO, FUSION_METHODS, FusionConfig
from kit.core.json_files import FloatOrNaN
from kit.metrics.average_precision import Matches, average_precision, mean_average_precision

IOUS = (0.3, 0.4, 0.5, 0.6)
SKIP_SCORE = 0.05  # the second one, beside 0


@dataclass(frozen=True)
class Setting:
    """How detections are fused."""

    method: str
    iou: float
    skip_score: float

    def __str__(self) -> str:
        least = f", scores from {self.skip_score:g}" if self.skip_score else ""
        return f"{self.method} at IoU {self.iou:g}{least}"


@dataclass(frozen=True)
class TriedSetting(Setting):
    """A setting and the cross-fitted one-box mAP@0.5 of its candidates."""

    map50: FloatOrNaN


@dataclass(frozen=True)
class FusionChoice:
    """The settings that were tried, the best by group of images, and the one that is used on new images."""

    used: Setting
    usual: Setting
    by_group: tuple[Setting, ...]  # by which each group's candidates are fused; the usual one if no other is used
    best_by_group: tuple[Setting, ...]  # the best on the other groups
    tried: tuple[TriedSetting, ...]

    @property
    def ious(self) -> tuple[float, ...]:
        """The IoUs that were tried, rising."""
        return tuple(sorted({setting.iou for setting in self.tried}))

    @property
    def rows(self) -> tuple[tuple[str, float, tuple[float, ...]], ...]:
        """Method, skip score and the mAP@0.5 at each of ``ious``, NaN where it was not tried."""
        found = {(each.method, each.skip_score, each.iou): each.map50 for each in self.tried}
        kinds = dict.fromkeys((each.method, each.skip_score) for each in self.tried)
        return tuple((*kind, tuple(found.get((*kind, iou), math.nan) for iou in self.ious)) for kind in kinds)


def applied(config: FusionConfig, setting: Setting) -> FusionConfig:
    """The knobs with a setting in place of ``auto``."""
    return replace(config, method=setting.method, iou=setting.iou, skip_score=setting.skip_score)


def usual_setting(config: FusionConfig) -> Setting:
    """The knobs as a setting, the usual values in place of ``auto``."""
    return Setting(config.usual.method, config.usual.least_iou, config.skip_score)


def settings_to_try(config: FusionConfig, weighted: bool = False) -> tuple[Setting, ...]:
    """The usual setting first, then those that share their clusters side by side.

    What is ``auto`` takes every method, or every IoU of ``IOUS``; the skip scores are the knob's and one other.
    ``weighted``: the members have different weights, which suppression would ignore.
    """
    usual = usual_setting(config)
    methods = FUSION_METHODS if config.method == AUTO else (usual.method,)
    ious = IOUS if config.iou == AUTO else (usual.iou,)
    skips = (config.skip_score, 0.0 if config.skip_score else SKIP_SCORE)
    product = [Setting(method, iou, skip) for skip, iou, method in itertools.product(skips, ious, methods)]
    others = [each for each in product if each != usual and not (weighted and each.method == "suppress")]
    return (usual, *others)


def weigh_settings(
    settings: Sequence[Setting],
    answered: Callable[[Setting], Matches],
    answered_by_group: Callable[[tuple[Setting, ...]], Matches],
    groups: Mapping[str, int],
    patients: Mapping[str, str],
    seed: int,
) -> tuple[FusionChoice, Device]:
    """The setting to use, the first (usual) one unless the interval of another's gain lies above 0; and the gain.

    Args:
        settings: The usual setting, then the others; of equal scores the first wins.
        answered: The cross-fitted answers with a setting on all images, matched with the truth.
        answered_by_group: The same with a setting for each group, by rising group.
        groups: The number of every image's group.
        patients: The patient of every image.
        seed: Of the resamples.
    """
    usual, matched = settings[0], {setting: answered(setting) for setting in settings}
    numbers = sorted(set(groups.values()))
    scores = {setting: mean_average_precision(matches) for setting, matches in matched.items()}
    best_by_group = tuple(
        _best({setting: _map50_without(matches, groups, number) for setting, matches in matched.items()})
        for number in numbers
    )
    usual_by_group = (usual,) * len(numbers)
    device = setting_device(answered_by_group(best_by_group), answered_by_group(usual_by_group), patients, seed)
    tried = tuple(TriedSetting(**vars(setting), map50=score) for setting, score in scores.items())
    used, by_group = (_best(scores), best_by_group) if device.kept else (usual, usual_by_group)
    return FusionChoice(used, usual, by_group, best_by_group, tried), device


def _best(scores: Mapping[Setting, float]) -> Setting:
    """The setting of the highest score, of equal ones the first; the first of all if none is known."""
    return max(scores, key=lambda setting: -math.inf if math.isnan(scores[setting]) else scores[setting])


def _map50_without(matches: Matches, groups: Mapping[str, int], left_out: int) -> float:
    """The mAP@0.5 on the images that are not of a group; NaN without a true box."""
    of_image = np.array([groups[image_id] != left_out for image_id in matches.image_ids], dtype=bool)
    scores = [
        average_precision(matched.hits[of_image[matched.images]], int(matched.positives[of_image].sum()))
        for matched in matches.classes.values()
        if matched.positives[of_image].any()
    ]
    return float(np.mean(scores)) if scores else math.nan
