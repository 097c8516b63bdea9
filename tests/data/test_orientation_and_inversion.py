"""Pictures that a tag turns, and inverted ones: named by the audit, read as the knobs say, boxes at findings."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toy import toy_config

from kit.boxes.geometry import CORNERS
from kit.config import load, override, save
from kit.core.errors import KitError
from kit.data.competition import load_test, load_training, open_files
from kit.data.dataset import DetectionDataset
from kit.data.duplicates import pictures
from kit.data.images import as_read, pixel_digest, read_picture
from kit.data.inversion import _shapes, inverted_images
from kit.data.picture_checks import few_levels
from kit.data.pixel_cache import open_cache
from kit.reports.audit_report import audit_workspace
from kit.runs.foreign_rows import read_rows
from kit.schemas.csv_text import TableError
from kit.schemas.tables import SUBMISSION_COLUMNS, validate_submission

WIDE, HIGH, COUNT = 96, 64, 16
BACK = {6: 8, 8: 6}  # the others are their own inverse
EXIF = ["data.orientation=exif"]
LISTED = ["data.invert=listed"]


def config(*assignments):
    return override(toy_config(), assignments)


def findings(workspace, *assignments):
    return {found.check: found for found in audit_workspace(workspace, config(*assignments)).findings}


def finding_at(number, width, height):
    """A grey picture with one bright rectangle, and its corners."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(20, 60, (height, width)).astype(np.uint8)
    x, y = int(rng.integers(0, width - 30)), int(rng.integers(0, height - 30))
    pixels[y : y + 20, x : x + 30] = 220
    return pixels, (x, y, x + 30, y + 20)


