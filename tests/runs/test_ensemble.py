"""Ensembles: runs made of runs, judged on what every member held out, and never on stale copies."""

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
from made_up_view import read_block
from PIL import Image
from toy import TOY_TEST_IMAGES, copied

from kit.boxes.geometry import CORNERS
from kit.config import FusionConfig, load, override, save
from kit.core.errors import KitError
from kit.data.competition import TrainingData, load_test, load_training
from kit.evaluation.predict import predict
from kit.evaluation.report import current_report, evaluate
from kit.evaluation.run_view import OF_RUNS, view_run
from kit.evaluation.submission_view import view_submission
from kit.reports.audit_report import audit_workspace
from kit.runs.detections import read_detections
from kit.runs.ensemble import ensemble, refresh
from kit.runs.folder import Run, newest_finished, read_finished, read_split
from kit.runs.knobs import adjust
from kit.runs.members import Member, by_fold, fused, members, read_ensemble
from kit.runs.out_of_fold import detections
from kit.training.train import train

pytestmark = pytest.mark.usefixtures("undrawn")

LEFT, NEAR_LEFT, RIGHT = (0, 0, 10, 10), (0, 0, 10, 8), (20, 20, 30, 30)


@pytest.fixture
def both(folded_source, trained_source, tmp_path):
    """A workspace with 'folds' (three folds) and 'demo' (a single split) of the same data."""
    workspace = copied(folded_source, tmp_path / "both")
    shutil.copytree(trained_source / "runs" / "demo", workspace / "runs" / "demo")
    return workspace


@pytest.fixture
def run(both):
    run = Run(both, "together")
    ensemble(run, ("folds", "demo"), (2.0, 1.0))
    return run


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def rows(*found):
    """Rows of (run, fold, box, score); one image, one view, one class."""
    return pd.DataFrame(
        [(run, fold, "plain", "1.png", *box, score, "Mass") for run, fold, box, score in found],
        columns=["run", "fold", "view", "image_id", *CORNERS, "score", "label"],
    )


class TestMade:
    def test_each_image_is_judged_by_weights_that_never_saw_it(self, run):
        table = read_detections(run.detections("validation"))
        split = read_split(run)
        assert set(split.validation) == set(read_split(Run(run.workspace, "demo")).validation)
        assert set(table["image_id"]) <= set(split.validation)
        for name, part in table.groupby("run"):
            held = read_split(Run(run.workspace, name)).fold_of
            assert (part["image_id"].map(held) == part["fold"]).all()
        assert set(table["run"]) == {"demo", "folds"}

    def test_it_knows_its_members_their_weights_and_their_hashes(self, run):
        made = read_ensemble(run)
        views = ("plain", "flip", "zoom_out")
        assert made.members == (Member("folds", views, 2.0, 3), Member("demo", views, 1.0, 1)) == members(run)
        assert set(made.weights) == {"folds/fold-0", "folds/fold-1", "folds/fold-2", "demo"}
        assert read_finished(run).weights == made.weights
        assert newest_finished(run.workspace) == run
        assert (load(run.config).fusion.method, load(run.config).fusion.iou) == ("wbf", 0.4)  # the first member's

    def test_a_first_member_that_suppresses_gives_way_to_weighted_boxes_fusion(self, both):
        adjust(Run(both, "folds"), ("fusion.method=suppress",))
        ensemble(Run(both, "together"), ("folds", "demo"), (), ("decision.threshold=0.1",))
        config = load(Run(both, "together").config)
        assert (config.fusion.method, config.fusion.iou, config.decision.threshold) == ("wbf", 0.55, 0.1)

    def test_auto_starts_from_the_fusion_that_the_ensemble_would_have(self, both):
        auto = ("fusion.method=auto", "fusion.iou=auto")
        ensemble(Run(both, "open"), ("folds", "demo"), (2.0, 1.0), auto)
        assert load(Run(both, "open").config).fusion.usual == FusionConfig("wbf", 0.4, 0.0, "wbf", 0.4)
        adjust(Run(both, "folds"), ("fusion.method=suppress", *auto))  # its usual fusion ignores weights
        adjust(Run(both, "folds"), ("fusion.usual_method=suppress",))
        ensemble(Run(both, "opener"), ("folds", "demo"), (2.0, 1.0))
        found = load(Run(both, "opener").config).fusion
        assert (found.method, found.usual.method, found.usual.iou) == ("auto", "wbf", 0.55)
        with pytest.raises(KitError, match=r"fusion\.usual_method=suppress") as refused:
            ensemble(Run(both, "closed"), ("folds", "demo"), (2.0, 1.0), ("fusion.usual_method=suppress",))
        assert "--set fusion.method=wbf" in refused.value.do
        ensemble(Run(both, "closed"), ("folds", "demo"), (2.0, 1.0), ("fusion.method=wbf",))

    def test_the_same_again_changes_nothing(self, run):
        before = files(run.folder)
        ensemble(run, ("folds", "demo"), (2.0, 1.0))
        refresh(run)
        after = files(run.folder)
        assert {path for path in after if after[path] != before[path]} <= {run.config}

    def test_a_member_that_inverts_the_listed_images_sees_them_inverted(self, run, caplog):
        workspace, demo = run.workspace, Run(run.workspace, "demo")
        path = sorted((workspace / "data" / "test").iterdir())[0]
        Image.fromarray(255 - np.asarray(Image.open(path).convert("L"))).save(path)
        save(override(load(demo.config), ["data.invert=listed"]), demo.config)
        audit_workspace(workspace, load(run.config))
        detections(run, load_test(workspace, load(run.config)))
        caplog.set_level(logging.INFO, "kit")
        detections(demo, load_test(workspace, load(demo.config)))  # they are stored: nothing is detected again
        assert "detecting again" not in caplog.text

    @pytest.mark.slow
    def test_evaluate_and_predict_take_it_like_any_other_run(self, run):
        report = evaluate(run)
        assert report.many_box.images == len(read_split(Run(run.workspace, "demo")).validation)
        assert report.training == ()
        assert [member.weight for member in report.members] == [2.0, 1.0]
        page = (run.folder / "report.html").read_text()
        assert "demo (plain, flip, zoom_out; weight 1)" in page
        submission = predict(run, "both")
        table = read_detections(run.detections("test"))
        assert table.groupby("run")["fold"].unique().map(sorted).to_dict() == {"demo": [0], "folds": [0, 1, 2]}
        assert len(pd.read_csv(submission.csv)) == TOY_TEST_IMAGES
        assert len(json.loads((submission.folder / "manifest.json").read_text())["origin"]["weights"]) == 4
        pages = [*view_run(run), *view_submission(run.workspace, submission)]
        for page in pages:
            assert {OF_RUNS} == {order for order in read_block(page)["orders"] if order.startswith("disagreement")}


