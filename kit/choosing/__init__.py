"""From candidates to the one box of each ID: calibrated, selected, or the location prior's. Pure functions."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "selection": (
            "SelectionRule",
            "choose_rule",
            "fit_rules",
        ),
        "location_prior": (
            "Prior",
            "fit_prior",
        ),
        "one_box": (
            "decide",
            "submission_text",
        ),
    },
)