def save_turned(path, upright, tag):
    """Write the picture so that its tag turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(as_read(upright, BACK.get(tag, tag), False)).save(path, exif=exif)


@pytest.fixture
def turned(tmp_path):
    """A competition whose files lie in all eight ways, with boxes that were drawn on the upright pictures."""
    data = tmp_path / "turned" / "data"
    rows, ids = [], []
    for part, count in (("train", COUNT), ("test", 8)):
        (data / part).mkdir(parents=True)
        for number in range(count):
            upright, corners = finding_at(number + 100 * (part == "test"), WIDE, HIGH)
            name = f"{number + 100 * (part == 'test'):08d}_000.png"
            save_turned(data / part / name, upright, number % 8 + 1)
            if part == "train":
                rows.append((name, *corners, ("Mass", "Nodule")[number % 2]))
            else:
                ids.append((number, name))
    pd.DataFrame(rows, columns=["image_id", *CORNERS, "label"]).to_csv(data / "train.csv", index=False)
    pd.DataFrame(ids, columns=["ID", "image_id"]).to_csv(data / "ID_to_Image_Mapping.csv", index=False)
    return tmp_path / "turned"


def contrast(pixels, corners):
    """How much brighter the box is than what is around it."""
    x_min, y_min, x_max, y_max = (round(float(corner)) for corner in corners)
    inside = np.zeros(pixels.shape, dtype=bool)
    inside[y_min:y_max, x_min:x_max] = True
    return pixels[inside].mean() - pixels[~inside].mean()


class TestOrientation:
    def test_a_set_of_boxes_on_upright_pictures_is_refused_with_the_knob_and_the_knob_makes_it_right(self, turned):
        with pytest.raises(TableError, match=r"--set data\.orientation=exif") as caught:
            load_training(turned, config())
        (fault,) = caught.value.faults  # one for all rows: it is one cause
        assert "rows more" in fault.value
        data = load_training(turned, config(*EXIF))
        boxes = data.annotations.set_index("image_id")[CORNERS]
        assert all(contrast(data.pixels.read(name), boxes.loc[name]) > 150 for name in data.image_ids)
        assert {(fact.width_px, fact.height_px) for fact in data.pixels.facts.values()} == {(WIDE, HIGH)}

    def test_the_trainer_gets_the_finding_inside_its_box_augmented_or_not(self, turned):
        data = load_training(turned, config(*EXIF))
        for augmentation in (None, toy_config().augmentation):
            samples = DetectionDataset(data, data.image_ids, 64, 1, augmentation)
            for index in range(COUNT):
                sample = samples[index]
                for box in sample.boxes:
                    assert contrast(sample.image[0].numpy(), box) > 60

    def test_a_file_is_shown_as_it_is_read(self, turned):
        for part in ("train", "test"):
            cache = open_files(turned, part, config()).treated("exif", [])
            for name, facts in cache.facts.items():
                assert (read_picture(facts) == cache.read(name)).all()
                assert cache.read(name).shape == (facts.height_px, facts.width_px)

    def test_boxes_that_fit_the_files_are_refused_with_the_other_value(self, turned):
        table = turned / "data" / "train.csv"
        rows = pd.read_csv(table)
        rows.loc[4, CORNERS] = [10, 70, 30, 96]  # the fifth file lies on its side: 64 wide and 96 high
        rows.iloc[4:5].to_csv(table, index=False)
        with pytest.raises(TableError, match=r"--set data\.orientation=ignore"):
            load_training(turned, config(*EXIF))
        assert len(load_training(turned, config("data.orientation=ignore")).annotations) == 1

    def test_the_audit_names_the_tags_and_draws_both_ways(self, turned):
        table = turned / "data" / "train.csv"
        pd.read_csv(table).assign(x_min=1, y_min=1, x_max=60, y_max=60).to_csv(table, index=False)
        found = findings(turned)["orientation-tags"]
        assert found.level == "warning" and "21 images of 24" in found.text
        assert found.rows["orientation"].tolist() == [*range(2, 9)] * 3
        assert found.rows["image"].tolist()[0] == "train/00000001_000.png"
        with Image.open(turned / "audit" / "orientation-tags.png") as sheet:
            assert sheet.width > 900
        assert "data.orientation=exif" in found.do
        assert findings(turned, *EXIF)["orientation-tags"].level == "note"

    def test_a_submission_is_checked_against_the_sizes_of_the_turned_pictures(self, turned):
        mapping = pd.read_csv(turned / "data" / "ID_to_Image_Mapping.csv")
        answers = mapping.assign(x_min=0, y_min=0, x_max=WIDE, y_max=HIGH, confidence=0.5, label="Mass")
        answers[list(SUBMISSION_COLUMNS)].to_csv(turned / "mine.csv", index=False)
        assert len(validate_submission(turned / "mine.csv", turned / "data", 8, "exif")) == 8
        with pytest.raises(TableError):
            validate_submission(turned / "mine.csv", turned / "data", 8)

    @pytest.mark.parametrize("kind", ["csv", "coco"])
    def test_adopted_boxes_of_turned_pictures_are_refused_with_the_knob_and_the_knob_makes_them_right(
        self, kind, turned
    ):
        boxes = load_training(turned, config(*EXIF)).annotations
        path = turned / f"detections.{'csv' if kind == 'csv' else 'json'}"
        images = None
        if kind == "csv":
            boxes.assign(score=0.5).to_csv(path, index=False)
        else:  # what pycocotools' tools write: a set whose sizes are those of the turned pictures, and its results
            numbers = {name: number for number, name in enumerate(boxes["image_id"], start=1)}
            sizes = [{"id": n, "file_name": name, "width": WIDE, "height": HIGH} for name, n in numbers.items()]
            classes = [{"id": 1, "name": "Mass"}, {"id": 2, "name": "Nodule"}]
            images = turned / "annotations.json"
            images.write_text(json.dumps({"images": sizes, "categories": classes, "annotations": []}))
            found = [
                {"image_id": numbers[row.image_id], "category_id": 1 + (row.label == "Nodule"), "score": 0.5,
                 "bbox": [row.x_min, row.y_min, row.x_max - row.x_min, row.y_max - row.y_min]}
                for row in boxes.itertuples()
            ]  # fmt: skip
            path.write_text(json.dumps(found))
        # The training table is right without the knob too, if the boxes are small enough.
        table = turned / "data" / "train.csv"
        pd.read_csv(table).assign(x_min=1, y_min=1, x_max=60, y_max=60).to_csv(table, index=False)
        lying = load_training(turned, config())
        with pytest.raises(TableError, match=r"data\.orientation=exif") as caught:
            read_rows(path, lying, None, lying.image_ids, images)
        assert len(caught.value.faults) == 1
        upright = load_training(turned, config(*EXIF))
        assert len(read_rows(path, upright, None, upright.image_ids, images).table) == COUNT

    def test_other_ways_of_reading_have_other_digests_and_the_file_is_decoded_once(self, turned):
        lying = open_files(turned, "train", config())
        times = [path.stat().st_mtime_ns for path in sorted((turned / ".cache").iterdir())]
        upright = load_training(turned, config(*EXIF)).pixels
        changed = {name for name in lying.digests if lying.digests[name] != upright.digests[name]}
        assert changed == {name for name, facts in lying.facts.items() if facts.tag != 1}
        assert [path.stat().st_mtime_ns for path in sorted((turned / ".cache").iterdir())] == times
        assert lying.treated("ignore") == lying


@pytest.fixture
def inverted(toy):
    """The toy competition with three training images and a test image inverted; returns their names too."""
    chosen = []
    for part, count in (("train", 3), ("test", 1)):
        for path in sorted((toy / "data" / part).iterdir())[2 : 2 + count]:
            Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(path)
            chosen.append(f"{part}/{path.name}")
    return toy, chosen


class TestInversion:
    def test_the_audit_names_them_and_shows_a_sheet(self, inverted):
        workspace, names = inverted
        found = findings(workspace)["inverted-images"]
        assert found.level == "warning"
        assert found.rows["image"].tolist() == names
        assert "4 images of 40" in found.text
        with Image.open(workspace / "audit" / "inverted-images.png") as sheet:
            assert sheet.width > 900

    def test_the_knob_inverts_the_listed_images_and_no_others(self, inverted):
        workspace, names = inverted
        assert findings(workspace, *LISTED)["inverted-images"].level == "note"
        halves = (load_training(workspace, config(*LISTED)), load_test(workspace, config(*LISTED)))
        for part, half in zip(("train", "test"), halves, strict=True):
            files = open_files(workspace, part, config())
            for name in half.image_ids:
                is_listed = f"{part}/{name}" in names
                lying = files.read(name)
                assert (half.pixels.read(name) == (255 - lying if is_listed else lying)).all()
                assert (half.pixels.digests[name] != pixel_digest(lying)) == is_listed
                assert (read_picture(half.pixels.facts[name]) == half.pixels.read(name)).all()

    def test_without_a_list_the_knob_is_refused_and_the_advice_works(self, inverted):
        workspace, _ = inverted
        with pytest.raises(KitError, match="invoke audit") as caught:
            load_training(workspace, config(*LISTED))
        assert "no such file" in caught.value.found
        audit_workspace(workspace, config())
        assert sum(fact.inverted for fact in load_training(workspace, config(*LISTED)).pixels.facts.values()) == 3

    @pytest.mark.parametrize(
        ("change", "found"), [("unknown", "1 that are none, such as x.png"), ("more", "edited"), ("less", "edited")]
    )
    def test_a_list_that_was_edited_is_refused_and_the_advice_works(self, change, found, inverted):
        workspace, _ = inverted
        audit_workspace(workspace, config())
        path = workspace / "audit" / "inverted.json"
        content = json.loads(path.read_text())
        listed = content["images"]["train"]
        more = {"unknown": "x.png", "more": sorted(p.name for p in (workspace / "data/train").iterdir())[-1]}
        content["images"]["train"] = listed[1:] if change == "less" else [*listed, more[change]]
        path.write_text(json.dumps(content))
        with pytest.raises(KitError, match=found) as caught:
            load_training(workspace, config(*LISTED))
        assert "invoke audit" in caught.value.do
        audit_workspace(workspace, config(*LISTED))
        assert sum(fact.inverted for fact in load_training(workspace, config(*LISTED)).pixels.facts.values()) == 3

    def test_a_list_of_an_earlier_version_has_no_fingerprint_and_is_read(self, inverted):
        workspace, _ = inverted
        audit_workspace(workspace, config())
        path = workspace / "audit" / "inverted.json"
        content = json.loads(path.read_text())
        del content["sha256"]
        path.write_text(json.dumps(content))
        assert sum(fact.inverted for fact in load_training(workspace, config(*LISTED)).pixels.facts.values()) == 3

    @pytest.mark.parametrize("change", ["pixels", "list"])
    def test_a_list_of_other_images_or_a_damaged_one_is_refused_and_the_advice_works(self, change, inverted):
        workspace, names = inverted
        audit_workspace(workspace, config())
        train = workspace / "data" / "train"
        if change == "pixels":
            shutil.copy(train / names[0].partition("/")[2], train / "new.png")
        else:
            (workspace / "audit" / "inverted.json").write_text('{"images": 5}')
        with pytest.raises(KitError, match="invoke audit"):
            load_training(workspace, config(*LISTED))
        audit_workspace(workspace, config(*LISTED))
        assert load_training(workspace, config(*LISTED)).pixels.facts[names[0].partition("/")[2]].inverted

    def test_an_inverted_copy_of_a_picture_is_a_copy_of_it(self, inverted):
        workspace, names = inverted
        path = workspace / "data" / "test" / names[-1].partition("/")[2]
        Image.fromarray(255 - np.asarray(Image.open(path))).save(workspace / "data" / "train" / "copy.png")
        copies = findings(workspace)["duplicate-images"].rows
        assert copies["image"].tolist() == ["train/copy.png", names[-1]]

    @pytest.mark.parametrize("knobs", [(), LISTED])
    def test_an_inverted_copy_stands_with_its_picture_whatever_the_knob_says(self, knobs, inverted):
        workspace, _ = inverted
        path = sorted((workspace / "data" / "train").iterdir())[-1]
        Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(path.with_name("99999999_000.png"))
        audit_workspace(workspace, config())
        picture_of = pictures(load_training(workspace, config(*knobs)).pixels)
        assert picture_of["99999999_000.png"] == picture_of[path.name]
        assert len(set(picture_of.values())) == len(picture_of) - 1

    def test_the_knob_is_one_that_a_run_keeps(self):
        from kit.config import differences

        assert set(differences(config(), config(*LISTED, *EXIF))) == {"data.invert", "data.orientation"}

    def test_the_network_sees_an_inverted_file_as_it_saw_the_right_one(self, trained):
        from kit.runs.folder import Run
        from kit.runs.out_of_fold import detections

        run = Run(trained, "demo")
        before = detections(run, load_test(trained, load(run.config)))
        path = sorted((trained / "data" / "test").iterdir())[0]
        Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(path)
        save(override(load(run.config), LISTED), run.config)
        with pytest.raises(KitError, match="invoke audit"):
            load_test(trained, load(run.config))
        audit_workspace(trained, load(run.config))
        after = detections(run, load_test(trained, load(run.config)))
        assert before.attrs != after.attrs  # other files: detected anew
        pd.testing.assert_frame_equal(before, after)


def chests(count, seed):
    """Small pictures alike in shape: bright middle, dark sides, each with its own brightness, shift and noise."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:64, 0:64] / 63 - 0.5
    pictures = []
    for _ in range(count):
        x, y = rng.normal(0, 0.05, 2)
        shape = np.exp(-(((across - x) / 0.15) ** 2)) + 0.5 * np.exp(-(((down - y - 0.4) / 0.2) ** 2))
        levels = rng.uniform(70, 110) + rng.uniform(80, 120) * shape + rng.normal(0, 8, shape.shape)
        pictures.append(np.clip(levels, 0, 255).astype(np.uint8))
    return np.stack(pictures)


