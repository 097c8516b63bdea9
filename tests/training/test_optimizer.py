"""Which weights decay, and which learn at the rate of the backbone."""

import dataclasses

import pytest
import torch
from torch import nn

from kit.config import ModelConfig, TrainingConfig, override, preset
from kit.detector_names import SET_DETECTORS
from kit.detectors import networks
from kit.detectors.weights import resolve_norms
from kit.training.optimizer import RATE_FACTOR, make_optimizer, set_rate, weight_groups


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


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.DETECTORS)
def test_every_detector_has_a_backbone_and_weights_outside_it(name):
    options = {"backbone": "test_efficientnet", "fpn_channels": 64} if name.endswith("_timm") else {}
    if name in SET_DETECTORS:
        pytest.importorskip("transformers", reason="the extra detr is not installed")
    network = networks.build(resolve_norms(ModelConfig(detector=name, size="tiny", weights="none", **options)), 8)
    factors = {group[RATE_FACTOR] for group in weight_groups(network, TrainingConfig(backbone_rate=0.1))}
    assert factors == {0.1, 1.0}
