"""A timm network under each kind of detector: what it is made of, what its weights fill, what it refuses."""

import dataclasses
import os
import subprocess
import sys

import pytest
import timm
import torch
from repository import ROOT
from torchvision.ops import FrozenBatchNorm2d

from kit.config import Config, ModelConfig, override, preset
from kit.core.errors import KitError
from kit.detector_names import TIMM_DETECTORS
from kit.detectors import networks, timm_backbones
from kit.detectors.checkpoints import load_checkpoint
from kit.detectors.weights import load_initial_weights, resolve_norms

TINY = "test_efficientnet"  # 82,300 parameters


def chosen(detector="fasterrcnn_timm", backbone=TINY, **options):
    values = {"weights": "none", "fpn_channels": 64} | options
    return resolve_norms(ModelConfig(detector=detector, backbone=backbone, **values))


def built(detector="fasterrcnn_timm", seed=0, **options):
    config = chosen(detector, **options)
    torch.manual_seed(seed)
    return networks.build(config, 3), config


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    shown = [torch.randint(0, 256, (1, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return networks.network_input(shown)


def stirred(network):
    """The same network with norms that differ from those of a new one."""
    with torch.no_grad():
        for module in network.backbone.body.modules():
            if hasattr(module, "running_var"):
                module.running_var.uniform_(0.5, 2)
                module.running_mean.uniform_(-0.1, 0.1)
    return network.eval()


def advice(call, **environment):
    """What the KitError of a call in a new process tells to do."""
    imported = "import sys\nfrom kit.detectors.timm_backbones import *\n"
    code = f"{imported}try: {call}\nexcept KitError as error: print(error.do)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                          env=os.environ | environment)  # fmt: skip
    return done.stdout.strip()


@pytest.mark.parametrize("detector", TIMM_DETECTORS)
def test_each_kind_takes_two_steps_also_without_boxes_and_at_sides_that_are_no_multiple_of_32(detector):
    network, _ = built(detector)
    heads = getattr(network, "roi_heads", network)
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.001, 0.3, 100)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    targets = [
        {"boxes": torch.tensor([[10.0, 10.0, 60.0, 50.0]]), "labels": torch.tensor([3])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    before = network.backbone.body.state_dict()["conv_stem.weight"].clone()
    for _ in range(2):
        loss = sum(network(images((90, 77), (70, 101)), targets).values())
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not torch.equal(before, network.backbone.body.state_dict()["conv_stem.weight"])
    with torch.inference_mode():
        (found,) = network.eval()(images((90, 77)))
    assert len(found["boxes"])
    assert found["boxes"].max() <= 90


@pytest.mark.parametrize(
    ("detector", "strides", "first_sides"),
    [
        ("fasterrcnn_timm", [4, 8, 16, 32, 64], (32,)),
        ("retinanet_timm", [8, 16, 32, 64, 128], (32, 40, 50)),
        ("fcos_timm", [8, 16, 32, 64, 128], (8,)),
    ],
)
def test_anchors_fit_the_strides(detector, strides, first_sides):
    network, _ = built(detector)
    assert network.backbone.strides == strides
    anchors = network.rpn.anchor_generator if hasattr(network, "rpn") else network.anchor_generator
    assert anchors.sizes[0] == first_sides
    assert [sides[0] / stride for sides, stride in zip(anchors.sizes, strides, strict=True)] == [
        first_sides[0] / strides[0]
    ] * 5
    maps = network.eval().backbone(torch.zeros(1, 3, 128, 256))
    assert [tuple(one.shape) for one in maps.values()] == [
        (1, 64, -(-128 // stride), -(-256 // stride)) for stride in strides
    ]


@pytest.mark.parametrize("detector", TIMM_DETECTORS)
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_detections_are_equal_before_and_after_a_checkpoint(detector, norm, tmp_path):
    network, config = built(detector, norm=norm, norm_eps=0.01)
    network = stirred(network)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "a.ckpt")
    torch.manual_seed(99)
    rebuilt = networks.build(config, 3)
    rebuilt.load_state_dict(load_checkpoint(tmp_path / "a.ckpt", "")["state_dict"])
    with torch.inference_mode():
        (before,), (after,) = (each.eval()(images((64, 96))) for each in (network, rebuilt))
    assert len(before["scores"]) > 0
    assert torch.equal(before["boxes"], after["boxes"])
    assert torch.equal(before["scores"], after["scores"])


@pytest.mark.parametrize("backbone", [TINY, "resnet10t"])
def test_freezing_keeps_what_the_norms_compute_activations_included_and_stops_their_learning(backbone):
    network, config = built(backbone=backbone, norm="batch", norm_eps=0.02)
    network = stirred(network)
    frozen = networks.build(dataclasses.replace(config, norm="frozen"), 3)
    frozen.load_state_dict({name: one for name, one in network.state_dict().items() if "num_batches" not in name})
    norms = [module for module in frozen.backbone.body.modules() if hasattr(module, "running_var")]
    assert norms
    assert {module.eps for module in norms} == {0.02}
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in norms)
    shown = torch.rand(2, 3, 64, 96)
    for one, other in zip(network.backbone.body(shown), frozen.backbone.body(shown), strict=True):
        torch.testing.assert_close(one, other)
    frozen.train()
    means = [module.running_mean.clone() for module in norms]
    frozen.backbone.body(shown)
    assert all(torch.equal(mean, module.running_mean) for mean, module in zip(means, norms, strict=True))
    assert not any(weight.requires_grad for module in norms for weight in module.parameters())


def test_a_plain_norm_becomes_torchvisions_frozen_one():
    network, _ = built(backbone="resnet10t", norm="frozen")
    assert any(isinstance(module, FrozenBatchNorm2d) for module in network.backbone.body.modules())


def test_norms_and_their_epsilon_are_named_as_timm_makes_them():
    assert (chosen().norm, chosen().norm_eps) == ("batch", 1e-5)
    assert (chosen(weights="imagenet").norm, chosen(weights="imagenet").norm_eps) == ("frozen", 1e-5)
    assert chosen(backbone="tf_efficientnet_lite0").norm_eps == 1e-3
    assert chosen(norm_eps=0.5).norm_eps == 0.5
    assert chosen(backbone="convnext_atto").norm_eps == networks.TORCH_EPS  # it has none


def test_pixels_are_normalised_as_the_backbone_was_trained():
    for name, mean in (("tf_efficientnet_lite0", 0.5), (TINY, 0.485)):
        network, _ = built(backbone=name)
        assert network.transform.image_mean[0] == mean


class TestWeights:
    def test_timms_own_file_fills_the_backbone_and_nothing_else(self, tmp_path, caplog):
        torch.manual_seed(5)
        classifier = timm.create_model(TINY, pretrained=False)
        torch.save(classifier.state_dict(), tmp_path / "weights.pth")
        network, config = built(weights=str(tmp_path / "weights.pth"))
        assert config.norm == "frozen"
        random = load_initial_weights(network, config)
        name = "blocks.1.0.conv_exp.weight"
        assert torch.equal(network.backbone.body.state_dict()[name], classifier.state_dict()[name])
        assert random
        assert not any(one.startswith("backbone.body") for one in random)
        assert not [
            record for record in caplog.records if record.name.startswith("timm")
        ]  # of the classifier's keys

    def test_safetensors_are_read_too(self, tmp_path):
        from safetensors.torch import save_file

        classifier = timm.create_model("convnext_atto", pretrained=False)
        save_file(classifier.state_dict(), tmp_path / "model.safetensors")
        network, config = built(backbone="convnext_atto", weights=str(tmp_path / "model.safetensors"))
        load_initial_weights(network, config)
        assert torch.equal(
            network.backbone.body.state_dict()["stem_0.weight"], classifier.state_dict()["stem.0.weight"]
        )

    def test_a_broken_file_of_that_kind_is_refused_by_name(self, tmp_path):
        (tmp_path / "model.safetensors").write_bytes(b"no")
        with pytest.raises(KitError, match=r"model\.safetensors"):
            chosen(weights=str(tmp_path / "model.safetensors"))

    def test_a_run_of_the_same_detector_fills_all_but_a_head_for_other_classes(self, tmp_path):
        network, config = built(norm="batch")
        content = {"state_dict": network.state_dict(), "kit": {"model": dataclasses.asdict(config)}}
        torch.save(content, tmp_path / "a.ckpt")
        start = chosen(weights=str(tmp_path / "a.ckpt"))
        assert start.norm == "batch"
        torch.manual_seed(5)
        other = networks.build(start, 7)
        random = load_initial_weights(other, start)
        assert all(name.startswith("roi_heads.box_predictor") for name in random)
        for name in ("backbone.body.conv_stem.weight", "backbone.fpn.inner_blocks.0.0.weight"):
            assert torch.equal(other.state_dict()[name], network.state_dict()[name])

    def test_weights_of_another_network_are_refused(self, tmp_path):
        torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "a.pth")
        network, config = built(weights=str(tmp_path / "a.pth"))
        with pytest.raises(KitError, match=f"to hold weights of {TINY}"):
            load_initial_weights(network, config)

    def test_coco_weights_do_not_exist_and_the_error_names_those_that_do(self):
        network, _ = built()
        with pytest.raises(KitError) as caught:
            load_initial_weights(network, chosen(weights="coco"))
        assert "imagenet fills the backbone" in caught.value.do

    def test_a_network_without_published_weights_says_so(self):
        with pytest.raises(KitError, match="timm has none"):
            timm_backbones.pretrained_weights("lcnet_035")

    @pytest.mark.slow
    def test_downloaded_weights_fill_the_backbone_and_missing_ones_name_the_page_and_the_way_without(
        self, tmp_path
    ):
        """Offline, with one network's weights in the hub's own cache as a download would leave them."""
        from safetensors.torch import save_file

        page = tmp_path / "hub" / "models--timm--test_efficientnet.r160_in1k"
        for folder in (page / "refs", page / "snapshots" / "0"):
            folder.mkdir(parents=True)
        (page / "refs" / "main").write_text("0")
        weights = {name: torch.full_like(one, 3) for name, one in timm.create_model(TINY).state_dict().items()}
        save_file(weights, page / "snapshots" / "0" / "model.safetensors")
        filled = f"assert all(one.eq(3).all() for one in pretrained_weights({TINY!r}).values())"
        call = f"{filled}; pretrained_weights('lcnet_050')"
        do = advice(call, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
        assert "/timm/lcnet_050" in do
        assert "--set model.weights=PATH" in do
        assert "--set model.weights=none" in do


class TestRefusals:
    def test_a_mistyped_name_gets_the_nearest(self):
        with pytest.raises(KitError, match="efficientnet_lite0"):
            chosen(backbone="eficientnet_lite0")

    @pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "mixer_s32_224"])
    def test_a_network_for_images_of_one_size_is_refused(self, name):
        with pytest.raises(KitError, match="images of any size"):
            chosen(backbone=name)

    @pytest.mark.parametrize(
        "knobs",
        [
            ("model.detector=fasterrcnn_timm",),
            ("model.backbone=resnet18",),
            ("model.detector=fcos_timm", "model.backbone=resnet18", "model.fpn_channels=100"),
        ],
    )
    def test_knobs_that_do_not_go_together_are_refused_at_once(self, knobs):
        with pytest.raises(KitError, match=r"model\."):
            override(Config(), knobs)

    @pytest.mark.slow
    def test_without_timm_the_error_is_the_command_that_installs_it(self):
        assert (
            advice("sys.modules.update(timm=None) or build_timm('fcos', 'resnet18', 64, 2)") == "pip install timm"
        )


@pytest.mark.slow
def test_a_run_trains_resumes_its_knobs_and_gives_its_weights_to_another(toy):
    from toy import TOY

    from kit.config import load
    from kit.evaluation.predict import predict
    from kit.runs.folder import Run
    from kit.training.train import train

    knobs = (*TOY, "training.max_epochs=1", "model.detector=retinanet_timm", f"model.backbone={TINY}",
             "model.fpn_channels=64")  # fmt: skip
    train(toy, "first", "demo", knobs)
    assert load(Run(toy, "first").config).model.norm == "batch"
    train(toy, "second", "demo", (*knobs, f"model.weights={Run(toy, 'first').best}"))
    predict(Run(toy, "second"))
    assert preset("laptop").model.backbone == ""  # timm is an extra; what comes with the kit needs none
