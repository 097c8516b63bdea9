"""A stand-in with torchxrayvision's interface: its scores are the means of parts of the picture."""

from types import SimpleNamespace

import numpy as np
import torch


class DenseNet(torch.nn.Module):
    def __init__(self, weights):
        super().__init__()
        assert weights == "densenet121-res224-pc"
        self.pathologies = ["Atelectasis", "Infiltration", "Fracture", "", "Mass"]

    def forward(self, pictures):
        assert pictures.shape == (1, 1, 224, 224)
        assert pictures.dtype == torch.float32
        return torch.sigmoid(pictures[:, 0].mean(dim=2)[:, : len(self.pathologies)] / 1024)


class XRayCenterCrop:
    def __call__(self, picture):
        _, height, width = picture.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return picture[:, top : top + side, left : left + side]


class XRayResizer:
    def __init__(self, size):
        self.size = size

    def __call__(self, picture):
        rows = np.arange(self.size) * picture.shape[1] // self.size
        return picture[:, rows][:, :, rows]


def normalize(picture, maxval):
    assert picture.ndim == 2
    return (2 * picture / maxval - 1) * 1024


models = SimpleNamespace(DenseNet=DenseNet)
datasets = SimpleNamespace(XRayCenterCrop=XRayCenterCrop, XRayResizer=XRayResizer, normalize=normalize)
