"""A synthetic competition has the shape of the real one, and each finding can be seen where its box says."""

import csv
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.core.errors import KitError
from kit.data.synthetic.generator import LABELS, STATISTICS, deal, draw_findings, plan, write_competition
from kit.data.synthetic.radiographs import Anatomy, Finding, draw_anatomy, render

SMALL = {"train_images": 12, "test_images": 6, "size_px": 64}
ANNOTATION_COLUMNS = ["image_id", "x_min", "y_min", "x_max", "y_max", "label"]
SEEDS = st.integers(0, 2**32 - 1)


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return reader.fieldnames, list(reader)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("small")
    write_competition(workspace, seed=3, **SMALL)
    return workspace


@pytest.fixture(scope="module")
def full_size_plan():
    return plan(seed=5, train_images=710, test_images=170)


def test_no_images_are_a_plan_of_nothing():
    assert plan(seed=0, train_images=0, test_images=0) == []


def test_a_chest_without_findings_is_drawn_as_well():
    picture = render(np.random.default_rng(0), (), 64)
    assert picture.shape == (64, 64)
    assert picture.std() > 20


def test_no_labels_are_no_findings():
    assert draw_findings(np.random.default_rng(0), (), 256) == ()


def test_dealing_by_largest_remainder_is_as_by_hand():
    # 10 in proportion to 5 : 3 : 1 is 5.56, 3.33, 1.11: 5 + 3 + 1 = 9 dealt, the last goes to the .56.
    assert deal((5, 3, 1), 10).tolist() == [6, 3, 1]


@given(st.integers(8, 800))
@settings(deadline=None)
def test_from_eight_boxes_on_every_label_is_dealt(count):
    dealt = deal([row.boxes for row in STATISTICS.values()], count)
    assert dealt.min() >= 1
    assert dealt.sum() == count


def test_the_folder_has_the_competitions_files(small):
    assert sorted(path.name for path in small.iterdir()) == ["data", "test_truth.csv"]
    assert sorted(path.name for path in (small / "data").iterdir()) == [
        "ID_to_Image_Mapping.csv",
        "test",
        "train",
        "train.csv",
    ]


def test_tables_name_exactly_the_images_that_are_there(small):
    columns, train = table(small / "data" / "train.csv")
    assert columns == ANNOTATION_COLUMNS
    assert {row["image_id"] for row in train} == {path.name for path in (small / "data" / "train").iterdir()}
    columns, mapping = table(small / "data" / "ID_to_Image_Mapping.csv")
    assert columns == ["ID", "image_id"]
    assert [row["ID"] for row in mapping] == [str(number) for number in range(6)]
    assert {row["image_id"] for row in mapping} == {path.name for path in (small / "data" / "test").iterdir()}


def test_every_test_image_has_exactly_one_true_box(small):
    columns, truth = table(small / "test_truth.csv")
    _, mapping = table(small / "data" / "ID_to_Image_Mapping.csv")
    assert columns == ANNOTATION_COLUMNS
    assert [row["image_id"] for row in truth] == [row["image_id"] for row in mapping]


def test_images_are_grey_with_eight_bits_and_of_the_size_asked_for(small):
    for path in (small / "data").glob("t*/*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (64, 64))


def test_even_a_tiny_competition_has_every_label(small):
    _, train = table(small / "data" / "train.csv")
    assert {row["label"] for row in train} == set(LABELS)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small, tmp_path):
    write_competition(tmp_path / "again", seed=3, **SMALL)
    write_competition(tmp_path / "other", seed=4, **SMALL)
    assert contents(tmp_path / "again") == contents(small)
    assert not contents(tmp_path / "other").items() & contents(small).items()


def test_names_are_nihs_and_unique_over_train_and_test(full_size_plan):
    names = [planned.image_id for planned in full_size_plan]
    assert all(re.fullmatch(r"\d{8}_\d{3}\.png", name) for name in names)
    assert len(set(names)) == 880
    assert all(int(planned.image_id[:8]) == planned.patient for planned in full_size_plan)


