"""Add timeouts, retries and captured output to Kaggle's client, which lacks them; keep the last response's headers.

A read is retried while Kaggle is busy or unreachable; a call that changes something is made once. Every failure is
a KitError with the server's reason; what the client writes on standard error is a warning, without secrets.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from kit.config import KaggleConfig
from kit.kaggle.credentials import Credentials, find_credentials
from kit.kaggle.errors import answer_of, is_temporary, kit_error, unaccepted
from kit.kaggle.timeouts import Work

T = TypeVar("T")
_SIGNATURE = re.compile(r"\?[^\s'\")]+")  # behind an address that Kaggle has signed
_SHOWN_LETTERS = 300
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Connection:
    """The library's client, its guard, and the headers of the last response (names in lower case)."""

    client: Any
    headers: dict[str, str]
    guard: Guard

    @property
    def username(self) -> str:
        """The account that is logged in."""
        return str(self.client.config_values["username"])


def log_in(settings: KaggleConfig) -> Connection:
    """Log in to Kaggle. Raises KitError if there are no credentials or Kaggle refuses them."""
    credentials = find_credentials()
    os.environ.update(credentials.variables)
    guard = Guard(settings, credentials)
    headers: dict[str, str] = {}
    client = guard.read("to log in to Kaggle", "", lambda: _client(headers))
    if credentials.is_token and not client.config_values.get(client.CONFIG_NAME_TOKEN):
        raise unaccepted(credentials)  # the client takes the next source in silence, perhaps another account's
    return Connection(client, headers, guard)


@dataclass(frozen=True)
class Guard:
    """Makes calls with deadlines, retries and captured output, and turns their errors into KitErrors."""

    settings: KaggleConfig
    credentials: Credentials

    def once(self, action: str, slug: str, call: Callable[[], T], more_seconds: float = 0) -> T:
        """The value of a call that is made once and may take ``deadline_seconds`` + ``more_seconds``.

        ``action`` begins with "to" and ``slug`` is the competition ("" for none); both are for the KitError.
        """
        try:
            with self._captured(output=True):
                return Work(call).result(self.settings.deadline_seconds + more_seconds)
        except (Exception, SystemExit) as error:
            raise kit_error(error, action, slug, self.credentials) from None

    def read(self, action: str, slug: str, call: Callable[[], T], wait: Callable[[Work[T]], T] | None = None) -> T:
        """The value of a call that only reads; it is retried after growing pauses if Kaggle is busy or unreachable.

        Args:
            action: Begins with "to", for the KitError.
            slug: The competition, for the KitError; "" for none.
            call: Reads something with the client.
            wait: Waits for the started call and returns its value; by default until ``deadline_seconds``.

        Returns:
            What the call returned.

        Raises:
            KitError: The call failed for good or once too often: `Refused` or `Unanswered`.
        """
        for pause in self._pauses():
            try:
                with self._captured(errors=wait is None):
                    work = Work(call)
                    return work.result(self.settings.deadline_seconds) if wait is None else wait(work)
            except (Exception, SystemExit) as error:
                answer = answer_of(error)
                requested = 0.0 if answer is None else answer.retry_after_seconds
                if pause is None or not is_temporary(error) or requested > self.settings.longest_pause_seconds:
                    raise kit_error(error, action, slug, self.credentials) from None
                seconds = max(pause, requested)
                event = f"answered {answer.status}" if answer else "did not answer"
                log.info("Kaggle %s; trying again in %.3g s", event, seconds)
            time.sleep(seconds)
        raise AssertionError("the last pause is None, which returns or raises")

    @contextlib.contextmanager
    def _captured(self, errors: bool = True, output: bool = False) -> Iterator[None]:
        """Warn of what the client writes on standard error, without secrets; drop what it prints.

        Without ``errors`` standard error is left alone (it shows progress). With ``output`` prints are warned of,
        too: the client prints why an upload failed. Before SystemExit it writes how to get credentials, which the
        KitError says.
        """
        notes = io.StringIO()
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                contextlib.redirect_stdout(notes if output else io.StringIO()),
                contextlib.redirect_stderr(notes if errors else sys.stderr),
            ):
                yield
        except SystemExit:
            notes = io.StringIO()
            raise
        finally:
            text = _SIGNATURE.sub("?...", self.credentials.hide(notes.getvalue()))
            if text.strip():
                log.warning("Kaggle's client: %s", " ".join(text.split())[:_SHOWN_LETTERS])

    def _pauses(self) -> Iterator[float | None]:
        for number in range(self.settings.attempts - 1):
            yield min(self.settings.pause_seconds * 2**number, self.settings.longest_pause_seconds)
        yield None


def _client(headers: dict[str, str]) -> Any:
    """The library's client, logged in; it writes the headers of its last response to ``headers``."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    class Client(KaggleApi):
        """Kaggle's client; its methods return a response without its headers, so they are kept here."""

        def get_response_processor(self) -> Callable[[Any], None]:
            """The function that the client calls with every response that is no error."""

            def keep(response: Any) -> None:
                headers.clear()
                headers.update({name.lower(): value for name, value in response.headers.items()})

            return keep

    client = Client()
    client.authenticate()
    return client
