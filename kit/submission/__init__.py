"""Numbered folders, and the upload that happens exactly once."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "folders": ("Attempt", "Origin", "Submission", "newest", "read_submissions", "write_submission"),
    },
)
