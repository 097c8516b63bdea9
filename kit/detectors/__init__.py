"""Networks by name, their weights, and inference: from images to raw detections."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "networks": (
            "DETECTORS",
            "build",
        ),
        "weights": (
            "load_initial_weights",
            "resolve_norms",
        ),
        "tta": ("views",),
        "inference": ("detect",),
    },
)
