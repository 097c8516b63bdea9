"""Devices: terms stay unless they are measurably worse, settings leave their value only if measurably better."""

import math

import pytest
from stores import answered, detector, equal_up_to_rounding, one_box_images

from kit.choosing.devices import Device, setting_device, term_device, weigh_terms
from kit.choosing.selection import SCORE
from kit.core.json_files import read_json, read_record, write_record
from kit.metrics.average_precision import match, mean_average_precision


@pytest.fixture(scope="module")
def store():
    """Answers of a strong detector, of a weak one, and of none, with the patients."""
    truth, patients, sizes = one_box_images(0, 120)
    matches = {
        strength: answered(SCORE.judge(detector(truth, 1, strength), sizes), truth) for strength in (3.0, 1.0)
    }
    nothing = match(truth, detector(truth, 1).iloc[:0], truth["image_id"])
    return matches[3.0], matches[1.0], nothing, patients


def test_terms_stay_unless_they_are_measurably_worse(store):
    strong, weak, _, patients = store
    better, equal, worse = (term_device(*pair, patients, 0) for pair in
                            ((strong, weak), (weak, weak), (weak, strong)))  # fmt: skip
    assert [device.kept for device in (better, equal, worse)] == [True, True, False]
    assert better.gain.low > 0 > worse.gain.high
    assert (equal.gain.low, equal.gain.high) == (0, 0)
    assert better.with_ == worse.without == mean_average_precision(strong)
    assert [device.why.split()[2] for device in (better, equal, worse)] == ["measurably", "not", "measurably"]


def test_a_setting_is_kept_only_if_it_is_measurably_better(store):
    strong, weak, _, patients = store
    assert setting_device(strong, weak, patients, 0).kept
    assert not setting_device(weak, weak, patients, 0).kept
    assert not setting_device(weak, strong, patients, 0).kept


def test_a_difference_of_mere_rounding_is_none():
    for more in (True, False):
        first, second, patients = equal_up_to_rounding(more)
        term, setting = (judge(first, second, patients, 0) for judge in (term_device, setting_device))
        assert 0 < abs(term.gain.low) < 1e-15
        assert (term.gain.low > 0) == (term.gain.high > 0) == more
        assert (term.kept, setting.kept) == (True, False)
        assert "not measurably" in term.why
        assert "not measurably" in setting.why


def test_with_one_patient_nothing_is_measured_and_both_kinds_stay_as_they_are(store):
    strong, weak, _, patients = store
    alone = dict.fromkeys(patients, "one")
    term, setting = (judge(strong, weak, alone, 0) for judge in (term_device, setting_device))
    assert term.kept
    assert not setting.kept
    assert math.isnan(term.gain.low)


def test_each_group_is_weighed_beside_the_others_and_one_that_harms_is_gone_for_the_next(store):
    strong, weak, nothing, patients = store
    asked = []

    def scored(columns):
        asked.append(columns)
        return weak if "bad" in columns else strong if "good" in columns else nothing

    kept, devices = weigh_terms({"harm": ["bad", "worse"], "none": [], "help": ["good"]}, scored, patients, 0)
    assert kept == ("good",)
    assert {name: device.kept for name, device in devices.items()} == {"harm": False, "help": True}
    assert asked == [("bad", "worse", "good"), ("good",), ()]  # each once
    assert weigh_terms({}, scored, patients, 0) == ((), {})


def test_a_device_is_written_with_its_promised_keys(store, tmp_path):
    strong, weak, _, patients = store
    device = term_device(strong, weak, patients, 0)
    write_record(tmp_path / "device.json", device)
    content = read_json(tmp_path / "device.json", "")
    assert set(content) == {"kept", "with", "without", "gain", "why"}
    assert set(content["gain"]) == {"value", "low", "high"}
    assert read_record(tmp_path / "device.json", Device, "") == device
