"""Each view alone must nearly reach the plain one, and a wrong inverse must not."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit.boxes.fusion import fuse
from kit.boxes.geometry import CORNERS, flip_horizontally
from kit.config import VIEW_NAMES, FusionConfig
from kit.data.competition import load_training
from kit.detectors.tta import ZOOM_IN, ZOOM_OUT
from kit.metrics import average_precision
from kit.runs.detections import read_detections
from kit.runs.folder import Run, read_split
from kit.training.train import train

SIDE = 96
ENOUGH = 0.85


def write_shapes(workspace, images=160, seed=0):
    """Bright squares and dark discs on noise: learned in seconds, and at no one place."""
    rng = np.random.default_rng(seed)
    folder = workspace / "data" / "train"
    folder.mkdir(parents=True)
    rows = []
    down, right = np.mgrid[:SIDE, :SIDE]
    for number in range(images):
        picture = rng.normal(100, 12, (SIDE, SIDE))
        for label in ("disc", "square"):
            side = rng.integers(18, 36)
            x, y = rng.integers(2, SIDE - side - 2, 2)
            if label == "square":
                picture[y : y + side, x : x + side] += 90
            else:
                radius = side / 2
                picture[np.hypot(down - y - radius + 0.5, right - x - radius + 0.5) <= radius] -= 90
            rows.append((f"{number:08d}_000.png", x, y, x + side, y + side, label))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:08d}_000.png")
    table = pd.DataFrame(rows, columns=["image_id", *CORNERS, "label"])
    (workspace / "data" / "train.csv").write_text(table.to_csv(index=False))


@pytest.mark.slow
def test_each_view_alone_nearly_reaches_the_plain_one_and_a_wrong_inverse_does_not(tmp_path):
    write_shapes(tmp_path)
    train(
        tmp_path, "shapes", "demo",
        ("model.image_size_px=96", "training.max_epochs=8", "augmentation.flip_p=0.5", "augmentation.affine_p=0.5",
         "augmentation.scale=0.2", "augmentation.brightness_p=0.5", "data.validation_share=0.3",
         f"inference.views={','.join(VIEW_NAMES)}"),
    )  # fmt: skip
    run = Run(tmp_path, "shapes")
    from toy import toy_config

    data, held = load_training(tmp_path, toy_config()), read_split(run).validation
    truth = data.annotations[data.annotations["image_id"].isin(held)]
    detections = read_detections(run.detections("validation"))

    def map50(table, view):
        candidates = fuse(table, FusionConfig(), [("shapes", view)])
        return average_precision.score_detections(truth, candidates, held).map50

    plain = map50(detections, "plain")
    assert plain > 0.5
    for view in VIEW_NAMES[1:]:
        assert map50(detections, view) >= ENOUGH * plain, view

    for view in ("flip", "zoom_out", "zoom_in"):
        wrong = detections.copy()
        boxes = wrong[CORNERS].to_numpy(np.float32)
        # not mirrored back; multiplied by the zoom where it must be divided
        zoom = {"zoom_out": ZOOM_OUT, "zoom_in": ZOOM_IN}.get(view, 1)
        wrong[CORNERS] = flip_horizontally(boxes, SIDE) if view == "flip" else boxes * zoom**2
        assert map50(wrong, view) < ENOUGH * plain, view