class TestWhatChanged:
    def test_detections_of_a_member_that_changed_are_taken_over(self, run, caplog):
        caplog.set_level(logging.INFO, "kit")
        member = Run(run.workspace, "demo").detections("validation")
        few = read_detections(member).groupby("image_id").head(1)
        few.to_parquet(member, index=False)
        refresh(run)
        assert "updated from folds, demo" in caplog.text
        table = read_detections(run.detections("validation"))
        assert (table["run"] == "demo").sum() == len(few)

    def test_a_table_that_was_put_in_place_of_the_ensembles_is_not_believed(self, run):
        path = run.detections("validation")
        before, table = path.read_bytes(), read_detections(path).assign(score=0.5)
        table.attrs = {}
        table.to_parquet(path, index=False)
        refresh(run)
        assert path.read_bytes() == before

    @pytest.mark.slow
    def test_a_report_is_made_anew_where_a_member_changed(self, run):
        before = evaluate(run)
        member = Run(run.workspace, "demo").detections("validation")
        read_detections(member).iloc[:5].to_parquet(member, index=False)
        assert current_report(run).detections_sha256 != before.detections_sha256

    def test_a_member_that_is_gone_is_an_error_that_names_it(self, run):
        shutil.rmtree(run.workspace / "runs" / "demo")
        for use in (lambda: evaluate(run), lambda: predict(run)):
            with pytest.raises(KitError, match="'demo', of which the ensemble 'together' is made"):
                use()

    def test_a_mistyped_member_has_the_nearest_names(self, both):
        with pytest.raises(KitError, match="'foldds', of which the ensemble") as caught:
            ensemble(Run(both, "together"), ("demo", "foldds"))
        assert caught.value.do.startswith("nearest: folds;")
        assert not Run(both, "together").folder.exists()
        ensemble(Run(both, "together"), ("demo", "folds"))  # as advised

    def test_lost_detections_of_a_member_say_how_to_make_them_anew(self, run):
        Run(run.workspace, "folds").detections("validation").unlink()
        with pytest.raises(KitError, match="invoke train --run folds"):
            evaluate(run)

    def test_lost_files_of_the_ensemble_are_made_anew(self, run):
        before = read_detections(run.detections("validation"))
        run.detections("validation").unlink()
        run.finished.unlink()
        data = load_training(run.workspace, load(run.config))
        assert detections(run, data).equals(before)
        assert run.finished.exists()


