"""Calls that can be given up: Kaggle's client waits for ever, and some of its methods sleep for minutes.

The call runs in a thread of its own, which ends with the process where it is given up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_GLANCE_SECONDS = 0.1


class Work(Generic[T]):
    """A call that has been started."""

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
        except BaseException as error:  # the thread has nobody else to tell
            self._error = error
        finally:
            self._done.set()


def wait_while_growing(
    work: Work[Any], size: Callable[[], int], stall_seconds: float, reached: Callable[[], bool] = lambda: False
) -> None:
    """Return once the work has ended or ``reached`` is true. Raises TimeoutError where ``size`` stands still."""
    last, since = size(), time.monotonic()
    while not reached() and not work.wait(_GLANCE_SECONDS):
        now = size()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > stall_seconds:
            raise TimeoutError(f"no byte within {stall_seconds:g} s")
