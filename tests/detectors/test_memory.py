"""The machine's side: precision, memory format, kept memory, losses that are checked without waiting."""

import copy
import math

import pytest
import torch
from torch import nn
from toy import toy_config

from kit.config import load, preset
from kit.detectors import networks, weights
from kit.detectors.hardware import lightning_precision
from kit.detectors.memory import channels_last, keeping_freed_memory
from kit.runs.detecting import bare_detector, kept_weights
from kit.runs.folder import Run, read_split
from kit.training.finite_loss import BadLoss, LossCheck


def test_auto_is_full_precision_on_the_cpu_and_a_wish_is_a_wish():
    config = preset("demo").replace({"trainer.accelerator": "cpu"})
    assert lightning_precision(config) == "32-true"
    assert lightning_precision(config.replace({"training.precision": "bf16"})) == "bf16-mixed"


def test_weights_lie_channels_last_and_keep_their_values():
    network = nn.Conv2d(3, 4, 3)
    before = network.weight.detach().clone()
    assert channels_last(network).weight.is_contiguous(memory_format=torch.channels_last)
    assert not before.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network.weight, before)


def test_channels_last_gives_the_losses_and_the_gradients_of_the_plain_layout():
    torch.manual_seed(0)
    plain = networks.build(weights.resolve_norms(toy_config().model), 3).train()
    laid = channels_last(copy.deepcopy(plain))
    images = [torch.rand(3, 96, 80), torch.rand(3, 64, 96)]
    targets = [{"boxes": torch.tensor([[8.0, 8, 40, 56]]), "labels": torch.tensor([2])}] * 2
    losses = [network(images, targets) for network in (plain, laid)]
    for name, value in losses[0].items():
        assert losses[1][name].item() == pytest.approx(value.item(), rel=1e-5), name
    for loss in losses:
        torch.stack(list(loss.values())).sum().backward()
    for (name, one), other in zip(plain.named_parameters(), laid.parameters(), strict=True):
        if one.grad is not None:
            assert (one.grad - other.grad).norm() <= 1e-4 * one.grad.norm() + 1e-7, name


def test_channels_last_finds_the_boxes_of_the_plain_layout(trained_source):
    run = Run(trained_source, "demo")
    plain = bare_detector(load(run.config), read_split(run)).eval()
    plain.load_state_dict(kept_weights(run, "best")[2])
    laid = channels_last(copy.deepcopy(plain))
    images = [torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    with torch.inference_mode():
        for one, other in zip(plain(images), laid(images), strict=True):
            assert len(one["scores"]) > 10
            assert torch.allclose(one["scores"][:10], other["scores"][:10], atol=1e-4)
            assert torch.allclose(one["boxes"][:10], other["boxes"][:10], atol=0.05)


def test_kept_memory_changes_no_result_and_ends_with_its_block():
    def work():
        generator = torch.Generator().manual_seed(1)
        return torch.rand(3000, 1000, generator=generator) @ torch.rand(1000, 10, generator=generator)

    before = work()
    with keeping_freed_memory("cpu"):
        inside = work()
    assert torch.equal(before, inside)
    assert torch.equal(before, work())


class TestLossCheck:
    def test_finite_losses_are_no_news(self):
        check = LossCheck()
        check.add(torch.tensor(1.0), [0, 1])
        assert check.verdict(0) is None
        assert check.last_verdict() is None

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_the_first_bad_batch_of_a_step_is_named_with_its_images(self, value):
        check = LossCheck()
        for loss, indices in ((1.0, [0, 1]), (value, [2, 3]), (value, [4])):
            check.add(torch.tensor(loss), indices)
        assert check.verdict(7) == BadLoss(7, (2, 3))

    def test_a_step_answers_for_its_own_losses_only(self):
        check = LossCheck()
        check.add(torch.tensor(math.nan), [0])
        check.verdict(0)
        check.add(torch.tensor(1.0), [1])
        assert check.verdict(1) is None
