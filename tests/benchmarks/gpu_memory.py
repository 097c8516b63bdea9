"""Memory of a training step on a GPU by detector and size, and what a set detector waits for its matcher."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kit.config import Config, preset
from kit.detector_names import SET_DETECTORS
from kit.detectors import networks, weights
from kit.detectors.memory import channels_last
from kit.detectors.networks import network_input
from kit.training.optimizer import make_optimizer

from .measure import Row
from .sizes import Sizes

_GIB = 2**30
_LABELS = 8
_BOX = [8.0, 8.0, 40.0, 40.0]
# The published sides of RF-DETR's sizes; the presets' sides are those of size s.
_SIDES = {"rfdetr": {"n": 384, "s": 512, "m": 576, "l": 704}}


@dataclass(frozen=True)
class Wanted:
    """A preset, a size of its detector, and images in a batch."""

    preset: str
    size: str
    batch: int

    def config(self, sizes: Sizes) -> Config:
        """The preset's configuration without published weights; small for a processor."""
        knobs: dict[str, Any] = {"model.weights": "none", "training.batch_size": self.batch}
        if self.size:
            side = _SIDES.get(self.preset, {}).get(self.size)
            knobs |= {"model.size": self.size} | ({"model.image_size_px": side} if side else {})
        if sizes.device == "cpu":
            knobs |= {"model.image_size_px": sizes.gpu_px, "trainer.accelerator": "cpu"}
        return preset(self.preset).replace(knobs)


def wanted(sizes: Sizes) -> Iterator[Wanted]:
    """What is measured: the presets as they are, each size, and half of the batch where memory is short."""
    if sizes.device == "cpu":
        yield from (Wanted(name, "tiny", 2) for name in SET_DETECTORS)
        return
    yield from (Wanted(name, "", 4) for name in ("seed", "laptop"))
    for name in SET_DETECTORS:
        yield from (Wanted(name, size, batch) for size in ("n", "s", "m", "l") for batch in (4, 2))


def memory(sizes: Sizes, asked: Wanted) -> Callable[[], Row]:
    """The most memory of a step as kit trains: half precision, channels last, optimiser, a mean of the weights."""

    def row() -> Row:
        step, config = _step(sizes, asked)
        step()
        step()
        used, held = _peaks(sizes)
        what = f"{asked.preset} {asked.size}".strip()
        return Row("gpu", f"memory of a step of {asked.batch} images of {config.model.image_size_px} px, {what}",
                   "held by torch", "GiB", used, held, "times as much")  # fmt: skip

    return row


def matcher(sizes: Sizes, name: str) -> Callable[[], Row]:
    """A step against the same step with the matcher's answers of before, for which nothing waits."""

    def row() -> Row:
        asked = next(one for one in wanted(sizes) if one.preset == name and one.size in ("s", "tiny"))
        step, config = _step(sizes, asked)
        repeats = sizes.gpu_steps
        for _ in range(3):
            step()
        ours = _seconds(sizes, step, repeats)
        with _remembered() as forget:
            forget()
            step()

            def replayed() -> None:
                forget()
                step()

            other = _seconds(sizes, replayed, repeats)
        return Row("gpu", f"a step of {asked.batch} images of {config.model.image_size_px} px, {name} {asked.size}",
                   "the same with the matcher's answers known", "ms", ours * 1e3, other * 1e3, "times as much",
                   note=f"the matcher's share: {max(0.0, 1 - other / ours):.0%}")  # fmt: skip

    return row


def _step(sizes: Sizes, asked: Wanted) -> tuple[Callable[[], None], Config]:
    config, device = asked.config(sizes), torch.device(sizes.device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    detector: Any = channels_last(networks.build(weights.resolve_norms(config.model), _LABELS)).to(device).train()
    mean = copy.deepcopy(detector)
    optimizer = make_optimizer(detector, config.training)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    side = config.model.image_size_px
    pixels = [torch.randint(256, (1, side, side), dtype=torch.uint8, device=device) for _ in range(asked.batch)]
    images = network_input(pixels)
    targets = [{"boxes": torch.tensor([_BOX], device=device), "labels": torch.tensor([1], device=device)}
               for _ in pixels]  # fmt: skip

    def step(kept: nn.Module = mean) -> None:
        with torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16):
            loss: Tensor = torch.stack(list(detector(images, targets).values())).sum()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step, config


def _seconds(sizes: Sizes, work: Callable[[], None], repeats: int) -> float:
    wait = torch.cuda.synchronize if sizes.device == "cuda" else (lambda: None)
    wait()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return (time.perf_counter() - started) / repeats


def _peaks(sizes: Sizes) -> tuple[float, float]:
    if sizes.device != "cuda":
        return 0.0, 0.0
    return torch.cuda.max_memory_allocated() / _GIB, torch.cuda.max_memory_reserved() / _GIB


@contextlib.contextmanager
def _remembered() -> Iterator[Callable[[], None]]:
    """Matchers of transformers that repeat the answers of their first step; yields what begins a new step."""
    from transformers.loss.loss_rf_detr import RfDetrHungarianMatcher
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    classes: tuple[Any, ...] = (RfDetrHungarianMatcher, RTDetrHungarianMatcher)
    found = [one.forward for one in classes]
    answers: list[Any] = []
    state = {"at": 0}

    def forget() -> None:
        state["at"] = 0

    def remembering(forward: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*arguments: Any, **named: Any) -> Any:
            if state["at"] == len(answers):
                answers.append(forward(*arguments, **named))
            state["at"] += 1
            return answers[state["at"] - 1]

        return answer

    for one, forward in zip(classes, found, strict=True):
        one.forward = remembering(forward)
    try:
        yield forget
    finally:
        for one, forward in zip(classes, found, strict=True):
            one.forward = forward
