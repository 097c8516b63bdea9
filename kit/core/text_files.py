"""The one reader of text that people write with an editor: UTF-8 or UTF-16, with any line ends.

Notepad and PowerShell write a byte order mark or UTF-16, and CRLF. The text that comes out is the same for all.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
from pathlib import Path

from kit.core.errors import KitError, reason

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MARK = "\ufeff"


def read_text(path: Path, what: str, do: str) -> str:
    """The text of a file, without a byte order mark, its lines ended by ``\\n``.

    Raises KitError with ``what`` the file should be and the advice ``do`` if it cannot be read or is no text.
    """
    try:
        return decoded(path.read_bytes())
    except FileNotFoundError:
        raise KitError(what, f"no such file: {path}", do) from None
    except OSError as error:
        raise KitError(what, f"{path}: {reason(error)}", do) from error
    except UnicodeDecodeError as error:
        raise KitError(what, f"{path}: {undecodable(error)}", do) from None


def decoded(content: bytes) -> str:
    """The text of a file's bytes, without a byte order mark, its lines ended by ``\\n``.

    UTF-16 is known by its mark, or by the zero byte beside its first letter. Raises UnicodeDecodeError.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return with_plain_line_ends(content[len(mark) :].decode(encoding).removeprefix(_MARK))
    encoding = "utf-8"
    if len(content) % 2 == 0 and 0 in content[:2] and content[:2] != b"\0\0":
        encoding = "utf-16-le" if content[1] == 0 else "utf-16-be"
    return with_plain_line_ends(content.decode(encoding))


def with_plain_line_ends(text: str) -> str:
    """The text with every CRLF and lone CR as ``\\n``."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_plain(content: bytes) -> bool:
    """Whether bytes are already what ``decoded`` makes of them, in UTF-8: any other program reads the same."""
    return content == decoded(content).encode("utf-8")


def undecodable(error: UnicodeDecodeError) -> str:
    """Where and why bytes are no text, with their line; never their text."""
    content = bytes(error.object)
    line = content.count(b"\n", 0, error.start) + 1
    return f"byte {content[error.start]:#04x} in line {line} is no {error.encoding.upper()}"


def text_sha256(path: Path) -> str:
    """The SHA-256 of a file's text as UTF-8 with plain line ends: the same table saved by another editor is equal.

    Bytes that are no text are hashed as they are.
    """
    content = path.read_bytes()
    with contextlib.suppress(UnicodeError):
        content = decoded(content).encode("utf-8")
    return hashlib.sha256(content).hexdigest()
