"""Boxed sets in their publishers' forms, DICOM among them, made into workspaces."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "plan": ("ImportOptions", "Plan", "plan_import"),
        "workspace": ("carry_out", "finished_import"),
    },
)
