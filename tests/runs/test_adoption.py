"""Detections from elsewhere: three formats, one run, and every fault of the file at once."""

import base64
import dataclasses
import json
from collections import Counter

import pandas as pd
import pytest
from command_line import assert_refused, invoke
from toy import TOY_TEST_IMAGES, copied, toy_config

from kit.boxes.geometry import CORNERS
from kit.config import load
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.json_files import read_json, write_json
from kit.data.competition import load_test, load_training, patients
from kit.evaluation.held_out import score_held_out
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.runs.adoption import adopt
from kit.runs.detections import read_detections, write_detections
from kit.runs.ensemble import ensemble
from kit.runs.folder import Run, existing, read_finished, read_split
from kit.runs.guards import require_same_data
from kit.runs.members import members, read_adopted
from kit.runs.out_of_fold import detections
from kit.schemas.csv_text import TableError
from kit.training.train import train

pytestmark = pytest.mark.usefixtures("undrawn")

COLUMNS = ["image_id", *CORNERS, "score", "label"]


@pytest.fixture(scope="module")
def place(toy_source, tmp_path_factory):
    """A workspace for tests that only read its data, each with run names of its own."""
    return copied(toy_source, tmp_path_factory.mktemp("place") / "toy")


def found_on(workspace, test_rows=2):
    """The true boxes as another tool might have found them, and a box on some test images."""
    data, test = load_training(workspace, toy_config()), load_test(workspace, toy_config())
    table = data.annotations.assign(score=[0.5 + 0.001 * i for i in range(len(data.annotations))])
    more = [(name, 1.0, 2.0, 30.5, 40.0, 0.25, data.labels[0]) for name in test.image_ids[:test_rows]]
    return pd.concat([table[COLUMNS], pd.DataFrame(more, columns=COLUMNS)], ignore_index=True)


def written(table, path):
    if path.suffix == ".csv":
        path.write_text(table.to_csv(index=False))
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        entries = [
            {"image_id": row.image_id, "category_id": row.label, "score": row.score,
             "bbox": [row.x_min, row.y_min, row.x_max - row.x_min, row.y_max - row.y_min]}
            for row in table.itertuples()
        ]  # fmt: skip
        path.write_text(json.dumps(entries))
    return path


def bring_in(run, path, held_out=None):
    return adopt(run, path, held_out, (f"competition.expected_ids={TOY_TEST_IMAGES}",))


def faults_of(workspace, path, held_out=None):
    with pytest.raises(TableError) as caught:
        bring_in(Run(workspace, "refused"), path, held_out)
    assert not Run(workspace, "refused").config.exists()
    return [str(fault) for fault in caught.value.faults]


