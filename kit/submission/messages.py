"""A submission's message: what it may be, and what of it becomes part of a folder's name."""

import re
import unicodedata

from kit.core.errors import KitError

_SLUG_LETTERS = 40
_MESSAGE_LETTERS = 200  # Kaggle documents no limit; the mark at the end of the description must not be cut


def require_message(message: str) -> None:
    """Raise KitError unless a message can be uploaded: one line, not empty, not too long."""
    do = f'write --message "..." as one line of at most {_MESSAGE_LETTERS} letters'
    if not message.strip() or not message.isprintable():
        raise KitError("a message of one line that says what this submission is", repr(message), do)
    if len(message) > _MESSAGE_LETTERS:
        raise KitError(f"a message of at most {_MESSAGE_LETTERS} letters", f"{len(message)}", do)


def slug(message: str) -> str:
    """A message as part of a folder's name: lower-case ASCII letters, digits and dashes; never empty."""
    ascii_text = unicodedata.normalize("NFKD", message).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text)[:_SLUG_LETTERS].strip("-") or "submission"
