"""Kaggle's client with timeouts, retries and clear errors; the download of the competition's files."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(__name__, {"competition_api": ("connect",)})
