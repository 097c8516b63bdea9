"""Rows that a run cannot have made are refused, and what the refusal advises works."""

import shutil

import pandas as pd
import pytest
from toy import TOY_TEST_IMAGES

from kit.config import load
from kit.core.errors import KitError
from kit.data.competition import load_test
from kit.evaluation.held_out import score_held_out
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.runs.adoption import adopt
from kit.runs.detections import KEY, read_detections
from kit.runs.ensemble import ensemble
from kit.runs.folder import Run, read_split
from kit.runs.out_of_fold import detections
from kit.runs.own_rows import read_held_out, require_own_rows
from kit.training.train import train

pytestmark = pytest.mark.usefixtures("undrawn")


def edited(path, **values):
    """Change the first rows of a stored table, which keeps its key; how many rows it has."""
    table = pd.read_parquet(path)
    for name, value in values.items():
        table.loc[:2, name] = value
    table.to_parquet(path, index=False)
    return len(table)


@pytest.fixture(scope="module")
def predicted_source(evaluated_source, tmp_path_factory):
    workspace = tmp_path_factory.mktemp("predicted") / "toy"
    shutil.copytree(evaluated_source, workspace)
    predict(Run(workspace, "demo"))
    return workspace


@pytest.fixture
def run(predicted_source, tmp_path):
    shutil.copytree(predicted_source, tmp_path / "toy")
    return Run(tmp_path / "toy", "demo")


CHANGES = [
    ({"run": "other"}, "rows of other"),
    ({"view": "zoom_in"}, "rows of demo zoom_in"),
    ({"fold": 1}, "fold"),
    ({"image_id": "99999999_000.png"}, "1 other image"),
    ({"label": "Hernia"}, "another label .Hernia"),
]


@pytest.mark.parametrize(("values", "said"), CHANGES)
def test_test_rows_of_another_source_do_not_vanish(values, said, run):
    path = run.detections("test")
    edited(path, **values)
    with pytest.raises(KitError, match=said) as caught:
        predict(run)
    assert str(path) in caught.value.expected
    assert "invoke predict --run demo" in caught.value.do
    assert len(list((run.workspace / "submissions").glob("0*"))) == 1


def test_deleting_them_as_advised_makes_them_anew(run):
    before = read_detections(run.detections("test"))
    edited(run.detections("test"), run="other")
    run.detections("test").unlink()
    assert predict(run).number == 2
    assert read_detections(run.detections("test")).equals(before)


@pytest.mark.parametrize(("values", "said"), CHANGES)
def test_held_out_rows_of_another_source_are_refused(values, said, run):
    path = run.detections("validation")
    edited(path, **values)
    for use in (score_held_out, evaluate):
        with pytest.raises(KitError, match=said) as caught:
            use(run)
        assert "invoke train --run demo" in caught.value.do
    with pytest.raises(KitError, match=said):
        read_held_out(run, read_split(run))


def test_held_out_rows_are_made_anew_as_advised(run):
    before = read_detections(run.detections("validation"))
    edited(run.detections("validation"), view="strange")
    run.detections("validation").unlink()
    train(run.workspace, "demo")
    assert read_detections(run.detections("validation")).equals(before)
    assert score_held_out(run).run == run


def test_a_held_out_image_that_the_wrong_fold_detected_is_refused(folded):
    run = Run(folded, "folds")
    path, split = run.detections("validation"), read_split(run)
    table = pd.read_parquet(path)
    table["fold"] = (table["fold"] + 1) % 3
    with pytest.raises(KitError, match="rows of a fold that was trained on their image"):
        require_own_rows(table, run, "validation", split, split.validation)
    table.to_parquet(path, index=False)
    with pytest.raises(KitError, match="invoke train --run folds"):
        score_held_out(run)


def test_no_rows_are_any_runs_own(run):
    table, split = read_detections(run.detections("validation")).iloc[:0], read_split(run)
    assert require_own_rows(table, run, "validation", split, split.validation).empty


