"""The one exception for mistakes that a user can mend, with a message in three parts.

Only ``kit.tasks`` turns it into an exit. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_NAMES_SHOWN = 8
_LETTERS_SHOWN = 40


class KitError(Exception):
    """``expected`` and ``found`` (file, row, value) say what is wrong; ``do`` says what to do next."""

    def __init__(self, expected: str, found: str, do: str) -> None:
        self.expected, self.found, self.do = expected, found, do
        super().__init__(expected, found, do)

    def __str__(self) -> str:
        return f"expected: {self.expected}\nfound:    {self.found}\ndo:       {self.do}"


def reason(error: BaseException) -> str:
    """The first line of an error's text, or its type's name if it has none; for an OSError the system's words."""
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def first_few(items: Iterable[object], count: int = 5, separator: str = ", ") -> str:
    """The first ``count`` items in one line, and how many more there are."""
    texts = [str(item) for item in items]
    more = [f"and {len(texts) - count} more"] if len(texts) > count else []
    return separator.join(texts[:count] + more)


def shortened(value: object) -> str:
    """The value as a text, cut if it is long."""
    text = str(value)
    return text if len(text) <= _LETTERS_SHOWN else f"{text[:_LETTERS_SHOWN]}..."


def closest_names(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known names most like a mistyped word, upper and lower case alike; the first few if none is like it."""
    names = {name.lower(): name for name in sorted(known)}
    close = difflib.get_close_matches(word.lower(), names, n=count, cutoff=0.5)
    return first_few([names[name] for name in close] or names.values(), _NAMES_SHOWN) or "(none)"
