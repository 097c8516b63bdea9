"""The page of a submission: the boxes that are sent, the runners-up, the doubt, and why there may be none."""

import json
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
from made_up_view import read_block
from toy import copied

from kit.core.errors import KitError
from kit.evaluation.predict import predict
from kit.evaluation.run_view import view_run
from kit.evaluation.submission_view import DOUBT, OF_FOLDS, OF_VIEWS, doubt, view_submission
from kit.runs.adoption import adopt
from kit.runs.folder import Run
from kit.submission.folders import read_submissions
from kit.submission.preview import choose_outgoing, file_by_hand, numbered
from kit.tasks import submissions


@pytest.fixture(scope="module")
def predicted_source(evaluated_source, tmp_path_factory):
    workspace = copied(evaluated_source, tmp_path_factory.mktemp("predicted") / "toy")
    predict(Run(workspace, "demo"), "first <try>")
    return workspace


@pytest.fixture
def predicted(predicted_source, tmp_path):
    return copied(predicted_source, tmp_path / "toy")


def page_of(workspace, number=1):
    (path,) = view_submission(workspace, numbered(workspace, number))
    return path, read_block(path)


def test_the_page_has_the_boxes_of_the_csv_and_the_candidates_they_were_chosen_from(predicted):
    path, content = page_of(predicted)
    (submission,) = read_submissions(predicted / "submissions")
    assert path == submission.folder / "view.html"
    sent = pd.read_csv(submission.csv).set_index("image_id")
    assert {image["name"] for image in content["images"]} == set(sent.index)
    assert content["orders"][0] == DOUBT
    assert OF_VIEWS in content["orders"]
    doubts = [image["orders"][0] for image in content["images"]]
    assert doubts == sorted(doubts, reverse=True)
    for image in content["images"]:
        side, row = image["sides"][0], sent.loc[image["name"]]
        ((*box, label, score),) = side["one"]
        assert box == pytest.approx([row.x_min, row.y_min, row.x_max, row.y_max], abs=0.051)
        assert content["labels"][label] == row.label
        assert score == pytest.approx(row.confidence * 10_000, abs=1)
        assert side["right"] is None
        assert image["truth"] == []
        assert side["prior"] == (side["many"] == [])
        assert image["orders"][0] == 1 or not side["prior"]
    assert "No runners-up" not in path.read_text(encoding="utf-8")
    assert "“first &lt;try&gt;”" in path.read_text(encoding="utf-8")
    stages = json.loads((submission.folder / "manifest.json").read_text())["origin"]["stages"]
    (stage,) = stages["demo"]
    data = f"32 images, {stage['data']['boxes']} boxes, train.csv {stage['data']['table_sha256'][:12]}"
    assert f"Trained on: demo: trained (synthetic): {data}" in path.read_text(encoding="utf-8")


def test_its_patients_are_those_of_groups_csv(predicted):
    _, before = page_of(predicted)
    names = sorted(image["name"] for image in before["images"])[:2]
    (predicted / "data" / "groups.csv").write_text("image_id,group\n" + "".join(f"{name},one\n" for name in names))
    _, content = page_of(predicted)
    assert sorted(image["name"] for image in content["images"] if image["patient"] == "one") == names


def test_without_its_run_or_its_detections_the_page_says_why_it_has_no_runners_up(predicted):
    run = Run(predicted, "demo")
    run.detections("test").unlink()
    path, content = page_of(predicted)
    assert "No runners-up are shown: run demo has no stored detections" in path.read_text(encoding="utf-8")
    assert all(image["sides"][0]["many"] == [] for image in content["images"])
    shutil.rmtree(run.folder)
    path, content = page_of(predicted)
    assert "No runners-up are shown: its run demo is gone" in path.read_text(encoding="utf-8")
    assert content["orders"] == ["doubt", "confidence of the answer"]


def test_a_submission_made_by_hand_has_a_page_too(predicted, tmp_path):
    table = pd.read_csv(numbered(predicted, 1).csv)
    table.assign(confidence=0.5).to_csv(tmp_path / "mine.csv", index=False)
    file_by_hand(predicted, tmp_path / "mine.csv", None)
    path, content = page_of(predicted, 2)
    assert "Trained on: not recorded: it was made by hand." in path.read_text(encoding="utf-8")
    assert {image["orders"][0] for image in content["images"]} == {0.5}


def test_a_run_that_answers_otherwise_by_now_lends_no_runners_up(predicted, tmp_path):
    table = pd.read_parquet(Run(predicted, "demo").detections("test"))
    assert len(table)
    table.assign(x_max=table["x_max"] * 0.9 + table["x_min"] * 0.1).to_parquet(
        Run(predicted, "demo").detections("test"), index=False
    )
    path, _ = page_of(predicted)
    assert "run demo answers otherwise by now" in path.read_text(encoding="utf-8")


