"""Run as a script: the kit's command lines, each in a fork of one process that has the imports behind it.

Starting Python with torch takes longer than a toy training; with this a test can kill dozens of commands. A line
of standard input is a JSON list of words; the answer is the pid, then, once it has ended, its exit status.
"""

import json
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(words, log):
    """The command line in this process, which ends with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setpgid(0, 0)  # a command's own children are killed with it
    for number in (1, 2):
        os.dup2(log.fileno(), number)
    from invoke.main import program

    program.run(["invoke", *words], exit=True)
    sys.exit(0)


def main():
    from kit import demo, report, store, training, verbs  # noqa: F401

    os.chdir(ROOT)
    with Path(sys.argv[1]).open("ab", buffering=0) as log:
        for line in sys.stdin:
            pid = os.fork()
            if pid == 0:
                run(json.loads(line), log)
            print(pid, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