class TestAdopted:
    @pytest.fixture
    def file(self, toy, tmp_path):
        truth = pd.read_csv(toy / "data" / "train.csv").assign(score=0.5)
        tested = pd.read_csv(toy / "test_truth.csv").assign(score=0.25)
        path = tmp_path / "theirs.csv"
        pd.concat([truth, tested]).to_csv(path, index=False)
        return path

    def adopted(self, toy, file, name="theirs"):
        run = Run(toy, name)
        return run, adopt(run, file, None, (f"competition.expected_ids={TOY_TEST_IMAGES}",))

    @pytest.mark.parametrize("part", ["validation", "test"])
    @pytest.mark.parametrize("is_kits", [True, False])
    def test_the_table_of_another_file_is_not_believed(self, is_kits, part, toy, file, tmp_path):
        """Its rows could be the run's own: only the key says that they were adopted from elsewhere."""
        run, _ = self.adopted(toy, file)
        path = run.detections(part)
        before, table = path.read_bytes(), read_detections(path).assign(score=0.75)
        table.attrs = {KEY: "0" * 64} if is_kits else {}
        table.to_parquet(path, index=False)
        with pytest.raises(KitError, match=r"of another file than theirs\.csv, which was adopted") as caught:
            self.used(run, part)
        assert "invoke adopt --run theirs --detections theirs.csv" in caught.value.do
        path.unlink()  # as advised
        self.adopted(toy, file)
        assert path.read_bytes() == before
        self.used(run, part)

    @pytest.mark.parametrize("part", ["validation", "test"])
    def test_a_lost_or_strange_table_is_restored_by_the_command_that_is_advised(self, part, toy, file):
        run, _ = self.adopted(toy, file)
        path = run.detections(part)
        before = path.read_bytes()
        edited(path, run="other")
        with pytest.raises(KitError, match=r"invoke adopt --run theirs --detections theirs\.csv"):
            self.used(run, part)
        path.unlink()
        _, arrival = self.adopted(toy, file)
        assert arrival.already
        assert path.read_bytes() == before
        self.used(run, part)

    def test_a_lost_table_of_the_test_images_comes_back_as_the_error_says(self, toy, file):
        run, _ = self.adopted(toy, file)
        before = run.detections("test").read_bytes()
        run.detections("test").unlink()
        with pytest.raises(KitError, match=r"if the file has them, `invoke adopt --run theirs --detections theirs"):
            self.used(run, "test")
        self.adopted(toy, file)
        assert run.detections("test").read_bytes() == before
        self.used(run, "test")

    def test_images_of_test_that_no_id_asks_for_may_have_detections_which_answer_nothing(self, toy, file):
        mapping = toy / "data" / "ID_to_Image_Mapping.csv"
        lines = mapping.read_text().splitlines()
        asked = [line.split(",")[1] for line in lines[1:]]
        lines[-1] = lines[-1].replace(asked[-1], asked[0])
        mapping.write_text("\n".join(lines) + "\n")
        run, arrival = self.adopted(toy, file)
        data = load_test(toy, load(run.config))
        found = detections(run, data)
        assert set(found["image_id"]) == set(asked[:-1])
        assert len(found) < arrival.test_rows == len(read_detections(run.detections("test")))
        self.adopted(toy, file, "more")
        together = Run(toy, "together")
        ensemble(together, ["theirs", "more"])
        assert set(detections(together, data)["image_id"]) == set(asked[:-1])
        lines[-1] = lines[-1].replace(asked[0], asked[-1])  # it is asked for after all
        mapping.write_text("\n".join(lines) + "\n")
        data = load_test(toy, load(run.config))
        assert set(detections(run, data)["image_id"]) == set(detections(together, data)["image_id"]) == set(asked)

    def used(self, run, part):
        score_held_out(run) if part == "validation" else detections(run, load_test(run.workspace, load(run.config)))

    def test_a_fold_of_the_test_images_that_was_not_adopted_is_refused(self, toy, file):
        run, _ = self.adopted(toy, file)
        edited(run.detections("test"), fold=1)
        with pytest.raises(KitError, match="rows of fold 1"):
            self.used(run, "test")

    def test_strange_rows_of_a_member_stop_the_ensemble_which_names_the_member(self, toy, file):
        one, _ = self.adopted(toy, file, "one")
        self.adopted(toy, file, "two")
        edited(one.detections("validation"), run="other")
        with pytest.raises(KitError, match=r"(?s)runs/one/.*rows of other") as caught:
            ensemble(Run(toy, "both"), ("one", "two"))
        assert "adopt --run one" in caught.value.do
        one.detections("validation").unlink()
        self.adopted(toy, file, "one")
        ensemble(Run(toy, "both"), ("one", "two"))
        both = Run(toy, "both")
        edited(both.detections("validation"), run="other")
        with pytest.raises(KitError, match="invoke evaluate --run both"):
            evaluate(both)
        both.detections("validation").unlink()
        assert score_held_out(both).run == both
