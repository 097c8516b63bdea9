"""A training that is stopped by Ctrl-C."""

import gc
import os
import signal
import threading
import time
import warnings

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
    with warnings.catch_warnings():
        # A file that was being opened when the signal came is closed by the collector, with a warning.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with pytest.raises(KeyboardInterrupt):
                train(workspace, None, "demo", assignments)
        finally:
            signal.signal(signal.SIGINT, before)
        gc.collect()
