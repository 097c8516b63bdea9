"""The kit's command lines, each in a fork of one process that has the imports behind it.

Starting Python with torch takes longer than a toy training; with this a test can run dozens of commands, and kill
them. Run as a script, it reads a JSON list of words per line, and answers with the pid, then the exit status.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from command_line import PATIENCE_SECONDS
from repository import ROOT


class Warm:
    """Command lines one after the other; what they say is in ``log``, their temporary folder is ``temporary``."""

    def __init__(self, folder):
        self.temporary, self.log = folder / "tmp", folder / "log.txt"
        self.temporary.mkdir()
        self.log.touch()
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            # Torch makes a folder for its compiler in TMPDIR when it is imported.
            cwd=ROOT, env={**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1",
                           "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")},
        )  # fmt: skip

    def run(self, words, how=None, after_seconds=0.0):
        """Run a command line, send it ``how`` after so many seconds; its exit status and the seconds it took."""
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()
        pid, began = int(self.process.stdout.readline()), time.monotonic()
        if how is not None:
            if how != signal.SIGKILL:
                _wait_until_it_listens(pid)
                began = time.monotonic()
            time.sleep(after_seconds)
            os.kill(pid, how)  # of one that has ended its parent still keeps the number
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline()), time.monotonic() - began

    def said(self):
        """Whatever the commands have written so far."""
        return self.log.read_text(encoding="utf-8")

    def end(self):
        """Stop the process behind it."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


def _wait_until_it_listens(pid):
    """Until the command has taken SIGTERM over, or ended: before that a signal finds Python alone."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if status["State"].startswith("Z") or int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.02)


def _command(words, log):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    from invoke.main import program

    program.run(["invoke", *words], exit=True)
    sys.exit(0)


def _main():
    import hypothesis  # noqa: F401  # pandera looks for it when it judges its first table
    import pandera.strategies.pandas_strategies  # noqa: F401

    from kit import demo  # noqa: F401
    from kit.evaluation import predict  # noqa: F401
    from kit.reports import dataset_report, run_report  # noqa: F401
    from kit.training import fit, train  # noqa: F401

    gc.collect()
    gc.freeze()  # a fork that ends would look through all libraries: 2.4 of the 3.1 s of a refusal
    os.chdir(ROOT)
    with Path(sys.argv[1]).open("ab", buffering=0) as log:
        while line := sys.stdin.readline():
            pid = os.fork()
            if pid == 0:
                _command(json.loads(line), log)
            print(pid, flush=True)
            sys.stdin.readline()  # the signal, if there is one, has been sent
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _main()
