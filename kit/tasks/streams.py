"""The terminal's streams: no secret passes, letters that they lack are escaped, a refused text is no traceback.

A stream refuses when its disk is full, or when the program that it is piped to has ended.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterable
from typing import Any

from invoke import Exit

from kit.core.errors import KitError, reason
from kit.core.redaction import redact

_BROKEN_PIPE = 141  # 128 + SIGPIPE: what a shell has for a program whose reader has ended
_NAMES = {"stdout": "standard output", "stderr": "standard error"}


class GuardedStream:
    """A stream of text that writes to another one, without the secrets that are known by then.

    If the system refuses a text, standard output ends the command: `Exit`, before anything more is done without a
    word. Standard error hands its texts on to standard output, and the command ends with a code that is not 0.
    """

    def __init__(self, stream: Any, name: str = "stdout") -> None:
        self._stream, self._name = stream, name
        self.refused: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text without its secrets; the number of letters that were given."""
        shown = redact(text)
        try:
            if self.refused is None:
                self._stream.write(shown)
            elif self._name == "stderr":
                _write_instead(shown)
        except OSError as error:
            self._refuse(error, shown)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines without their secrets."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand the texts to the system."""
        try:
            if self.refused is None:
                self._stream.flush()
        except OSError as error:
            self._refuse(error, "")

    def _refuse(self, error: OSError, text: str) -> None:
        self.refused = error
        if self._name == "stderr":
            _write_instead(text)
        elif error.errno == errno.EPIPE:  # `| head` has read enough
            raise Exit(code=_BROKEN_PIPE) from None
        else:
            raise Exit(str(_refusal(self._name, error)), code=1) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


def guard_streams() -> None:
    """Let nothing reach the terminal with a secret in it: what is printed, logged or shown in a traceback.

    A letter that a stream's encoding lacks is written as an escape, as Python's errors do. A stream that the shell
    has closed (``>&-``) takes everything and shows nothing.
    """
    for name in _NAMES:
        stream = getattr(sys, name) or _Nowhere()
        if isinstance(stream, GuardedStream):
            continue
        if isinstance(stream, io.TextIOWrapper):  # by lines: what the system refuses shows while it can be said
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
        setattr(sys, name, GuardedStream(stream, name))


def require_written() -> None:
    """Hand what was printed to the system. Raises Exit if a stream has refused a text."""
    for name in _NAMES:
        stream = getattr(sys, name)
        stream.flush()
        refused = getattr(stream, "refused", None)
        if refused is not None:
            raise Exit(str(_refusal(name, refused)), code=1)


def _refusal(name: str, error: OSError) -> KitError:
    return KitError(
        f"to write to {_NAMES[name]}", reason(error),
        "make room, or write it elsewhere; the same command goes on from here",
    )  # fmt: skip


def _write_instead(text: str) -> None:
    """Write a text of standard error on standard output, if this one takes it."""
    stdout = sys.stdout
    if isinstance(stdout, GuardedStream):
        try:
            stdout.write(text)
        except Exit:
            return
