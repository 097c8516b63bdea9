"""The page of a run, and of two: what Python writes into it, and what is refused."""

import json
import math

import pandas as pd
import pytest
from box_tables import detected, truth_of
from made_up_view import read_block
from toy import second_run

from kit.core.errors import KitError
from kit.evaluation.run_view import COST, answered_right, disagreement, view_run, view_two_runs
from kit.metrics.error_analysis import CAUSES, detection_causes
from kit.runs.folder import Run, read_split

pytestmark = pytest.mark.usefixtures("undrawn")

BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)


@pytest.fixture(scope="module")
def page(evaluated_source, tmp_path_factory):
    from toy import copied

    run = Run(copied(evaluated_source, tmp_path_factory.mktemp("viewed") / "toy"), "demo")
    (path,) = view_run(run)
    return run, path, read_block(path)


def test_the_page_has_the_counts_and_the_scores_of_the_report(page):
    run, path, content = page
    report = json.loads(run.report.read_text())
    assert path == run.folder / "view.html"
    assert len(content["images"]) == report["images"]["validation"]
    assert sum(len(image["truth"]) for image in content["images"]) == report["images"]["boxes"]
    for kind, losses in (("one", "one_box"), ("many", "many_box")):
        rows = [row for image in content["images"] for row in image["sides"][0][kind] or []]
        assert sum(row[6] == 0 for row in rows) == report["losses"][losses]["found"]
        for number, cause in enumerate(CAUSES[:-1], start=1):
            assert sum(row[6] == number for row in rows) == report["losses"][losses]["causes"][cause]["count"]
        scores = content["sides"][0]["scores"][kind]
        assert scores["map50"][0] == pytest.approx(report[losses]["map50"], abs=1e-4)
        for label, of in report["per_class"].items():
            ap = of["ap50" if kind == "many" else "one_box_ap50"]
            if ap is not None:
                assert scores["classes"][label]["ap50"][0] == pytest.approx(ap, abs=1e-4)


def test_images_come_by_their_cost_with_patient_and_fold(page):
    run, _, content = page
    costs = [image["orders"][content["orders"].index(COST)] for image in content["images"]]
    known = [cost for cost in costs if cost is not None]
    assert known == sorted(known, reverse=True)
    assert {image["fold"] for image in content["images"]} == {0}
    assert {image["name"] for image in content["images"]} == set(read_split(run).validation)
    assert all(image["name"].startswith(image["patient"]) for image in content["images"])
    answered = [image for image in content["images"] if image["sides"][0]["one"] is not None]
    assert all(len(image["truth"]) == 1 for image in answered)
    for image in answered:
        assert image["sides"][0]["right"] == (image["sides"][0]["one"][0][6] == 0)


@pytest.mark.slow
def test_two_runs_stand_side_by_side_and_what_one_gained_the_other_lost(evaluated):
    demo = Run(evaluated, "demo")
    half = second_run(demo, "half")
    stored = half.detections("validation")
    pd.read_parquet(stored).iloc[::2].to_parquet(stored, index=False)
    (path,) = view_two_runs(demo, half)
    content = read_block(path)
    assert path == evaluated / "comparisons" / "demo-vs-half" / "view.html"
    assert [side["name"] for side in content["sides"]] == ["demo", "half"]
    assert {image["name"] for image in content["images"]} == set(read_split(demo).validation)
    gained = [image["orders"][:2] for image in content["images"] if image["orders"][0] is not None]
    assert gained
    assert all(math.isclose(first, -second) for first, second in gained)


def test_a_run_is_not_shown_beside_itself(evaluated):
    with pytest.raises(KitError, match="two different runs"):
        view_two_runs(Run(evaluated, "demo"), Run(evaluated, "demo"))


def test_sources_that_agree_have_no_disagreement():
    table = pd.DataFrame({
        "image_id": ["a", "a", "b", "c"], "score": [0.9, 0.1, 0.5, 0.0], "agreement": [1.0, 0.5, 1.0, 0.25],
    })  # fmt: skip
    # a: (.9 * 0 + .1 * .5) / 1; c's only candidate counts although its score is 0.
    assert disagreement(table) == pytest.approx({"a": 0.05, "b": 0, "c": 0.75})
    assert disagreement(table[:0]) == {}


def test_an_image_is_right_if_its_answers_are_hits_or_its_best_candidates():
    truth = truth_of(
        ("one", BOX, "x"), ("two", BOX, "x"), ("two", FAR, "x"), ("lost", BOX, "x"), ("lost", FAR, "x")
    )
    answers = detected(("one", BOX, 0.5, "y"))
    # The best candidate of "one" is a hit, but its answer is not; "two" has two hits before a false one.
    many = detected(
        ("one", BOX, 0.9, "x"), ("two", BOX, 0.9, "x"), ("two", FAR, 0.8, "x"), ("two", BOX, 0.7, "y"),
        ("lost", BOX, 0.9, "x"), ("lost", BOX, 0.8, "y"), ("lost", FAR, 0.7, "x"), ("none", BOX, 0.9, "x"),
    )  # fmt: skip
    names = ["one", "two", "lost", "none"]
    one_truth = truth[truth["image_id"] == "one"].reset_index(drop=True)
    found = answered_right(
        answers, detection_causes(one_truth, answers, ["one"]), many, detection_causes(truth, many, names), truth
    )
    assert found == {"one": False, "two": True, "lost": False}


@pytest.mark.slow
def test_a_run_that_found_nothing_is_answered_by_the_prior(evaluated):
    run = Run(evaluated, "demo")
    stored = run.detections("validation")
    pd.read_parquet(stored)[:0].to_parquet(stored, index=False)
    (path,) = view_run(run)
    sides = [image["sides"][0] for image in read_block(path)["images"]]
    assert all(side["many"] == [] for side in sides)
    assert all(side["prior"] == bool(side["one"]) for side in sides)
