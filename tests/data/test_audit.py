"""The audit finds what was planted, says nothing of what is well, and stops a training for a fault alone."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toy import TOY, TOY_TEST_IMAGES, toy_config

from kit.boxes.geometry import CORNERS
from kit.config import override
from kit.core.errors import KitError
from kit.data import audit
from kit.data.competition import load_test, load_training
from kit.data.provenance import DownloadRecord, has_own_table, read_download, record_download
from kit.data.synthetic.generator import LABELS, STATISTICS, draw_findings
from kit.reports.audit_report import audit_workspace, require_sound
from kit.schemas.csv_text import TableError
from kit.schemas.image_headers import ImageFacts

SIDE = 1024


def table(*rows):
    return pd.DataFrame(rows, columns=["image_id", *CORNERS, "label"])


def box(name="a.png", x_min=0.0, y_min=0.0, x_max=10.0, y_max=10.0, label="Mass"):
    return name, x_min, y_min, x_max, y_max, label


def nih_like(seed):
    """Boxes as the phantoms draw them, by NIH's counts, means and deviations; one image each."""
    rng = np.random.default_rng(seed)
    findings = [
        draw_findings(rng, [label], SIDE)[0]
        for label in LABELS
        for _ in range(round(STATISTICS[label].boxes * 0.83))
    ]
    rows = [
        box(f"{number}.png", one.x_min, one.y_min, one.x_max, one.y_max, one.label)
        for number, one in enumerate(findings)
    ]
    return table(*rows)


def sizes(annotations, tmp_path):
    return {name: ImageFacts(tmp_path / name, SIDE, SIDE) for name in annotations["image_id"]}


class TestAnnotatedTestImages:
    def test_zero_rows_are_well(self):
        assert audit.annotated_test_images(table(), ["a.png"], False) is None

    def test_rows_on_other_images_are_well(self):
        assert audit.annotated_test_images(table(box("b.png")), ["a.png"], False) is None

    def test_a_row_on_a_test_image_is_a_fault_that_names_it(self):
        found = audit.annotated_test_images(table(box("a.png"), box("b.png"), box("a.png", 5)), ["a.png"], False)
        assert (found.level, found.check) == ("fault", "annotated-test-images")
        assert found.rows["image_id"].tolist() == ["a.png", "a.png"]
        assert "2 rows of train.csv annotate 1 test image" in found.text

    def test_in_the_organisers_own_file_it_is_a_warning(self):
        assert audit.annotated_test_images(table(box("a.png")), ["a.png"], True).level == "warning"


class TestImprobableBoxes:
    def test_zero_boxes_are_well(self, tmp_path):
        assert audit.improbable_boxes(table(), sizes(table(), tmp_path)) is None

    def test_false_alarms_are_rare(self, tmp_path):
        """Measured over 40 draws: .08 of 814 boxes. Here 4 draws, at most 2."""
        found = [audit.improbable_boxes(drawn, sizes(drawn, tmp_path)) for drawn in map(nih_like, range(4))]
        assert sum(0 if one is None else len(one.rows) for one in found) <= 2

    @pytest.mark.parametrize("label", LABELS)
    def test_a_box_round_the_whole_image_is_found_in_every_class(self, label, tmp_path):
        drawn = pd.concat([nih_like(1), table(box("planted", 2, 2, 1020, 1022, label))], ignore_index=True)
        found = audit.improbable_boxes(drawn, sizes(drawn, tmp_path))
        assert found.rows.iloc[0][["image_id", "odd"]].tolist() == ["planted", "size"]

    @pytest.mark.parametrize(
        ("corners", "odd"),
        [((30, 30, 500, 420), "across"), ((600, 500, 680, 570), "size"), ((100, 560, 1000, 600), "shape")],
    )
    def test_a_heart_in_the_wrong_place_size_or_shape_is_found_and_why(self, corners, odd, tmp_path):
        drawn = pd.concat([nih_like(1), table(box("planted", *corners, "Cardiomegaly"))], ignore_index=True)
        found = audit.improbable_boxes(drawn, sizes(drawn, tmp_path))
        assert found.rows.loc[found.rows["image_id"] == "planted", "odd"].tolist() == [odd]

    def test_a_class_of_nineteen_boxes_is_not_judged_and_one_of_twenty_is(self, tmp_path):
        alike = [box(f"{number}.png", 500, 500, 600, 600) for number in range(18)]
        far = box("far", 0, 0, 20, 20)
        for more, rows in (([], None), ([box("one.png", 500, 500, 600, 600)], ["far"])):
            boxes = table(*alike, *more, far)
            found = audit.improbable_boxes(boxes, sizes(boxes, tmp_path))
            assert (found and found.rows["image_id"].tolist()) == rows

    def test_two_clouds_of_boxes_are_both_well(self, tmp_path):
        rng = np.random.default_rng(0)
        left = [box(f"{n}.png", x, y, x + 90, y + 90) for n, (x, y) in enumerate(200 + rng.normal(0, 9, (80, 2)))]
        right = [box(f"r{n}.png", x, 200, x + 90, 290) for n, x in enumerate(700 + rng.normal(0, 9, 20))]
        boxes = table(*left, *right)
        assert audit.improbable_boxes(boxes, sizes(boxes, tmp_path)) is None


