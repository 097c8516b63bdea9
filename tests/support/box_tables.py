"""Tables of true boxes and of detections: by hand, and at random."""

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS

TRUTH = ["image_id", *CORNERS, "label"]
DETECTED = ["image_id", *CORNERS, "score", "label"]
COLUMNS = ["run", "fold", "view", "image_id", *CORNERS, "score", "label"]
SIDE = 1024  # a power of two: dividing by it, as the reference wants, loses no digit
SOURCES = [("a", "plain"), ("a", "flip"), ("b", "plain")]
LEFT, NEAR_LEFT, RIGHT = (0, 0, 10, 10), (0, 0, 10, 8), (100, 0, 110, 10)


def truth_of(*rows):
    """Rows of (image_id, box, label)."""
    return pd.DataFrame([(image, *box, label) for image, box, label in rows], columns=TRUTH)


def detected(*rows):
    """Rows of (image_id, box, score, label)."""
    return pd.DataFrame([(image, *box, value, label) for image, box, value, label in rows], columns=DETECTED)


def random_case(seed, classes=4, images=12, boxes=25, detections=150, coarse=True):
    """Truth and detections on a coarse grid, so that overlaps of one half and equal scores are frequent.

    Some images stay without truth, some classes without truth or without detections.
    """
    rng = np.random.default_rng(seed)
    names = [f"{number:03d}.png" for number in range(images)]

    def corners(count):
        low = rng.integers(0, 6, (count, 2)) * 4
        return np.hstack([low, low + rng.integers(1, 5, (count, 2)) * 4])

    truth = pd.DataFrame(corners(boxes), columns=CORNERS)
    truth["image_id"] = rng.choice(names[: images - 3], boxes)
    truth["label"] = [f"class {number}" for number in rng.integers(0, classes, boxes)]
    right = truth.sample(detections // 2, replace=True, random_state=seed)
    wild = pd.DataFrame(corners(detections - len(right)), columns=CORNERS)
    wild["image_id"] = rng.choice(names, len(wild))
    wild["label"] = [f"class {number}" for number in rng.integers(1, classes + 1, len(wild))]
    found = pd.concat([right, wild]).sample(frac=1, random_state=seed)
    found["score"] = rng.integers(1, 9, detections) / 8 if coarse else rng.random(detections)
    return truth[TRUTH], found[DETECTED], names


def random_detections(seed, boxes=120, images=3, classes=3, coarse=False):
    """Boxes scattered around a few places; coarse scores tie often."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0.25, 0.75, (6, 2))
    place = rng.integers(0, 6, boxes)
    centre = places[place] + rng.normal(0, 0.03, (boxes, 2))
    half = rng.uniform(0.05, 0.2, (boxes, 2))
    corners = np.clip(np.hstack([centre - half, centre + half]), 0, 1) * SIDE
    score = rng.integers(1, 6, boxes) / 8 if coarse else rng.uniform(0.001, 1, boxes)
    source = rng.integers(0, len(SOURCES), boxes)
    table = pd.DataFrame(corners.astype(np.float32), columns=CORNERS)
    return table.assign(
        run=[SOURCES[number][0] for number in source],
        fold=0,
        view=[SOURCES[number][1] for number in source],
        image_id=[f"{number}.png" for number in rng.integers(0, images, boxes)],
        score=score,
        label=[f"class {number}" for number in rng.integers(0, classes, boxes)],
    )[COLUMNS]
