"""Files are written atomically: a kill at any moment leaves the old file or the new one, never a part.

A temporary file lies beside its target, because a rename across file systems copies; its name begins with a dot.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shlex
import shutil
import string
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from kit.core.errors import KitError, closest_names, first_few, reason

PARTIAL_SUFFIX = ".partial"
_HASH_BLOCK_BYTES = 1 << 20
_LETTERS_SHOWN = 30
_MIB, _GIB = 2**20, 2**30
_PLAIN_LETTERS = f"{string.ascii_letters}{string.digits}._-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it is flushed to disk and renamed to ``path``.

    Raises KitError if the system refuses (disk full, read-only folder); ``path`` is then unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX)
        os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        raise write_error(path, error, _size(partial)) from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def explaining_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError in this block (disk full, read-only folder) into a KitError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def make_folder(path: Path) -> Path:
    """Make the folder if it is missing, and return it. Raises KitError if it cannot be made."""
    with explaining_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; line ends are kept.

    Raises KitError for letters that UTF-8 lacks: Python makes lone surrogates of bytes in names and arguments that
    are no text.
    """
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        part = text[max(0, error.start - _LETTERS_SHOWN) : error.start + 1]
        raise KitError(
            f"text to write to {path}", f"bytes that are no UTF-8, after {part!r}",
            "rename the file or write the text in UTF-8",
        ) from error  # fmt: skip
    with replacing(path) as partial:
        partial.write_bytes(content)


def is_there(path: Path) -> bool:
    """Whether a path that a file names exists; False for one that no file can have: too long, or with a NUL."""
    try:
        return path.exists()
    except ValueError:
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def require_existing(path: Path, flag: str) -> None:
    """Raise KitError with the nearest names if there is nothing at a path that a user names with a flag."""
    try:
        if path.exists():
            return
        parent = next((parent for parent in path.parents if parent.is_dir()), Path())
        names = [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise KitError(
            f"a file or folder for {flag}", f"{path}: {reason(error)}", f"name another {flag}"
        ) from error
    missing = path.relative_to(parent).parts[0]
    raise KitError(
        f"a file or folder for {flag}", f"no such file or folder: {path}",
        f"name another {flag}; in {parent} the nearest names to {missing} are: {closest_names(missing, names)}",
    )  # fmt: skip


def require_utf8_names(paths: Iterable[Path]) -> None:
    """Raise KitError for files whose names are bytes that are no UTF-8: tables and JSON cannot hold them.

    Python has a lone surrogate for each such byte. The error has the first few names with these bytes escaped.
    """
    strange = [path for path in paths if not is_utf8(path.name)]
    if strange:
        first = strange[0]
        plain = re.sub(r"[^\w.-]", "_", os.fsencode(first.name).decode("utf-8", "replace"))
        raise KitError(
            f"file names in UTF-8 in {first.parent}", first_few(with_escapes(path.name) for path in strange),
            f"rename each, and where a table names it, for example: cd {shlex.quote(str(first.parent))} && "
            f"mv -n -- {_for_a_shell(first.name)} {shlex.quote(plain)}",
        )  # fmt: skip


def is_utf8(text: str) -> bool:
    """Whether a text is letters alone: without the lone surrogates that Python has for bytes of other encodings."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def with_escapes(name: str) -> str:
    """A file name or an argument with its bytes that are no UTF-8 as ``\\xE9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _for_a_shell(name: str) -> str:
    """A file name as bash and zsh read it, in ASCII alone."""
    escaped = (chr(byte) if chr(byte) in _PLAIN_LETTERS else f"\\x{byte:02x}" for byte in os.fsencode(name))
    return f"$'{''.join(escaped)}'"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def require_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise KitError if the folder's disk has fewer free bytes than needed; ``what`` says what they are for."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise KitError(
            f"{what}: {size_text(needed_bytes)}", f"{size_text(free)} free",
            "make room, or choose a folder on another disk with --workspace",
        )  # fmt: skip


def size_text(count: int) -> str:
    """A number of bytes as text: in MiB below one GiB, else in GiB."""
    return f"{count / _GIB:.2f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"


def remove_partials(folder: Path) -> None:
    """Delete the temporary files of killed processes anywhere in ``folder``. The caller holds the folder's lock."""
    for path in sorted(folder.rglob(f".*{PARTIAL_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_error(path: Path, error: OSError, written_bytes: int = 0) -> KitError:
    """The KitError for a path that the system refuses to write, with the disk's free space."""
    needed = f"it needs more than {size_text(written_bytes)}, " if written_bytes else ""
    return KitError(
        f"to write {path}",
        f"{reason(error)} ({needed}{_free_space(path)})",
        "make room or choose another folder with --workspace; the old content is unchanged",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _free_space(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.exists()), Path())
    return f"{size_text(shutil.disk_usage(folder).free)} free"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
