"""Figures and self-contained pages. Only ``figures`` imports matplotlib."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "dataset_report": ("DatasetReport",),
        "run_report": ("RunReport",),
        "audit_report": ("Audit", "audit_workspace", "require_sound"),
        "html": ("write_page",),
    },
)
