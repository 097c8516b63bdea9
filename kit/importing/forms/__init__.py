"""The publishers' forms: one reader each onto one table, chosen by name."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(__name__, {"forms": ("FORMS", "read_set"), "boxed_set": ("BoxedSet", "Picture")})
