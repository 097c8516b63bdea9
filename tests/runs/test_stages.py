"""The stages that led to a run's weights, in words and on their way into a manifest."""

import json

import pytest
from toy import second_run

from kit.core.errors import KitError
from kit.detectors.weights_source import ADOPTED, PUBLISHED, RANDOM, RUN, WeightsSource
from kit.importing.record import ImportRecord
from kit.runs.folder import Run, read_stages
from kit.runs.members import stages_of
from kit.runs.stages import DataSet, Stage, Stages, stage_lines

HASH = "0123456789abcdef" * 4
BOXES = ImportRecord("vindr", "boxes", "0.1", {"--size": 1024}, HASH, {"train.csv": HASH}, 9, 0, 7, ())
FIRST = Stage("big", DataSet("boxes", "import", 9, 7, HASH, HASH, BOXES),
              WeightsSource(PUBLISHED, "w.pth", "https://example.org/w.pth", "abcdef0123456789", HASH))  # fmt: skip
OWN = DataSet("the-cup", "kaggle", 3, 4, HASH, HASH)


def second(title):
    return (FIRST, Stage(title, OWN, WeightsSource(RUN, "best.ckpt", sha256=HASH)))


def test_two_stages_have_a_line_each_and_folds_with_the_same_ones_share_them():
    titles = [f"five/fold-{fold}" for fold in range(5)]
    stages = {title: second(title) for title in titles}
    lines = [
        "five (5 folds), stage 1 of 2: run big on boxes (import of vindr): 9 images, 7 boxes, "
        "train.csv 0123456789ab, images 0123456789ab; from published weights https://example.org/w.pth "
        "(revision abcdef012345, SHA-256 0123456789ab)",
        "five (5 folds), stage 2 of 2: run five on the-cup (from Kaggle): 3 images, 4 boxes, "
        "train.csv 0123456789ab, images 0123456789ab; from the checkpoint best.ckpt (SHA-256 0123456789ab)",
    ]
    assert stage_lines(titles, stages) == lines
    apart = stages | {titles[3]: ()}
    assert [line.partition(":")[0] for line in stage_lines(titles, apart)] == [
        "five (4 folds), stage 1 of 2", "five (4 folds), stage 2 of 2", "five",
    ]  # fmt: skip


def test_what_is_not_recorded_is_called_so():
    random = (Stage("new", OWN, WeightsSource(RANDOM)),)
    older = (Stage("before"), Stage("then", OWN, WeightsSource(RUN, "best.ckpt")))
    adopted = (Stage("mine", start=WeightsSource(ADOPTED, "mine.csv", sha256=HASH)),)
    stages = {"new": random, "then": older, "mine": adopted, "empty": ()}
    assert stage_lines([*stages, "unknown"], stages) == [
        "new: the-cup (from Kaggle): 3 images, 4 boxes, train.csv 0123456789ab, images 0123456789ab; "
        "from random weights",
        "then, stage 1 of 2: run before on data not recorded; from weights not recorded",
        "then, stage 2 of 2: run then on the-cup (from Kaggle): 3 images, 4 boxes, train.csv 0123456789ab, "
        "images 0123456789ab; from the checkpoint best.ckpt",
        "mine: data not recorded; from the detections mine.csv (SHA-256 0123456789ab)",
        "empty: not recorded",
        "unknown: not recorded",
    ]
    assert stage_lines([], {}) == []


def test_a_trained_run_an_ensemble_and_adopted_detections_have_their_stages(trained):
    from kit.runs.adoption import adopt
    from kit.runs.ensemble import ensemble

    run = Run(trained, "demo")
    (own,) = read_stages(run).stages
    assert (own.run, own.start) == ("demo", WeightsSource(RANDOM))
    assert (own.data.name, own.data.origin, own.data.images) == ("trained", "synthetic", 32)
    older = second_run(run, "older")
    older.stages.unlink()
    adopted = Run(trained, "adopted")
    adopt(adopted, run.detections("validation"), _held_out(run, trained))
    both = Run(trained, "both")
    ensemble(both, ["demo", "older", "adopted"])
    assert stages_of(both) == {"demo": (own,), "older": ()} | stages_of(adopted)
    (detections,) = stages_of(adopted)["adopted"]
    assert (detections.data, detections.start.kind, detections.start.name) == (None, ADOPTED, "validation.parquet")


def test_a_damaged_record_is_refused_and_a_restored_one_is_read(trained):
    run = Run(trained, "demo")
    whole = run.stages.read_text()
    content = json.loads(whole)
    content["stages"][0]["start"]["kind"] = "magic"
    run.stages.write_text(json.dumps(content))
    with pytest.raises(KitError) as refused:
        read_stages(run)
    assert "magic" in refused.value.found and f"restore {run.stages}" in refused.value.do
    run.stages.write_text(whole)  # the advice
    assert isinstance(read_stages(run), Stages)


def _held_out(run, folder):
    from kit.runs.folder import read_split

    path = folder / "held.txt"
    path.write_text("\n".join(read_split(run).validation))
    return path
