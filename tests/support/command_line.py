"""`python -m invoke` in a process of its own."""

import signal
import subprocess
import sys

from repository import ROOT

PATIENCE_SECONDS = 1800  # only what hangs takes as long: some machines are several times slower than others


def invoke(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "invoke", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )  # fmt: skip


def assert_refused(done, *texts):
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert "expected:" in done.stderr
    assert "do: " in done.stderr
    for text in texts:
        assert text in done.stderr


def started(*words):
    # A suite that runs in the background ignores Ctrl-C, and so would what it starts: handlers are not inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command = [sys.executable, "-m", "invoke", *map(str, words)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
