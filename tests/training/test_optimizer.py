"""Which weights decay, and which learn at the rate of the backbone."""

import dataclasses

import pytest
import torch
from torch import nn

from kit.config import ModelConfig, TrainingConfig, override, preset
from kit.detector_names import SET_DETECTORS
from kit.detectors import networks
from kit.detectors.weights import resolve_norms
from kit.training.optimizer import RATE_FACTOR, layers_below, make_optimizer, set_rate, weight_groups


def tiny():
    return networks.build(resolve_norms(ModelConfig(detector="fcos_tiny", weights="none")), 8)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_with_the_defaults_all_weights_are_one_group_in_their_own_order(optimizer):
    network = tiny()
    (group,) = make_optimizer(network, TrainingConfig(optimizer=optimizer)).param_groups
    assert all(ours is theirs for ours, theirs in zip(group["params"], network.parameters(), strict=True))
    assert (group["lr"], group["weight_decay"], group[RATE_FACTOR]) == (5e-3, 1e-4, 1)


def test_a_frozen_weight_is_in_no_group():
    network = tiny()
    frozen = next(network.parameters()).requires_grad_(False)
    groups = weight_groups(network, TrainingConfig(backbone_rate=0.1, decay_norms=False))
    assert not any(weight is frozen for group in groups for weight in group["params"])


def test_every_weight_is_in_the_group_of_its_part_and_its_dimensions():
    network = tiny()
    settings = TrainingConfig(backbone_rate=0.1, decay_norms=False, weight_decay=0.05)
    groups = weight_groups(network, settings)
    assert [(group[RATE_FACTOR], group["weight_decay"]) for group in groups] == [
        (1, 0.05), (1, 0), (0.1, 0.05), (0.1, 0),
    ]  # fmt: skip
    of = {id(weight): number for number, group in enumerate(groups) for weight in group["params"]}
    names = dict(network.named_parameters())
    assert len(of) == len(names) == sum(len(group["params"]) for group in groups)
    for name, weight in names.items():
        assert of[id(weight)] == 2 * name.startswith("backbone.body.") + (weight.ndim == 1), name


def test_the_norms_and_biases_are_the_weights_of_one_dimension():
    network = tiny()
    spared = {id(weight) for weight in weight_groups(network, TrainingConfig(decay_norms=False))[1]["params"]}
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm))]
    expected = {id(weight) for norm in norms for weight in norm.parameters()}
    expected |= {id(weight) for name, weight in network.named_parameters() if name.endswith("bias")}
    assert spared == expected


def test_one_step_moves_the_backbone_by_the_factor_and_leaves_norms_without_decay():
    """SGD without momentum: weight' = weight - rate x factor x (gradient + decay x weight); the gradient is 1."""
    network = tiny()
    settings = TrainingConfig(backbone_rate=0.25, decay_norms=False, momentum=0.0, weight_decay=0.5)
    optimizer = make_optimizer(network, settings)
    set_rate(optimizer, 0.1)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    for name, weight in network.named_parameters():
        rate = 0.1 * (0.25 if name.startswith("backbone.body.") else 1)
        decay = 0.5 if weight.ndim > 1 else 0
        expected = before[name] - rate * (1 + decay * before[name])
        assert torch.allclose(weight, expected, atol=1e-6), name


def test_the_groups_of_an_earlier_checkpoint_have_the_factor_one():
    network = tiny()
    optimizer = make_optimizer(network, TrainingConfig())
    state = optimizer.state_dict()
    del state["param_groups"][0][RATE_FACTOR]
    optimizer.load_state_dict(state)
    set_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125]


def test_the_knob_is_true_or_false():
    for text, value in (("false", False), ("True", True)):
        assert override(preset("seed"), [f"training.decay_norms={text}"]).training.decay_norms is value
    assert dataclasses.asdict(TrainingConfig())["decay_norms"] is True


def test_a_layer_is_slowed_as_often_as_rf_detrs_authors_count():
    """Theirs: .8 to the power of layers above + 2, of the embeddings layers + 2, of the last norm 0."""
    assert [layers_below(f"encoder.layer.{number}.norm1.weight", 12) for number in (0, 10, 11)] == [13, 3, 2]
    assert layers_below("embeddings.cls_token", 12) == 14
    assert layers_below("layernorm.weight", 12) == 0


