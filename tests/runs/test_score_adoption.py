"""Image scores as a run of their own, and ensembles that use them beside detections."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from command_line import assert_refused, invoke
from image_scores import IDS, scores_of
from repository import ROOT
from toy import copied

from kit.config import load
from kit.core.errors import KitError
from kit.core.json_files import read_json
from kit.runs.adoption import adopt
from kit.runs.ensemble import ensemble
from kit.runs.folder import IMAGE_SCORES, Run, newest_finished, read_finished
from kit.runs.guards import require_detector, require_trainable
from kit.runs.image_scores import held_out_scores, read_image_scores, scores_by_fold, scores_of_test
from kit.runs.members import read_adopted, read_ensemble
from kit.runs.score_adoption import adopt_image_scores


@pytest.fixture
def made(evidence_source):
    """The shared workspace with 'boxes', 'scores' and 'both' of them, for tests that leave it as it is."""
    return evidence_source


@pytest.fixture
def workspace(evidence_source, tmp_path):
    return copied(evidence_source, tmp_path / "toy")


class TestARunOfImageScores:
    def test_its_files_say_what_it_is(self, made):
        run = Run(made, "scores")
        table = read_image_scores(run)
        assert run.detections("image_scores") == made / "runs" / "scores" / "detections" / "image_scores.parquet"
        assert table["score"].tolist() == pytest.approx(scores_of(made)["score"].tolist())
        assert read_adopted(run).scores == "probabilities"
        assert read_finished(run).kept == IMAGE_SCORES
        assert not run.detections("validation").exists()

    def test_the_same_file_again_only_restores_what_was_lost(self, workspace):
        run = Run(workspace, "scores")
        before = read_image_scores(run)
        run.detections("image_scores").unlink()
        with pytest.raises(KitError, match="invoke adopt --run scores --image-scores") as caught:
            read_image_scores(run)
        assert caught.value.found == "no such file"
        assert "with the flags that it was adopted with" in caught.value.do
        images = sorted(set(before["image_id"]))
        groups = "".join(f"{name},{number // 2}\n" for number, name in enumerate(images))
        (workspace / "data" / "groups.csv").write_text(f"image_id,group\n{groups}")
        assert adopt_image_scores(run, workspace / "scores.csv").already
        assert read_image_scores(run).equals(before)

    @pytest.mark.parametrize(
        ("spoiled", "found"),
        [
            (lambda table: table.assign(score=table["score"] + 1), "scores outside 0..1"),
            (lambda table: table.drop(columns="label"), "no column label"),
            (lambda table: table.assign(label="Fracture"), "rows of another label (Fracture)"),
            (lambda table: table.assign(part="both"), "rows that are neither of train nor of test"),
            (lambda table: table.assign(fold=table["fold"] + 3), "folds that are not 0 to"),
            (lambda table: pd.concat([table, table[:1]]), "rows that repeat others"),
            (lambda table: table.assign(fold="0"), "no numbers in fold or score"),
            (lambda table: pd.DataFrame(table.to_dict("list")), "those of another file than scores.csv"),
        ],
    )
    def test_a_spoiled_table_is_refused(self, spoiled, found, workspace):
        run = Run(workspace, "scores")
        table = pd.read_parquet(run.detections("image_scores"))
        other = spoiled(table)
        other.attrs = table.attrs if "another file" not in found else {}
        other.to_parquet(run.detections("image_scores"), index=False)
        with pytest.raises(KitError) as caught:
            read_image_scores(run)
        assert found in caught.value.found
        assert caught.value.do.startswith("restore the file, or delete it: `invoke adopt --run scores")
        run.detections("image_scores").unlink()  # what then follows is above: it was lost

    def test_another_file_under_its_name_is_refused(self, workspace):
        other = workspace / "other.csv"
        other.write_text(scores_of(workspace, seed=5).to_csv(index=False))
        advice = {}
        for name in ("scores", "both", "boxes"):
            with pytest.raises(KitError) as caught:
                adopt_image_scores(Run(workspace, name), other)
            advice[name] = caught.value.do
            ours = name in ("scores", "boxes")  # an ensemble was adopted from no file
            assert (caught.value.found == "another file, or other held-out images") == ours
            assert "--clip" not in caught.value.found
        assert advice["scores"] == advice["both"] == "choose another --run NAME"
        assert "; then `invoke ensemble --run BOTH --of boxes --with NAME`" in advice["boxes"]
        adopt_image_scores(Run(workspace, "more"), other)
        made = ensemble(Run(workspace, "again"), ["boxes"], classifiers=["more", "scores"])
        assert list(made.classifiers) == ["more", "scores"]

    def test_what_needs_boxes_says_why_it_has_none(self, made):
        run = Run(made, "scores")
        with pytest.raises(KitError) as caught:
            require_detector(run)
        assert caught.value.found.startswith("scores of whole images alone")
        assert "`invoke ensemble --run NAME --of DETECTOR --with scores`" in caught.value.do
        require_detector(Run(made, "both"))  # what the advice makes
        with pytest.raises(KitError, match="which is adopted") as caught:
            require_trainable(run)
        assert "`invoke ensemble --run NAME --of DETECTOR --with scores`" in caught.value.do
        with pytest.raises(KitError, match="which is adopted") as caught:
            require_trainable(Run(made, "boxes"))
        assert "`invoke evaluate --run boxes`" in caught.value.do

    def test_a_verb_without_a_run_takes_the_newest_with_detections(self, workspace):
        assert newest_finished(workspace).name == "both"
        (workspace / "last.csv").write_text(scores_of(workspace, 3).to_csv(index=False))
        adopt_image_scores(Run(workspace, "last"), workspace / "last.csv")
        assert newest_finished(workspace).name == "both"

    def test_images_without_a_score_are_counted(self, workspace):
        table = scores_of(workspace)
        lacking = table[~table["image_id"].isin(table["image_id"].unique()[[0, -1]]) & (table["label"] != "Mass")]
        (workspace / "few.csv").write_text(lacking.to_csv(index=False))
        arrival = adopt_image_scores(Run(workspace, "few"), workspace / "few.csv")
        assert (arrival.without, arrival.test_without, arrival.labels_without) == (1, 1, ("Mass",))


class TestAnEnsembleWithAClassifier:
    def test_one_detector_is_enough_and_keeps_its_fusion(self, made):
        run = Run(made, "both")
        assert [member.run for member in read_ensemble(run).members] == ["boxes"]
        assert load(run.config).fusion == load(Run(made, "boxes").config).fusion
        assert set(held_out_scores(run)) == set(scores_of_test(run)) == {"scores"}
        assert held_out_scores(run)["scores"]["image_id"].nunique() == 32
        assert scores_of_test(run)["scores"]["image_id"].nunique() == 8
        assert held_out_scores(Run(made, "boxes")) == {}

    def test_runs_of_the_wrong_kind_say_which_flag_they_belong_to(self, made):
        run = Run(made, "wrong")
        with pytest.raises(KitError, match="scores of whole images alone"):
            ensemble(run, ["scores", "boxes"])
        with pytest.raises(KitError) as caught:
            ensemble(run, ["boxes"], classifiers=["boxes"])
        assert "name it with --of boxes" in caught.value.do
        with pytest.raises(KitError, match=r"nearest: scores"):
            ensemble(run, ["boxes"], classifiers=["score"])
        for of, classifiers in (([], ["scores"]), (["boxes"], []), (["boxes"], ["scores", "scores"])):
            with pytest.raises(KitError):
                ensemble(run, of, classifiers=classifiers)
        assert not run.folder.exists()

    def test_its_name_stays_with_its_members_and_its_classifiers(self, workspace):
        run = Run(workspace, "both")
        ensemble(run, ["boxes"], classifiers=["scores"])
        (workspace / "more.csv").write_text(scores_of(workspace, 3).to_csv(index=False))
        adopt_image_scores(Run(workspace, "more"), workspace / "more.csv")
        with pytest.raises(KitError) as caught:
            ensemble(run, ["boxes"], classifiers=["scores", "more"])
        assert caught.value.found == "an ensemble of boxes (weight 1) with scores"

    def test_an_ensemble_of_an_earlier_version_has_no_classifiers(self, workspace):
        run = Run(workspace, "two")
        adopt(Run(workspace, "boxes2"), workspace / "boxes.csv")
        ensemble(run, ["boxes", "boxes2"])
        content = read_json(run.ensemble, "")
        assert content.pop("classifiers") == {}

    def test_a_fold_index_takes_the_classifiers_folds_cyclically(self):
        table = pd.DataFrame({"fold": [0, 1, 2]})
        assert [scores_by_fold(table, index)["fold"].tolist() for index in range(5)] == [[0], [1], [2], [0], [1]]
        assert len(scores_by_fold(table.iloc[:0], 3)) == 0


@pytest.mark.slow
def test_the_commands_say_what_was_read_and_what_comes_next(evidence_source, tmp_path):
    workspace = copied(evidence_source, tmp_path / "toy")
    said = invoke(
        "adopt", "--run", "new", "--image-scores", workspace / "scores.csv", "--workspace", workspace,
    )  # fmt: skip
    assert "320 image scores, read as probabilities, of 8 labels on 32 held-out and 8 test images" in said.stdout
    assert "cannot be known from its scores" in said.stdout.replace("\n", " ")
    said = invoke("ensemble", "--run", "fresh", "--of", "boxes", "--with", "new", "--workspace", workspace)
    assert "run fresh: an ensemble of boxes, with the image scores of new" in said.stdout
    both = ("--detections", "a.csv", "--image-scores", "b.csv")
    assert_refused(
        invoke("adopt", "--run", "x", *both, "--workspace", workspace),
        "one of --detections FILE and --image-scores",
    )


@pytest.mark.slow
def test_the_recipes_script_writes_scores_that_are_adopted(toy, tmp_path):
    """A module with torchxrayvision's interface stands in its place."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / "image_scores.py", toy],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests" / "support" / "stand_in")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = tmp_path / "scores.csv"
    path.write_text(done.stdout)
    arrival = adopt_image_scores(Run(toy, "padchest"), path, assignments=IDS)
    assert (arrival.images, arrival.test_images, arrival.scale) == (32, 8, "probabilities")
    assert arrival.labels == ("Atelectasis", "Infiltrate", "Mass")
    assert len(arrival.labels_without) == 5
