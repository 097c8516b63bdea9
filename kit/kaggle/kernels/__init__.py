"""Training on Kaggle's machines: a script that is pushed, its session, its output."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "api": ("connect_kernels",),
        "push": ("plan_push",),
        "session": ("run_session",),
    },
)
