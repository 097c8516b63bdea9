"""What the machine has for a training, and its own errors in words: no memory left, a process that is gone.

torch has a type for a full GPU alone; on the CPU, and between processes, there is only the text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from kit.config import Config
from kit.core.errors import KitError, reason

_FULL = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation")
_GONE = ("gloo", "nccl", "connection reset by peer", "connection closed by peer", "broken pipe")
_SHOWN_LETTERS = 200


def process_count(config: Config) -> int:
    """How many processes train on this machine."""
    gpus = torch.cuda.device_count() if config.trainer.accelerator != "cpu" else 0
    if config.trainer.accelerator == "gpu" and not gpus:
        raise KitError("a GPU, for trainer.accelerator=gpu", "none", "--set trainer.accelerator=auto")
    return config.trainer.devices if config.trainer.devices > 0 else max(1, gpus)


def uses_gpu(config: Config) -> bool:
    """Whether there is a GPU and it is wanted."""
    return torch.cuda.is_available() and config.trainer.accelerator != "cpu"


def lightning_precision(config: Config) -> Any:
    """Lightning's name of the precision that is configured."""
    names = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
    return names.get(config.training.precision, "16-mixed" if uses_gpu(config) else "32-true")


@contextlib.contextmanager
def explain_failures(batch_size: int, image_size_px: int, knob: str) -> Iterator[None]:
    """Around the network's work: KitError where a batch does not fit (``knob``), a process or a file is gone."""
    try:
        yield
    except FileNotFoundError as error:  # a worker's arrives without its fields, at the end of a traceback's text
        found = (str(error).strip() or "a file is gone").splitlines()[-1]
        raise KitError(
            "the pixel cache and the run's folder to stay while they are used", found,
            "the same command makes the cache anew and goes on; images must not change meanwhile",
        ) from error  # fmt: skip
    except (MemoryError, RuntimeError) as error:
        text, found = str(error), reason(error)[:_SHOWN_LETTERS]
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _any_of(_FULL, text):
            raise KitError(
                f"a batch of {batch_size} images of {image_size_px} px to fit the memory", found,
                f"lower {knob} or model.image_size_px",
            ) from error  # fmt: skip
        if torch.distributed.is_initialized() and _any_of(_GONE, text):
            raise KitError(
                "every process of this training to go on", f"one has ended: {found}",
                "see above why, if it could say so; the same command goes on from the last whole epoch",
            ) from error  # fmt: skip
        raise


def _any_of(words: tuple[str, ...], text: str) -> bool:
    return any(word in text.lower() for word in words)
