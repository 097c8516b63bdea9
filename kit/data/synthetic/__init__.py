"""A synthetic competition in the shape of the real one."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "generator": ("write_competition",),
    },
)
