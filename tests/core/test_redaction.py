"""No form of a secret leaves the program, whatever letters it holds and whoever quotes it."""

import base64
import html
import io
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import traceback
import urllib.parse

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import escape
from repository import ROOT
from requests.auth import _basic_auth_str

from kit.core.redaction import HIDDEN, forms, protect, redact, without

# Letters that somebody escapes: quotes, backslashes, line ends, signs of URLs and HTML, letters beyond ASCII.
STRANGE = "'\"\\\r\n\t /+%&<>=:;#éß✓𝄞\u2028\x7f"
LETTERS = st.text(st.sampled_from(STRANGE + "abcXYZ019_-"), min_size=8, max_size=24)
SECRETS = LETTERS.filter(lambda secret: len(secret.strip()) >= 8)

QUOTERS = {
    "raw": str,
    "stripped": str.strip,
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": lambda text: repr(text.encode()),
    "repr beside quotes": lambda text: repr(f"{text} 'and' \"more\""),
    "repr of a repr": lambda text: repr(ValueError(repr(text))),
    "a tuple": lambda text: str((text, None)),
    "JSON": json.dumps,
    "JSON as it is": lambda text: json.dumps({"key": text}, ensure_ascii=False),
    "JSON with slashes escaped": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps([text])),
    "URL": lambda text: f"https://host/?token={urllib.parse.quote(text)}",
    "URL's component": lambda text: urllib.parse.quote(text, safe=""),
    "URL's query": lambda text: urllib.parse.urlencode({"token": text}),
    "URL in lower case": lambda text: re.sub("%..", lambda code: code[0].lower(), urllib.parse.quote(text)),
    "HTML": html.escape,
    "HTML as the pages have it": lambda text: str(escape(text)),
    "UTF-8 read as Latin-1": lambda text: text.encode().decode("latin-1"),
    "UTF-16 read as Latin-1": lambda text: text.encode("utf-16-le").decode("latin-1"),
    "UTF-16 read the other way": lambda text: text.encode("utf-16-be").decode("latin-1"),
    "repr of UTF-16": lambda text: repr(text.encode("utf-16-le")),
    "JSON of UTF-16": lambda text: json.dumps(text.encode("utf-16-le").decode("latin-1")),
    "base64 of UTF-16, as PowerShell has it": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "a shell's word": lambda text: shlex.join(["curl", "-H", text]),
    "a shell's word, as shells write it": lambda text: "'" + text.replace("'", "'\\''") + "'",
    "repr of a shell's words": lambda text: repr(shlex.join(["curl", text])),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "Basic authorization": lambda text: f"Basic {base64.b64encode(f'ada:{text}'.encode()).decode()}",
    "Bearer authorization": lambda text: f"Invalid header value: {f'Bearer {text}'!r}",
    "an error page in one line": lambda text: " ".join(f"the key {text} is unknown".split()),
}  # fmt: skip


def core(secret):
    """The secret's longest run of letters that nobody escapes: what a reader would recognise it by."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in secret)
    return max(plain.split(), key=len, default="")


@settings(max_examples=25)
@given(secret=SECRETS)
@example(secret="KGAT_0123456789abcdef\r")
@example(secret="KGAT_0123456789abcdef\n")
@example(secret='it\'s "quoted"\\ twice')
@example(secret="a/b+c=d e%20f&g")
@example(secret="schlüssel-✓-geheim")
@example(secret="first line\r\nsecond line")
def test_a_quoted_secret_is_hidden(secret):
    hidden = forms(secret, ("ada",))
    for name, quote in QUOTERS.items():
        shown = without(f"before|{quote(secret)}|after", hidden)
        assert HIDDEN in shown, name
        assert shown.startswith("before|"), name
        assert shown.endswith("|after"), name
        if len(core(secret)) >= 4:
            assert core(secret) not in shown.replace("authorization", ""), name


def test_the_header_that_the_http_library_writes_is_hidden():
    for secret in ("0123456789abcdef", "gehe\xefm-0123456"):
        said = _basic_auth_str("ada", secret)
        assert without(said, forms(secret, ["ada"])).rstrip("=") == f"Basic {HIDDEN}"


def test_nothing_is_hidden_without_a_secret():
    assert without("abc", ()) == "abc"
    assert forms("") == forms("abc") == frozenset()


def test_a_placeholder_does_not_garble_what_is_shown():
    protect(["demo", "", "  x  "])
    assert redact("runs/demo") == "runs/demo"


SECRET = "KGAT_'quo\"ted'\\0123✓"
LEAKS = {
    "what is printed and logged": """
    print("token", secret)
    print(secret, file=sys.stderr)
    sys.stdout.writelines([secret, "\\n"])
    show_table(secret, ("a",), [[secret]])
    logging.getLogger("kit").warning("refused: %r", secret)
    warnings.warn(secret)
    thread = threading.Thread(target=int, args=(secret,))
    thread.start()
    thread.join()
    """,
    "KitError": "raise KitError('a token', repr(secret), 'none')",
    "traceback": "raise ValueError(f'header {secret!r}')",
    "chained": """
    try:
        int(secret)
    except ValueError as error:
        raise OSError(secret) from error
    """,
}


@pytest.mark.parametrize("leak", LEAKS)
def test_nothing_that_a_verb_says_holds_a_protected_secret(leak):
    """In a process of its own, as a verb runs: what is printed, logged, raised or left to Python's traceback."""
    code = f"""
import logging, os, sys, threading, warnings
from invoke import Collection, Program
from kit.core.errors import KitError
from kit.core.redaction import protect
from kit.tasks.command import command
from kit.tasks.console import show_table
@command()
def leak(context):
    "Say a secret."
    secret = os.environ["A_SECRET"]
    protect([secret])
    {LEAKS[leak]}
Program(namespace=Collection(leak)).run(["invoke", "leak"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, encoding="utf-8",
        env={**os.environ, "A_SECRET": SECRET, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert HIDDEN in said
    for part in ("KGAT_'", 'quo"', "0123"):
        assert part not in said


def test_a_redacted_stream_is_still_a_stream():
    from kit.tasks.streams import GuardedStream

    protect([SECRET])
    inner = io.StringIO()
    stream = GuardedStream(inner)
    assert stream.write(f"a {SECRET} b") == len(f"a {SECRET} b")
    print(1, 2, file=stream, flush=True)
    assert not stream.isatty()
    assert inner.getvalue() == f"a {HIDDEN} b1 2\n"
    handler = logging.StreamHandler(stream)
    handler.emit(logging.LogRecord("kit", logging.INFO, "", 0, "%s", (SECRET,), None))
    try:
        raise ValueError(SECRET)
    except ValueError:
        traceback.print_exc(file=stream)
    assert "0123" not in inner.getvalue()


def test_what_an_attempt_records_holds_no_secret(tmp_path):
    from kit.submission.folders import FAILED, Attempt, Origin, record_attempt, write_submission

    protect([SECRET])
    filed = write_submission(tmp_path, "ID\n", Origin("m", "r", None), lambda path: None)
    attempt = Attempt("beef", "slug", "m", False, filed.csv_sha256, "2027-01-15T08:00:00+00:00", FAILED,
                      reason=f"refused: {SECRET!r}")  # fmt: skip
    record_attempt(filed, attempt)
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            assert "0123" not in path.read_text().replace(filed.csv_sha256, "")
            assert "KGAT" not in path.read_text()
