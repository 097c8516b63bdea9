"""Knobs: documented, parsed by us, refused with the nearest names."""

import inspect
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import config
from kit.core.errors import KitError
from kit.tasks import kernel, runs


def test_every_knob_has_one_line_of_documentation_and_a_default_in_its_range():
    for key, spec in config.knobs().items():
        assert spec.metadata["doc"], key
        assert "\n" not in spec.metadata["doc"], key
    assert config.Config().training.effective_batch == 16


def test_the_promised_keys_exist():
    promised = {
        "competition.slug", "competition.expected_ids", "data.patient_pattern", "model.detector", "model.weights",
        "model.image_size_px", "training.max_epochs", "training.batch_size", "training.effective_batch",
        "training.seed",
    }  # fmt: skip
    assert promised <= set(config.knobs())
    assert config.Config().competition.slug == "m-2-big-data-dlia-project-2025"
    assert config.Config().competition.expected_ids == 170


def test_the_seed_preset_is_the_recipe_of_the_notebook():
    seed = config.preset("seed")
    assert (seed.model.detector, seed.model.weights, seed.model.image_size_px) == (
        "fasterrcnn_resnet50_fpn_v2", "coco", 1024,
    )  # fmt: skip
    training = seed.training
    assert (training.optimizer, training.learning_rate, training.momentum, training.weight_decay) == (
        "sgd", 5e-3, 0.9, 1e-4,
    )  # fmt: skip
    assert (training.warmup_epochs, training.warmup_start_rate, training.final_rate) == (5, 1e-4, 1e-6)
    assert (training.batch_size, training.effective_batch, training.clip_norm) == (4, 16, 1.0)
    assert (training.max_epochs, training.patience) == (60, 15)
    assert (seed.fusion.method, seed.fusion.iou, seed.model.nms_iou) == ("suppress", 0.3, 0.3)
    assert seed.inference.views == ("plain", "flip", "bright", "zoom_out", "zoom_in")
    assert seed.data.validation_share == 0.15
    assert seed.decision.threshold == 0


def test_the_presets_of_d_fine_and_rf_detr_are_the_published_recipes():
    """The sources are in kit/presets.py; rates of the backbone: half, and RF-DETR's above its layers."""
    for name, size_px, rate, factor, decay, mean in (
        ("dfine", 640, 2.5e-4, 1.25e-4 / 2.5e-4, 1.25e-4, 0.9999),
        ("rfdetr", 512, 1e-4, 1.5e-4 * 0.7**2 / 1e-4, 1e-4, 0.993),
    ):
        recipe = config.preset(name)
        assert (recipe.model.detector, recipe.model.size, recipe.model.weights) == (name, "s", "coco")
        assert recipe.model.image_size_px == size_px
        training = recipe.training
        assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adamw", rate, decay)
        assert training.backbone_rate == pytest.approx(factor)
        assert (training.layer_decay, training.decay_embeddings) == {"dfine": (1, True), "rfdetr": (0.8, False)}[
            name
        ]
        assert (training.decay_norms, training.clip_norm) == (False, 0.1)
        assert (training.ema_decay, training.keep) == (mean, "ema")
        assert (training.batch_size, training.effective_batch) == (4, 16)


@pytest.mark.parametrize("tasks", [runs, kernel])
def test_the_help_names_every_preset(tasks):
    # In the source, since invoke takes a help out of its task when it has parsed a command line.
    assert f'"recipe: {", ".join(config.PRESETS)} (' in inspect.getsource(tasks)


@pytest.mark.parametrize("name", config.PRESETS)
def test_every_preset_is_valid_and_survives_a_file(name, tmp_path):
    config.save(config.preset(name), tmp_path / "config.json")
    assert config.load(tmp_path / "config.json") == config.preset(name)


def test_text_is_parsed_by_the_type_of_the_default():
    changed = config.override(
        config.Config(),
        [
            "training.batch_size=2",
            "training.learning_rate=1e-3",
            "inference.views=plain, flip",
            "model.weights=none",
        ],
    )
    assert changed.training.batch_size == 2
    assert changed.training.learning_rate == 0.001
    assert changed.inference.views == ("plain", "flip")
    assert changed.model.weights == "none"


