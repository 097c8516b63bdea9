"""What a training starts with is recorded: data set, weights, the stages before; it outlives their workspace."""

import dataclasses
import hashlib
import json
import shutil

import pytest
import torch
from toy import TOY, copied, toy_config

from kit.core.errors import KitError
from kit.core.json_files import fingerprint, write_record
from kit.data.competition import load_training
from kit.data.provenance import record_download
from kit.detectors.networks import DETECTORS
from kit.detectors.weights import weights_source
from kit.detectors.weights_source import FILE, PUBLISHED, RANDOM, RUN, WeightsSource
from kit.importing.record import ImportRecord, record_path
from kit.runs.folder import Run, read_stages
from kit.runs.stages import DataSet, Stage
from kit.training.stages import data_set, record_stages

HASH = "a" * 64


@pytest.fixture(scope="module")
def loaded(toy_source):
    return load_training(toy_source, toy_config())


def started_from(weights, run, data, **model):
    """The stages of a run that starts from these weights."""
    config = toy_config()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=str(weights), **model))
    record_stages(run, config, data)
    return read_stages(run).stages


def saved(path, **content):
    torch.save(content, path)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_second_stage_keeps_the_first_when_its_workspace_is_gone(trained, toy_source, tmp_path):
    first = Run(trained, "demo")
    (own,) = read_stages(first).stages
    data = load_training(trained, toy_config())
    table = hashlib.sha256((trained / "data" / "train.csv").read_bytes()).hexdigest()
    images = fingerprint(sorted(data.pixels.digests.items()))
    assert own.data == DataSet(own.data.name, "synthetic", 32, len(data.annotations), table, images)
    for path in (first.best, first.last):
        assert torch.load(path, weights_only=True)["kit"]["stages"]["stages"][0]["data"]["table_sha256"] == table
    weights = first.best.rename(tmp_path / "copied.ckpt")
    shutil.rmtree(trained)
    run = Run(tmp_path / "second", "then")
    stages = started_from(weights, run, data)
    assert stages[0] == own
    assert (stages[1].run, stages[1].start) == ("then", WeightsSource(RUN, "copied.ckpt", sha256=digest(weights)))
    third = saved(tmp_path / "third.ckpt", kit={"labels": ["a"], "stages": json.loads(run.stages.read_text())})
    assert started_from(third, Run(tmp_path, "third"), data)[:2] == stages


def test_a_checkpoint_of_an_earlier_version_is_a_stage_whose_data_are_not_recorded(loaded, tmp_path):
    older = {"kit": {"labels": ["Mass"], "model": {}, "epoch": 1}}
    homes = {"runs/five/fold-2/best.ckpt": "five/fold-2", "runs/demo/last.ckpt": "demo", "mine.ckpt": "mine.ckpt"}
    for number, (place, name) in enumerate(homes.items()):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        first, own = started_from(saved(path, **older), Run(tmp_path / "work", f"next{number}"), loaded)
        assert first == Stage(name) and own.data.images == 32


@pytest.mark.parametrize("stages", [3, {"stages": 3}, {"stages": [{"run": "a", "data": {}}]}])
def test_stages_that_are_none_are_refused_and_another_file_is_taken(stages, loaded, tmp_path):
    path = saved(tmp_path / "bad.ckpt", kit={"labels": ["Mass"], "stages": stages})
    with pytest.raises(KitError) as refused:
        started_from(path, Run(tmp_path, "run"), loaded)
    assert str(path) in refused.value.expected and "another file" in refused.value.do
    other = saved(tmp_path / "other.pth", weight=torch.zeros(1))  # the advice
    assert started_from(other, Run(tmp_path, "other"), loaded)[-1].start.kind == FILE


def test_the_data_set_is_named_by_its_import_its_download_or_its_folder(toy, loaded):
    assert (data_set(toy, loaded).name, data_set(toy, loaded).origin) == ("toy", "synthetic")
    (toy / "test_truth.csv").unlink()
    assert (data_set(toy, loaded).name, data_set(toy, loaded).origin) == ("toy", "folder")
    record_download(toy / "data", "the-cup", "hand")
    assert (data_set(toy, loaded).name, data_set(toy, loaded).origin) == ("the-cup", "hand")
    record = ImportRecord("coco", "boxes", "1", {"--size": 64}, HASH, {"all.json": HASH}, 32, 0, 9, ("a note",))
    write_record(record_path(toy / "data"), record)
    found = data_set(toy, loaded)
    assert (found.name, found.origin, found.imported) == ("boxes", "import", record)


