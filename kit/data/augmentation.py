"""The augmentations of a training image, on Albumentations 2.0's own arguments.

CoarseDropout runs in a second pipeline that gets no boxes: it would truncate their corners to whole pixels and
remove a box that a hole covers, but a finding is still there if a patch of it is hidden.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64

# Without this, importing albumentations looks for a newer release on the package index.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2

from kit.boxes.geometry import area
from kit.config import AugmentationConfig
from kit.data.images import Grey

_ROUNDING_PX = 1e-4  # in square pixels: corners come back in float32


@dataclass(frozen=True)
class Augmented:
    """An augmented image with its boxes.

    ``kept`` holds the indices of the given boxes that remain, ``too_small`` those of boxes with an area below
    ``min_area_px``; the others were lost at the border.
    """

    image: Grey
    boxes: Float32[np.ndarray, "n 4"]
    kept: Int64[np.ndarray, " n"]
    too_small: Int64[np.ndarray, " s"]


@dataclass(frozen=True)
class Augmentation:
    """The recipe's pipeline. The result is a pure function of (image, boxes, seed), in any process."""

    config: AugmentationConfig

    def __call__(self, image: Grey, boxes: Float32[np.ndarray, "m 4"], seed: int) -> Augmented:
        """Augment an image (h, w) with its boxes (pixels of this image; zero boxes are fine).

        A box of which less than ``min_visibility`` remains in the image, or whose area in it is below
        ``min_area_px``, is left out of ``kept``.
        """
        self._geometry.set_random_seed(seed)
        moved = self._geometry(image=image[:, :, None], bboxes=boxes, index=np.arange(len(boxes)))
        holed = moved["image"]
        if self.config.dropout_p:
            self._holes.set_random_seed(seed)
            holed = self._holes(image=holed)["image"]
        inside = np.asarray(moved["bboxes"], dtype=np.float32).reshape(-1, 4)
        indices = np.asarray(moved["index"], dtype=np.int64).reshape(-1)  # labels come back as floats
        least = self.config.min_area_px - _ROUNDING_PX
        large = area(inside) >= least
        too_small = np.union1d(np.flatnonzero(area(boxes) < least), indices[~large])
        return Augmented(np.ascontiguousarray(holed[:, :, 0]), inside[large], indices[large], too_small)

    @cached_property
    def _geometry(self) -> A.Compose:
        config = self.config
        shift = (-config.shift, config.shift)
        return A.Compose(
            [
                A.HorizontalFlip(p=config.flip_p),
                A.Affine(
                    scale=(1 - config.scale, 1 + config.scale),
                    translate_percent={"x": shift, "y": shift},
                    rotate=(-config.rotate_degrees, config.rotate_degrees),
                    rotate_method="ellipse",  # the loosest box of a turned square has IoU .667 at 15 degrees
                    border_mode=cv2.BORDER_CONSTANT,  # a mirrored border could show findings without boxes
                    fill=0,
                    p=config.affine_p,
                ),
                A.RandomBrightnessContrast(
                    brightness_limit=(-config.brightness, config.brightness),
                    contrast_limit=(-config.contrast, config.contrast),
                    p=config.brightness_p,
                ),
            ],
            bbox_params=A.BboxParams(
                format="pascal_voc",
                label_fields=["index"],
                min_visibility=config.min_visibility,
                clip=True,
                filter_invalid_bboxes=True,
                check_each_transform=False,  # only the affine moves boxes out of the image: one look at the end
            ),
            is_check_shapes=False,  # there is one image, and nothing beside it
        )

    @cached_property
    def _holes(self) -> A.Compose:
        config = self.config
        side = (config.dropout_side, config.dropout_side)
        return A.Compose(
            [
                A.CoarseDropout(
                    num_holes_range=(1, config.dropout_holes),
                    hole_height_range=side,
                    hole_width_range=side,
                    fill=0,
                    p=config.dropout_p,
                )
            ]
        )