class TestLabels:
    @pytest.mark.parametrize(
        ("one", "other", "by"),
        [
            ("Mass", "mass", "case or signs"),
            ("Pleural_Thickening", "pleural thickening", "case or signs"),
            ("Infiltrate", "Infiltration", "spelling"),
            ("Effusion", "Efusion", "spelling"),
        ],
    )
    def test_two_spellings_are_found(self, one, other, by):
        found = audit.labels_alike(pd.Series([one, other, one]))
        assert found.rows.to_dict("records") == [
            {"label": one, "boxes": 2, "other_label": other, "other_boxes": 1, "differ_by": by}
        ]

    def test_the_competitions_labels_are_well(self):
        nih = ("Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Consolidation", "Hernia", "Nodule/Mass")
        assert audit.labels_alike(pd.Series([*LABELS, *nih])) is None

    @pytest.mark.parametrize("pair", [("class 1", "class 2"), ("+", "-"), ("1.5", "15.1")])
    def test_digits_and_signs_alone_make_no_spelling(self, pair):
        assert audit.labels_alike(pd.Series(pair)) is None

    def test_no_labels_are_well(self):
        assert audit.labels_alike(pd.Series([], dtype=object)) is None


def test_patients_in_both_are_counted_by_their_images():
    patients = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "c1": "c"}
    found = audit.patients_in_both(["a1", "b1"], ["a2", "a3", "c1"], patients)
    assert found.level == "note"
    assert found.rows.values.tolist() == [["a", 1, 2]]
    assert "2 test images of 3 (67%)" in found.text
    assert audit.patients_in_both(["b1"], ["c1"], patients) is None


def test_classes_are_counted_the_most_frequent_first():
    found = audit.class_counts(table(box("a.png"), box("a.png", 1), box("b.png", label="Nodule")))
    assert found.rows.to_dict("records") == [
        {"label": "Mass", "boxes": 2, "images": 1, "share": 0.6667},
        {"label": "Nodule", "boxes": 1, "images": 1, "share": 0.3333},
    ]
    assert audit.class_counts(table()) is None


def test_a_record_fits_the_table_until_it_is_changed(tmp_path):
    assert not has_own_table(tmp_path)
    (tmp_path / "train.csv").write_text("a")
    assert not has_own_table(tmp_path)
    assert record_download(tmp_path, "chest") == read_download(tmp_path)
    assert isinstance(read_download(tmp_path), DownloadRecord)
    assert has_own_table(tmp_path)
    (tmp_path / "train.csv").write_text("b")
    assert not has_own_table(tmp_path)


