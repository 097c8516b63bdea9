"""Test-time views: the variants of an image that the network gets, and the way back for their boxes.

A zoom is the whole image at another size, without crop or padding. The detectors of ``networks`` do not resize it;
torchvision's would, and every zoom would equal the plain view.
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
    """One view: its name and its changes of the image."""

    name: str
    zoom: float = 1.0
    flip: bool = False
    brightness: float = 1.0

    def size_px(self, image_size_px: int) -> int:
        """The longer side of the view, pixels."""
        return round(self.zoom * image_size_px)

    def apply(self, image: Grey, image_size_px: int) -> Grey:
        """The view of an image (h, w) of any size; its longer side is ``size_px(image_size_px)``."""
        view = resize_longest(image, self.size_px(image_size_px))
        if self.flip:
            view = view[:, ::-1]
        if self.brightness != 1:
            levels = np.round(np.arange(256) * self.brightness).clip(0, 255).astype(np.uint8)
            view = levels[view]
        return np.ascontiguousarray(view)

    def invert(self, boxes: Boxes, width_px: int, height_px: int, image_size_px: int) -> Boxes:
        """Move boxes (n, 4) from the pixels of this view to those of the original of that size."""
        view_width, view_height = fitted_size(width_px, height_px, self.size_px(image_size_px))
        unflipped = geometry.flip_horizontally(boxes, view_width) if self.flip else boxes
        return geometry.scale(unflipped, width_px / view_width, height_px / view_height)


def views(config: InferenceConfig) -> tuple[View, ...]:
    """The configured views, in the configured order."""
    all_views = (
        View("plain"),
        View("flip", flip=True),
        View("bright", brightness=config.brightness),
        View("zoom_out", zoom=ZOOM_OUT),
        View("zoom_in", zoom=ZOOM_IN),
    )
    assert tuple(view.name for view in all_views) == VIEW_NAMES
    by_name = {view.name: view for view in all_views}
    return tuple(by_name[name] for name in config.views)
