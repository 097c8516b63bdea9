"""What is held out: whole patients, balanced classes, images with equal pixels on one side."""

import dataclasses
import json
import logging
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from toy import toy_config

from kit.config import DataConfig, override
from kit.core.errors import KitError
from kit.core.json_files import fingerprint
from kit.data import duplicates
from kit.data.competition import load_training, patients
from kit.data.duplicates import pictures, small_copies
from kit.data.splits import assign_folds, cross_fits, cross_validation, split_groups, validation_split

NIH = r"^(\d{8})_\d{3}"


def table(rows):
    return pd.DataFrame(
        [(image_id, 0.0, 0.0, 10.0, 10.0, label) for image_id, label in rows],
        columns=["image_id", "x_min", "y_min", "x_max", "y_max", "label"],
    )


def competition(images=200, seed=0, labels=("Mass", "Nodule", "Effusion")):
    """Rows and image_ids of a made-up competition with one to three images per patient."""
    rng = np.random.default_rng(seed)
    ids = [f"{i // (1 + i % 3):08d}_{i:03d}.png" for i in range(images)]
    return table([(image_id, labels[rng.integers(len(labels))]) for image_id in ids]), ids


class TestSplitOfTheSeedNotebook:
    """Defect: the split ignored patients and classes."""

    def test_a_random_split_shares_patients(self):
        _, ids = competition()
        held = set(np.random.default_rng(0).permutation(ids)[:30])
        patient = patients(ids, NIH, {})
        assert {patient[i] for i in held} & {patient[i] for i in ids if i not in held}

    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 10_000))
    def test_ours_shares_none_and_has_every_class_on_both_sides(self, seed):
        annotations, ids = competition(seed=seed)
        held = set(validation_split(annotations, ids, DataConfig(), seed))
        patient = patients(ids, NIH, {})
        assert not {patient[i] for i in held} & {patient[i] for i in ids if i not in held}
        inside = annotations["image_id"].isin(held)
        assert set(annotations[inside]["label"]) == set(annotations[~inside]["label"]) == set(annotations["label"])
        assert 0.12 <= len(held) / len(ids) <= 0.18

    def test_class_shares_are_near_the_share_of_images(self):
        annotations, ids = competition(images=700)
        held = validation_split(annotations, ids, DataConfig(), 42)
        inside = annotations["image_id"].isin(held)
        shares = annotations[inside]["label"].value_counts() / annotations["label"].value_counts()
        assert shares.between(0.13, 0.17).all()

    def test_it_is_a_function_of_data_and_seed_whatever_the_order(self):
        annotations, ids = competition()
        shuffled = annotations.sample(frac=1, random_state=1)
        first = validation_split(annotations, ids, DataConfig(), 1)
        assert first == validation_split(shuffled, ids[::-1], DataConfig(), 1)
        assert first != validation_split(annotations, ids, DataConfig(), 2)

    @settings(max_examples=20)
    @given(st.integers(0, 10_000), st.integers(1, 4))
    def test_a_class_that_only_one_patient_has_stays_in_training_and_that_is_said(self, seed, rare):
        annotations, ids = competition(images=60, seed=seed)
        patient = patients(ids, NIH, {})
        alone = [ids[0], ids[20], ids[40], ids[59]][:rare]
        annotations = pd.concat([annotations, table([(name, f"Hernia {name}") for name in alone])])
        held, said = logged(validation_split, annotations, ids, DataConfig(), seed)
        assert held and not {patient[name] for name in alone} & {patient[name] for name in held}
        assert len(said) == rare
        assert all("Hernia" in line and "1 patient, who stays in training" in line for line in said)
        inside = annotations["image_id"].isin(held)
        assert set(annotations[inside]["label"]) == {"Mass", "Nodule", "Effusion"}

    def test_a_class_that_no_candidate_splits_stays_in_training_and_the_advice_splits_it(self):
        annotations, ids = competition(images=200)
        rare = [(ids[place], f"rare {place % 10}") for place in range(0, 200, 10)]
        rare += [(ids[place + 1], f"rare {place}") for place in range(10)]
        annotations = pd.concat([annotations, table(rare)])
        few = DataConfig(split_candidates=1)
        held, said = logged(validation_split, annotations, ids, few, 3)
        assert held
        if said:
            assert all("no score judges this class" in line for line in said)
        held, said = logged(validation_split, annotations, ids, DataConfig(split_candidates=20_000), 3)
        inside = annotations["image_id"].isin(held)
        assert set(annotations[inside]["label"]) | {line.split("'")[1] for line in said} == set(
            annotations["label"]
        )

    @pytest.mark.parametrize("labels", [("Mass", "Nodule"), ("Mass", "Mass")])
    def test_without_two_patients_who_can_be_parted_there_is_no_split_and_more_images_make_one(self, labels):
        ids = ["00000001_000.png", "00000002_000.png"] if labels[0] != labels[1] else ["00000001_000.png"]
        annotations = table(list(zip(ids, labels, strict=False)))
        with pytest.raises(KitError, match="add images of other patients"):
            validation_split(annotations, ids, DataConfig(largest_patient_share=1), 0)
        more = [f"{number:08d}_000.png" for number in range(10, 20)]
        annotations = pd.concat([annotations, table([(name, "Mass") for name in more])])
        assert validation_split(annotations, [*ids, *more], DataConfig(), 0)

    def test_a_patient_with_a_tenth_of_the_images_is_an_error(self):
        ids = [f"00000001_{i:03d}.png" for i in range(5)] + [f"{i:08d}_000.png" for i in range(2, 30)]
        with pytest.raises(KitError, match=r"'00000001' has 5.*data\.patient_pattern"):
            validation_split(table([(i, "Mass") for i in ids]), ids, DataConfig(), 0)

    def test_images_without_boxes_are_split_too(self):
        annotations, ids = competition(images=100)
        held = validation_split(annotations, [*ids, *(f"empty{i}.png" for i in range(100))], DataConfig(), 0)
        assert any(image_id.startswith("empty") for image_id in held)