def add_row(workspace, row):
    path = workspace / "data" / "train.csv"
    path.write_text(path.read_text() + row + "\n")


def image_names(workspace, part):
    return sorted(path.name for path in (workspace / "data" / part).iterdir())


@pytest.fixture
def leaking(toy):
    """A test image that was copied to train and annotated there."""
    name = image_names(toy, "test")[0]
    shutil.copy(toy / "data" / "test" / name, toy / "data" / "train" / name)
    add_row(toy, f"{name},10,10,50,50,Mass")
    return toy


class TestWorkspace:
    def test_a_clean_competition_has_notes_alone_and_the_page_says_what_was_looked_for(self, toy):
        found = audit_workspace(toy, toy_config())
        assert found.counts == {"fault": 0, "warning": 0, "note": 2}
        assert set(found.nothing_found) == {
            "annotated-test-images", "box-units", "unread-images", "duplicate-images", "repeated-boxes",
            "improbable-boxes", "labels-alike", "patient-pattern",
            "orientation-tags", "inverted-images", "outlying-levels", "no-finding-boxes",
            "few-levels",
        }  # fmt: skip
        assert "duplicate-images" in found.page.read_text()
        require_sound(found, ())

    def test_a_leak_is_a_fault_and_its_picture_a_duplicate_in_json_and_page(self, leaking):
        found = audit_workspace(leaking, toy_config())
        assert [(one.level, one.check) for one in found.findings[:2]] == [
            ("fault", "annotated-test-images"), ("warning", "duplicate-images"),
        ]  # fmt: skip
        content = json.loads((leaking / "audit" / "audit.json").read_text())
        assert {"key", "kit_version", "fault", "warning", "note", "nothing_found", "findings"} == set(content)
        assert (content["fault"], content["warning"]) == (1, 1)
        fault, copies = content["findings"][:2]
        assert set(fault) == {"level", "check", "text", "do", "rows"}
        name = image_names(leaking, "test")[0]
        assert fault["rows"] == [
            {"image_id": name, "x_min": 10, "y_min": 10, "x_max": 50, "y_max": 50, "label": "Mass"}
        ]
        assert [row["image"] for row in copies["rows"]] == [f"train/{name}", f"test/{name}"]
        assert all(row["pixels_equal"] for row in copies["rows"])
        assert found.page.read_text().count("data:image/png") == 1

    def test_other_pixels_under_a_test_images_name_are_no_answers_of_the_test(self, toy):
        for number, (path, name) in enumerate(
            zip(sorted((toy / "data" / "test").iterdir()), image_names(toy, "train"), strict=False)
        ):
            path.rename(path.with_name(f"{number}.tmp"))
            (path.parent / f"{number}.tmp").rename(path.parent / name)
        (toy / "data" / "ID_to_Image_Mapping.csv").unlink()
        assert audit_workspace(toy, toy_config()).counts["fault"] == 0

    def test_a_test_picture_under_another_name_is_an_answer_of_the_test_and_removed_it_is_well(self, toy):
        name = image_names(toy, "test")[0]
        copy = toy / "data" / "train" / "77777777_000.png"
        with Image.open(toy / "data" / "test" / name) as image:
            image.save(copy, compress_level=1)
        table = (toy / "data" / "train.csv").read_text()
        add_row(toy, "77777777_000.png,10,10,50,50,Mass")
        found = audit_workspace(toy, toy_config())
        assert [(one.level, one.check) for one in found.findings[:1]] == [("fault", "annotated-test-images")]
        assert found.findings[0].rows["image_id"].tolist() == ["77777777_000.png"]
        assert "remove these rows" in found.findings[0].do
        (toy / "data" / "train.csv").write_text(table)
        require_sound(audit_workspace(toy, toy_config()), ())

    def test_fractions_are_a_fault_before_training_and_the_sheet_shows_them(self, toy):
        path = toy / "data" / "train.csv"
        pixels = pd.read_csv(path)
        path.write_text(pixels.assign(**{name: pixels[name] / 96 for name in CORNERS}).to_csv(index=False))
        found = audit_workspace(toy, toy_config())
        assert [one.check for one in found.findings if one.level == "fault"] == ["box-units"]
        assert (toy / "audit" / "box-units.png").is_file()
        with pytest.raises(KitError, match="multiply fractions by the image's width"):
            require_sound(found, ())
        path.write_text(pixels.to_csv(index=False))
        require_sound(audit_workspace(toy, toy_config()), ())

    def test_a_box_of_no_finding_is_a_warning_with_its_line_until_its_corners_are_left_out(self, toy):
        path = toy / "data" / "train.csv"
        table, name = path.read_text(), image_names(toy, "train")[0]
        add_row(toy, f"{name},10,10,50,50,No finding")
        found = audit_workspace(toy, toy_config())
        (warning,) = [one for one in found.findings if one.check == "no-finding-boxes"]
        line = len(table.splitlines()) + 1
        assert warning.level == "warning"
        assert f"1 row of train.csv with a box and the label 'No finding' (lines {line})" in warning.text
        assert warning.rows["line"].tolist() == [line]
        path.write_text(table)
        add_row(toy, f"{name},,,,,No finding")
        assert audit_workspace(toy, toy_config()).counts["warning"] == 0

    def test_several_readers_boxes_are_a_warning_until_they_are_fused(self, toy):
        path = toy / "data" / "train.csv"
        once = pd.read_csv(path)
        again = once.assign(x_max=(once["x_max"] + 1).clip(upper=96))
        path.write_text(pd.concat([once, again, once]).to_csv(index=False))
        with pytest.raises(TableError, match=r"data\.repeated_boxes=fuse"):
            audit_workspace(toy, toy_config())
        path.write_text(pd.concat([once, again]).to_csv(index=False))
        found = audit_workspace(toy, toy_config())
        assert [one.check for one in found.findings if one.level == "warning"] == ["repeated-boxes"]
        assert (toy / "audit" / "repeated-boxes.png").is_file()
        fuse = override(toy_config(), ["data.repeated_boxes=fuse"])
        for table, mean in ((pd.concat([once, again]), 1 / 2), (pd.concat([once, again, once]), 1 / 3)):
            path.write_text(table.to_csv(index=False))
            found = audit_workspace(toy, fuse)
            assert found.counts["warning"] == 0
            fused = load_training(toy, fuse, opened=found.opened).annotations
            assert len(fused) == len(once)
            moved = fused["x_max"] - once["x_max"]
            assert moved.to_numpy() == pytest.approx(((again["x_max"] - once["x_max"]) * mean).to_numpy())
            assert load_training(toy, fuse).annotations.equals(fused)

    def test_pictures_that_are_not_read_are_a_warning_until_they_are_moved(self, toy):
        train = toy / "data" / "train"
        (train / "deeper").mkdir()
        shutil.copy(next(train.glob("*.png")), train / "deeper" / "55555555_000.png")
        (train / "66666666_000.dcm").write_bytes(b"DICM")
        (train / "._66666666_000.dcm").write_bytes(b"of a desktop")
        found = audit_workspace(toy, toy_config())
        (warning,) = [one for one in found.findings if one.level == "warning"]
        assert warning.rows["image"].tolist() == ["train/66666666_000.dcm", "train/deeper/55555555_000.png"]
        assert "move images up, convert other formats, or delete" in warning.do
        (train / "66666666_000.dcm").unlink()
        (train / "deeper" / "55555555_000.png").rename(train / "55555555_000.png")
        again = audit_workspace(toy, toy_config())
        assert [one.check for one in again.findings if one.level == "warning"] == ["duplicate-images"]

    def test_names_that_the_pattern_does_not_fit_are_a_warning_in_the_log(self, toy, caplog):
        caplog.set_level("INFO", "kit")
        config = override(toy_config(), [r"data.patient_pattern=patient(\d+)"])
        require_sound(audit_workspace(toy, config), ())
        lines = [record.getMessage() for record in caplog.records]
        assert "audit: patient-pattern; see" in lines[0]
        assert lines[1].startswith(
            r"patient-pattern: data.patient_pattern=patient(\d+) fits 0 of 40 names of images"
        )

    def test_a_row_that_names_an_image_of_test_alone_is_the_same_fault(self, toy):
        add_row(toy, f"{image_names(toy, 'test')[0]},10,10,50,50,Mass")
        assert audit_workspace(toy, toy_config()).counts["fault"] == 1

    def test_the_organisers_own_leak_is_a_warning_until_the_table_is_changed(self, leaking):
        record_download(leaking / "data", "chest")
        assert audit_workspace(leaking, toy_config()).counts == {"fault": 0, "warning": 2, "note": 2}
        add_row(leaking, f"{image_names(leaking, 'train')[0]},1,1,9,9,Mass")
        assert audit_workspace(leaking, toy_config()).counts["fault"] == 1

    def test_a_changed_copy_within_train_is_found_whether_the_groups_are_stored_or_not(self, toy):
        first = toy / "data" / "train" / image_names(toy, "train")[0]
        with Image.open(first) as image:
            image.convert("L").save(first.with_name("99999999_000.jpg"), quality=80)
        for stored in (False, True):
            assert any((toy / ".cache").glob("train-*.groups.json")) == stored
            found = audit_workspace(toy, toy_config())
            (copies,) = [one for one in found.findings if one.check == "duplicate-images"]
            assert "99999999_000.jpg" in copies.rows.to_string()
            (toy / "audit" / "audit.json").unlink()

    def test_a_file_that_is_no_image_is_no_duplicate_of_another(self, toy):
        for name in ("99999998_000.png", "99999999_000.png"):
            (toy / "data" / "test" / name).write_text("no image")
        assert audit_workspace(toy, toy_config()).counts == {"fault": 0, "warning": 0, "note": 2}

    def test_faults_of_the_table_and_of_its_images_are_said_together(self, toy):
        (toy / "data" / "train" / "broken.png").write_text("no image")
        add_row(toy, "nowhere.png,1,1,9,9,Mass")
        with pytest.raises(TableError) as caught:
            audit_workspace(toy, toy_config())
        assert [fault.file.name for fault in caught.value.faults] == ["train.csv", "broken.png"]

    def test_training_alone_needs_no_test_half(self, toy):
        shutil.rmtree(toy / "data" / "test")
        (toy / "data" / "ID_to_Image_Mapping.csv").unlink()
        assert audit_workspace(toy, toy_config()).counts == {"fault": 0, "warning": 0, "note": 1}

    def test_an_unchanged_state_is_read_back_equal_and_not_made_again(self, leaking):
        first = audit_workspace(leaking, toy_config())
        times = [path.stat().st_mtime_ns for path in sorted((leaking / "audit").iterdir())]
        again = audit_workspace(leaking, toy_config())
        assert [path.stat().st_mtime_ns for path in sorted((leaking / "audit").iterdir())] == times
        assert again.page == first.page
        for one, other in zip(first.findings, again.findings, strict=True):
            assert (one.level, one.check, one.text, one.do) == (other.level, other.check, other.text, other.do)
            pd.testing.assert_frame_equal(one.rows, other.rows, check_dtype=False)

    def test_what_it_opened_is_not_opened_again_to_load_the_data(self, toy):
        before, opened = load_training(toy, toy_config()), audit_workspace(toy, toy_config()).opened
        shutil.rmtree(toy / ".cache")
        (toy / "data" / "train.csv").write_text("no table")
        data = load_training(toy, toy_config(), opened=opened)
        assert data.annotations.equals(before.annotations) and data.pixels == before.pixels
        assert len(load_test(toy, toy_config(), opened=opened).mapping) == TOY_TEST_IMAGES
        assert not (toy / ".cache").exists()

    def test_a_row_on_a_test_image_is_refused_by_its_line_all_the_same(self, toy):
        add_row(toy, f"{image_names(toy, 'test')[0]},10,10,50,50,Mass")
        opened = audit_workspace(toy, toy_config()).opened
        with pytest.raises(TableError) as caught:
            load_training(toy, toy_config(), opened=opened)
        assert caught.value.faults[0].line == len((toy / "data" / "train.csv").read_text().splitlines())

    @pytest.mark.parametrize("broken", ["", "{", "[]", '{"key": 1}'])
    def test_a_broken_memory_is_made_anew(self, broken, toy):
        audit_workspace(toy, toy_config())
        (toy / "audit" / "audit.json").write_text(broken)
        assert audit_workspace(toy, toy_config()).counts["note"] == 2
        assert json.loads((toy / "audit" / "audit.json").read_text())["note"] == 2

    def test_changed_pixels_are_looked_at_again(self, toy):
        assert audit_workspace(toy, toy_config()).counts["warning"] == 0
        first, second, *_ = image_names(toy, "train")
        shutil.copy(toy / "data" / "train" / first, toy / "data" / "train" / second)
        found = audit_workspace(toy, toy_config())
        assert [one.check for one in found.findings if one.level == "warning"] == ["duplicate-images"]

    def test_nothing_from_a_table_becomes_markup(self, toy):
        path = toy / "data" / "train.csv"
        path.write_text(path.read_text().replace("Mass", "<b>mass</b>") + "".join(
            f"{name},1,1,9,9,<B>MASS</b>\n" for name in image_names(toy, "train")[:2]
        ))  # fmt: skip
        page = audit_workspace(toy, toy_config()).page.read_text()
        assert "<b>mass" not in page
        assert "&lt;b&gt;mass" in page

    def test_odd_boxes_are_drawn(self, toy):
        rows = [f"{name},{30 + place % 3},30,60,61,Mass\n" for place, name in enumerate(image_names(toy, "train"))]
        path = toy / "data" / "train.csv"
        path.write_text(
            "image_id,x_min,y_min,x_max,y_max,label\n" + "".join(rows) + f"{rows[0].split(',')[0]},0,0,95,9,Mass\n"
        )
        found = audit_workspace(toy, toy_config())
        assert [one.check for one in found.findings if one.level == "warning"] == ["improbable-boxes"]
        with Image.open(toy / "audit" / "improbable-boxes.png") as sheet:
            assert sheet.width > 900