def test_detections_on_images_that_no_id_asks_for_are_no_strangers_to_the_page(evaluated):
    mapping = evaluated / "data" / "ID_to_Image_Mapping.csv"
    table = pd.read_csv(mapping)
    unasked, table.loc[0, "image_id"] = table.loc[0, "image_id"], table.loc[1, "image_id"]
    boxes = pd.concat(
        [pd.read_csv(evaluated / name).assign(score=0.5) for name in ("data/train.csv", "test_truth.csv")]
    )
    boxes.to_csv(evaluated / "theirs.csv", index=False)
    table.to_csv(mapping, index=False)
    assert unasked in set(boxes["image_id"])
    run = Run(evaluated, "theirs")
    adopt(run, evaluated / "theirs.csv", None, (f"competition.expected_ids={len(table)}",))
    predict(run)
    path, content = page_of(evaluated)
    assert {image["name"] for image in content["images"]} == set(table["image_id"])
    assert "No runners-up" not in path.read_text(encoding="utf-8")


def test_an_edited_csv_is_refused_until_it_is_restored(predicted):
    submission = numbered(predicted, 1)
    whole = submission.csv.read_text()
    submission.csv.write_text(whole + "\n")
    with pytest.raises(KitError, match="as it was filed") as caught:
        view_submission(predicted, submission)
    assert "restore it from a copy" in caught.value.do
    submission.csv.write_text(whole)
    view_submission(predicted, submission)


@pytest.mark.parametrize("yes", [False, True])
def test_submit_makes_the_page_and_names_it_before_it_asks(yes, predicted, monkeypatch, capsys):
    said = []
    monkeypatch.setattr(submissions, "confirm", lambda question, yes: said.append(capsys.readouterr().out))
    monkeypatch.setattr("kit.submission.upload.send", lambda *sent: "attempt")
    monkeypatch.setattr("kit.submission.upload.limit_text", lambda limits: "two")
    plan = SimpleNamespace(outgoing=choose_outgoing(predicted, 1, "try", lambda run: None), limits=None)
    assert submissions._confirm_and_send(None, plan, None, yes, predicted, None) == "attempt"
    page = plan.outgoing.submission.folder / "view.html"
    assert page.exists() == (not yes)
    told = f"`invoke view --submission 1 --workspace {predicted}`" if yes else str(page)
    assert told in said[0]


def test_the_doubt_is_the_ratio_of_the_first_value_that_is_not_sent_to_the_last_that_is():
    answers = pd.DataFrame({"image_id": ["a", "b", "c", "twice", "twice"], "score": [0.9, 0.2, 0.1, 0.8, 0.6]})
    candidates = pd.DataFrame({
        "image_id": ["a", "a", "b", "twice", "twice", "twice"], "value": [0.45, 0.9, 0.2, 0.8, 0.3, 0.6],
    })  # fmt: skip
    found = doubt(answers, candidates, frozenset({"c"}))
    assert found == pytest.approx({"a": 0.45 / 0.9, "b": 0, "c": 1, "twice": 0.3 / 0.6})
    without = doubt(answers, candidates[:0], frozenset())
    assert without == pytest.approx({"a": 0.1, "b": 0.8, "c": 0.9, "twice": 0.4})


@pytest.mark.slow
def test_several_folds_are_a_filter_of_the_run_and_disagree_about_the_test(folded):
    run = Run(folded, "folds")
    (path,) = view_run(run)
    assert {image["fold"] for image in read_block(path)["images"]} == {0, 1, 2}
    predict(run)
    _, content = page_of(folded)
    assert OF_FOLDS in content["orders"]
    assert any(image["sides"][0]["many"] for image in content["images"])


@pytest.mark.slow
def test_an_image_with_two_ids_has_two_answers(evaluated):
    mapping = evaluated / "data" / "ID_to_Image_Mapping.csv"
    table = pd.read_csv(mapping)
    table.loc[1, "image_id"] = twice = table.loc[0, "image_id"]
    table.to_csv(mapping, index=False)
    run = Run(evaluated, "demo")
    (path,) = view_run(run)  # as many answers as true boxes
    images = read_block(path)["images"]
    assert all(len(image["sides"][0]["one"] or []) == len(image["truth"]) for image in images)
    predict(run)
    _, content = page_of(evaluated)
    assert {image["name"]: len(image["sides"][0]["one"]) for image in content["images"]}[twice] == 2