FIVE = DataConfig(folds=5)


def logged(call, *arguments):
    """What a call returns, and the lines that it logs."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log = logging.getLogger("kit")
    log.addHandler(handler)
    try:
        return call(*arguments), lines
    finally:
        log.removeHandler(handler)


class TestFolds:
    def test_four_patients_of_two_classes_make_two_equal_folds(self):
        annotations = table([("a.png", "Mass"), ("b.png", "Mass"), ("c.png", "Nodule"), ("d.png", "Nodule")])
        folds = cross_validation(annotations, ["a.png", "b.png", "c.png", "d.png"], DataConfig(folds=2), 0)
        label = dict(zip(annotations["image_id"], annotations["label"], strict=True))
        assert [sorted(label[image_id] for image_id in fold) for fold in folds] == [["Mass", "Nodule"]] * 2

    @settings(max_examples=20)
    @given(st.integers(0, 10_000))
    def test_every_image_is_held_out_once_with_its_patient_and_every_class_is_in_every_fold(self, seed):
        annotations, ids = competition(seed=seed)
        folds = cross_validation(annotations, ids, FIVE, seed)
        assert sorted(image_id for fold in folds for image_id in fold) == sorted(ids)
        patient = patients(ids, NIH, {})
        held = [{patient[image_id] for image_id in fold} for fold in folds]
        assert sum(map(len, held)) == len(set(patient.values()))
        for fold in folds:
            assert set(annotations[annotations["image_id"].isin(fold)]["label"]) == set(annotations["label"])
            assert len(fold) == pytest.approx(len(ids) / 5, abs=2)

    def test_classes_are_spread_evenly(self):
        annotations, ids = competition(images=700)
        total = annotations["label"].value_counts()
        for fold in cross_validation(annotations, ids, FIVE, 42):
            shares = annotations[annotations["image_id"].isin(fold)]["label"].value_counts() / total
            assert shares.between(0.19, 0.21).all()

    def test_more_candidates_are_never_worse_balanced(self):
        annotations, ids = competition(images=90)
        total = annotations["label"].value_counts()

        def imbalance(candidates):
            config = DataConfig(folds=5, split_candidates=candidates)
            shares = [
                annotations[annotations["image_id"].isin(fold)]["label"].value_counts() / total
                for fold in cross_validation(annotations, ids, config, 1)
            ]
            sizes = [len(fold) / len(ids) for fold in cross_validation(annotations, ids, config, 1)]
            return float(np.square(np.array(shares) - 1 / 5).sum() + np.square(np.array(sizes) - 1 / 5).sum())

        few, many = imbalance(1), imbalance(256)
        assert many < few

    def test_they_are_a_function_of_data_and_seed_whatever_the_order(self):
        annotations, ids = competition()
        first = cross_validation(annotations, ids, FIVE, 1)
        assert first == cross_validation(annotations.sample(frac=1, random_state=1), ids[::-1], FIVE, 1)
        assert first != cross_validation(annotations, ids, FIVE, 2)

    def test_a_class_of_four_patients_cannot_be_in_five_folds(self):
        annotations, ids = competition(images=60)
        annotations = pd.concat([annotations, table([(ids[i], "Hernia") for i in (0, 20, 40, 59)])])
        with pytest.raises(KitError, match=r"(?s)'Hernia' occurs in 4 patient.*lower data\.folds to 4"):
            cross_validation(annotations, ids, FIVE, 0)
        for fold in cross_validation(annotations, ids, DataConfig(folds=4), 0):
            assert "Hernia" in set(annotations[annotations["image_id"].isin(fold)]["label"])

    def test_a_patient_who_alone_has_a_class_is_in_no_fold_and_that_is_said(self):
        annotations, ids = competition(images=200)
        patient = patients(ids, NIH, {})
        annotations = pd.concat([annotations, table([(ids[0], "Hernia")])])
        folds, said = logged(cross_validation, annotations, ids, FIVE, 0)
        assert sorted(image_id for fold in folds for image_id in fold) == [
            name for name in sorted(ids) if patient[name] != patient[ids[0]]
        ]
        assert said == ["class 'Hernia' occurs in 1 patient, who stays in training: no score judges this class"]

    @settings(max_examples=30)
    @given(st.integers(0, 10_000), st.integers(2, 10), st.integers(6, 30), st.integers(2, 6))
    def test_the_advice_to_a_refusal_makes_folds(self, seed, folds, images, classes):
        rng = np.random.default_rng(seed)
        ids = [f"{number:08d}_000.png" for number in range(images)]
        annotations = table([(name, f"class {rng.integers(classes)}") for name in ids])
        config = DataConfig(folds=folds, largest_patient_share=1, split_candidates=8)
        try:
            assert len(cross_validation(annotations, ids, config, seed)) == folds
        except KitError as error:
            advised = re.search(r"lower data\.folds to (\d+)", error.do)
            if advised is None:
                assert error.do.startswith("add images of other patients")
                return
            fewer = dataclasses.replace(config, folds=int(advised[1]))
            if fewer.folds > 1:
                assert len(cross_validation(annotations, ids, fewer, seed)) == fewer.folds
            else:
                assert validation_split(annotations, ids, fewer, seed)

    def test_fewer_patients_than_folds_are_refused_and_with_fewer_folds_they_are_split(self):
        ids = [f"{number:08d}_000.png" for number in range(4)]
        annotations = table([(name, "Mass") for name in ids])
        share = {"largest_patient_share": 1.0}
        with pytest.raises(KitError, match=r"lower data\.folds to 4"):
            cross_validation(annotations, ids, DataConfig(folds=5, **share), 0)
        assert len(cross_validation(annotations, ids, DataConfig(folds=4, **share), 0)) == 4

    def test_images_without_boxes_are_spread_too(self):
        annotations, ids = competition(images=100)
        empty = [f"empty{i}.png" for i in range(50)]
        for fold in cross_validation(annotations, [*ids, *empty], FIVE, 0):
            assert sum(image_id in empty for image_id in fold) == pytest.approx(10, abs=8)
            assert len(fold) == pytest.approx(30, abs=2)


@pytest.mark.parametrize(
    ("images", "one", "three", "five"),
    [
        (60, "e9376cf7b75f2f52", "e5e8aa1ca8991fbd", "e421b2a6e7e141e2"),
        (200, "1b5148c540bfa39b", "15c429fe753634de", "22b374bf99f65dba"),
        (700, "64f22ffe08ebdcb5", "9c42d252b2dc704b", "c60352c092d21c22"),
    ],
)
def test_the_same_seed_gives_the_folds_that_it_always_gave(images, one, three, five):
    annotations, ids = competition(images, images)
    digests = {ids[0]: "x", ids[10]: "x", ids[20]: "y", ids[40]: "y"}
    assert fingerprint(validation_split(annotations, ids, DataConfig(), images, digests)).startswith(one)
    for folds, expected in ((3, three), (5, five)):
        found = cross_validation(annotations, ids, DataConfig(folds=folds), images, digests)
        assert fingerprint(found).startswith(expected)


class TestEqualPixels:
    """Names are not trusted alone: the same picture under two patients' names would leak from train to held out."""

    def test_they_stay_together_in_folds_and_in_a_split_and_take_their_patients_along(self):
        annotations, ids = competition()
        annotations = pd.concat([annotations, table([("90000000_000.png", "Mass"), ("90000000_001.png", "Mass")])])
        ids = [*ids, "90000000_000.png", "90000000_001.png"]
        # One image of the new patient equals another patient's, the other one a third's: all are one group.
        digests = {"90000000_000.png": "x", ids[0]: "x", "90000000_001.png": "y", ids[100]: "y"}
        apart = 0
        for seed in range(20):
            folds = cross_validation(annotations, ids, FIVE, seed, digests)
            assert sum(bool(set(fold) & set(digests)) for fold in folds) == 1
            held = set(validation_split(annotations, ids, DataConfig(), seed, digests))
            assert len(held & set(digests)) in (0, 4)
            without = cross_validation(annotations, ids, FIVE, seed)
            apart += sum(bool(set(fold) & set(digests)) for fold in without) > 1
        assert apart > 10

    def test_they_are_found_by_the_pixels_whatever_the_file(self, toy):
        folder = toy / "data" / "train"
        name = sorted(path.name for path in folder.glob("*.png"))[0]
        with Image.open(folder / name) as image:
            image.save(folder / "99999999_000.png", compress_level=1)
        assert (folder / name).read_bytes() != (folder / "99999999_000.png").read_bytes()
        data = load_training(toy, toy_config())
        config = override(toy_config(), ("data.folds=3",)).data
        for seed in range(5):
            together = [bool({name, "99999999_000.png"} & set(fold)) for fold in assign_folds(data, config, seed)]
            assert sum(together) == 1

    def test_copies_that_were_compressed_again_or_resized_stay_together(self, toy):
        folder = toy / "data" / "train"
        names = sorted(path.name for path in folder.glob("*.png"))[:4]
        copies = [f"9999999{number}_000.jpg" for number in range(4)]
        for name, copy in zip(names, copies, strict=True):
            with Image.open(folder / name) as image:
                image.resize((90, 90)).save(folder / copy, quality=80)
        data = load_training(toy, toy_config())
        config = override(toy_config(), ("data.folds=3",)).data
        groups = split_groups(data, data.image_ids, config)
        for name, copy in zip(names, copies, strict=True):
            assert groups[name] == groups[copy]
            for seed in range(3):
                for folds in (assign_folds(data, config, seed), assign_folds(data, toy_config().data, seed),
                              cross_fits(data, config, seed)):  # fmt: skip
                    assert all(len({name, copy} & set(fold)) != 1 for fold in folds)

    def test_small_copies_that_were_damaged_or_are_of_other_images_are_made_anew(self, toy):
        data = load_training(toy, toy_config())
        expected = small_copies([data.pixels])[0].copy()
        (path,) = (toy / ".cache").glob("*.copies.npy")
        for damaged in (b"", b"nothing", path.read_bytes()[:500], path.read_bytes()[:-1]):
            path.write_bytes(damaged)
            assert (small_copies([data.pixels])[0] == expected).all()
        np.save(path, expected[:-1])
        assert (small_copies([data.pixels])[0] == expected).all()
        (toy / "data" / "train" / data.image_ids[0]).touch()
        small_copies([load_training(toy, toy_config()).pixels])
        assert len(list((toy / ".cache").glob("*.copies.npy"))) == 1

    def test_groups_of_copies_are_stored_and_made_anew_where_they_were_damaged(self, toy, monkeypatch):
        names = sorted((toy / "data" / "train").iterdir())
        with Image.open(names[0]) as image:
            image.convert("L").save(names[0].with_name("99999999_000.jpg"), quality=80)
        data = load_training(toy, toy_config())
        expected = pictures(data.pixels)
        assert expected["99999999_000.jpg"] == expected[names[0].name]
        (path,) = (toy / ".cache").glob("train-*.groups.json")
        whole = path.read_text()
        for damaged in ("", "{}", whole.replace('": "', '": "0')):
            path.write_text(damaged)
            assert pictures(data.pixels) == expected
            assert path.read_text() == whole
        for edited in ([[0, 10**6]], [[-1, 0]], [[]], [[3]], [[0, 1]], [[0, 1], [1, 2]], []):
            path.write_text(json.dumps({**json.loads(whole), "groups": edited}))
            assert pictures(data.pixels) == expected
            assert path.read_text() == whole
        monkeypatch.setattr(duplicates, "duplicate_groups", None)  # not called where they are stored
        assert pictures(data.pixels) == expected

    def test_of_earlier_files_one_cache_has_groups_and_what_cannot_be_deleted_stays(self, toy):
        data = load_training(toy, toy_config())
        pictures(data.pixels)
        (path,) = (toy / ".cache").glob("train-*.groups.json")
        earlier, folder = path.with_name("train-0.groups.json"), path.with_name("train-1.groups.json")
        earlier.write_text("earlier")
        folder.mkdir()  # as a file of another user: it is not ours to delete
        path.unlink()
        pictures(data.pixels)
        assert set((toy / ".cache").glob("*.groups.json")) == {path, folder}

    def test_folds_of_detections_from_elsewhere_say_that_the_pattern_does_not_fit(self, toy):
        data = load_training(toy, toy_config())
        config = override(toy_config(), ["data.patient_pattern=patient(.)"]).data
        folds, said = logged(cross_fits, data, config, 0)
        assert len(folds) == 5 and len(said) == 1
        assert said[0].startswith("data.patient_pattern=patient(.) fits 0% of the images' names")
        assert logged(cross_fits, data, toy_config().data, 0)[1] == []

    def test_a_patient_with_many_of_few_held_out_images_is_refused_before_the_training_alone(self, toy):
        """Refused after it, a trained run could not be scored: its split's knobs stay."""
        data = load_training(toy, toy_config())
        config = override(toy_config(), ["data.largest_patient_share=0.1", r"data.patient_pattern=(.)"]).data
        with pytest.raises(KitError, match="no patient with more than 10%") as caught:
            assign_folds(data, config, 0)
        assert "by data.patient_pattern=(.)" in caught.value.found
        assert caught.value.do.startswith("correct the pattern")
        grouped = dataclasses.replace(data, groups=dict.fromkeys(data.image_ids[:12], "one"))
        with pytest.raises(KitError, match=r"patient 'one' has 12 by data/groups\.csv") as caught:
            assign_folds(grouped, override(toy_config(), ["data.largest_patient_share=0.2"]).data, 0)
        assert caught.value.do.startswith("correct data/groups.csv, or raise")
        held = data.image_ids[:4]
        assert len({split_groups(data, held, config)[name] for name in held}) == 1

    def test_splits_take_them_from_the_index_and_read_no_pixels(self, toy):
        data = load_training(toy, toy_config())
        config = override(toy_config(), ("data.folds=3",)).data
        groups = split_groups(data, data.image_ids, config)
        expected = assign_folds(data, config, 0), cross_fits(data, config, 0)
        data = load_training(toy, toy_config())
        data.pixels.file.unlink()
        assert (assign_folds(data, config, 0), cross_fits(data, config, 0)) == expected
        assert split_groups(data, data.image_ids, config) == groups
