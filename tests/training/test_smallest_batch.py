"""A last batch of one image: trained, or refused before the first step with advice that works."""

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
from kit.runs.folder import Run, read_split
from kit.training.schedule import fitting_batch_size, smallest_batch
from kit.training.train import train

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


@pytest.fixture
def alone(trained):
    """The knobs of a training in which one image is left for the last batch."""
    images = len(read_split(Run(trained, "demo")).training(0))
    return (*SMALL, f"training.batch_size={images - 1}", f"training.effective_batch={6 * (images - 1)}")


@pytest.mark.slow
def test_every_alternative_that_is_advised_trains(toy, alone, caplog):
    with pytest.raises(KitError, match="a last batch of one image") as caught:
        train(toy, "alone", "demo", alone)
    assert not Run(toy, "alone").config.exists()
    alternatives = caught.value.do.split(", or ")
    assert [text.split("=")[0] for text in alternatives] == [
        "--set training.batch_size", "--set model.image_size_px", "--set model.norm",
    ]  # fmt: skip
    for number, text in enumerate(alternatives):
        assert train(toy, f"alone-{number}", "demo", (*alone, text.removeprefix("--set "))).finished
    others = [record for record in caplog.records if not record.name.startswith("kit")]
    assert not others, "a library's own words in the log"


def test_a_rank_without_a_launcher_is_refused_before_anything_is_made(toy, monkeypatch):
    for name in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(KitError, match="env -u RANK"):
        train(toy, "waits", "demo", TOY)
    assert not Run(toy, "waits").folder.exists()
