"""Test-time views: what the network is shown instead of the plain image, and the way back for its boxes.

A zoom feeds the whole image at another size, with no crop and no padding; the detectors of ``networks``
take an image as it comes (torchvision's own would resize it back, and every zoom would be the plain view).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kit.boxes import geometry
from kit.boxes.geometry import Boxes
from kit.config import VIEW_NAMES, InferenceConfig
from kit.data.images import Grey, fitted_size, resize_longest

ZOOM_OUT, ZOOM_IN = 0.9, 1.1


@dataclass(frozen=True)
class View:
    """A name, how the image is shown, and how boxes come back to the original image's pixels."""

    name: str
    zoom: float = 1.0
    flip: bool = False
    brightness: float = 1.0

    def size_px(self, image_size_px: int) -> int:
        """Longer side of what the network sees, pixels."""
        return round(self.zoom * image_size_px)

    def apply(self, image: Grey, image_size_px: int) -> Grey:
        """The image (h, w) of any size as this view shows it, longer side ``size_px``."""
        shown = resize_longest(image, self.size_px(image_size_px))
        if self.flip:
            shown = shown[:, ::-1]
        if self.brightness != 1:
            levels = np.round(np.arange(256) * self.brightness).clip(0, 255).astype(np.uint8)
            shown = levels[shown]
        return np.ascontiguousarray(shown)

    def invert(self, boxes: Boxes, width_px: int, height_px: int, image_size_px: int) -> Boxes:
        """Boxes (n, 4) in the pixels of this view, back in the original of that size."""
        shown_width, shown_height = fitted_size(width_px, height_px, self.size_px(image_size_px))
        upright = geometry.flip_horizontally(boxes, shown_width) if self.flip else boxes
        return geometry.scale(upright, width_px / shown_width, height_px / shown_height)


def views(config: InferenceConfig) -> tuple[View, ...]:
    """The configured views, in the order of their names in the configuration."""
    known = (
        View("plain"),
        View("flip", flip=True),
        View("bright", brightness=config.brightness),
        View("zoom_out", zoom=ZOOM_OUT),
        View("zoom_in", zoom=ZOOM_IN),
    )
    assert tuple(view.name for view in known) == VIEW_NAMES
    by_name = {view.name: view for view in known}
    return tuple(by_name[name] for name in config.views)
