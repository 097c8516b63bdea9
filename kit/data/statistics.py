"""What the data hold, as tables: counts, sizes, classes, size and position of the boxes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.schemas.image_headers import ImageFacts


def dataset_tables(
    annotations: pd.DataFrame,
    mapping: pd.DataFrame,
    train_images: Mapping[str, ImageFacts],
    test_images: Mapping[str, ImageFacts],
    patients: Mapping[str, str] | None,
) -> dict[str, pd.DataFrame]:
    """The tables of the report on the data, by title.

    Classes are ordered by number of boxes, the most frequent first, then by name. Standard deviations are those of
    a sample (NaN for one box). With zero boxes the tables of classes are empty.

    Args:
        annotations: The true boxes: image_id, corners in pixels, label.
        mapping: ID and image_id.
        train_images: The images of train/.
        test_images: The images of test/ that have an ID.
        patients: The patient of every image; None if they are not known: then nothing counts patients.
    """
    patient_of = patients or {}
    boxes = annotations.assign(patient=annotations["image_id"].map(patient_of))
    classes = boxes.groupby("label").agg(
        boxes=("image_id", "size"), images=("image_id", "nunique"), patients=("patient", "nunique")
    )
    classes = classes.sort_values("boxes", ascending=False, kind="stable")
    classes.insert(1, "share", classes["boxes"] / len(boxes) if len(boxes) else 0.0)
    per_image = boxes["image_id"].value_counts().reindex(list(train_images), fill_value=0)
    trained = {patient_of.get(image_id) for image_id in train_images}
    tested = [patient_of.get(image_id) for image_id in test_images]
    counts = {
        "training images": len(train_images),
        "boxes": len(boxes),
        "training images without a box": int((per_image == 0).sum()),
        "training patients": len(trained),
        "test images": len(test_images),
        "test IDs": len(mapping),
        "test IDs that share their image": int(mapping["image_id"].duplicated(keep=False).sum()),
        "test patients": len(set(tested)),
        "test patients who are also in training": len(trained & set(tested)),
        "test images of these patients": sum(patient in trained for patient in tested),
    }
    if patients is None:
        counts = {what: count for what, count in counts.items() if "patients" not in what}
        classes = classes.drop(columns="patients")
    sizes = pd.DataFrame(
        [
            (name, facts.width_px, facts.height_px)
            for name, images in (("training", train_images), ("test", test_images))
            for facts in images.values()
        ],
        columns=["part", "width_px", "height_px"],
    )
    columns = {
        f"{side.replace('_', ' ')} {word}": (side, kind)
        for side in ("centre_x", "centre_y", "width", "height")
        for kind, word in (("mean", "mean"), ("std", "sd"))
    }
    spread = box_fractions(annotations, train_images).groupby("label").agg(**columns)
    shown = pd.crosstab(boxes["image_id"], boxes["label"])[classes.index].to_numpy(np.int64) > 0
    together = pd.DataFrame(shown.T.astype(np.int64) @ shown, index=classes.index, columns=list(classes.index))
    return {
        "counts": pd.DataFrame({"what": list(counts), "count": list(counts.values())}),
        "image sizes": sizes.value_counts(sort=False).rename("images").reset_index(),
        "classes": classes.reset_index(),
        "boxes per image": per_image.value_counts()
        .sort_index()
        .rename_axis("boxes")
        .rename("images")
        .reset_index(),
        "box size and position": spread.reindex(classes.index).reset_index(),
        "co-occurrence": together.reset_index(allow_duplicates=True),
    }


def box_fractions(annotations: pd.DataFrame, images: Mapping[str, ImageFacts]) -> pd.DataFrame:
    """The label, and centre_x, centre_y, width and height as shares of the image, 0..1, of every box."""
    sides = np.array(
        [(images[image_id].width_px, images[image_id].height_px) for image_id in annotations["image_id"]],
        dtype=np.float64,
    ).reshape(-1, 2)
    corners = annotations[CORNERS].to_numpy(np.float64)
    low, high = corners[:, :2] / sides, corners[:, 2:] / sides
    shares = np.hstack([(low + high) / 2, high - low])
    table = pd.DataFrame(shares, columns=["centre_x", "centre_y", "width", "height"])
    table.insert(0, "label", annotations["label"].to_numpy(dtype=object))
    return table
