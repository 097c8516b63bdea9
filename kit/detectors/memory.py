"""Memory for speed: weights in the layout that convolves fastest, and freed memory kept for the next step."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator

import torch
from torch import nn

# Parameters of glibc's mallopt(3). Once one is set, glibc no longer adapts its thresholds to the freed sizes: the
# values set afterwards are those that large tensors would have led to.
_TRIM_THRESHOLD, _TRIM_AFTERWARDS_BYTES = -1, 64 * 2**20
_MMAP_THRESHOLD, _MMAP_AFTERWARDS_BYTES = -3, 32 * 2**20
_MMAP_MAX, _MMAP_MAX_AFTERWARDS = -4, 65_536
_NEVER_TRIM = 2**31 - 1


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in channels-last order, in which GPUs and CPUs convolve fastest.

    On two cores a training step gained 4% (``laptop``) and 14% (``demo``), a forward pass 10% and 14%.
    """
    return network.to(memory_format=torch.channels_last)


@contextlib.contextmanager
def keeping_freed_memory(device_type: str) -> Iterator[None]:
    """On the CPU, make glibc keep freed memory instead of returning large tensors to the system at every step.

    The kernel would have to clear new pages for the next tensors: a tenth of a training step on the CPU, a quarter
    of a forward pass. With another C library nothing changes. The memory is returned at the end.
    """
    if device_type != "cpu" or platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _MMAP_MAX_AFTERWARDS)
        library.mallopt(_MMAP_THRESHOLD, _MMAP_AFTERWARDS_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _TRIM_AFTERWARDS_BYTES)
        library.malloc_trim(0)
