"""The loop that turns images into weights. Only this package imports Lightning."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(__name__, {"train": ("Trained",)})
