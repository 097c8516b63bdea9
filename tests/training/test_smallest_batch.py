"""A last batch of one image: trained, or refused before the first step with advice that works."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import TOY, toy_config

from kit.config import TrainingConfig, override
from kit.core.errors import KitError
from kit.detectors import networks
from kit.detectors.norms import takes_one_image
from kit.detectors.weights import resolve_norms
from kit.runs.folder import Run
from kit.training.schedule import fitting_batch_size, smallest_batch
from kit.training.train import train

# 32 images, 9 or 10 of them held out: in batches of 22 or 23, one less than there are, one image is left.
SMALL = (*TOY, "model.image_size_px=32", "training.max_epochs=1", "inference.views=plain")


def detector(*knobs):
    return networks.build(resolve_norms(override(toy_config(), knobs).model), 2)


@given(st.integers(1, 500), st.integers(1, 64))
def test_the_smallest_batch_is_the_last_one(images, size):
    batches = [len(range(images)[first : first + size]) for first in range(0, images, size)]
    assert smallest_batch(images, size) == batches[-1] or (len(batches) == 1 and batches[-1] == images % size)
    assert smallest_batch(images, size) % size == images % size


@given(
    st.lists(st.integers(2, 300), min_size=1, max_size=5), st.integers(1, 16), st.integers(1, 3), st.integers(1, 8)
)
def test_a_batch_size_that_is_advised_leaves_no_image_alone_and_divides(images, size, processes, factor):
    settings = TrainingConfig(batch_size=size, effective_batch=size * processes * factor)
    advised = fitting_batch_size(images, settings, processes)
    if advised is not None:
        assert settings.effective_batch % (advised * processes) == 0
        assert all(smallest_batch(count, advised) > 1 for count in images)


@pytest.mark.parametrize(
    ("knobs", "size_px", "takes"),
    [((), 32, False), ((), 30, False), ((), 33, True), ((), 64, True), (("model.norm=frozen",), 32, True),
     (("model.detector=fasterrcnn_mobilenet_v3_large_320_fpn",), 32, False)],
)  # fmt: skip
def test_norms_that_learn_need_two_values_per_channel(knobs, size_px, takes):
    made = detector(*knobs)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    assert takes_one_image(made, size_px) is takes
    assert made.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


def refused(toy):
    """The error of a training whose last batch has one image, and the knobs that made it."""
    for size in (22, 21, 23, 20, 24):
        knobs = (*SMALL, f"training.batch_size={size}", f"training.effective_batch={size}")
        try:
            train(toy, "alone", "demo", knobs)
        except KitError as error:
            return error, knobs
        Run(toy, "alone").folder.rename(toy / f"fits-{size}")
    raise AssertionError("every size fits")


def test_the_advice_works(toy):
    error, knobs = refused(toy)
    assert "last batch of one image" in error.found
    assert not Run(toy, "alone").config.exists()
    advised = re.findall(r"--set (\S+?=\w+)", error.do)
    assert advised
    assert train(toy, "alone", "demo", (*knobs, advised[-1], *[advised[0]] * (len(advised) > 1))).finished
