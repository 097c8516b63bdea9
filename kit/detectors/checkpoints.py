"""Files of weights, read without running any code from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from kit.core.errors import KitError, reason


def load_checkpoint(path: Path, do: str) -> dict[str, Any]:
    """Read a checkpoint without running code from it. Raises KitError with the advice ``do`` if that fails."""
    try:
        content = _read(path)
    except FileNotFoundError as error:
        raise KitError(f"the checkpoint {path}", "no such file", do) from error
    # torch raises RuntimeError, UnpicklingError, EOFError and others for a broken file; for one that holds more
    # than plain values it advises to run the code in it.
    except Exception as error:
        is_other = type(error).__name__ == "UnpicklingError"  # whose module no source of kit imports
        found = "another kind of file, or one that would run code" if is_other else reason(error)
        raise KitError(f"{path} to be a checkpoint of plain tensors and values", found, do) from error
    if not isinstance(content, dict):
        raise KitError(f"{path} to hold a dict of weights", type(content).__name__, do)
    return content


def not_finite(tensors: Mapping[str, object]) -> str:
    """The first tensor with NaN or infinite values as 32-bit floats, in words; "" if there is none."""
    counts = {name: _strange_values(tensor) for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    bad = {name: count for name, count in counts.items() if count}
    if not bad:
        return ""
    name, count = next(iter(bad.items()))
    more = f", and so in {len(bad) - 1} more tensors" if len(bad) > 1 else ""
    return f"tensor {name}: {count} of its {tensors[name].numel()} values NaN or infinite{more}"  # type: ignore[attr-defined]


def _strange_values(tensor: Tensor) -> int:
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        return 0
    return tensor.numel() - int(torch.isfinite(tensor.float()).sum())


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":  # the format of timm's published weights; timm installs the reader
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def is_state_dict(content: object) -> TypeGuard[dict[str, Tensor]]:
    """Whether an object is a dict of tensors by name."""
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    )
