"""How long work says how far it is: the kit takes a ``Track`` and never prints by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps an iterable of known length and shows a bar while it is consumed."""

    def __call__(self, items: Iterable[T], description: str, total: int) -> Iterator[T]: ...


def silent(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """The ``Track`` that shows nothing: for tests and for callers without a terminal."""
    yield from items