@pytest.mark.parametrize(
    ("assignment", "found", "do"),
    [
        ("training.batchsize=2", "training.batchsize", "training.batch_size"),
        ("training.batch_size=two", "'two'", "--set training.batch_size=4"),
        ("training.batch_size=0", "0", "default is 4"),
        ("training.learning_rate=nan", "nan", "default"),
        ("model.detector=fcos_tiney", "'fcos_tiney'", "fcos_tiny"),
        ("inference.views=plain,plain", "plain,plain", "choices"),
        ("inference.views=", "''", "choices"),
        ("training.batch_size", "'training.batch_size'", "--set training.batch_size=4"),
        ("fusion.iou", "'fusion.iou'", "--set fusion.iou=0."),
        ("fusion.iou=atuo", "'atuo'", "--set fusion.iou=0."),
        ("fusion.iou=1.5", "1.5", "default is 0.3"),
        ("fusion.usual_method=auto", "'auto'", "nearest"),
        ("fusion.iuo", "'fusion.iuo'", "nearest: fusion.iou"),
        ("training.keep=ema", "ema_decay=0", "training.ema_decay=0.998"),
        ("data.patient_pattern=(", "'('", "first group"),
        ("training.batch_size=__import__('os').getpid()", "__import__", "--set training.batch_size=4"),
    ],
)
def test_a_wrong_value_is_refused_in_three_parts(assignment, found, do):
    with pytest.raises(KitError) as caught:
        config.override(config.Config(), [assignment])
    assert caught.value.expected
    assert found in caught.value.found
    assert do in caught.value.do


def test_auto_in_place_of_a_value_notes_that_value_as_the_usual_one():
    demo = config.preset("demo")
    both = config.override(demo, ["fusion.method=auto", "fusion.iou=auto"])
    assert (both.fusion.usual_method, both.fusion.usual_iou) == ("wbf", 0.4)
    assert (both.fusion.is_open, both.fusion.usual.method, both.fusion.usual.iou) == (True, "wbf", 0.4)
    assert config.override(both, ["fusion.method=auto"]) == both
    said = config.override(demo, ["fusion.usual_iou=0.6", "fusion.iou=auto"])
    assert (said.fusion.usual_iou, said.fusion.usual.method, said.fusion.method) == (0.6, "wbf", "wbf")
    assert not config.override(both, ["fusion.method=suppress", "fusion.iou=0.5"]).fusion.is_open
    with pytest.raises(ValueError, match="auto"):
        _ = both.fusion.least_iou


def test_a_word_in_place_of_a_number_survives_the_file_and_another_word_is_refused(tmp_path):
    path = tmp_path / "config.json"
    config.save(config.override(config.Config(), ["fusion.iou=auto"]), path)
    assert config.load(path).fusion.iou == "auto"
    path.write_text(path.read_text().replace('"iou": "auto"', '"iou": "atuo"'))
    with pytest.raises(KitError, match=r"(?s)fusion\.iou to be a number or auto .*'atuo'.*nearest: auto"):
        config.load(path)


NUMBERS = [key for key, spec in config.knobs().items() if type(spec.default) in (int, float)]


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_a_range_and_what_lies_outside_is_refused_with_the_way_back(key):
    spec = config.knobs()[key]
    low, high = spec.metadata["low"], spec.metadata["high"]
    assert math.isfinite(low) and math.isfinite(high)
    beyond = ["9" * 400, "-" + "9" * 400, str(2 * int(high) + 1), str(int(low) - 1)]
    beyond += ["1e400", "nan", "-inf"] if isinstance(spec.default, float) else []
    for text in beyond:
        with pytest.raises(KitError) as caught:
            config.override(config.Config(), [f"{key}={text}"])
        assert key in caught.value.expected
        assert len(caught.value.found) < 450
    advised = re.search(r"default is (\S+)", caught.value.do) or re.search(rf"{key}=(\S+?),", caught.value.do)
    assert config.override(config.Config(), [f"{key}={advised[1]}"]) == config.Config()


def test_a_mistyped_key_in_a_file_is_told_the_nearest(tmp_path):
    path = tmp_path / "config.json"
    for content, said in (
        ('{"training": {"batchsize": 4}}', "training has also 'batchsize'; nearest: batch_size"),
        ('{"trainin": {}}', "the file has also 'trainin'; nearest: training"),
    ):
        path.write_text(content)
        with pytest.raises(KitError, match=said):
            config.load(path)


