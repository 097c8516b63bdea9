"""What is sent is meant for Kaggle's machine; what cannot work there is refused before anything is sent."""

import base64
import hashlib
import io
import json
import re
import time
import zipfile

import pytest
import torch
from command_line import PATIENCE_SECONDS
from hypothesis import given
from hypothesis import strategies as st

from kit.config import PRESETS, Config, load, override, preset, save
from kit.core.errors import KitError
from kit.detector_names import SET_DETECTORS
from kit.detectors.networks import DETECTORS
from kit.detectors.set_detectors import read_family
from kit.kaggle.kernels.machine import MACHINES, available_weights, machine_knobs, require_machine, usable_gpus
from kit.kaggle.kernels.push import PushPlan, plan_push, script
from kit.kaggle.kernels.push_log import Push, record_arrived
from kit.kaggle.kernels.session import _Steps, run_session
from kit.runs.folder import Run
from kit.schemas.csv_text import TableError
from kit.training.schedule import accumulation

OF_THIS_MACHINE = ("trainer.accelerator=cpu", "trainer.devices=1", "data.workers=0", "data.cache_max_gib=1.5",
                   "inference.batch_size=1")  # fmt: skip


def stored_run(workspace, *knobs, folds=1, trained=0):
    """A run of the preset demo as a local training left it, with checkpoints of its first ``trained`` folds."""
    run = Run(workspace, "mine")
    config = override(preset("demo"), ["model.norm=batch", "model.norm_eps=1e-5", f"data.folds={folds}", *knobs])
    run.folder.mkdir(parents=True)
    save(config, run.config)
    for fold in run.in_folds(folds)[:trained]:
        fold.home.mkdir(exist_ok=True)
        fold.last.write_text("state")
    return run


def planned(workspace, *knobs, preset_name="demo", folds=None) -> PushPlan:
    return plan_push(workspace, "mine", preset_name, knobs, folds)


def advice(workspace, *knobs, says="", **options):
    """The parts KEY=VALUE of the advice of a push that is refused."""
    with pytest.raises(KitError, match=says) as error:
        planned(workspace, *knobs, **options)
    return re.findall(r"--set ([\w.]+=\w+)", error.value.do)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_that_kaggle_has_is_pushed_to(machine, tmp_path):
    assert f"machine:     {machine}, on " in "\n".join(planned(tmp_path, f"kernel.machine={machine}").lines(None))


@pytest.mark.parametrize(
    "machine", ["NvidiaTeslaP100", "TpuV38", "TpuV232", "TpuV5E8", "T4x2", "nvidiateslat4", "cpu"]
)
def test_a_machine_that_is_retired_or_unknown_is_refused_and_the_advice_works(machine, tmp_path):
    wrong = f"kernel.machine={machine}"
    (better,) = advice(tmp_path, wrong, says="among NvidiaTeslaT4")
    planned(tmp_path, wrong, better)


def test_a_stored_run_keeps_its_old_machine_until_it_is_pushed(tmp_path):
    run = stored_run(tmp_path, "kernel.machine=NvidiaTeslaP100")
    assert load(run.config).kernel.machine == "NvidiaTeslaP100"
    (better,) = advice(tmp_path, says="NvidiaTeslaP100", preset_name=None)
    assert planned(tmp_path, better, preset_name=None).config.kernel.machine == "NvidiaTeslaT4"


def test_knobs_that_describe_this_machine_are_not_sent_and_the_preview_names_them(tmp_path):
    stored_run(tmp_path, *OF_THIS_MACHINE)
    plan = planned(tmp_path, preset_name=None)
    assert {key: plan.config.get(key) for key in machine_knobs()} == {
        key: Config().get(key) for key in machine_knobs()
    }
    assert set(plan.kept) == set(OF_THIS_MACHINE)
    assert "not sent:    " in "\n".join(plan.lines(None))
    text = script(plan, "abcd").split('"""')[3]
    assert json.loads(text.removeprefix("\n"))["trainer"] == {"accelerator": "auto", "devices": -1, "nodes": 1}


def test_the_groups_of_this_workspace_are_sent_along_and_the_preview_says_so(tmp_path):
    assert "groups" not in "\n".join(planned(tmp_path).lines(None))
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "groups.csv"
    path.write_text("image_id,group\na.png,1\n")
    plan = planned(tmp_path)
    (line,) = [line for line in plan.lines(None) if "groups.csv" in line]
    assert line == f"data set:    {path} (0.0 MiB), private; it is uploaded"
    assert f'"groups": "{hashlib.sha256(path.read_bytes()).hexdigest()}"' in script(plan, "abcd")


