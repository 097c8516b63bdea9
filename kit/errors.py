"""The one exception of the kit: a user's mistake, said in three parts.

Only ``tasks.py`` turns it into an exit. Anything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KitError(Exception):
    """What was expected, what was found (file, row, value), what to do next."""

    def __init__(self, expected: str, found: str, do: str) -> None:
        self.expected, self.found, self.do = expected, found, do
        super().__init__(expected, found, do)

    def __str__(self) -> str:
        return f"expected: {self.expected}\nfound:    {self.found}\ndo:       {self.do}"


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words nearest to a mistyped one, joined for a message; all of them where none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=count, cutoff=0.5)
    return ", ".join(close or names) or "(none)"
