"""The machine's devices, and its errors explained: full memory, a lost process, a deleted file.

torch has an exception type for a full GPU only; on the CPU, and between processes, only the text tells.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from kit.config import Config
from kit.core.errors import KitError, reason

_FULL = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation")
_GONE = ("gloo", "nccl", "connection reset by peer", "connection closed by peer", "broken pipe")
_LETTERS_SHOWN = 200
_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"  # cuBLAS is deterministic with buffers of its own only


def process_count(config: Config) -> int:
    """The number of training processes on this machine. Raises KitError if a GPU is required and there is none."""
    gpus = torch.cuda.device_count() if config.trainer.accelerator != "cpu" else 0
    if config.trainer.accelerator == "gpu" and not gpus:
        raise KitError("a GPU, for trainer.accelerator=gpu", "none", "--set trainer.accelerator=auto")
    return config.trainer.devices if config.trainer.devices > 0 else max(1, gpus)


def uses_gpu(config: Config) -> bool:
    """Whether there is a GPU and the configuration allows it."""
    return torch.cuda.is_available() and config.trainer.accelerator != "cpu"


def lightning_precision(config: Config) -> Any:
    """Lightning's name of the configured precision."""
    names = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
    return names.get(config.training.precision, "16-mixed" if uses_gpu(config) else "32-true")


@contextlib.contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """If ``wanted``, torch takes algorithms that give the same numbers each time, and warns where it has none.

    On the CPU they all do. cuBLAS reads its variable when a process first uses it.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        os.environ.setdefault(*_CUBLAS_WORKSPACE)
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextlib.contextmanager
def explain_failures(batch_size: int, image_size_px: int, knob: str) -> Iterator[None]:
    """Turn failures into KitErrors: a batch too large, a lost process, a deleted file.

    Args:
        batch_size: Images in memory at once.
        image_size_px: Their longer side.
        knob: The knob of ``batch_size``, and where it can be changed.
    """
    try:
        yield
    except FileNotFoundError as error:  # from a worker it has no fields; its text is the last line of a traceback
        last_line = (str(error).strip() or "a deleted file").splitlines()[-1]
        raise KitError(
            "the pixel cache and the run's folder to exist during the work", last_line,
            "repeat the command: it rebuilds the cache and continues; do not change images meanwhile",
        ) from error  # fmt: skip
    except (MemoryError, RuntimeError) as error:
        text, shown = str(error), reason(error)[:_LETTERS_SHOWN]
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _any_of(_FULL, text):
            raise KitError(
                f"a batch of {batch_size} images of {image_size_px} px to fit the memory", shown,
                f"{f'lower {knob}, or ' if batch_size > 1 else ''}train with a smaller model.image_size_px under "
                "another --run NAME",
            ) from error  # fmt: skip
        if torch.distributed.is_initialized() and _any_of(_GONE, text):
            raise KitError(
                "every process of this training to run", f"one process has ended: {shown}",
                "see the messages above; repeat the command to continue from the last complete epoch",
            ) from error  # fmt: skip
        raise


def _any_of(words: tuple[str, ...], text: str) -> bool:
    return any(word in text.lower() for word in words)