class TestJudgement:
    def test_fewer_than_ten_pictures_judge_nothing(self):
        copies = chests(9, 0)
        copies[0] = 255 - copies[0]
        assert not inverted_images(copies, np.ones(9, dtype=bool)).any()
        assert not inverted_images(copies[:0], np.ones(0, dtype=bool)).any()

    @given(st.integers(10, 60), st.floats(0, 0.4), st.integers(0, 10**6))
    def test_the_minority_that_was_inverted_is_found_and_nothing_else(self, count, share, seed):
        copies = chests(count, seed)
        chosen = np.random.default_rng(seed).permutation(count) < int(share * count)
        copies[chosen] = 255 - copies[chosen]
        assert (inverted_images(copies, np.ones(count, dtype=bool)) == chosen).all()

    def test_a_test_half_that_is_inverted_throughout_is_found_by_the_training_half(self):
        copies = chests(60, 3)
        copies[20:] = 255 - copies[20:]
        found = inverted_images(copies, np.arange(60) < 20)
        assert (found == (np.arange(60) >= 20)).all()

    @pytest.mark.parametrize("level", [0, 127, 255])
    def test_flat_pictures_are_nobodys_inverse(self, level):
        assert not inverted_images(np.full((30, 64, 64), level, np.uint8), np.ones(30, dtype=bool)).any()

    def test_a_flat_picture_of_any_level_has_no_shape(self):
        """Less their rounded mean most are not 0 throughout."""
        levels = np.repeat(np.arange(256)[:, None], 4096, axis=1).astype(np.float32) / 127.5 - 1
        assert (levels - levels.mean(axis=1, keepdims=True)).any()
        levels = np.concatenate([levels, levels[:1]])
        levels[-1, 0] += np.float32(1 / 127.5)  # the least shape there is
        shapes = _shapes(levels)
        assert not shapes[:-1].any()
        assert np.linalg.norm(shapes[-1]) == pytest.approx(1)

    def test_noise_has_no_inverse(self):
        copies = np.random.default_rng(0).integers(0, 256, (200, 64, 64)).astype(np.uint8)
        assert not inverted_images(copies, np.ones(200, dtype=bool)).any()


