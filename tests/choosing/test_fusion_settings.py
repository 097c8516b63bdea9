"""A setting of the fusion replaces the usual one only where held-out images show it, the choice included."""

import functools
import math
from dataclasses import replace

import pandas as pd
import pytest
from stores import VIEWS, answered, copied_views, detector, independent_views, one_box_images

from kit.boxes.fusion import fusing
from kit.choosing.fusion_settings import IOUS, SKIP_SCORE, Setting, applied, settings_to_try, weigh_settings
from kit.choosing.selection import SCORE, patient_groups
from kit.config import FUSION_METHODS, FusionConfig

AUTO = FusionConfig("auto", "auto")
SOURCES = [("a", view) for view in VIEWS]


def weighed(detections, config, truth, patients, sizes, seed=0):
    """The choice on a store by the plain score, each image's best candidate as its answer."""
    fuse = functools.cache(fusing(detections, SOURCES))
    groups = patient_groups(truth, truth["image_id"], patients, seed)

    def judged(setting):
        return SCORE.judge(fuse(applied(config, setting)), sizes)

    def by_group(settings):
        tables = {setting: judged(setting) for setting in set(settings)}
        parts = [
            table[table["image_id"].map(groups) == group]
            for group, table in enumerate(tables[setting] for setting in settings)
        ]
        return answered(pd.concat(parts, ignore_index=True), truth)

    return weigh_settings(
        settings_to_try(config), lambda setting: answered(judged(setting), truth), by_group, groups, patients, seed
    )


def test_every_method_at_every_iou_with_two_skip_scores_is_tried_and_the_usual_one_first():
    tried = settings_to_try(AUTO)
    assert tried[0] == Setting("suppress", 0.3, 0.0)
    assert len(tried) == len(set(tried)) == len(FUSION_METHODS) * len(IOUS) * 2
    assert {setting.skip_score for setting in tried} == {0, SKIP_SCORE}
    usual = settings_to_try(replace(AUTO, usual_method="wbf", usual_iou=0.55, skip_score=0.2))
    assert (usual[0], len(usual)) == (Setting("wbf", 0.55, 0.2), len(tried) + 1)
    assert {setting.skip_score for setting in usual} == {0.2, 0}
    assert settings_to_try(FusionConfig("wbf", "auto"))[0] == Setting("wbf", 0.3, 0.0)
    assert {setting.method for setting in settings_to_try(FusionConfig("wbf", "auto"))} == {"wbf"}
    assert {setting.iou for setting in settings_to_try(FusionConfig("auto", 0.7))} == {0.7}
    weighted = settings_to_try(replace(AUTO, usual_method="wbf"), weighted=True)
    assert {setting.method for setting in weighted} == {"wbf", "wbf_sum", "wbf_or"}


def test_each_group_gets_the_setting_that_is_best_on_the_others():
    """One setting is good on the first two groups alone, the other on the last two: no choice transfers."""
    truth, patients, _ = one_box_images(0, images=80)
    groups = {name: number // 20 for number, name in enumerate(truth["image_id"])}
    weak, strong = (detector(truth, 1, strength=value) for value in (0.5, 4.0))
    weak, strong = (SCORE.judge(table, dict.fromkeys(patients, (1000, 1000))) for table in (weak, strong))
    early, late, usual = Setting("wbf", 0.3, 0.0), Setting("wbf", 0.4, 0.0), Setting("suppress", 0.3, 0.0)
    good = {early: (0, 1), late: (2, 3), usual: ()}

    def of_groups(good_in):
        tables = [(strong if group in good_in else weak) for group in range(4)]
        parts = [table[table["image_id"].map(groups) == group] for group, table in enumerate(tables)]
        return answered(pd.concat(parts, ignore_index=True), truth)

    asked = []

    def by_group(settings):
        asked.append(settings)
        return of_groups([group for group, setting in enumerate(settings) if group in good[setting]])

    choice, device = weigh_settings(
        [usual, early, late], lambda setting: of_groups(good[setting]), by_group, groups, patients, 0
    )
    assert choice.best_by_group == (late, late, early, early)  # each by the two thirds that are not its own
    assert asked == [choice.best_by_group, (usual,) * 4]
    assert (device.kept, device.gain.value) == (False, 0)  # although both are better than usual on all images
    assert (choice.used, choice.by_group) == (usual, (usual,) * 4)
    assert [tried.map50 > choice.tried[0].map50 for tried in choice.tried] == [False, True, True]


def test_with_one_patient_the_usual_setting_stays():
    truth, patients, sizes = one_box_images(0, images=12)
    choice, device = weighed(
        independent_views(truth, 0), FusionConfig("auto", 0.3), truth, dict.fromkeys(patients, "one"), sizes
    )
    assert choice.used == choice.usual == Setting("suppress", 0.3, 0.0)
    assert not device.kept
    assert math.isnan(device.gain.low)


def test_votes_help_where_views_err_independently_and_not_where_they_are_copies():
    truth, patients, sizes = one_box_images(3)
    choice, device = weighed(independent_views(truth, 3), AUTO, truth, patients, sizes)
    assert device.kept
    assert device.gain.low > 0
    assert choice.used.method in ("wbf", "wbf_sum", "wbf_or")
    assert choice.by_group == choice.best_by_group
    copies, none = weighed(copied_views(truth, 3), AUTO, truth, patients, sizes)
    assert (none.kept, copies.used) == (False, Setting("suppress", 0.3, 0.0))
    assert none.gain.value == pytest.approx(0, abs=0.02)


def departures(repeats, config=AUTO):
    """How often the usual setting is left where three views see the same, and the mean of their scores is right."""
    usual = replace(config, usual_method="wbf", usual_iou=0.4)
    left = 0
    for seed in repeats:
        truth, patients, sizes = one_box_images(seed)
        left += weighed(copied_views(truth, seed, noise=0.7), usual, truth, patients, sizes, seed)[1].kept
    return left


def test_a_store_where_no_setting_is_better_keeps_the_usual_one():
    assert departures(range(2)) == 0


@pytest.mark.slow
def test_a_store_where_no_setting_is_better_keeps_the_usual_one_in_95_of_100_repeats():
    # No box overlaps another, so that every IoU is the same setting again: one of them does.
    assert departures(range(200), FusionConfig("auto", 0.4)) <= 10
