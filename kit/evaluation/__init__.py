"""One scored path: held-out images for the report, test images for the answer.

Where detections are stored no torch is loaded.
"""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "report": ("current_report", "evaluate"),
        "comparison": ("compare",),
    },
)
