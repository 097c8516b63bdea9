"""A training that is stopped by Ctrl-C."""

import os
import signal
import threading
import time

import pytest

from kit.runs.folder import Run
from kit.training.train import train


def interrupted_after_one_epoch(workspace, assignments):
    """Train and send this process a Ctrl-C as soon as the history has its first row."""
    history = Run(workspace, "demo").history

    def interrupt():
        while not history.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=interrupt, daemon=True)
    watcher.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            train(workspace, None, "demo", assignments)
    finally:
        signal.signal(signal.SIGINT, before)