class TestRefused:
    def test_other_images_are_named(self, both):
        path = Run(both, "demo").split
        content = json.loads(path.read_text())
        learned = next(name for name in content["images"] if name not in content["folds"][0])
        content["images"].remove(learned)
        path.write_text(json.dumps(content | {"table_sha256": "f" * 64}))
        with pytest.raises(KitError) as caught:
            ensemble(Run(both, "together"), ("folds", "demo"))
        assert f"1 images that only 'folds' has ({learned})" in caught.value.found
        assert "train.csv" in caught.value.found
        assert not Run(both, "together").config.exists()

    def test_an_ensemble_in_an_ensemble_names_its_members(self, run):
        with pytest.raises(KitError, match="--of folds --of demo"):
            ensemble(Run(run.workspace, "more"), ("together", "demo"))

    @pytest.mark.parametrize(
        ("of", "weights", "said"),
        [
            ((), (), "two runs or more"),
            (("demo",), (), "two runs or more"),
            (("demo", "demo"), (), "each once"),
            (("demo", "together"), (), "--run together, which is among them"),
            (("demo", "folds"), (1.0,), "for each of the 2 runs"),
            (("demo", "folds"), (1.0, 0.0), "above 0"),
            (("demo", "folds"), (1.0, float("nan")), "above 0"),
            (("demo", "fold"), (), "no such run"),
        ],
    )
    def test_members_are_two_finished_runs_with_a_weight_each(self, of, weights, said, both):
        with pytest.raises(KitError, match=said):
            ensemble(Run(both, "together"), of, weights)

    def test_a_name_that_is_taken_says_by_what(self, run):
        with pytest.raises(KitError, match=r"an ensemble of folds \(weight 2\), demo \(weight 1\)"):
            ensemble(run, ("folds", "demo"), (1.0, 1.0))
        with pytest.raises(KitError, match="'demo' that is no ensemble"):
            ensemble(Run(run.workspace, "demo"), ("folds", "together"))

    def test_weights_are_refused_where_they_would_not_act(self, both, run):
        suppress = ("fusion.method=suppress",)
        with pytest.raises(KitError, match="in which alone the members' weights act"):
            ensemble(Run(both, "other"), ("folds", "demo"), (2.0, 1.0), suppress)
        assert not Run(both, "other").config.exists()
        ensemble(Run(both, "equal"), ("folds", "demo"), (2.0, 2.0), suppress)
        with pytest.raises(KitError, match=r"fusion\.method=suppress"):
            adjust(run, suppress)
            evaluate(run)

    def test_knobs_of_the_training_are_no_ensembles_business(self, both):
        with pytest.raises(KitError, match=r"training\.seed"):
            ensemble(Run(both, "together"), ("folds", "demo"), (), ("training.seed=1",))

    def test_there_is_nothing_to_train(self, run):
        with pytest.raises(KitError, match="'together', which is an ensemble"):
            train(run.workspace, "together")


class TestFusedByFold:
    def test_a_single_split_stands_in_every_fold(self):
        of = [Member("five", ("plain",), folds=2), Member("single", ("plain",))]
        table = rows(("five", 0, LEFT, 0.6), ("five", 1, RIGHT, 0.8), ("single", 0, NEAR_LEFT, 0.3))
        first, second = by_fold(table, of)
        assert list(first["score"]) == [0.6, 0.3]
        assert list(second["score"]) == [0.8, 0.3]
        assert [len(part) for part in by_fold(rows(), of)] == [0, 0]

    def test_weights_act_in_weighted_boxes_fusion(self):
        of = [Member("a", ("plain",), 3.0), Member("b", ("plain",))]
        wbf = FusionConfig(method="wbf", iou=0.5)
        # (3 x .6 + 1 x .2) / 2 members, times 2 / (3 + 1); the box leans to a by 1.8 to .2.
        found = fused(rows(("a", 0, LEFT, 0.6), ("b", 0, NEAR_LEFT, 0.2)), of, wbf)
        assert found["score"].tolist() == pytest.approx([(3 * 0.6 + 0.2) / 4])
        assert found["y_max"].tolist() == pytest.approx([(1.8 * 10 + 0.2 * 8) / 2], abs=1e-5)
        assert len(fused(rows(), of, wbf)) == 0

    def test_refused_weights_act_in_each_fusion_that_the_refusal_names(self):
        of = [Member("a", ("plain",), 3.0), Member("b", ("plain",))]
        table = rows(("a", 0, LEFT, 0.6), ("b", 0, NEAR_LEFT, 0.2))
        with pytest.raises(KitError) as refused:
            fused(table, of, FusionConfig(method="suppress", iou=0.5))
        for method, score in (("wbf", 0.5), ("wbf_sum", 0.5), ("wbf_or", 1 - 0.4**3 * 0.8)):
            assert method in refused.value.expected
            found = fused(table, of, FusionConfig(method=method, iou=0.5))
            assert found["score"].tolist() == pytest.approx([score])

    @pytest.mark.parametrize("wrong", [{"views": ()}, {"weight": 0.0}, {"folds": 0}])
    def test_a_member_has_views_a_weight_and_folds(self, wrong):
        with pytest.raises(ValueError, match="a member has"):
            Member(**{"run": "a", "views": ("plain",)} | wrong)


@pytest.mark.slow
def test_test_detections_are_those_of_all_members(run):
    data = load_test(run.workspace, load(run.config))
    table = detections(run, data)
    parts = [detections(Run(run.workspace, name), data) for name in ("folds", "demo")]
    assert len(table) == sum(map(len, parts)) > 0
    assert TrainingData.detections_name != data.detections_name