def test_broken_groups_are_refused_before_a_session_and_corrected_or_deleted_it_is_pushed(tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "groups.csv"
    path.write_text("image_id,group\na.png,\n")
    with pytest.raises(TableError) as refused:
        planned(tmp_path)
    assert "groups.csv:2" in str(refused.value) and "correct the file, or delete it" in refused.value.do
    path.write_text("image_id,group\na.png,1\n")
    assert planned(tmp_path).groups == path
    path.unlink()
    assert planned(tmp_path).groups is None


def test_knobs_of_the_machine_that_the_push_names_are_meant_for_kaggles(tmp_path):
    stored_run(tmp_path, *OF_THIS_MACHINE)
    plan = planned(tmp_path, "data.workers=3", "trainer.accelerator=cpu", preset_name=None)
    assert (plan.config.data.workers, plan.config.trainer.accelerator) == (3, "cpu")
    assert "on its CPU" in "\n".join(plan.lines(None))
    assert "trainer.accelerator=cpu" not in plan.kept
    assert "data.workers=0" in plan.kept


def test_no_preset_sets_a_knob_of_the_machine():
    assert not {key for values in PRESETS.values() for key in values} & set(machine_knobs())


@pytest.mark.parametrize("wrong", ["trainer.nodes=2", "trainer.devices=3"])
def test_processes_that_a_session_cannot_have_are_refused_and_left_out_it_works(wrong, tmp_path):
    with pytest.raises(KitError, match=r"trainer\.") as error:
        planned(tmp_path, wrong)
    assert error.value.do.startswith("leave it out")
    planned(tmp_path)


def test_a_fold_has_one_gpu_and_so_one_process(tmp_path):
    with pytest.raises(KitError, match="at most 1"):
        planned(tmp_path, "trainer.devices=2", folds=2)
    planned(tmp_path, "trainer.devices=2", preset_name="seed")


def test_a_batch_that_no_number_of_gpus_can_make_is_refused_before_the_session(tmp_path):
    with pytest.raises(KitError, match="multiple"):
        planned(tmp_path, "training.batch_size=3")
    planned(tmp_path, "training.batch_size=2")


@pytest.mark.parametrize(
    ("knobs", "present", "used"),
    [
        ("data.folds=2 kernel.devices=2", 1, 1),  # Kaggle gave one GPU
        ("data.folds=2 kernel.devices=2", 2, 2),
        ("data.folds=5 kernel.devices=2", 4, 2),
        ("data.folds=2 kernel.devices=8", 4, 2),
        ("data.folds=3 kernel.devices=2", 0, 2),  # on the CPU
        ("training.batch_size=4 training.effective_batch=16", 2, 2),
        ("training.batch_size=4 training.effective_batch=16", 3, 2),  # 4 x 3 does not divide 16
        ("training.batch_size=8 training.effective_batch=8", 2, 1),
        ("trainer.devices=1", 2, 1),
        ("trainer.accelerator=cpu", 0, 1),
    ],
)
def test_the_gpus_that_are_used_are_there_and_their_batches_divide_a_step(knobs, present, used):
    assert usable_gpus(override(preset("seed"), knobs.split()), present) == used


SMALL = st.integers(1, 8)


@given(batch=SMALL, steps=SMALL, folds=SMALL, at_most=SMALL, present=st.integers(0, 8))
def test_whatever_a_machine_has_the_trainings_fit_it(batch, steps, folds, at_most, present):
    knobs = {"training.batch_size": batch, "training.effective_batch": batch * steps}
    config = Config().replace({**knobs, "data.folds": folds, "kernel.devices": at_most})
    used = usable_gpus(config, present)
    assert 1 <= used <= max(1, present or at_most)
    if folds == 1:
        assert accumulation(config.training, used) * used == steps
    else:
        assert used <= min(folds, at_most)


@given(st.text())
def test_any_other_name_of_a_machine_is_refused(name):
    config = preset("demo").replace({"kernel.machine": name})
    if name not in MACHINES:
        with pytest.raises(KitError, match=r"kernel\.machine"):
            require_machine(config, needs_weights=True)


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_weights_that_need_no_file_are_those_of_the_detectors_table(detector):
    family = DETECTORS[detector]
    there = {name for name in ("coco", "imagenet") if getattr(family, name) is not None}
    there |= {"imagenet"} if detector.endswith("_timm") else set()
    if detector in SET_DETECTORS:
        there |= {"coco"} if read_family(detector).sizes["s"].repository else set()
    assert set(available_weights(detector)) == there | {"none"}


@pytest.mark.parametrize("source", ["my weights.pth", "runs/other/best.ckpt", "coco"])
def test_weights_that_kaggles_machine_does_not_have_are_refused_and_the_advice_works(source, tmp_path):
    (better,) = advice(tmp_path, f"model.weights={source}", says="no such file|'coco'")
    planned(tmp_path, f"model.weights={source}", better)


def weights_file(path):
    torch.save({"head": torch.zeros(1)}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_of_weights_is_sent_along_and_the_preview_says_so(tmp_path):
    digest = weights_file(tmp_path / "my weights.pth")
    plan = planned(tmp_path, f"model.weights={tmp_path / 'my weights.pth'}")
    assert (plan.weights, plan.weights_sha256) == (tmp_path / "my weights.pth", digest)
    (line,) = [line for line in plan.lines(None) if line.startswith("data set: ")]
    assert line.endswith("my weights.pth (0.0 MiB), private; it is uploaded")
    assert f'"weights": "{digest}"' in script(plan, "abcd")
    assert '"weights": "' not in script(planned(tmp_path), "abcd").split("PUSH = ")[1].split("}")[0]


def test_a_fold_that_has_not_begun_is_sent_its_weights(tmp_path):
    path = tmp_path / "mine.pth"
    weights_file(path)
    run = stored_run(tmp_path, f"model.weights={path}", folds=2, trained=1)
    plan = planned(tmp_path, preset_name=None)
    assert (plan.continues, plan.weights) == (run.in_folds(2)[0].last, path)
    assert "the run (0.0 MiB) and " in "\n".join(plan.lines(None))


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04"])
def test_a_file_that_holds_no_weights_is_refused_before_a_session_and_both_ways_out_work(content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    (better,) = advice(
        tmp_path,
        f"model.weights={tmp_path / 'w.pth'}",
        says="w.pth",
    )[-1:]
    planned(tmp_path, better)
    with pytest.raises(KitError) as error:
        planned(tmp_path, f"model.weights={tmp_path / 'w.pth'}")
    assert "weights_only" not in str(error.value)  # torch's own advice is to run the code in it
    weights_file(tmp_path / "w.pth")
    assert planned(tmp_path, f"model.weights={tmp_path / 'w.pth'}").weights


def test_a_fault_to_allow_is_passed_on_and_a_mistyped_one_refused_with_its_name(tmp_path):
    plan = plan_push(tmp_path, "mine", "demo", (), None, ("box-units", "labels-alike"))
    assert "allowed:     box-units, labels-alike" in plan.lines(None)
    assert '"allow": "box-units,labels-alike"' in script(plan, "abcd")
    with pytest.raises(KitError, match="nearest: box-units") as error:
        plan_push(tmp_path, "mine", "demo", (), None, ("box-unit",))
    name = error.value.do.removeprefix("nearest: ").split(",")[0]
    assert plan_push(tmp_path, "mine", "demo", (), None, (name,)).allow == (name,)


def test_weights_of_a_file_are_not_missed_if_every_fold_has_a_checkpoint(tmp_path):
    stored_run(tmp_path, "model.weights=mine.pth", folds=2, trained=2)
    assert planned(tmp_path, preset_name=None).config.model.weights == "mine.pth"


def test_weights_of_a_file_are_missed_by_a_fold_that_has_not_begun(tmp_path):
    run = stored_run(tmp_path, "model.weights=mine.pth", folds=2, trained=1)
    (better,) = advice(tmp_path, says="no such file", preset_name=None)
    run.folder.rename(tmp_path / "runs" / "old")  # as another --run
    planned(tmp_path, better)


def test_weights_are_not_downloaded_without_the_internet_and_both_ways_out_work(tmp_path):
    off = ("kernel.internet=off",)
    on, none = advice(tmp_path, *off, says="the internet", preset_name="laptop")
    for better in (on, none):
        planned(tmp_path, *off, better, preset_name="laptop")


@pytest.mark.parametrize("detector", SET_DETECTORS)
def test_d_fine_and_rf_detr_are_sent_with_transformers_and_their_sizes(detector, tmp_path):
    plan = planned(tmp_path, preset_name=detector)
    text = script(plan, "abcd")
    assert '"transformers>=5.18"' in text
    assert '"transformers' not in script(planned(tmp_path), "abcd")
    packed = text.split('PACKAGE = """')[1].split('"""')[0]
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(packed))) as archive:
        assert f"kit/detectors/{detector}.json" in archive.namelist()


@pytest.mark.parametrize("detector", SET_DETECTORS)
def test_without_internet_the_extra_cannot_be_installed_and_the_advice_works(detector, tmp_path):
    wrong = ("kernel.internet=off", "model.weights=none")
    (better,) = advice(tmp_path, *wrong, says="transformers", preset_name=detector)
    planned(tmp_path, *wrong, better, preset_name=detector)


@pytest.mark.parametrize("detector", SET_DETECTORS)
def test_a_tiny_one_needs_no_weights_and_others_have_none_of_imagenet(detector, tmp_path):
    assert planned(tmp_path, "model.size=tiny", preset_name=detector).config.model.start == "none"
    begun = Run(tmp_path, "mine")  # a training that has begun names what it starts from
    begun.folder.mkdir(parents=True)
    save(override(preset(detector), ["model.size=tiny", "model.weights=none", "model.norm=batch"]), begun.config)
    assert planned(tmp_path, "model.size=tiny", preset_name=detector).config.model.weights == "none"
    begun.config.unlink()
    (better,) = advice(tmp_path, "model.weights=imagenet", says="coco, none", preset_name=detector)
    planned(tmp_path, better, preset_name=detector)


def test_a_network_of_timm_is_sent_with_its_requirement(tmp_path):
    timm = ("model.detector=fcos_timm", "model.backbone=efficientnet_lite0", "model.weights=none")
    assert '"timm>=' in script(planned(tmp_path, *timm), "abcd")
    assert '"timm>=' not in script(planned(tmp_path), "abcd")


def test_the_preview_of_a_local_run_names_its_own_knobs_and_no_preset(tmp_path):
    run = stored_run(tmp_path, trained=1)
    (first, *_) = planned(tmp_path, preset_name=None).lines(None)
    assert str(run.config) in first
    assert "preset" not in first


def test_the_preview_of_a_run_that_is_only_on_kaggle_names_the_preset_that_is_sent(tmp_path):
    record_arrived(Run(tmp_path, "mine"), Push("abcd", "ada/kit-mine", 1, "", "demo", {}))
    plan = planned(tmp_path, preset_name=None)
    assert "preset demo" in plan.lines(None)[0]
    assert plan.config.model.detector == preset("demo").model.detector


@pytest.mark.parametrize("change", ["model.image_size_px=256", "model.norm=frozen", "training.seed=7"])
def test_a_knob_that_a_local_run_may_not_change_is_refused_not_ignored(change, tmp_path):
    stored_run(tmp_path)
    with pytest.raises(KitError, match=change.partition("=")[0]):
        planned(tmp_path, change, preset_name=None)
    planned(tmp_path, preset_name=None)


FOLDS = """
import os, pathlib, sys, time
log = pathlib.Path(__file__).parent / "log"
log.open("a").write(f"begin {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")
time.sleep(SECONDS)
log.open("a").write("end\\n")
"""


@pytest.mark.parametrize(
    ("gpus", "knob", "order"),
    [
        (1, "data.folds=2", ["begin 0", "end", "begin 0", "end"]),
        (2, "data.folds=1", ["begin 0,1", "end"]),
        (4, "training.effective_batch=8", ["begin 0,1", "end"]),
    ],
)
def test_a_session_uses_the_gpus_that_it_has(gpus, knob, order, tmp_path):
    (tmp_path / "invoke.py").write_text(FOLDS.replace("SECONDS", "0"))
    config = override(preset("seed"), [knob])
    assert _Steps(tmp_path, tmp_path).train(Run(tmp_path, "mine"), ("train",), config, 1e9, gpus) == "stopped"
    assert (tmp_path / "log").read_text().splitlines() == order


ONE_IS_FASTER = """
import pathlib, sys, time
fold = sys.argv[sys.argv.index("--fold") + 1]
folder = pathlib.Path(__file__).parent / "runs" / "mine"
(folder / "begun").open("a").write(fold)
home = folder / f"fold-{fold}"
if fold != "0":
    while not (folder / "fold-0" / "last.ckpt").exists():
        time.sleep(0.01)
    time.sleep(3)
home.mkdir()
(home / "last.ckpt").write_text("state")
if fold != "0":
    time.sleep(SECONDS)
"""


def test_after_its_time_a_session_waits_for_a_checkpoint_of_each_that_runs_and_begins_no_other(tmp_path):
    (tmp_path / "invoke.py").write_text(ONE_IS_FASTER.replace("SECONDS", str(PATIENCE_SECONDS)))
    run, config = Run(tmp_path, "mine"), override(preset("seed"), ["data.folds=3", "kernel.max_hours=0"])
    run.folder.mkdir(parents=True)
    assert _Steps(tmp_path, tmp_path).train(run, ("train",), config, time.monotonic(), 2) == "stopped"
    assert sorted((run.folder / "begun").read_text()) == ["0", "1"]
    assert (run.folder / "fold-1" / "last.ckpt").exists()


def test_a_session_without_a_gpu_ends_before_it_does_anything(tmp_path, monkeypatch, caplog):
    (tmp_path / "torch.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 0)\n")
    monkeypatch.chdir(tmp_path)  # a session's folder comes before its libraries
    caplog.set_level("INFO")
    push = {"id": "abcd", "run": "mine", "preset": "demo", "continues": ""}
    (tmp_path / "package").mkdir()
    with pytest.raises(SystemExit):
        run_session(preset("demo"), push, tmp_path / "package", tmp_path / "output")
    assert "has no GPU, although NvidiaTeslaT4 was requested" in caplog.text
    assert planned(tmp_path, "trainer.accelerator=cpu").config.trainer.accelerator == "cpu"  # as the log says
