"""The one exception of the kit: a user's mistake, said in three parts.

Only ``kit.tasks`` turns it into an exit. Anything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_NAMES_SHOWN = 8


class KitError(Exception):
    """What was expected, what was found (file, row, value), what to do next."""

    def __init__(self, expected: str, found: str, do: str) -> None:
        self.expected, self.found, self.do = expected, found, do
        super().__init__(expected, found, do)

    def __str__(self) -> str:
        return f"expected: {self.expected}\nfound:    {self.found}\ndo:       {self.do}"


def reason(error: BaseException) -> str:
    """The first line of an error's text (for an OSError the system's words); its type's name if there is none."""
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def first_few(items: Iterable[object], count: int = 5, separator: str = ", ") -> str:
    """The first ``count`` items in one line, and how many more there are."""
    texts = [str(item) for item in items]
    more = [f"and {len(texts) - count} more"] if len(texts) > count else []
    return separator.join(texts[:count] + more)


def closest_names(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words nearest to a mistyped one, whatever their case; some of them where none is near."""
    names = {name.lower(): name for name in sorted(known)}
    close = difflib.get_close_matches(word.lower(), names, n=count, cutoff=0.5)
    return first_few([names[name] for name in close] or names.values(), _NAMES_SHOWN) or "(none)"
