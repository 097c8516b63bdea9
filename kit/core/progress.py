"""How long work says how far it is: the kit takes a ``Track`` and never prints by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Wraps items (of the total given) and shows a bar with the description while they are consumed.
Track = Callable[[Iterable[Any], str, int], Iterator[Any]]


def silent(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
    """The ``Track`` that shows nothing: for tests and for callers without a terminal."""
    yield from items