def test_patients_are_shared_as_in_the_competition(full_size_plan):
    images = Counter(planned.patient for planned in full_size_plan)
    assert sum(count for count in images.values() if count > 1) == 263
    assert abs(len(images) - 726) <= 5
    trained = {planned.patient for planned in full_size_plan[:710]}
    shared = sum(planned.patient in trained for planned in full_size_plan[710:])
    assert 0.15 <= shared / 170 <= 0.35


@given(SEEDS, st.integers(8, 120), st.integers(0, 60))
@settings(deadline=None)
def test_no_patient_is_too_large_for_the_split_and_no_label_comes_twice(seed, train_images, test_images):
    planned = plan(seed, train_images, test_images)
    patients = Counter(image.patient for image in planned[:train_images])
    assert max(patients.values()) <= max(1, train_images / 10)
    assert all(len(set(image.labels)) == len(image.labels) >= 1 for image in planned)
    assert all(len(image.labels) == 1 for image in planned[train_images:])
    assert {label for image in planned[:train_images] for label in image.labels} == set(LABELS)


def test_boxes_per_image_and_label_frequencies_are_the_competitions(full_size_plan):
    train, test = full_size_plan[:710], full_size_plan[710:]
    assert Counter(len(planned.labels) for planned in train) == {1: 617, 2: 83, 3: 9, 4: 1}
    for part, boxes in ((train, 814), (test, 170)):
        counts = Counter(label for planned in part for label in planned.labels)
        for label, row in STATISTICS.items():
            assert abs(counts[label] - boxes * row.boxes / 984) < 1


@given(SEEDS, st.sampled_from((32, 256, 1024)))
@settings(deadline=None)
def test_boxes_lie_inside_the_image_and_no_side_is_tiny(seed, size_px):
    for box in draw_findings(np.random.default_rng(seed), LABELS, size_px):
        smallest = STATISTICS[box.label].smallest * size_px - 0.011  # two corners, each rounded to .01 px
        assert 0 <= box.x_min <= box.x_max - smallest
        assert 0 <= box.y_min <= box.y_max - smallest
        assert max(box.x_max, box.y_max) <= size_px


@pytest.mark.parametrize("label", LABELS)
def test_boxes_are_where_and_as_large_as_the_statistics_say(label):
    rng = np.random.default_rng(11)
    drawn = [draw_findings(rng, (label,), 1)[0] for _ in range(600)]
    corners = np.array([(box.x_min, box.y_min, box.x_max, box.y_max) for box in drawn])
    centres, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    row = STATISTICS[label]
    for values, (mean, sd) in zip((*centres.T, *sides.T), (row.x, row.y, row.width, row.height), strict=True):
        # Boxes are kept inside the body and above a smallest side, which narrows the widest tails.
        assert abs(values.mean() - mean) < 0.04
        assert 0.5 * sd < values.std() < 1.2 * sd


def test_an_enlarged_heart_lies_mostly_to_the_right():
    rng = np.random.default_rng(1)
    boxes = [draw_findings(rng, ("Cardiomegaly",), 256)[0] for _ in range(400)]
    assert np.mean([(box.x_min + box.x_max) / 2 > 128 for box in boxes]) > 0.9


@pytest.mark.parametrize("label", LABELS)
@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_a_finding_changes_the_picture_inside_its_box_alone(label, seed):
    finding = draw_findings(np.random.default_rng(seed), (label,), 128)[0]
    # One patient, whose own heart is small enough to lie within any enlarged one.
    patient = Anatomy(heart_left=0.57, heart_top=0.57, heart_width=0.01, heart_height=0.01)
    healthy = render(np.random.default_rng(seed), (), 128, patient).astype(float)
    ill = render(np.random.default_rng(seed), (finding,), 128, patient).astype(float)
    change = np.abs(ill - healthy)
    inside = np.zeros_like(change, dtype=bool)
    inside[
        int(finding.y_min) : int(finding.y_max) + 2,
        int(finding.x_min) : int(finding.x_max) + 2,
    ] = True
    assert change[inside].mean() > 3
    assert np.all(change[~inside & ~heart_of(patient)] == 0)


