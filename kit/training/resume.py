"""The state that a training continues from, checked before Lightning loads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from kit.core.errors import KitError, first_few
from kit.detectors.checkpoints import is_state_dict, load_checkpoint, not_finite
from kit.runs.folder import HISTORY_COLUMNS, Run

PROGRESS = "kit.progress"  # under which the callback keeps its rows


def resume_state(run: Run, detector: nn.Module) -> dict[str, Any]:
    """The content of ``last.ckpt``; empty if there is none.

    Raises KitError if the file is broken, lacks a part, or holds the weights of another detector or NaN.
    """
    if not run.last.exists():
        return {}
    do = f"restore it from a copy, or delete {run.home} and start anew"
    state = load_checkpoint(run.last, do)
    found = _fault(state, detector)
    if found:
        raise KitError(f"{run.last} to be a state that `invoke train` goes on from", found, do)
    return state


def _fault(state: dict[str, Any], detector: nn.Module) -> str:
    kinds = {"state_dict": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list, "loops": dict,
             "epoch": int, "global_step": int}  # fmt: skip
    wrong = [name for name, kind in kinds.items() if not isinstance(state.get(name), kind)]
    if wrong:
        return f"without {', '.join(wrong)}"
    if len(state["optimizer_states"]) != 1 or "fit_loop" not in state["loops"]:
        return f"{len(state['optimizer_states'])} optimizers, loops {', '.join(map(str, state['loops']))}"
    if not _is_optimizer(state["optimizer_states"][0]):
        return "an optimizer without what it remembers of each weight"
    kept = state["callbacks"].get(PROGRESS)
    rows = kept.get("rows") if isinstance(kept, dict) else None
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        return "epochs that are no rows of numbers"
    weights = ("state_dict", "current_model_state")
    misfit = next((text for name in weights if (text := _misfit(state, name, detector))), "")
    return misfit or next((text for text in map(not_finite, _tensors(state)) if text), "")


def _tensors(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The weights, their mean, and what the optimiser remembers of each."""
    yield state["state_dict"]
    yield state.get("current_model_state", {})
    for number, kept in state["optimizer_states"][0]["state"].items():
        yield {f"{name} of weight {number} in optimizer_states": tensor for name, tensor in kept.items()}


def _is_optimizer(state: object) -> bool:
    remembered = state.get("state") if isinstance(state, dict) else None
    return isinstance(remembered, dict) and all(isinstance(kept, dict) for kept in remembered.values())


def _is_row(row: object) -> bool:
    return (
        isinstance(row, dict)
        and set(row) == set(HISTORY_COLUMNS)
        and all(isinstance(value, (int, float)) for value in row.values())
    )


def _misfit(state: dict[str, Any], name: str, detector: nn.Module) -> str:
    if name not in state:
        return ""
    found, own = state[name], detector.state_dict()
    if not is_state_dict(found):
        return f"{name} that holds no tensors by name"
    strange = sorted(set(found) ^ set(own)) or [key for key in own if found[key].shape != own[key].shape]
    return f"{name} of another detector: {first_few(strange)}" if strange else ""
