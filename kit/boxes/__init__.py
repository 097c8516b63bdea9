"""Pure geometry on tables of boxes: no file, no network, no run."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "geometry": (
            "CORNERS",
            "area",
            "clip",
            "iou_matrix",
            "iou_pairs",
        ),
        "fusion": (
            "fuse",
            "suppress",
            "weighted_boxes_fusion",
        ),
        "nearest_truth": (
            "hits_alone",
            "nearest_true_boxes",
        ),
    },
)