class TestAdopted:
    @pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
    def test_three_formats_are_the_same_run(self, suffix, place, tmp_path):
        table = found_on(place)
        run = Run(place, f"from{suffix}")
        arrival = bring_in(run, written(table, tmp_path / f"theirs{suffix}"))
        assert (arrival.validation_rows, arrival.test_rows) == (len(table) - 2, 2)
        assert (arrival.images, arrival.without, arrival.already) == (32, 0, False)
        stored = pd.concat([read_detections(run.detections(part)) for part in ("validation", "test")])
        assert stored[["image_id", "label"]].to_numpy().tolist() == table[["image_id", "label"]].to_numpy().tolist()
        numbers = [*CORNERS, "score"]
        assert stored[numbers].to_numpy() == pytest.approx(table[numbers].to_numpy(), abs=1e-5)
        assert (set(stored["fold"]), set(stored["view"]), set(stored["run"])) == ({0}, {"plain"}, {run.name})
        assert read_split(run).validation == read_split(run).images
        assert len(read_split(run).folds) == 5  # for what is fitted to them; by patient
        assert read_adopted(run).file == f"theirs{suffix}"
        assert list(read_finished(run).weights) == [run.name]
        assert existing(place, run.name) == run

    @pytest.mark.slow
    def test_perfect_detections_score_one_and_predict_says_what_is_missing(self, toy, tmp_path):
        run = Run(toy, "theirs")
        bring_in(run, written(found_on(toy, test_rows=0), tmp_path / "theirs.csv"))
        report = evaluate(run)
        assert report.many_box.map50 == 1
        assert report.weights.kept == "adopted"
        with pytest.raises(KitError, match="detections of the test images"):
            predict(run)
        with pytest.raises(KitError, match="which is adopted"):
            train(toy, "theirs")

    @pytest.mark.parametrize("own_id", [int, str])
    def test_a_data_set_brings_its_own_ids(self, own_id, place, tmp_path):
        table = found_on(place)
        images, labels = sorted(set(table["image_id"])), sorted(set(table["label"]))
        content = {
            "images": [{"id": own_id(100 + i), "file_name": name} for i, name in enumerate(images)],
            "categories": [{"id": 7 * i, "name": label} for i, label in enumerate(labels)],
            "annotations": [
                {"image_id": own_id(100 + images.index(row.image_id)), "category_id": 7 * labels.index(row.label),
                 "bbox": [row.x_min, row.y_min, row.x_max - row.x_min, row.y_max - row.y_min], "score": 0.5}
                for row in table.itertuples()
            ],
        }  # fmt: skip
        (tmp_path / "set.json").write_text(json.dumps(content))
        run = Run(place, f"set-{own_id.__name__}")
        bring_in(run, tmp_path / "set.json")
        stored = read_detections(run.detections("validation"))
        assert stored[["image_id", "label"]].equals(table[["image_id", "label"]].iloc[:-2])

    def test_numbers_for_categories_count_the_sorted_labels_from_1(self, place, tmp_path):
        first, *_, last = load_training(place, toy_config()).labels
        image = load_training(place, toy_config()).image_ids[0]
        entries = [
            {"image_id": image, "category_id": number, "bbox": [1, 2, 3, 4], "score": 1} for number in (1, 8)
        ]
        (tmp_path / "results.json").write_text(json.dumps(entries))
        bring_in(Run(place, "numbers"), tmp_path / "results.json")
        stored = read_detections(Run(place, "numbers").detections("validation"))
        assert stored["label"].tolist() == [first, last]
        assert stored[CORNERS].to_numpy().tolist() == [[1, 2, 4, 6]] * 2

    def test_folds_and_views_of_the_file_are_kept_and_those_of_the_test_counted(self, place, tmp_path):
        table = found_on(place, test_rows=4)
        names = sorted(set(table["image_id"]))
        table["fold"] = [names.index(name) % 3 for name in table["image_id"]]
        table.loc[table.index[-4:], "fold"] = [0, 1, 0, 1]
        table["view"] = ["one", "two"] * (len(table) // 2) + ["one"] * (len(table) % 2)
        run = Run(place, "folded")
        bring_in(run, written(table, tmp_path / "theirs.csv"))
        split = read_split(run)
        assert len(split.folds) == 3
        assert all(split.fold_of[name] == names.index(name) % 3 for name in split.images)
        (member,) = members(run)
        assert (member.views, member.folds) == (("one", "two"), 2)

    def test_an_image_without_a_row_is_held_out_unless_a_list_says_which_were(self, place, tmp_path):
        table = found_on(place)
        images = read_images(place)
        table = table[~table["image_id"].isin(images[:10])]
        path = written(table, tmp_path / "theirs.csv")
        arrival = bring_in(Run(place, "all"), path)
        assert (arrival.images, arrival.without) == (32, 10)
        (tmp_path / "held.txt").write_text("\n".join(images[9:]) + "\n")
        arrival = bring_in(Run(place, "listed"), path, tmp_path / "held.txt")
        assert (arrival.images, arrival.without) == (23, 1)
        assert read_split(Run(place, "listed")).validation == tuple(images[9:])
        for encoding in ("utf-8-sig", "utf-16"):
            (tmp_path / "held.txt").write_bytes(("\r\n".join(images[9:]) + "\r\n").encode(encoding))
            assert bring_in(Run(place, "listed"), path, tmp_path / "held.txt").already

    def test_the_kits_own_tables_can_be_adopted(self, folded, tmp_path):
        whole = Run(folded, "folds")
        bring_in(Run(folded, "again"), whole.detections("validation"))
        one, other = (read_detections(run.detections("validation")) for run in (whole, Run(folded, "again")))
        assert one.drop(columns="run").equals(other.drop(columns="run"))
        assert read_split(Run(folded, "again")).fold_of == read_split(whole).fold_of
        ensemble(Run(folded, "both"), ("folds", "again"))
        assert len(read_detections(Run(folded, "both").detections("validation"))) == 2 * len(one)

    def test_the_same_file_again_changes_nothing_and_another_needs_another_name(self, place, tmp_path):
        run, path = Run(place, "twice"), tmp_path / "theirs.csv"
        bring_in(run, written(found_on(place), path))
        before = run.finished.read_bytes()
        assert bring_in(run, path).already
        assert run.finished.read_bytes() == before
        with pytest.raises(KitError, match="choose another --run NAME"):
            bring_in(run, written(found_on(place, test_rows=1), path))
        with pytest.raises(KitError, match="evaluate --run twice --set"):
            adopt(
                run,
                written(found_on(place), path),
                None,
                (f"competition.expected_ids={TOY_TEST_IMAGES}", "decision.rule=score"),
            )

    @pytest.mark.parametrize("told_by", ["list", "fold"])
    def test_folds_that_leave_no_box_to_learn_from_are_made_anew(self, told_by, toy, tmp_path):
        images = read_images(toy)
        path = toy / "data" / "train.csv"
        rows = pd.read_csv(path)
        boxed = images[:20]
        bare = pd.DataFrame([(name, 0, 0, 0, 0, "No Finding") for name in images[20:]], columns=rows.columns)
        path.write_text(pd.concat([rows[rows["image_id"].isin(boxed)], bare]).to_csv(index=False))
        table = found_on(toy)
        table = table[table["image_id"].isin(boxed)]
        held = None
        if told_by == "list":
            held = tmp_path / "held.txt"
            held.write_text("\n".join(boxed) + "\n")
        else:
            empty = table.iloc[:1].assign(image_id=images[20], fold=1)
            table = pd.concat([table.assign(fold=0), empty])
        run = Run(toy, "theirs")
        bring_in(run, written(table, tmp_path / "theirs.csv"), held)
        split = read_split(run)
        assert len(split.folds) == 5
        assert set(split.validation) == set(boxed if held else images)
        held_out = score_held_out(run)
        assert len(held_out.truth) == len(rows[rows["image_id"].isin(boxed)])

    def test_boxes_of_one_patient_alone_are_refused_before_there_is_a_run(self, toy, tmp_path):
        images = read_images(toy)
        lines = [f"{name},{int(name in images[:10])}" for name in images]
        (toy / "data" / "groups.csv").write_text("\n".join(["image_id,group", *lines]) + "\n")
        path = toy / "data" / "train.csv"
        rows = pd.read_csv(path)
        path.write_text(rows[rows["image_id"].isin(images[:10])].to_csv(index=False))
        table = found_on(toy)
        run = Run(toy, "theirs")
        share = ("data.largest_patient_share=1", f"competition.expected_ids={TOY_TEST_IMAGES}")
        with pytest.raises(KitError, match="boxes of several patients"):
            adopt(run, written(table, tmp_path / "theirs.csv"), None, share)
        assert not run.config.exists()

    def test_a_lost_table_comes_back_after_groups_csv_and_the_usual_knobs_have_changed(self, toy, tmp_path, caplog):
        run, path = Run(toy, "theirs"), written(found_on(toy), tmp_path / "theirs.csv")
        bring_in(run, path)
        before = run.detections("test").read_bytes(), read_split(run)
        groups = toy / "data" / "groups.csv"
        images = read_images(toy)
        groups.write_text("image_id,group\n" + "".join(f"{name},{i // 2}\n" for i, name in enumerate(images)))
        other = ("data.patient_pattern=(.{4})", f"competition.expected_ids={TOY_TEST_IMAGES}")
        adopt(Run(toy, "last"), path, None, other)  # a verb without a run has its knobs from now on
        run.detections("test").unlink()
        assert bring_in(run, path).already
        assert (run.detections("test").read_bytes(), read_split(run)) == before
        assert load(run.config).data != load(Run(toy, "last").config).data
        with pytest.raises(KitError, match=r"data\.patient_pattern: .* -> \(\.\{4\}\)"):
            adopt(run, path, None, other)
        score_held_out(run)
        assert "run theirs: " in caplog.text and "in several folds" in caplog.text
        caplog.clear()
        groups.unlink()
        score_held_out(run)
        assert "in several folds" not in caplog.text

    @pytest.mark.parametrize(
        ("encoding", "end"),
        [("utf-16", "\n"), ("utf-8-sig", "\r\n"), *(
            pytest.param(*both, marks=pytest.mark.slow)
            for both in (("utf-8", "\n"), ("utf-8", "\r\n"), ("utf-8-sig", "\n"), ("utf-16", "\r\n"))
        )],
    )  # fmt: skip
    def test_tables_that_another_editor_has_saved_are_the_same_tables(self, encoding, end, place, tmp_path):
        workspace = copied(place, tmp_path / "toy")
        run, path, other = Run(workspace, "one"), tmp_path / "theirs.csv", Run(workspace, "other")
        bring_in(run, written(found_on(workspace), path))
        for table in (path, workspace / "data" / "train.csv"):
            table.write_bytes(table.read_text().replace("\n", end).encode(encoding))
        data = load_training(workspace, toy_config())
        assert bring_in(run, path).already
        require_same_data(run, read_split(run), data)
        bring_in(other, path)
        assert read_split(other) == read_split(run)

    def test_a_run_that_recorded_the_bytes_of_its_table_is_used_as_before(self, place, tmp_path):
        """Earlier versions hashed the bytes of train.csv and of the adopted file."""
        workspace = copied(place, tmp_path / "toy")
        run, path, table = Run(workspace, "old"), tmp_path / "theirs.csv", workspace / "data" / "train.csv"
        written(found_on(workspace), path)
        for file in (path, table):
            file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
        bring_in(run, path)
        bring_in(Run(workspace, "new"), path)
        for record, name, file in ((run.split, "table_sha256", table), (run.adopted, "sha256", path)):
            write_json(record, read_json(record, "") | {name: sha256(file)})
        for stored in (run.detections("validation"), run.detections("test")):
            write_detections(read_detections(stored), stored, sha256(path))
        assert bring_in(run, path).already
        require_same_data(run, read_split(run), load_training(workspace, toy_config()))
        ensemble(Run(workspace, "both"), ("old", "new"))
        table.write_bytes(table.read_bytes() + b"\r\n")
        with pytest.raises(KitError, match="put the old files back"):
            require_same_data(run, read_split(run), load_training(workspace, toy_config()))

    def test_an_image_without_a_row_stands_in_its_patients_fold(self, place, tmp_path):
        table, data = found_on(place), load_training(place, toy_config())
        patient = patients(data.image_ids, toy_config().data.patient_pattern, {})
        several = [name for name, count in Counter(patient.values()).items() if count > 1]
        fold = {name: int(place_ in several[:1]) for name, place_ in patient.items()}
        table["fold"] = table["image_id"].map(fold).fillna(0).astype(int)
        lost = next(name for name, place_ in patient.items() if place_ == several[0])
        run = Run(place, "patient")
        bring_in(run, written(table[table["image_id"] != lost], tmp_path / "theirs.csv"))
        assert lost in read_split(run).folds[1]

    @pytest.mark.parametrize("record", ["finished", "split"])
    def test_a_damaged_record_advises_to_adopt_again_which_works(self, record, place, tmp_path):
        run, path = Run(place, f"damaged-{record}"), tmp_path / "theirs.csv"
        bring_in(run, written(found_on(place), path))
        getattr(run, record).write_text("{")
        for use in (bring_in, lambda it, _: {"finished": read_finished, "split": read_split}[record](it)):
            with pytest.raises(KitError) as caught:
                use(run, path)
            assert caught.value.do.endswith(f"{record}.json, or adopt its file again under another --run NAME")
        assert not bring_in(Run(place, f"anew-{record}"), path).already

    def test_a_changed_table_advises_to_adopt_again(self, place, tmp_path):
        run = Run(place, "changed")
        bring_in(run, written(found_on(place), tmp_path / "theirs.csv"))
        data, split = load_training(place, toy_config()), read_split(run)
        with pytest.raises(KitError, match="put the old files back, or adopt its file again under another --run"):
            require_same_data(run, dataclasses.replace(split, table_sha256="0" * 64), data)

    def test_stored_detections_are_those_of_the_file(self, place, tmp_path):
        run = Run(place, "stored")
        bring_in(run, written(found_on(place), tmp_path / "theirs.csv"))
        assert len(detections(run, load_test(place, load(run.config)))) == 2


def read_images(workspace):
    return list(load_training(workspace, toy_config()).image_ids)


class TestRefused:
    def test_a_file_without_rows(self, place, tmp_path):
        (fault,) = faults_of(place, written(found_on(place).iloc[:0], tmp_path / "theirs.csv"))
        assert "no rows" in fault

    def test_all_faults_are_listed_with_their_lines(self, place, tmp_path):
        table = found_on(place).astype(object)
        for line, (column, value) in enumerate(
            [("image_id", "stranger.png"), ("label", "Hernia"), ("score", 1.5), ("score", "high"), ("x_max", -3),
             ("x_max", 999), ("view", "")], start=2,
        ):  # fmt: skip
            if column == "view":
                table["view"] = "plain"
            table.loc[line - 2, column] = value
        faults = faults_of(place, written(table, tmp_path / "theirs.csv"))
        for place_, word in [(2, "an image that is there"), (3, "Hernia"), (4, "between 0 and 1"), (5, "'high'"),
                             (6, "x_min < x_max"), (7, "inside the image"), (8, "a view")]:  # fmt: skip
            assert any(fault.startswith(f"theirs.csv:{place_}: ") and word in fault for fault in faults), word
        assert len(faults) == 7

    def test_an_image_in_two_folds_and_folds_that_are_left_out(self, place, tmp_path):
        table = found_on(place, test_rows=0).assign(fold=1)
        again = table.iloc[:1].assign(fold=3)
        faults = faults_of(place, written(pd.concat([table, again]), tmp_path / "theirs.csv"))
        assert any(f"{table['image_id'][0]}, fold 3" in fault for fault in faults)
        assert any("folds 1, 3" in fault for fault in faults)

    def test_test_images_alone_cannot_be_scored(self, place, tmp_path):
        (fault,) = faults_of(place, written(found_on(place).iloc[-2:], tmp_path / "theirs.csv"))
        assert "no row of an image of train/" in fault

    def test_views_of_train_images_alone(self, place, tmp_path):
        one = found_on(place).assign(view="plain")
        table = pd.concat([one, one[:5].assign(view="flip")], ignore_index=True)
        (fault,) = faults_of(place, written(table, tmp_path / "theirs.csv"))
        assert "views flip, plain of train images, plain of test images" in fault

    def test_a_coco_box_beyond_every_number(self, place, tmp_path):
        entry = {"image_id": found_on(place)["image_id"][0], "category_id": "Mass", "score": 0.5}
        (tmp_path / "theirs.json").write_text(json.dumps([{**entry, "bbox": [1.5, 1, 10**400, 2]}]))
        assert "bbox" in faults_of(place, tmp_path / "theirs.json")[0]

    def test_an_image_that_was_not_held_out(self, place, tmp_path):
        images = read_images(place)
        (tmp_path / "held.txt").write_text("\n".join(images[1:]))
        faults = faults_of(place, written(found_on(place), tmp_path / "theirs.csv"), tmp_path / "held.txt")
        assert faults
        assert all(images[0] in fault and "--held-out" in fault for fault in faults)
        (tmp_path / "held.txt").write_text("stranger.png\n")
        (fault,) = faults_of(place, tmp_path / "theirs.csv", tmp_path / "held.txt")
        assert "held.txt:1" in fault
        (tmp_path / "held.txt").write_bytes(b"\xe9.png\n")
        with pytest.raises(KitError, match=r"held\.txt: byte 0xe9 in line 1 is no UTF-8"):
            bring_in(Run(place, "refused"), tmp_path / "theirs.csv", tmp_path / "held.txt")

    def test_a_column_that_is_not_known_is_no_fold(self, place, tmp_path):
        (fault,) = faults_of(place, written(found_on(place).assign(Fold=0), tmp_path / "theirs.csv"))
        assert "Fold" in fault

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            (3, "an object with image_id"),
            ({"image_id": "a", "category_id": 1, "bbox": [1, 2, 3], "score": 1}, "bbox [x, y, width, height]"),
            ({"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}, "a file name"),
            ({"image_id": "a", "category_id": 9, "bbox": [1, 2, 3, 4], "score": 1}, "category_id 9"),
            ({"image_id": "a", "category_id": True, "bbox": [1, 2, 3, 4], "score": 1}, "an object with image_id"),
            ({"image_id": "a", "category_id": 1, "bbox": [1, 2, 3, 4], "score": "x"}, "'x'"),
        ],
    )
    def test_coco_entries_that_are_none(self, entry, said, place, tmp_path):
        (tmp_path / "results.json").write_text(json.dumps([entry]))
        assert said in " ".join(faults_of(place, tmp_path / "results.json"))

    @pytest.mark.parametrize("content", ["3", "{}", '{"images": 3}', "{"])
    def test_json_that_is_no_coco(self, content, place, tmp_path):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(KitError, match=r"results\.json"):
            bring_in(Run(place, "refused"), tmp_path / "results.json")

    def test_another_kind_of_file_or_a_broken_one(self, place, tmp_path):
        (tmp_path / "theirs.txt").write_text("x")
        with pytest.raises(KitError, match=r"\.csv, \.parquet, \.json"):
            bring_in(Run(place, "refused"), tmp_path / "theirs.txt")
        (tmp_path / "theirs.parquet").write_bytes(b"PAR1")
        assert "a parquet file" in faults_of(place, tmp_path / "theirs.parquet")[0]
        pd.DataFrame({"image_id": ["a"], "score": [0.5]}).to_parquet(tmp_path / "whole.parquet", index=False)
        whole = (tmp_path / "whole.parquet").read_bytes()
        odd = whole.replace(base64.b64encode(b'"str",'), base64.b64encode(b'"stj",'))  # a type that pandas looks up
        assert odd != whole
        (tmp_path / "theirs.parquet").write_bytes(odd)
        assert "a parquet file" in faults_of(place, tmp_path / "theirs.parquet")[0]

    @pytest.mark.parametrize("flag", ["--detections", "--held-out", "--images"])
    def test_a_file_that_is_not_there_has_the_nearest_names(self, flag, place, tmp_path):
        paths = dict.fromkeys(("--detections", "--held-out", "--images"), tmp_path / "there.json")
        paths["--detections"].write_text("[]")
        paths[flag] = tmp_path / "their.json"
        with pytest.raises(KitError, match=f"for {flag}") as caught:
            adopt(Run(place, "refused"), paths["--detections"], paths["--held-out"], images_file=paths["--images"])
        assert caught.value.found == f"no such file or folder: {tmp_path / 'their.json'}"
        assert caught.value.do.endswith("the nearest names to their.json are: there.json")
        assert not Run(place, "refused").folder.exists()


@pytest.mark.slow
def test_two_files_from_elsewhere_become_a_submission_on_the_command_line(toy, tmp_path):
    """Adopt, adopt, ensemble, evaluate, predict: no network of ours is needed for any of them."""
    table = found_on(toy, test_rows=TOY_TEST_IMAGES)
    written(table, tmp_path / "one.csv")
    written(table.assign(score=table["score"] / 2), tmp_path / "other.parquet")
    knob, place = ("--set", f"competition.expected_ids={TOY_TEST_IMAGES}"), ("--workspace", toy)
    for name, file in (("one", "one.csv"), ("other", "other.parquet")):
        done = invoke("adopt", "--run", name, "--detections", tmp_path / file, *knob, *place)
        assert f"run {name} is adopted: {len(table) - TOY_TEST_IMAGES} detections on 32 held-out" in done.stdout
    numbers = {name: number for number, name in enumerate(sorted(set(table["image_id"])))}
    images = [{"id": number, "file_name": name} for name, number in numbers.items()]
    (tmp_path / "set.json").write_text(json.dumps({"images": images}))
    written(table.assign(image_id=table["image_id"].map(numbers), x_min=-2.0, label=1), tmp_path / "ids.json")
    words = ("adopt", "--run", "ids", "--detections", tmp_path / "ids.json", "--images", tmp_path / "set.json")
    assert_refused(invoke(*words, *knob, *place), "--clip")
    done = invoke(*words, "--clip", *knob, *place)
    assert "labels by number: 1 = Atelectasis, " in done.stdout, done.stderr
    words = ("ensemble", "--run", "both", "--of", "one", "--of", "other", "--weight")
    done = invoke(*words, "2", "--weight", "much", *place)
    assert_refused(done, "--weight to be a number", "'much'")
    done = invoke(*words, "2", "--weight", "1", *place)
    assert "run both: an ensemble of one, other" in done.stdout, done.stderr
    done = invoke("evaluate", *place)
    assert "run both: the one that finished last" in done.stdout, done.stderr
    done = invoke("predict", "--run", "both", *place)
    assert "submission 0001" in done.stdout, done.stderr