class TestTraining:
    def test_a_fault_stops_it_before_there_is_a_run_and_names_the_way_on(self, leaking):
        from kit.training.train import train

        with pytest.raises(KitError, match="annotated-test-images") as caught:
            train(leaking, None, "demo", TOY)
        assert "--allow annotated-test-images" in caught.value.do
        assert not (leaking / "runs" / "demo" / "config.json").exists()

    def test_a_fault_that_is_allowed_by_name_lets_it_pass(self, leaking):
        found = audit_workspace(leaking, toy_config())
        with pytest.raises(KitError):
            require_sound(found, ["duplicate-images"])
        require_sound(found, ["annotated-test-images"])

    def test_a_mistyped_name_is_refused_with_the_nearest(self, toy):
        with pytest.raises(KitError, match="nearest: annotated-test-images"):
            require_sound(audit_workspace(toy, toy_config()), ["annotated-test-image"])

    @pytest.mark.slow
    def test_allowed_from_the_command_line_it_trains(self, leaking):
        from command_line import invoke

        knobs = [word for assignment in (*TOY, "training.max_epochs=1") for word in ("--set", assignment)]
        words = ("train", "--preset", "demo", *knobs, "--workspace", leaking)
        assert invoke("audit", "--workspace", leaking).returncode == 1
        done = invoke(*words, "--allow", "annotated-test-images")
        assert done.returncode == 0, done.stderr
        assert "audit: annotated-test-images, duplicate-images" in done.stderr
