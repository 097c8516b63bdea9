"""Tables from outside, read and checked: every fault is reported with its line."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "tables": (
            "ANNOTATION_COLUMNS",
            "MAPPING_COLUMNS",
            "SUBMISSION_COLUMNS",
            "annotation_labels",
            "mapped_images",
            "read_annotations",
            "read_mapping",
            "read_submission",
            "validate_submission",
        ),
        "detections": ("DETECTION_COLUMNS", "check_detections"),
        "image_headers": ("ImageFacts", "image_names"),
        "csv_text": ("TableError",),
    },
)