def test_a_damaged_record_of_the_import_is_refused_until_it_is_deleted(toy, loaded):
    path = record_path(toy / "data")
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(KitError) as refused:
        data_set(toy, loaded)
    assert f"restore {path}, or delete it" in refused.value.do
    path.unlink()  # the advice
    assert data_set(toy, loaded).imported is None


def test_published_weights_have_their_address_and_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    for start, published in (("coco", DETECTORS[name].coco), ("imagenet", DETECTORS[name].imagenet)):
        path = folder / published.url.rpartition("/")[2]
        path.write_bytes(start.encode())
        config = dataclasses.replace(toy_config().model, detector=name, weights=start)
        assert weights_source(config) == WeightsSource(PUBLISHED, path.name, published.url, "", digest(path))
    record = tmp_path / "weights.json"
    known = {"repository": "a/b", "file": "model.safetensors", "revision": "c" * 40, "sha256": HASH}
    record.write_text(json.dumps(known))
    config = dataclasses.replace(config, detector="dfine", size="s", weights="coco")
    page = "https://huggingface.co/a/b"
    assert weights_source(config, record) == WeightsSource(PUBLISHED, "model.safetensors", page, "c" * 40, HASH)
    assert weights_source(dataclasses.replace(config, size="tiny"), record) == WeightsSource(RANDOM)


@pytest.mark.slow
def test_weights_of_timm_have_their_page_and_what_the_cache_knows(tmp_path, monkeypatch):
    pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    config = dataclasses.replace(
        toy_config().model, detector="fcos_timm", backbone="efficientnet_lite0", weights="imagenet"
    )
    page = "https://huggingface.co/timm/efficientnet_lite0.ra_in1k"
    assert weights_source(config) == WeightsSource(PUBLISHED, "efficientnet_lite0", page)
    home = tmp_path / "models--timm--efficientnet_lite0.ra_in1k"
    file = home / "snapshots" / "abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    assert weights_source(config) == WeightsSource(PUBLISHED, "efficientnet_lite0", page, "abc", digest(file))


@pytest.mark.slow
def test_a_submission_says_which_data_its_two_stages_and_its_folds_were_trained_on(
    trained, tmp_path, caplog, undrawn
):
    from kit.evaluation.predict import predict
    from kit.evaluation.submission_view import view_submission
    from kit.submission.folders import read_submissions
    from kit.submission.preview import trained_on_lines
    from kit.training.train import train

    weights = f"model.weights={Run(trained, 'demo').best}"
    work = copied(trained, tmp_path / "work")
    table = work / "data" / "train.csv"
    table.write_text(table.read_text().replace("Nodule", "Lump"))
    shutil.rmtree(work / "runs")
    caplog.set_level("INFO", "kit")
    knobs = (*TOY, "training.max_epochs=1", weights)
    seen = ("seen-held-out-images",)  # both stages have the same images
    run = train(work, "second", "demo", (*knobs, "data.folds=2"), allow=seen).run
    said = next(text for text in caplog.messages if text.startswith("class rows"))
    assert said.startswith("class rows copied by label: Atelectasis, ") and said.endswith("; at random: Lump")
    shutil.rmtree(trained)
    again = train(work, "second", "demo", (*knobs, "data.folds=2"))
    assert again.already and not caplog.messages[-1].startswith("run second")
    with pytest.raises(KitError) as refused:
        train(work, "second", None, ("model.weights=none",))
    assert refused.value.found == f"{weights.replace('=', ': ')} -> none" and "another --run" in refused.value.do
    predict(run)
    (submission,) = read_submissions(work / "submissions")
    stages = submission.origin.stages
    assert list(stages) == list(submission.origin.weights) == ["second/fold-0", "second/fold-1"]
    assert [stage.run for stage in stages["second/fold-1"]] == ["demo", "second/fold-1"]
    hashes = [stage.data.table_sha256 for stage in stages["second/fold-0"]]
    assert hashes[1] == digest(table) != hashes[0]
    lines = trained_on_lines(submission)
    assert [line.partition(": ")[0] for line in lines] == [f"second (2 folds), stage {n} of 2" for n in (1, 2)]
    assert hashes[0][:12] in lines[0] and "from random weights" in lines[0]
    (page, *_) = view_submission(work, submission)
    assert f"train.csv {hashes[0][:12]}" in page.read_text(encoding="utf-8")
