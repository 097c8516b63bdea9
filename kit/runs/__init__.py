"""A run: its folder, its locks, its out-of-fold detections, its members. Only ``detecting`` needs torch."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "folder": (
            "Finished",
            "Run",
            "Split",
            "existing",
            "newest_finished",
            "read_finished",
            "read_history",
            "read_split",
            "workspace_config",
        ),
        "detections": ("read_detections",),
        "members": ("Member",),
    },
)
