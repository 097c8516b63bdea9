"""Kaggle's own client, logged in and guarded where it does badly: no deadlines, no retries, prints, exits.

A read is tried again while Kaggle is busy or out of reach; what changes something is asked once. Every failure is a
KitError with the server's reason.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kit.config import KaggleConfig
from kit.kaggle.credentials import Credentials, find_credentials
from kit.kaggle.errors import answer_of, is_passing, kit_error
from kit.kaggle.timeouts import Work

T = TypeVar("T")
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Connection:
    """The library's client, the headers of its last answer (in lower case), and the guard that calls go through."""

    client: Any
    headers: dict[str, str]
    guard: Guard

    @property
    def username(self) -> str:
        """Who is logged in."""
        return str(self.client.config_values["username"])


def log_in(settings: KaggleConfig) -> Connection:
    """Find credentials and show them to Kaggle. Raises KitError where there are none or they are refused."""
    guard = Guard(settings, find_credentials())
    headers: dict[str, str] = {}
    client = guard.read("to log in to Kaggle", "", lambda: _client(headers))
    return Connection(client, headers, guard)


@dataclass(frozen=True)
class Guard:
    """Deadlines, pauses, captured output and words for what goes wrong."""

    settings: KaggleConfig
    credentials: Credentials

    def once(self, action: str, slug: str, call: Callable[[], T], more_seconds: float = 0) -> T:
        """The call's value, asked for a single time within the deadline and ``more_seconds``."""
        try:
            with captured():
                return Work(call).result(self.settings.deadline_seconds + more_seconds)
        except (Exception, SystemExit) as error:
            raise kit_error(error, action, slug, self.credentials) from None

    def read(self, action: str, slug: str, call: Callable[[], T], wait: Callable[[Work[T]], T] | None = None) -> T:
        """The call's value; where Kaggle is busy or the line drops it is asked again, after growing pauses.

        ``wait`` is another way to wait for it than until the deadline; it may show a bar.
        """
        for pause in self._pauses():
            try:
                with captured(errors=wait is None):
                    work = Work(call)
                    return work.result(self.settings.deadline_seconds) if wait is None else wait(work)
            except (Exception, SystemExit) as error:
                answer = answer_of(error)
                asked = 0.0 if answer is None else answer.retry_after_seconds
                if pause is None or not is_passing(error) or asked > self.settings.longest_pause_seconds:
                    raise kit_error(error, action, slug, self.credentials) from None
                seconds = max(pause, asked)
                what = f"answered {answer.status}" if answer else "did not answer"
                log.info("Kaggle %s; trying again in %.3g s", what, seconds)
            time.sleep(seconds)
        raise AssertionError("the last pause is None, which returns or raises")

    def _pauses(self) -> Iterator[float | None]:
        for number in range(self.settings.attempts - 1):
            yield min(self.settings.pause_seconds * 2**number, self.settings.longest_pause_seconds)
        yield None


@contextlib.contextmanager
def captured(errors: bool = True) -> Iterator[None]:
    """Keep what the client prints from the user: it may show headers, and the kit says it better."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said if errors else sys.stderr):
        yield


def _client(headers: dict[str, str]) -> Any:
    """The library's client, logged in; ``headers`` takes those of its last answer (its methods drop them)."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    class Client(KaggleApi):
        """The client, with an ear for headers."""

        def get_response_processor(self) -> Callable[[Any], None]:
            """What the client calls with every answer that is no error."""

            def keep(response: Any) -> None:
                headers.clear()
                headers.update({name.lower(): value for name, value in response.headers.items()})

            return keep

    client = Client()
    client.authenticate()
    return client
