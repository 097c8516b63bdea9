"""A second stage takes the class rows of the first by the names of its labels."""

import dataclasses

import numpy as np
import pytest
import torch
from test_networks import built, example

from kit.detector_names import SET_DETECTORS
from kit.detectors import networks
from kit.detectors.class_rows import by_label, saved_labels
from kit.detectors.weights import load_initial_weights

FIRST = ("Effusion", "Mass", "Nodule")
TORCHVISION = ["fcos_tiny", "fasterrcnn_mobilenet_v3_large_320_fpn",
               *(pytest.param(name, marks=pytest.mark.slow)
                 for name in ("retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"))]  # fmt: skip
TIMM = [pytest.param(f"{kind}_timm", marks=pytest.mark.slow) for kind in ("fasterrcnn", "retinanet", "fcos")]
SETS = [pytest.param(name, marks=pytest.mark.slow) for name in ("dfine", "rfdetr")]


def first_stage(name, folder):
    """A detector whose scores differ by class, and its checkpoint."""
    network, config = built(name, classes=len(FIRST))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in network.parameters():
            tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator))
    made = {"model": dataclasses.asdict(config), "labels": list(FIRST), "epoch": 1}
    torch.save({"state_dict": network.state_dict(), "kit": made}, folder / "best.ckpt")
    return network.eval(), dataclasses.replace(config, weights=str(folder / "best.ckpt"))


def detections(network, labels):
    """Rows of label, score and corners, sorted; without the background, which FCOS detects too."""
    with torch.no_grad():
        (found,) = network(networks.network_input([example()]))
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    return sorted((labels[label - 1], round(score, 5), *np.round(box, 2)) for label, score, box in rows if label)


@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM, *SETS])
def test_the_same_labels_in_another_order_detect_the_same(name, tmp_path):
    network, config = first_stage(name, tmp_path)
    torch.manual_seed(9)
    second = networks.build(config, len(FIRST))
    assert load_initial_weights(second, config, tmp_path / "weights.json", FIRST[::-1]) == []
    found = detections(network, FIRST)
    # One class may take every box; not the middle one, whose place is the same in both orders.
    assert {row[0] for row in found} - {FIRST[1]}
    assert detections(second.eval(), FIRST[::-1]) == found


@pytest.mark.parametrize("name", [*TORCHVISION[:2], *SETS])
def test_a_label_that_is_new_stays_random_and_the_others_keep_their_rows(name, tmp_path):
    network, config = first_stage(name, tmp_path)
    torch.manual_seed(9)
    second = networks.build(config, 2)
    before = {key: value.clone() for key, value in second.state_dict().items()}
    assert load_initial_weights(second, config, tmp_path / "weights.json", ("Fracture", "Mass")) == []
    changed = {key for key, value in second.state_dict().items() if value.shape != network.state_dict()[key].shape}
    assert changed
    for key in changed:
        theirs, ours = (
            each.state_dict()[key].reshape(len(each.state_dict()[key]), -1) for each in (network, second)
        )
        kept = [any(torch.equal(row, other) for other in theirs) for row in ours]
        untouched = [torch.equal(a, b) for a, b in zip(ours, before[key].reshape(ours.shape), strict=True)]
        assert all(a or b for a, b in zip(kept, untouched, strict=True)), key
        assert any(kept) and any(untouched), key


@pytest.mark.parametrize("name", [*(name for name in networks.DETECTORS if not name.endswith("timm")
                                   and name not in SET_DETECTORS), *TIMM, *SETS])  # fmt: skip
def test_every_tensor_that_depends_on_the_labels_is_taken_by_label_whatever_their_number(name):
    with torch.device("meta"):  # shapes alone
        first, second = (built(name, classes=labels)[0].state_dict() for labels in (len(FIRST), len(FIRST) - 1))
    assert {key for key in first if first[key].shape != second[key].shape}
    moved = by_label(first, FIRST, second, ("Mass", "Fracture"))
    assert {key: tensor.shape for key, tensor in moved.items()} == {key: t.shape for key, t in second.items()}


def test_rows_by_hand():
    """Two anchors: rows background, Mass, Nodule of the first, then of the second."""
    name = "head.classification_head.cls_logits.bias"
    saved = {name: torch.tensor([0.0, 1, 2, 10, 11, 12])}
    own = {name: torch.full((8,), -1.0)}
    moved = by_label(saved, ("Mass", "Nodule"), own, ("Cyst", "Nodule", "Mass"))
    assert moved[name].tolist() == [0, -1, 2, 1, 10, -1, 12, 11]
    regions = {"rpn.head.cls_logits.bias": torch.zeros(6), "rpn.head.bbox_pred.bias": torch.zeros(6)}
    assert by_label(regions, ("Mass", "Nodule"), regions, ("Nodule", "Mass")) == regions


@pytest.mark.parametrize("made", [{}, {"kit": 3}, {"kit": {"labels": "Mass"}}, {"kit": {"labels": [1]}}])
def test_a_file_that_names_no_labels_has_none(made):
    assert saved_labels(made) == ()
