"""Secrets are replaced in every form in which a text can hold them: raw, escaped, quoted, encoded.

``protect`` makes a secret known for the rest of the process. ``redact`` is called where text leaves the program: on
the terminal's streams, and in the records of uploads.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator

HIDDEN = "***"
_SHORTEST_SECRET = 8  # a shorter one is a placeholder: hiding "test" would garble every path on the terminal
_SHORTEST_FORM = 4
_protected: set[str] = set()


def protect(secrets: Iterable[str], users: Iterable[str] = ()) -> None:
    """Let ``redact`` hide these secrets from now on; ``users`` are the names that may stand before them.

    A secret of fewer than eight letters is left out.
    """
    for secret in secrets:
        if len(secret.strip()) >= _SHORTEST_SECRET:
            _protected.update(forms(secret, users))


def redact(text: str) -> str:
    """The text with every form of every protected secret replaced by asterisks."""
    return without(text, _protected) if _protected else text


def without(text: str, hidden: Iterable[str]) -> str:
    """The text with these parts replaced by asterisks, the longest first: a secret may begin with another."""
    return _pattern(frozenset(hidden)).sub(HIDDEN, text)


def forms(secret: str, users: Iterable[str] = ()) -> frozenset[str]:
    """Every text under which a secret can appear; forms of fewer than four letters are left out.

    These are the secret, without its outer white space, with its white space collapsed, each of its lines; what
    ``repr``, JSON, URLs, HTML and shells make of them, also of each other's result, since an error often quotes
    another one; UTF-16 of them; and base64 of them, alone and as authorization USER:SECRET of each of ``users``.
    """
    parts = {secret, secret.strip(), " ".join(secret.split()), *map(str.strip, secret.splitlines())}
    parts = {part for part in parts if len(part) >= _SHORTEST_FORM}
    once = {form for part in parts for form in _escaped(part)}
    twice = {form for part in once for form in _escaped(part)}
    pairs = {f"{user}:{part}" for user in users for part in parts}
    encoded = {form for text in parts | pairs for form in _in_base64(text)}
    encoded |= {form for part in parts for form in _in_utf_16(part)}
    return frozenset(form for form in parts | once | twice | encoded if len(form) >= _SHORTEST_FORM)


def _escaped(text: str) -> Iterator[str]:
    """What Python, JSON, shells, URLs and HTML write for a text."""
    latin = _in_bytes(text).decode("latin-1")
    yield latin  # UTF-8 that is read as Latin-1
    for python in (_inside_quotes(text, repr), _inside_quotes(text, ascii), _inside_quotes(latin, ascii)):
        yield python
        yield python.replace("'", "\\'")  # if the text around it holds a double quote
    for in_json in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield in_json
        yield in_json.replace("/", "\\/")
    yield text.replace("'", "'\"'\"'")  # shlex.quote, and what shells write themselves
    yield text.replace("'", "'\\''")
    for safe in ("", "/", "/:@", "!~*'()"):
        in_url = urllib.parse.quote(_in_bytes(text), safe=safe)
        yield in_url
        yield in_url.replace("%20", "+")
        yield re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), in_url)
    yield html.escape(text, quote=False)
    yield html.escape(text)
    yield html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def _inside_quotes(text: str, escape: Callable[[str], str]) -> str:
    """What ``escape`` writes for a text, quotes as they are: whether it escapes one depends on the text around."""
    return "".join(letter if letter in "'\"" else escape(letter)[1:-1] for letter in text)


def _in_base64(text: str) -> Iterator[str]:
    """Base64 of a text in UTF-8, UTF-16 and, as the HTTP library has it, in Latin-1; without padding."""
    for content in {_in_bytes(text), text.encode("latin-1", "ignore"), text.encode("utf-16-le", "surrogatepass")}:
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(content).decode().rstrip("=")


def _in_utf_16(text: str) -> Iterator[str]:
    """UTF-16 of a text that is read or quoted byte by byte."""
    for encoding in ("utf-16-le", "utf-16-be"):
        wide = text.encode(encoding, "surrogatepass").decode("latin-1")
        yield from (wide, _inside_quotes(wide, ascii), _inside_quotes(wide, ascii).replace("'", "\\'"))
        yield from (json.dumps(wide)[1:-1], json.dumps(wide, ensure_ascii=False)[1:-1])


def _in_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a variable may hold what is no UTF-8


@functools.lru_cache(maxsize=4)
def _pattern(hidden: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(hidden, key=len, reverse=True))) or "(?!)")
