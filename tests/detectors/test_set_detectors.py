"""D-FINE and RF-DETR in torchvision's calling convention: the arithmetic, then the networks themselves."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import FrozenBatchNorm2d, box_iou

from kit.config import ModelConfig
from kit.core.errors import KitError
from kit.detector_names import SET_DETECTORS, SIZES
from kit.detectors import networks
from kit.detectors.checkpoints import load_checkpoint
from kit.detectors.norms import takes_one_image
from kit.detectors.set_detectors import (
    LOSS_KINDS,
    Size,
    build_set_detector,
    by_kind,
    decoded,
    fitting_side,
    in_32_bits,
    read_family,
)
from kit.detectors.weights import load_initial_weights, resolve_norms

CLASSES = 8
# Published: https://github.com/Peterande/D-FINE and https://rfdetr.roboflow.com/latest/learn/run/detection
MILLIONS = {
    "dfine": {"n": (4, 0.5), "s": (10, 0.5), "m": (19, 0.6), "l": (31, 0.5)},
    "rfdetr": {"n": (30.5, 0.05), "s": (32.1, 0.05), "m": (33.7, 0.05), "l": (33.9, 0.05)},
}


@pytest.mark.parametrize("name", SET_DETECTORS)
def test_every_size_ships_with_its_source_and_only_the_published_ones_have_weights(name):
    family = read_family(name)
    assert tuple(family.sizes) == SIZES
    assert "https://" in family.source
    assert [size for size in SIZES if not family.sizes[size].repository] == ["tiny"]
    assert len({size.repository for size in family.sizes.values()}) == len(SIZES)


def test_a_square_holds_the_image_and_has_a_cell_for_each_query():
    plain = Size("", 32, (8, 16, 32), {})
    assert fitting_side(640, plain, 300) == 640
    assert fitting_side(641, plain, 300) == 672
    # 96 px: 12^2 + 6^2 + 3^2 = 189 cells; 128 px: 16^2 + 8^2 + 4^2 = 336
    assert fitting_side(64, plain, 300) == 128
    assert fitting_side(1, plain, 1) == 32
    assert fitting_side(1, Size("", 32, (16,), {}), 300) == 288  # 18^2 = 324


def test_the_best_pairs_of_box_and_class_are_chosen_above_the_floor():
    # Query 0 has classes .9 and .6, query 1 has .7 and .2: the two best pairs are (0, first) and (1, first).
    logits = torch.logit(torch.tensor([[[0.9, 0.6], [0.7, 0.2]]]))
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.25, 0.5, 0.5]]])
    (found,) = decoded(logits, boxes, 100, 0.1)
    assert found["labels"].tolist() == [1, 1]
    assert torch.allclose(found["scores"], torch.tensor([0.9, 0.7]))
    assert torch.allclose(found["boxes"], torch.tensor([[40.0, 30, 60, 70], [0, 0, 50, 50]]), atol=1e-4)
    (above,) = decoded(logits, boxes, 100, 0.7001)
    assert len(above["boxes"]) == len(above["labels"]) == len(above["scores"]) == 1


def test_one_box_may_come_back_under_two_classes():
    logits = torch.logit(torch.tensor([[[0.9, 0.8], [0.1, 0.2]]]))
    (found,) = decoded(logits, torch.rand(1, 2, 4), 64, 0.0)
    assert found["labels"].tolist() == [1, 2]
    assert torch.equal(found["boxes"][0], found["boxes"][1])


def test_the_parts_of_a_loss_are_summed_by_kind_with_their_weights():
    parts = {"loss_ce": 1.0, "loss_ce_enc": 2.0, "loss_bbox": 3.0, "loss_giou_0": 4.0, "cardinality_error": 9.0}
    weights = SimpleNamespace(class_loss_coefficient=1.0, bbox_loss_coefficient=5.0, giou_loss_coefficient=2.0)
    sums = by_kind({name: torch.tensor(value) for name, value in parts.items()}, weights)
    assert {kind: float(part) for kind, part in sums.items()} == {"class": 1 + 2, "box": 5 * 3 + 2 * 4, "rest": 0}
    weighted = {"loss_vfl_dn_0": 1.0, "loss_giou_aux_1": 2.0, "loss_fgl": 3.0, "loss_ddf_aux_0": 4.0}
    sums = by_kind({name: torch.tensor(value) for name, value in weighted.items()}, SimpleNamespace())
    assert {kind: float(part) for kind, part in sums.items()} == {"class": 1, "box": 2, "rest": 3 + 4}


def test_a_loss_takes_its_tensors_in_32_bits_and_all_else_as_it_is():
    seen = []

    def loss(logits, labels, *, boxes, count):
        seen.append((logits.dtype, labels.dtype, boxes.dtype, count))
        return logits @ logits.T

    with torch.autocast("cpu", dtype=torch.bfloat16):
        computed = in_32_bits(loss)(
            torch.ones(1, 2).half(), torch.ones(2).long(), boxes=torch.ones(2).bfloat16(), count=3
        )
    assert seen == [(torch.float32, torch.int64, torch.float32, 3)]
    assert computed.dtype == torch.float32


@pytest.mark.parametrize("name", SET_DETECTORS)
def test_tiny_starts_at_random_and_other_sizes_from_what_is_configured(name):
    assert resolve_norms(ModelConfig(detector=name, size="tiny", weights="coco")).weights == "none"
    assert ModelConfig(detector=name, size="tiny", weights="a.ckpt").start == "a.ckpt"
    assert ModelConfig(detector=name, size="n", weights="coco").start == "coco"
    assert ModelConfig(detector="fcos_resnet50_fpn", size="tiny", weights="coco").start == "coco"


@pytest.mark.parametrize("installed", [None, SimpleNamespace(__version__="5.17.0", DFineForObjectDetection=object)])
def test_without_the_extra_the_error_names_it(installed, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", installed)
    with pytest.raises(KitError) as caught:
        build_set_detector(ModelConfig(detector="dfine"), 9)
    assert "transformers" in caught.value.expected
    assert "pip install -e '.[detr]'" in caught.value.do


def built(name, size="tiny", **options):
    pytest.importorskip("transformers", reason="the extra detr is not installed")
    config = resolve_norms(ModelConfig(detector=name, size=size, weights="none", **options))
    torch.manual_seed(0)
    return networks.build(config, CLASSES)


def pictures(*sizes):
    generator = torch.Generator().manual_seed(3)
    return networks.network_input(
        [torch.randint(0, 256, (1, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    )


def target(*boxes):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(1, len(boxes) + 1) * CLASSES // max(1, len(boxes)),
    }


MIXED = pictures((96, 64), (40, 200), (128, 128), (90, 96))


def processor_of(name):
    from transformers import RfDetrImageProcessor, RTDetrImageProcessor

    return RTDetrImageProcessor() if name == "dfine" else RfDetrImageProcessor()


@pytest.mark.slow
@pytest.mark.parametrize("name", SET_DETECTORS)
class TestNetworks:
    def test_before_suppression_the_answer_is_that_of_the_familys_own_post_processing(self, name):
        network = built(name).eval()
        image = MIXED[2]
        with torch.inference_mode():
            out = network.network(pixel_values=network.padded([image], 128))
            network.score_thresh = floor = float(out.logits.sigmoid().flatten().topk(50).values.median())
            (found,) = network.candidates([image])
        (own,) = processor_of(name).post_process_object_detection(out, threshold=floor, target_sizes=[(128, 128)])
        assert 0 < len(own["scores"]) == len(found["scores"]) < 50
        assert torch.equal(found["labels"], own["labels"] + 1)
        for key in ("scores", "boxes"):
            assert (found[key] - own[key]).abs().max() <= 1e-5, key

    def test_a_batch_of_mixed_images_is_answered_as_each_image_alone(self, name):
        network = built(name, score_floor=0.0).eval()
        with torch.inference_mode():
            together, alone = network(MIXED), [network([image])[0] for image in MIXED]
        assert sum(len(found["boxes"]) for found in alone) > 0
        for one, other in zip(together, alone, strict=True):
            assert torch.equal(one["labels"], other["labels"])
            for key in ("scores", "boxes"):
                assert torch.allclose(one[key], other[key], atol=1e-4), key

    def test_pixels_are_normalised_and_padded_as_by_the_familys_image_processor(self, name):
        network = built(name)
        grey = torch.randint(0, 256, (1, 100, 80), dtype=torch.uint8)
        processor = processor_of(name)
        size = {"height": 128, "width": 128}
        given = processor(images=[grey.expand(3, -1, -1)], do_resize=False, do_pad=True, pad_size=size,
                          return_tensors="pt")  # fmt: skip
        ours = network.padded(networks.network_input([grey]), 128)
        assert torch.allclose(ours, given["pixel_values"], atol=1e-6)
        assert ours[0, :, 100:].abs().max() == ours[0, :, :, 80:].abs().max() == 0

    def test_the_kinds_of_loss_add_up_to_the_librarys_own(self, name):
        network = built(name).train()
        targets = [target((10, 10, 50, 50)), target(), target((5, 5, 100, 90), (20, 30, 60, 120)), target()]
        torch.manual_seed(1)
        losses = network(MIXED, targets)
        side = network.side_px(MIXED[1])
        labels = [
            {"class_labels": each["labels"] - 1, "boxes": boxes_as_shares(each["boxes"], side)} for each in targets
        ]
        torch.manual_seed(1)
        own = network.network(pixel_values=network.padded(MIXED, side), labels=labels).loss
        assert tuple(losses) == LOSS_KINDS
        assert torch.allclose(sum(losses.values()), own, rtol=1e-5)
        assert losses["class"] > 0 and losses["box"] > 0

    def test_a_batch_without_boxes_is_a_step_like_others(self, name):
        network = built(name).train()
        loss = sum(network(MIXED[:2], [target(), target()]).values())
        loss.backward()
        assert torch.isfinite(loss) and loss > 0
        for key, weight in network.named_parameters():  # otherwise several processes would wait for it
            assert not weight.requires_grad or torch.isfinite(weight.grad).all(), key

    def test_no_two_boxes_of_a_class_overlap_and_the_limits_hold(self, name):
        images = [image.contiguous() for image in MIXED]
        network = built(name, score_floor=0.0, nms_iou=0.2, detections_per_image=30).eval()
        with torch.inference_mode():
            found = network(images)
            before = network.candidates(images)
        assert any(len(one["boxes"]) < len(two["boxes"]) for one, two in zip(found, before, strict=True))
        for image, one in zip(images, found, strict=True):
            height, width = image.shape[1:]
            boxes = one["boxes"]
            assert len(boxes) <= 30
            assert ((boxes >= 0) & (boxes <= torch.tensor([width, height, width, height]))).all()
            assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()
            assert torch.equal(one["scores"], one["scores"].sort(descending=True).values)
            overlap = box_iou(boxes, boxes).fill_diagonal_(0)
            same = one["labels"][:, None] == one["labels"]
            assert (overlap[same] <= 0.2 + 1e-4).all()
        network.score_thresh = 2.0
        assert [len(one["boxes"]) for one in network(images)] == [0, 0, 0, 0]

    def test_a_checkpoint_of_plain_tensors_gives_the_same_detections(self, name, tmp_path):
        network = built(name, score_floor=0.0)
        targets = [target((10, 10, 50, 50)), target((5, 5, 30, 40)), target(), target((20, 30, 60, 80))]
        sum(network(MIXED, targets).values()).backward()
        torch.optim.SGD(network.parameters(), lr=1e-4).step()  # the weights of no fresh network
        torch.save({"state_dict": network.state_dict()}, tmp_path / "a.ckpt")
        torch.manual_seed(9)
        other = networks.build(resolve_norms(ModelConfig(detector=name, size="tiny", score_floor=0.0)), CLASSES)
        random = load_initial_weights(
            other, ModelConfig(detector=name, size="tiny", weights=str(tmp_path / "a.ckpt"))
        )
        assert random == []
        assert set(load_checkpoint(tmp_path / "a.ckpt", "")["state_dict"]) == set(other.state_dict())
        with torch.inference_mode():
            for one, two in zip(network.eval()(MIXED), other.eval()(MIXED), strict=True):
                assert torch.equal(one["scores"], two["scores"])
                assert torch.equal(one["boxes"], two["boxes"])

    def test_a_class_head_for_other_classes_starts_at_random_and_all_else_is_taken(self, name, tmp_path):
        network = built(name)
        torch.save({"state_dict": network.state_dict()}, tmp_path / "a.ckpt")
        other = networks.build(resolve_norms(ModelConfig(detector=name, size="tiny")), 3)
        random = load_initial_weights(
            other, ModelConfig(detector=name, size="tiny", weights=str(tmp_path / "a.ckpt"))
        )
        assert random
        assert all("class_embed" in key or "enc_score_head" in key for key in random)

    def test_after_detecting_in_inference_mode_training_goes_on(self, name):
        network = built(name).eval()
        with torch.inference_mode():
            network(MIXED[2:3])
        sum(network.train()(MIXED[2:3], [target((10, 10, 50, 50))]).values()).backward()
        assert all(torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None)

    @pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
    def test_in_mixed_precision_losses_and_scores_stay_finite_and_near(self, name, kind):
        network = built(name, score_floor=0.0)
        targets = [target((10, 10, 50, 50)), target(), target((5, 5, 100, 90)), target()]
        torch.manual_seed(1)
        exact = sum(network(MIXED, targets).values())
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=kind):
            loss = sum(network(MIXED, targets).values())
            with torch.inference_mode():
                found = network.eval()(MIXED)
        loss.backward()
        assert torch.isfinite(loss) and abs(loss - exact) < 0.1 * exact
        assert all(one["scores"].dtype == one["boxes"].dtype == torch.float32 for one in found)
        assert all(torch.isfinite(one["boxes"]).all() for one in found)

    @pytest.mark.parametrize("logit", [-18.0, 9.0])  # whose scores half precision rounds to 0 and 1
    def test_in_half_precision_sure_scores_have_the_loss_that_they_have_in_32_bits(self, name, logit):
        network = built(name)
        with torch.no_grad():
            for key, weight in network.named_parameters():
                if re.search(r"(class_embed|enc_score_head)(\.\d+)?\.bias", key):
                    weight.fill_(logit)
        losses = []
        for is_half in (False, True):
            torch.manual_seed(1)
            with torch.autocast("cpu", dtype=torch.float16, enabled=is_half):
                losses.append(sum(network(MIXED[2:3], [target((10, 10, 50, 50))]).values()))
        assert torch.isfinite(losses[1]) and abs(losses[1] - losses[0]) < 0.1 * losses[0]
        losses[1].backward()
        assert all(torch.isfinite(weight.grad).all() for weight in network.parameters() if weight.grad is not None)

    def test_one_class_is_enough(self, name):
        built(name)
        network = networks.build(resolve_norms(ModelConfig(detector=name, size="tiny", score_floor=0.0)), 1)
        only = {"boxes": torch.tensor([[10.0, 10, 50, 50]]), "labels": torch.tensor([1])}
        assert torch.isfinite(sum(network.train()(MIXED[2:3], [only]).values()))
        with torch.inference_mode():
            assert set(network.eval()(MIXED[2:3])[0]["labels"].tolist()) <= {1}

    def test_a_batch_of_one_small_image_trains(self, name):
        network = built(name)
        assert takes_one_image(network, 32)
        assert torch.isfinite(sum(network.train()(pictures((20, 32)), [target((2, 3, 15, 16))]).values()))

    def test_the_body_has_fixed_norms_of_the_configured_epsilon_if_it_is_configured(self, name):
        body = built(name, norm="frozen", norm_eps=0.25).body
        fixed = {module.eps for module in body.modules() if isinstance(module, FrozenBatchNorm2d)}
        assert fixed == ({0.25} if name == "dfine" else set())  # RF-DETR's has layer norms
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in body.modules())

    def test_one_seed_gives_one_gradient(self, name):
        network = built(name)
        gradients = []
        for _ in range(2):
            network.zero_grad()
            torch.manual_seed(4)
            sum(network(MIXED[2:3], [target((10, 10, 50, 50))]).values()).backward()
            gradients.append([w.grad.clone() for w in network.parameters() if w.grad is not None])
        assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", SET_DETECTORS)
def test_the_sizes_have_as_many_weights_as_published_and_tiny_one_to_four_millions(name):
    pytest.importorskip("transformers", reason="the extra detr is not installed")
    published = 91 if name == "rfdetr" else 80
    for size in SIZES:
        with torch.device("meta"):
            network = build_set_detector(ModelConfig(detector=name, size=size, weights="none"), published + 1)
        millions = sum(weight.numel() for weight in network.parameters()) / 1e6
        expected, tolerance = MILLIONS[name].get(size, (2.5, 1.5))
        assert millions == pytest.approx(expected, abs=tolerance), size


def boxes_as_shares(boxes, side):
    corners = boxes.numpy()
    middle, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return torch.from_numpy(np.concatenate([middle, sides], axis=1) / side).reshape(-1, 4)
