"""Calls that can be given up: Kaggle's client waits for ever, and some of its methods sleep for minutes.

The call runs in a thread of its own, which ends with the process where it is given up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


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
