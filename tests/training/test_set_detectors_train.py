"""D-FINE and RF-DETR on the whole road: kill and resume, two processes, learning by heart."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from by_heart import learn_by_heart
from command_line import PATIENCE_SECONDS, invoke, started
from interruption import interrupted_after_one_epoch
from PIL import Image
from toy import TOY, copied

from kit.config import ModelConfig, load
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.detector_names import SET_DETECTORS
from kit.detectors import networks
from kit.detectors.checkpoints import load_checkpoint
from kit.detectors.weights import resolve_norms
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.runs.folder import Run
from kit.training.train import train

pytestmark = pytest.mark.slow


def recipe(name):
    pytest.importorskip("transformers", reason="the extra detr is not installed")
    return (
        *TOY, f"model.detector={name}", "model.size=tiny", "model.weights=coco", "training.clip_norm=0.1",
        "training.backbone_rate=0.5", "training.decay_norms=false", "training.ema_decay=0.9", "training.keep=ema",
    )  # fmt: skip


@pytest.mark.parametrize("name", SET_DETECTORS)
def test_a_kill_changes_nothing_and_the_run_goes_its_whole_way(name, toy, tmp_path, undrawn):
    straight = copied(toy, tmp_path / "straight")
    train(straight, None, "demo", recipe(name))
    interrupted_after_one_epoch(toy, recipe(name))
    assert not Run(toy, "demo").finished.exists()
    train(toy, None, "demo", recipe(name))
    one, other = Run(straight, "demo"), Run(toy, "demo")
    for key in ("state_dict", "current_model_state"):
        first, second = (load_checkpoint(run.last, "")[key] for run in (one, other))
        assert first.keys() == second.keys()
        for tensor, weights in first.items():
            assert torch.allclose(weights.float(), second[tensor].float(), atol=1e-6, rtol=0), tensor
    rows = [pd.read_csv(run.history).drop(columns="seconds") for run in (one, other)]
    assert rows[0].equals(rows[1])
    tables = [pd.read_parquet(run.detections("validation")) for run in (one, other)]
    assert tables[0].equals(tables[1])
    assert load(other.config).model.weights == "none"
    evaluate(other)
    assert len(pd.read_csv(predict(other).csv)) == 8
    goes_on_with_another_family(toy, name)


def goes_on_with_another_family(toy, name):
    """An ensemble with ``fcos_tiny``, both compared, and the push of the family's run to Kaggle, as it is typed."""
    train(toy, "fcos", "demo", (*TOY, "training.max_epochs=1"))
    in_toy = ("--workspace", toy)
    knobs = [word for knob in (*recipe(name), "training.max_epochs=1") for word in ("--set", knob)]
    for words in (
        ("ensemble", "--run", "both", "--of", "demo", "--of", "fcos"),
        ("evaluate", "--run", "both"),
        ("evaluate", "--run", "fcos"),
        ("compare", "--run", "both", "--run", "fcos"),
        ("kernel.push", "--run", "pushed", "--preset", "demo", *knobs, "--dry-run"),
    ):
        done = invoke(*words, *in_toy)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(pd.read_csv(predict(Run(toy, "both")).csv)) == 8
    assert '"transformers>=' in (toy / "kernels" / "pushed.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SET_DETECTORS)
def test_two_processes_train_together_though_one_has_no_boxes(name, toy):
    """Steps of one image per process: many have a box in one process alone, or in none."""
    drawn = np.random.default_rng(1)
    for number in range(24):
        noise = Image.fromarray(drawn.integers(0, 255, (96, 96), dtype=np.uint8))
        noise.save(toy / "data" / "train" / f"9{number:07d}_000.png")
    knobs = (*recipe(name), "training.batch_size=1", "training.effective_batch=2", "training.max_epochs=1",
             "trainer.accelerator=cpu", "trainer.devices=2")  # fmt: skip
    words = [word for knob in knobs for word in ("--set", knob)]
    process = started("train", "--preset", "demo", *words, "--workspace", toy)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert "MEMBER: 2/2" in err
    assert "(class " in err and ", box " in err
    weights = load_checkpoint(Run(toy, "demo").last, "")["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values() if tensor.is_floating_point())


def test_a_run_that_did_not_begin_may_begin_with_other_weights_and_then_keeps_them(toy, tmp_path):
    knobs = (*recipe("dfine"), "training.max_epochs=1", "training.ema_decay=0", "training.keep=last")
    weights = tmp_path / "a.ckpt"
    run = Run(toy, "demo")
    torch.save({"state_dict": {"network.a": torch.zeros(1)}}, weights)
    with pytest.raises(KitError, match="to fit this detector"):
        train(toy, None, "demo", (*knobs, f"model.weights={weights}"))
    assert not run.config.exists()
    torch.manual_seed(2)
    config = resolve_norms(ModelConfig(detector="dfine", size="tiny"))
    torch.save({"state_dict": networks.build(config, 8).state_dict()}, weights)
    interrupted_after_one_epoch(toy, (*knobs, "training.max_epochs=2", f"model.weights={weights}"))
    assert json.loads(run.weights.read_text())["sha256"] == sha256(weights)
    run.last.unlink()
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(KitError, match="as it was when the run began"):
        train(toy, None, "demo", (*knobs, "training.max_epochs=2", f"model.weights={weights}"))


def test_eight_images_are_learned_by_heart():
    pytest.importorskip("transformers", reason="the extra detr is not installed")
    steps, score = learn_by_heart("rfdetr")
    assert score == 1, steps