def heart_of(patient):
    y, x = np.mgrid[0:128, 0:128] / 128
    return (np.abs(x - patient.heart_left) < 0.03) & (np.abs(y - patient.heart_top) < 0.03)


def test_follow_ups_of_a_patient_are_more_alike_than_two_patients():
    def chest(patient_seed, image_seed):
        patient = draw_anatomy(np.random.default_rng(patient_seed))
        return render(np.random.default_rng(image_seed), (), 64, patient).astype(float).ravel()

    def likeness(first, second):
        return np.corrcoef(first, second)[0, 1]

    same = np.mean([likeness(chest(n, 100 + n), chest(n, 200 + n)) for n in range(10)])
    different = np.mean([likeness(chest(n, 100 + n), chest(n + 1, 200 + n)) for n in range(10)])
    assert different < same < 0.999


def test_an_unknown_label_is_not_passed_over():
    with pytest.raises(KeyError, match="Hernia"):
        render(np.random.default_rng(0), (Finding("Hernia", 10.0, 10.0, 20.0, 20.0),), 64)


def test_somebodys_data_is_never_overwritten(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("mine")
    with pytest.raises(KitError, match=r"train\.csv"):
        write_competition(tmp_path, seed=0, **SMALL)
    assert contents(tmp_path) == {"data/train.csv": b"mine"}


def test_a_finished_competition_is_refused_and_left_as_it_is(tmp_path):
    write_competition(tmp_path, seed=0, **SMALL)
    before = contents(tmp_path)
    with pytest.raises(KitError, match=r"train\.csv"):
        write_competition(tmp_path, seed=1, **SMALL)
    assert contents(tmp_path) == before


def test_a_readme_in_data_is_kept(tmp_path, small):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("here")
    write_competition(tmp_path, seed=3, **SMALL)
    assert contents(tmp_path) == contents(small) | {"data/README.md": b"here"}


@pytest.mark.parametrize("images_before_the_kill", [0, 5, 17])
def test_a_kill_while_drawing_leaves_no_data_and_the_next_call_succeeds(tmp_path, small, images_before_the_kill):
    def killed(items, description, total):
        for count, item in enumerate(items):
            if count == images_before_the_kill:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        write_competition(tmp_path, seed=9, track=killed, **SMALL)
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "test_truth.csv").exists()
    write_competition(tmp_path, seed=3, **SMALL)
    assert contents(tmp_path) == contents(small)


@pytest.mark.parametrize("moved", range(4))
def test_a_kill_while_the_pieces_move_is_cleared_away(tmp_path, small, moved):
    write_competition(tmp_path, seed=9, **SMALL)
    data, staging = tmp_path / "data", tmp_path / ".phantoms.partial"
    staging.mkdir()
    for name in ["train", "test", "ID_to_Image_Mapping.csv", "train.csv"][moved:]:
        (data / name).rename(staging / name)
    assert not (data / "train.csv").exists()
    write_competition(tmp_path, seed=3, **SMALL)
    assert contents(tmp_path) == contents(small)


def test_a_folder_that_cannot_be_written_is_said_in_three_parts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KitError, match=r"do: .*--workspace"):
        write_competition(tmp_path / "file", seed=0, **SMALL)


def test_progress_counts_every_image(tmp_path):
    counted = []

    def track(items, description, total):
        for item in items:
            counted.append(total)
            yield item

    write_competition(tmp_path, seed=3, track=track, **SMALL)
    assert counted == [18] * 18
