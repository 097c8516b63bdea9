"""The terminal's streams: letters that they lack, closed ones, a full disk or an ended reader behind them."""

import errno
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from invoke import Exit
from repository import ROOT

from kit.core.errors import KitError
from kit.tasks.command import command
from kit.tasks.console import show_table
from kit.tasks.streams import GuardedStream, guard_streams, require_written


class Refusing(io.StringIO):
    """A stream that takes so many letters, as buffers do, and then has an error for everything."""

    def __init__(self, number, letters=0):
        super().__init__()
        self.number, self.letters = number, letters

    def write(self, text):
        self.letters -= len(text)
        self.flush()
        return super().write(text)

    def flush(self):
        if self.letters < 0:
            raise OSError(self.number, os.strerror(self.number))


@pytest.fixture
def streams(monkeypatch):
    def set_to(stdout, stderr):
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        guard_streams()

    return set_to


def verb(body):
    """What `invoke` runs for a verb with this body."""

    def said(context):
        """Say something."""
        body()

    return lambda: command()(said).body(None)


def test_letters_that_the_encoding_lacks_are_written_as_escapes(streams):
    inner = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for encoding in ("cp1252", "ascii")]
    streams(*inner)
    for stream, behind in zip((sys.stdout, sys.stderr), inner, strict=True):
        show = "肺炎 \udcff"
        stream.write(show)
        stream.flush()
        assert behind.buffer.getvalue() == b"\\u80ba\\u708e \\udcff"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_the_shell_has_closed_takes_everything(name, streams):
    streams(*(None if name == each else io.StringIO() for each in ("stdout", "stderr")))
    getattr(sys, name).write("a line\n")
    getattr(sys, name).flush()
    require_written()


@pytest.mark.parametrize("letters", [0, 20])
@pytest.mark.parametrize("say", [lambda: print("a line that is long"), lambda: show_table("t", ["a"], [["b"]] * 9)])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT])
def test_a_refused_line_ends_the_verb_in_words_and_the_same_verb_works_elsewhere(number, say, letters, streams):
    streams(Refusing(number, letters), io.StringIO())
    with pytest.raises(Exit, match="standard output") as caught:
        verb(lambda: [say() for _ in range(3)])()
    assert caught.value.code == 1
    assert os.strerror(number) in caught.value.message
    streams(io.StringIO(), io.StringIO())  # elsewhere, as advised
    verb(say)()
    assert sys.stdout.getvalue()


def test_a_reader_that_has_read_enough_ends_the_verb_without_a_word(streams):
    streams(Refusing(errno.EPIPE), io.StringIO())
    with pytest.raises(Exit) as caught:
        verb(lambda: print("a line"))()
    assert (caught.value.code, caught.value.message) == (141, None)
    print("more")  # of what ends with the verb: no second error
    sys.stdout.flush()
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_what_standard_error_refuses_is_said_on_standard_output_and_the_code_is_not_0(number, streams):
    streams(io.StringIO(), Refusing(number))
    handler = logging.StreamHandler()
    done = []

    def body():
        handler.emit(logging.LogRecord("kit", logging.INFO, "", 0, "a %s", ("warning",), None))
        done.append("the work")

    with pytest.raises(Exit, match="standard error") as caught:
        verb(body)()
    assert caught.value.code == 1
    assert done == ["the work"]
    print(caught.value.message, file=sys.stderr)  # as Invoke does
    assert sys.stdout.getvalue().startswith("a warning\nexpected: to write to standard error\n")


def test_an_error_of_the_verb_is_said_where_it_can_be(streams):
    streams(io.StringIO(), Refusing(errno.ENOSPC))

    def fail():
        raise KitError("this", "that", "so")

    with pytest.raises(Exit) as caught:
        verb(fail)()
    print(caught.value.message, file=sys.stderr)
    assert sys.stdout.getvalue() == "expected: this\nfound:    that\ndo:       so\n"


def test_two_full_streams_say_nothing_and_the_code_is_not_0(streams):
    streams(Refusing(errno.ENOSPC), Refusing(errno.ENOSPC))
    with pytest.raises(Exit) as caught:
        verb(lambda: print("a line"))()
    assert caught.value.code == 1
    print(caught.value.message, file=sys.stderr)
    sys.stderr.flush()


def test_a_stream_that_was_guarded_is_not_guarded_twice(streams):
    streams(io.StringIO(), io.StringIO())
    once = sys.stdout
    guard_streams()
    assert sys.stdout is once
    assert isinstance(once, GuardedStream)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["submissions --workspace nowhere", "--list", "--help train", "trian", "evaluate --workspace nowhere"]
)
@pytest.mark.parametrize(
    "to", [">&-", "2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "| true", "2>&1 >/dev/full | true"]
)
def test_a_command_without_a_stream_has_no_traceback_and_its_exit_code(words, to):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    command_line = f"set -o pipefail; {sys.executable} -m invoke {words} {to}"
    done = subprocess.run(
        ["bash", "-c", command_line], cwd=ROOT, capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    for leaked in ("Traceback", "Exception", "Error:", "Errno"):
        assert leaked not in done.stdout + done.stderr
    is_shown_anyway = to in (">&-", "2>&-", "2>/dev/full") and words.startswith(("submissions", "--"))
    assert (done.returncode == 0) == is_shown_anyway
