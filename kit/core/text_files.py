"""The one reader of text that people write with an editor: UTF-8 or UTF-16, with any line ends.

Notepad and PowerShell write a byte order mark or UTF-16 (others without a mark), and CRLF. The text that comes out
is the same for all.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
from pathlib import Path

from kit.core.errors import KitError, reason
from kit.core.files import sha256

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


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

    It is UTF-16 if it begins with such a mark or has the zeros of one, else UTF-8. Raises UnicodeDecodeError.
    """
    mark, encoding = next((pair for pair in _MARKS if content.startswith(pair[0])), (b"", _unmarked(content)))
    return content.removeprefix(mark).decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def _unmarked(content: bytes) -> str:
    """The encoding of bytes without a mark: UTF-16 if every second byte is 0 in half of the letters or more."""
    for encoding, zeros, others in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        high, low = content[zeros::2], content[others::2]
        if len(high) == len(low) and 0 not in low and 2 * high.count(0) >= len(high) > 0:
            return encoding
    return "utf-8"


def is_plain(content: bytes) -> bool:
    """Whether bytes are already what ``decoded`` makes of them, in UTF-8: any other program reads the same."""
    return content == decoded(content).encode("utf-8")


def undecodable(error: UnicodeDecodeError) -> str:
    """Where and why bytes are no text, with their line; never their text."""
    content = bytes(error.object)
    line = content.count(b"\n", 0, error.start) + 1
    return f"byte {content[error.start]:#04x} in line {line} is no {error.encoding.upper()}"


def text_sha256(path: Path) -> str:
    """The SHA-256 of a file's text as UTF-8 with plain line ends, or of its bytes if they are no text.

    A table that another editor has saved has the same hash; a plain one has that of its bytes.
    """
    content = path.read_bytes()
    with contextlib.suppress(UnicodeError):
        content = decoded(content).encode("utf-8")
    return hashlib.sha256(content).hexdigest()


def has_sha256(path: Path, digest: str) -> bool:
    """Whether a file has this hash: of its text, or, as earlier versions recorded it, of its bytes."""
    return path.is_file() and digest in (text_sha256(path), sha256(path))


def possible_sizes(path: Path) -> set[int]:
    """The sizes in bytes that a file's text has in the encodings and with the line ends that ``decoded`` reads."""
    content = path.read_bytes()
    try:
        text = decoded(content)
    except UnicodeError:
        return {len(content)}
    texts = (text, text.replace("\n", "\r\n"))
    marked = {len(mark) + len(one.encode(encoding)) for mark, encoding in _MARKS for one in texts}
    marked |= {len(one.encode("utf-16-le")) for one in texts}  # without a mark
    return marked | {len(one.encode("utf-8")) for one in texts} | {len(content)}
