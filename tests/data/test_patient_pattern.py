"""A pattern that does not fit the names is said, with one that does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.config import DataConfig, override, preset
from kit.data import audit
from kit.data.competition import patients
from kit.data.patient_pattern import fitting_share, knows_patients, suggested_pattern

NIH = r"^(\d{8})_\d{3}"


def names(form, count=40):
    return [form.format(patient=number // 4, image=number % 4, number=number) for number in range(count)]


OTHERS = ("patient{patient:05d}_study{image}_frontal.png", "p{patient}-{image}.png", "{patient}_{image}.png",
          "s.{patient}_{image}.png", "{patient:03d}.{image}.png")  # fmt: skip


def test_no_names_fit_wholly():
    assert fitting_share([], NIH) == 1


def test_nihs_names_fit():
    image_ids = names("{patient:08d}_{image:03d}.png")
    assert fitting_share(image_ids, NIH) == 1
    assert audit.patient_pattern(image_ids, (), DataConfig()) is None


@pytest.mark.parametrize("pattern", [r"(P\d+_)?", "()", "", "x*"])
def test_a_pattern_that_matches_nothing_of_a_name_does_not_fit_it(pattern):
    assert fitting_share(names("{patient:08d}_{image:03d}.png"), pattern) == 0


def test_each_half_is_asked_by_itself():
    train, test = names("{patient:08d}_{image:03d}.png"), [f"test_{number}.png" for number in range(4)]
    assert knows_patients([*train, *test], NIH)
    found = audit.patient_pattern(train, test, DataConfig())
    assert found.rows["image_id"].tolist() == test


def test_fewer_than_nine_tenths_are_few():
    image_ids = names("{patient:08d}_{image:03d}.png", 36)
    assert knows_patients([*image_ids, "a", "b", "c", "d"], NIH)
    assert not knows_patients([*image_ids, "a", "b", "c", "d", "e"], NIH)


@pytest.mark.parametrize("form", OTHERS)
def test_the_advice_names_a_pattern_that_fits_and_followed_it_ends_the_warning(form):
    image_ids = names(form)
    found = audit.patient_pattern(image_ids, (), DataConfig())
    assert (found.level, found.check, len(found.rows)) == ("warning", "patient-pattern", 40)
    assert "fits 0 of 40 names of images; not" in found.text and "and 37 more" in found.text
    assignment = found.do.split("--set '")[1].split("'")[0]
    config = override(preset("demo"), [assignment]).data
    assert audit.patient_pattern(image_ids, (), config) is None
    patient_of = patients(image_ids, config.patient_pattern, {})
    assert len(set(patient_of.values())) == 10


def test_if_every_image_is_of_another_patient_the_advice_is_the_pattern_that_says_so():
    image_ids = names("scan{number}.png")
    found = audit.patient_pattern(image_ids, (), DataConfig())
    assert "data.patient_pattern=PATTERN" in found.do and "'data.patient_pattern=(.+)'" in found.do
    config = DataConfig(patient_pattern="(.+)")
    assert audit.patient_pattern(image_ids, (), config) is None
    assert len(set(patients(image_ids, config.patient_pattern, {}).values())) == 40


@given(st.lists(st.text(max_size=12), max_size=30, unique=True))
def test_a_suggested_pattern_fits_every_name_and_joins_some(image_ids):
    pattern = suggested_pattern(image_ids, 0.5)
    if pattern is not None:
        assert fitting_share(image_ids, pattern) == 1
        assert len(set(patients(image_ids, pattern, {}).values())) < len(image_ids)
