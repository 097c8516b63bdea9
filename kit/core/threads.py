"""Threads for work that releases Python's lock: to decode images, to draw and compress them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor


class Threads(ThreadPoolExecutor):
    """A thread for each core, or as many as given; to be used with ``contextlib.closing``."""

    def __init__(self, count: int | None = None) -> None:
        super().__init__(count or os.cpu_count())

    def close(self) -> None:
        """Wait for the tasks that have started; cancel the others, since after Ctrl-C they are useless."""
        self.shutdown(cancel_futures=True)