class TestFewLevels:
    def test_no_pictures_and_pictures_of_one_level_have_no_few_levels(self):
        assert few_levels([], np.zeros((0, 64, 64), np.uint8)) is None
        assert few_levels(["a"], np.full((1, 64, 64), 7, np.uint8)) is None
        assert few_levels(list("abcd"), chests(4, 1)) is None

    @given(st.integers(1, 9), st.integers(0, 240), st.booleans())
    def test_anatomy_beside_a_large_marker_is_named(self, share, start, inverted):
        copies = chests(3, share)
        copies[1] = copies[1] // 17 + min(start, 170)
        copies[1].flat[: copies[1].size * share // 100 + 1] = 255
        found = few_levels(["a", "b", "c"], 255 - copies if inverted else copies)
        assert found.rows["image"].tolist() == ["b"]
        assert found.level == "warning"

    def test_a_marker_over_a_tenth_of_a_deep_picture_is_said_and_painted_over_it_is_well(self, toy):
        path = sorted((toy / "data" / "train").iterdir())[0]
        levels = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16
        marked = levels.copy()
        marked[:, :8] = 65535
        Image.fromarray(marked).save(path)
        warning = findings(toy)["few-levels"]
        assert warning.rows["image"].tolist() == [f"train/{path.name}"]
        assert path.name in warning.text
        assert "paint it over with levels of the anatomy" in warning.do
        marked[:, :8] = 4095
        Image.fromarray(marked).save(path)
        assert "few-levels" not in findings(toy)


class TestOutlyingLevels:
    @pytest.fixture
    def marked(self, toy):
        """The toy competition with a training image of 12 bits in 16 and a burnt-in letter."""
        path = sorted((toy / "data" / "train").iterdir())[0]
        levels = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16
        levels[2:8, 2:10] = 65535
        Image.fromarray(levels).save(path)
        return toy, path.name

    def test_it_is_said_kept_in_the_index_and_noted_by_the_audit(self, marked, caplog):
        toy, name = marked
        caplog.set_level("INFO", "kit")
        for _ in range(2):  # decoded, then read from the index
            levels = open_cache(toy / "data" / "train", toy / ".cache", 1.0).levels
            assert set(levels) == {name}
            assert (levels[name].highest, levels[name].outside) == (65535, 48)
            assert levels[name].high < 4096
        assert caplog.text.count(f"{name} (") == 1
        row = findings(toy)["outlying-levels"].rows.to_dict("records")[0]
        assert (row["image"], row["highest"], row["pixels_outside"]) == (f"train/{name}", 65535, 48)
