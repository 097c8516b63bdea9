"""Average precision, its uncertainty, and the causes of errors: functions of tables, without files or networks."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "average_precision": (
            "match",
            "mean_average_precision",
            "score_detections",
        ),
        "bootstrap": (
            "expected_score",
            "map_intervals",
            "paired_difference",
        ),
        "error_analysis": ("analyse_errors",),
    },
)
