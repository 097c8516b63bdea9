"""Progress of long work: a function takes a ``Track`` from its caller and never prints itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

# (items, description, total) -> the same items, with a progress bar while they are consumed.
Track = Callable[[Iterable[Any], str, int], Iterator[Any]]


def silent(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
    """The ``Track`` that shows nothing, for tests and for callers without a terminal."""
    yield from items