class Layers(nn.Module):
    """A detector of two dimensions, with a backbone of two layers in the names of transformers."""

    def __init__(self):
        super().__init__()
        layer = nn.ModuleDict({"0": nn.Linear(2, 2), "1": nn.Linear(2, 2)})
        self.backbone = nn.ModuleDict({"body": nn.ModuleDict({
            "embeddings": nn.Linear(2, 2, bias=False), "encoder": nn.ModuleDict({"layer": layer}),
        })})  # fmt: skip
        self.head = nn.Linear(2, 2)


def grouped(**settings):
    """The names of the weights of each group, its factor on the rate and its decay."""
    network = Layers()
    names = {id(weight): name.removeprefix("backbone.body.") for name, weight in network.named_parameters()}
    groups = weight_groups(network, TrainingConfig(weight_decay=0.5, **settings))
    return [([names[id(weight)] for weight in group["params"]], group[RATE_FACTOR], group["weight_decay"])
            for group in groups]  # fmt: skip


def test_layers_are_slowed_one_by_one_and_embeddings_spared():
    recipe = {"backbone_rate": 0.5, "layer_decay": 0.1, "decay_norms": False, "decay_embeddings": False}
    groups = grouped(**recipe)
    assert [names for names, _, _ in groups] == [
        ["head.weight"], ["head.bias"], ["encoder.layer.1.weight"], ["encoder.layer.1.bias"],
        ["encoder.layer.0.weight"], ["encoder.layer.0.bias"], ["embeddings.weight"],
    ]  # fmt: skip
    # .5 x .1^2 for the last layer, a tenth of it for the first one, and again for the embeddings
    assert [factor for _, factor, _ in groups] == pytest.approx([1, 1, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5])
    assert [decay for _, _, decay in groups] == [0.5, 0, 0.5, 0, 0.5, 0, 0]
    assert grouped(**recipe | {"backbone_rate": 1.0, "layer_decay": 1.0})[1][0] == [
        "embeddings.weight", "encoder.layer.0.bias", "encoder.layer.1.bias", "head.bias",
    ]  # fmt: skip


def test_without_the_new_knobs_the_groups_are_those_of_earlier_checkpoints():
    """An optimiser's checkpoint knows its weights by their number."""
    assert grouped(backbone_rate=0.5, decay_norms=False) == [
        (["head.weight"], 1, 0.5), (["head.bias"], 1, 0),
        (["embeddings.weight", "encoder.layer.0.weight", "encoder.layer.1.weight"], 0.5, 0.5),
        (["encoder.layer.0.bias", "encoder.layer.1.bias"], 0.5, 0),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_recipe_of_rf_detr_finds_its_layers_and_its_embeddings():
    pytest.importorskip("transformers", reason="the extra detr is not installed")
    config = resolve_norms(ModelConfig(detector="rfdetr", size="tiny", weights="none"))
    network = networks.build(config, 8)
    settings = preset("rfdetr").training
    of = {id(weight): group for group in weight_groups(network, settings) for weight in group["params"]}
    body = dict(networks.backbone_of(network).named_parameters())
    for name, power in (("embeddings.position_embeddings", 6), ("embeddings.cls_token", 6),
                        ("embeddings.patch_embeddings.projection.weight", 6), ("encoder.layer.0.mlp.fc1.weight", 5),
                        ("encoder.layer.3.mlp.fc1.weight", 2)):  # fmt: skip
        group = of[id(body[name])]
        assert group[RATE_FACTOR] == pytest.approx(0.735 * 0.8**power), name
        assert group["weight_decay"] == (0 if name.startswith("embeddings") else 1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.DETECTORS)
def test_every_detector_has_a_backbone_and_weights_outside_it(name):
    options = {"backbone": "test_efficientnet", "fpn_channels": 64} if name.endswith("_timm") else {}
    if name in SET_DETECTORS:
        pytest.importorskip("transformers", reason="the extra detr is not installed")
    network = networks.build(resolve_norms(ModelConfig(detector=name, size="tiny", weights="none", **options)), 8)
    factors = {group[RATE_FACTOR] for group in weight_groups(network, TrainingConfig(backbone_rate=0.1))}
    assert factors == {0.1, 1.0}