def test_an_unknown_preset_names_the_nearest():
    for typo, name in (("labtop", "laptop"), ("dfin", "dfine"), ("RFDETR", "rfdetr"), ("zzz", "demo")):
        with pytest.raises(KitError, match=f"nearest: {name}") as caught:
            config.preset(typo)
        advised = re.search(r"--preset (\w+)", caught.value.do)[1]
        assert advised == name and config.preset(advised)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"training": 1}', '{"training": {"batch_size": "4"}}', '{"training": {"batch_size": 4.5}}',
     '{"training": {"sizes": 4}}', '{"training": {"batch_size": true}}', '{"inference": {"views": [1]}}', "\x00"],
)  # fmt: skip
def test_a_broken_config_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(KitError):
        config.load(path)


def test_a_file_with_few_keys_takes_the_defaults_for_the_rest(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"training": {"learning_rate": 1}}))
    assert config.load(tmp_path / "config.json") == config.override(config.Config(), ["training.learning_rate=1"])


def test_differences_leave_out_what_only_describes_the_machine():
    old = config.Config()
    new = config.override(old, ["trainer.devices=2", "data.workers=3", "training.seed=1"])
    assert config.differences(old, new) == {"training.seed": (42, 1)}


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_value_or_an_error_in_three_parts(text):
    for key in ("training.batch_size", "training.learning_rate", "inference.views", "model.detector"):
        try:
            config.override(config.Config(), [f"{key}={text}"])
        except KitError as error:
            assert error.expected and error.found and error.do


WRONG_TEXTS = ("", "two", "nan", "inf", "-1", "1_000", "1e400", "99999999999999999999999")


def followed(assignments, do):
    """The assignments after the advice: its --set flags, or the first name or value that it gives."""
    advised = re.findall(r"--set ([\w.]+=[^\s,;]*)", do)
    found = re.match(r"(?:nearest: |the default is |the choices: \(?)'?([\w.,-]+)", do)
    if not advised and found:
        advised = [f"{assignments[-1].partition('=')[0]}={found[1].rstrip(',')}"]
    assert advised, do
    return [*assignments, *advised]


@pytest.mark.parametrize("key", config.knobs())
def test_whoever_follows_the_advice_for_a_refused_value_gets_on(key):
    for text in WRONG_TEXTS:
        try:
            config.override(config.Config(), [f"{key}={text}"])
        except KitError as error:
            changed = followed([f"{key}={text}"], error.do)
            advised = changed[1:]
            config.override(config.Config(), advised)


@pytest.mark.parametrize(
    "refused",
    [
        ["model.backbone=efficientnet_lite0"],
        ["model.detector=fcos_timm"],
        ["model.detector=fcos_timm", "model.backbone=resnet18", "model.fpn_channels=100"],
        ["model.fpn_channels=128"],
        ["model.size=l"],
        ["model.detector=fcos_tiny", "model.size=tiny"],
        ["model.weights="],
        ["training.keep=ema"],
        ["data.orientation=turned"],
        ["data.invert=all"],
    ],
)
def test_whoever_follows_the_advice_for_knobs_that_do_not_go_together_gets_on(refused):
    with pytest.raises(KitError) as caught:
        config.override(config.Config(), refused)
    config.override(config.Config(), followed(refused, caught.value.do))


@pytest.mark.parametrize(
    ("preset", "assignment"),
    [("seed", "model.size=l"), ("demo", "model.size=tiny"), ("laptop", "model.fpn_channels=128"),
     ("dfine", "model.fpn_channels=64"), ("rfdetr", "model.fpn_channels=64"),
     ("dfine", "training.layer_decay=0.8"), ("seed", "training.decay_embeddings=false")],
)  # fmt: skip
def test_a_knob_that_the_detector_has_not_is_refused_and_its_default_is_not(preset, assignment):
    key, _, value = assignment.partition("=")
    base = config.preset(preset)
    with pytest.raises(KitError, match=f"{key} with a detector that has it") as caught:
        config.override(base, [assignment])
    assert f"{assignment} with model.detector={base.model.detector}" in caught.value.found
    default = re.search(rf"write {key}=([\w.]+),", caught.value.do)[1]
    assert config.override(base, [f"{key}={default}"]) == base
    flags = re.findall(r"--set (\S+)", caught.value.do)
    chosen = config.override(base, [assignment, *flags])
    assert str(chosen.get(key)).lower() == value
    with pytest.raises(KitError, match="that has it"):  # also if the value comes with another detector
        config.override(chosen, [assignment, "model.detector=fcos_tiny", "model.backbone="])


def test_an_old_file_with_a_size_that_its_detector_has_not_still_loads(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": {"detector": "fcos_tiny", "size": "l"}}))
    assert config.override(config.load(path), ["training.seed=1"]).model.size == "l"
