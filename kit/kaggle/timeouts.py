"""Calls with a timeout: Kaggle's client waits for ever, and some of its methods sleep for minutes.

A call runs in a thread of its own. After a timeout the thread goes on, and ends with the process at the latest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.1


class Work(Generic[T]):
    """A call that runs in a thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._value: T | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether the call has ended, after waiting for at most ``seconds``."""
        return self._done.wait(seconds)

    def result(self, seconds: float = 0) -> T:
        """What the call returned. Raises what it raised (SystemExit too), or TimeoutError after ``seconds``."""
        if not self.wait(seconds):
            raise TimeoutError(f"no answer within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # `result` raises it in the caller's thread
            self._error = error
        finally:
            self._done.set()


def wait_while_growing(
    work: Work[Any], size: Callable[[], int], stall_seconds: float, reached: Callable[[], bool] = lambda: False
) -> None:
    """Return when the work has ended or ``reached()`` is true.

    Raises TimeoutError if ``size()``, in bytes, stays the same for longer than ``stall_seconds``.
    """
    last, since = size(), time.monotonic()
    while not reached() and not work.wait(_POLL_SECONDS):
        now = size()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > stall_seconds:
            raise TimeoutError(f"no byte within {stall_seconds:g} s")
