"""Loaded by a Python that a test starts with this folder in PYTHONPATH: a kill -9 at a chosen step.

A step is a change to the files under ``KILL_UNDER``, named by its kind and place, with runs of digits as one.
``KILL_LOG`` gets the name of every step before it is taken; at the first one named ``KILL_AT`` (or the one of
number ``KILL_NTH``) the process dies.
"""

import os
import re
import signal
import sys

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "shutil.rmtree"}
_times_left = [int(os.environ.get("KILL_NTH", "1"))]
_UNDER, _AT, _LOG = (os.environ.get(name) for name in ("KILL_UNDER", "KILL_AT", "KILL_LOG"))


def _step(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return None
    elif event in _CHANGES:
        path = os.fspath(arguments[0])
    else:
        return None
    place = os.path.relpath(path, _UNDER) if str(path).startswith(os.sep) else str(path)
    if place.startswith(".."):
        return None
    return f"{event} {re.sub('[0-9_]+|[.][a-z0-9_]{8}[.]partial$', '#', place)}"


def _watch(event, arguments):
    step = _step(event, arguments)
    if step is None:
        return
    if _LOG:
        descriptor = os.open(_LOG + ".steps", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{step}\n".encode())
        os.close(descriptor)
    _times_left[0] -= step == _AT
    if _times_left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


if _UNDER:
    sys.addaudithook(_watch)
