"""What every package uses: errors in three parts, files and text, locks, typed JSON, secrets, progress, source."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "errors": ("KitError",),
        "files": ("replacing", "sha256", "write_text"),
        "json_files": ("read_json", "read_record", "write_json", "write_record"),
        "locks": ("exclusive", "locked"),
        "progress": ("Track", "silent"),
    },
)
