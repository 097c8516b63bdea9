"""Threads for work that releases Python's lock: to decode images, to draw and compress them, to make views."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A thread for each core, or as many as given; to be used with ``contextlib.closing``."""

    def __init__(self, count: int | None = None) -> None:
        super().__init__(count or os.cpu_count())

    def close(self) -> None:
        """Wait for the tasks that have started; cancel the others, since after Ctrl-C they are useless."""
        self.shutdown(cancel_futures=True)


def made_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items: while one is used, a thread makes the next."""
    end = object()
    with contextlib.closing(Threads(1)) as threads:
        following = threads.submit(next, items, end)
        while (item := following.result()) is not end:
            following = threads.submit(next, items, end)
            yield item  # type: ignore[misc]
