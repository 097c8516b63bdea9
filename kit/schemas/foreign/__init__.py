"""Detections that other tools wrote, as text cells: COCO JSON, tables, folders with a file per image."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "content": ("Foreign", "Ids"),
        "forms": ("read_foreign",),
    },
)
