"""What a GPU makes of kit: each row is measured by itself and given at once, so that a cut call still has rows.

The preset is ``seed`` without its weights and with frozen norms. Without a GPU there is one row, not measured.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kit.config import Config, preset
from kit.data.competition import TrainingData, load_training
from kit.data.pixel_cache import PixelCache, open_cache
from kit.data.synthetic.generator import LABELS, write_competition
from kit.demo import run_demo
from kit.detector_names import DETECTOR_NAMES, SET_DETECTORS, TIMM_DETECTORS
from kit.detectors import networks, weights
from kit.detectors.inference import detect
from kit.detectors.memory import channels_last
from kit.detectors.networks import network_input
from kit.detectors.source import Source
from kit.detectors.tta import views
from kit.runs.folder import Run, Split
from kit.training.fit import fit

from . import gpu_memory
from .measure import Row, not_measured
from .sizes import Sizes

_OF_NETWORK = {"model.weights": "none", "model.norm": "frozen"}
COMPILED = "body compiled"
_EPOCH_LIMIT, _VIEWS_LIMIT = 1.05, 1.1
_GIB = 2**30
Prepared = tuple[list[Tensor], list[dict[str, Tensor]]]


@dataclasses.dataclass(frozen=True)
class Way:
    """How a step is taken; one option differs from the first way."""

    precision: torch.dtype = torch.float32
    channels_last: bool = False
    compiled: bool = False
    fused: bool = False


_WAYS = {
    "bf16 autocast": Way(torch.bfloat16),
    "fp16 autocast": Way(torch.float16),
    "channels last": Way(channels_last=True),
    "fp16 autocast, channels last": Way(torch.float16, channels_last=True),
    "fused SGD": Way(fused=True),
    COMPILED: Way(compiled=True),
}


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    if sizes.device == "cuda" and not torch.cuda.is_available():
        yield not_measured("gpu", "everything on a GPU", "no GPU here")
        return
    bench = _Bench(sizes, folder)
    for what, row in (
        *(
            (f"a step of {sizes.gpu_batches[0]} images: {name}", _step(bench, name))
            for name in _WAYS
            if name != COMPILED
        ),
        *((f"epoch in batches of {size}", _epoch(bench, size)) for size in sizes.gpu_batches),
        *((f"epoch, {count} workers", _workers(bench, count)) for count in sizes.gpu_workers),
        ("a batch copied from pinned memory", _pinned(bench)),
        ("five views", _views(bench)),
        ("half precision in inference", _half(bench)),
        ("the CPU's detections", _against_cpu(bench)),
        *((f"{name} under autocast", _finite(bench, name)) for name in DETECTOR_NAMES),
        *((f"waiting for the matcher, {name}", gpu_memory.matcher(sizes, name)) for name in SET_DETECTORS),
        *((f"memory of {asked}", gpu_memory.memory(sizes, asked)) for asked in gpu_memory.wanted(sizes)),
        *((f"resumed, deterministic={wanted}", _resumed(bench, wanted)) for wanted in (False, True)),
        ("the demo whole", _demo(bench)),
        (COMPILED, _step(bench, COMPILED)),  # the compiler may take minutes
    ):
        try:
            yield row()
        except Exception as error:  # a full memory, a missing library: the other rows are measured all the same
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            yield not_measured("gpu", what, f"{type(error).__name__}: {first_line[:100]}")
        finally:
            if sizes.device == "cuda":
                torch.cuda.empty_cache()


class _Bench:
    """The images and the configuration that the rows share, made when a row first needs them."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes, self.folder, self.device = sizes, folder, torch.device(sizes.device)
        self.config = preset("seed").replace(_OF_NETWORK | {"model.image_size_px": sizes.gpu_px})
        if sizes.device == "cpu":
            self.config = self.config.replace({"model.detector": "fcos_tiny", "trainer.accelerator": "cpu"})
        write_competition(
            folder, 3, train_images=sizes.gpu_images, test_images=sizes.gpu_viewed, size_px=sizes.gpu_px
        )
        self.data: TrainingData = load_training(folder, self.config)
        self.pixels: PixelCache = open_cache(folder / "data" / "test", folder / ".cache", 10.0)
        held = self.data.image_ids[:4]
        self.split = Split(self.data.labels, self.data.image_ids, (held,), self.data.table_sha256)

    @functools.cached_property
    def plain_step(self) -> tuple[float, float]:
        """Seconds and peak memory of a step in float32."""
        self.peak_gib()
        seconds, _ = _step_seconds(self, Way(), self.sizes.gpu_batches[0])
        return seconds, self.peak_gib()

    def detector(self, config: Config | None = None) -> nn.Module:
        """The network with the same random weights each time, on the device."""
        config = config or self.config
        torch.manual_seed(config.training.seed)
        return networks.build(weights.resolve_norms(config.model), len(self.data.labels)).to(self.device)

    def batch(self, size: int) -> Prepared:
        """Images and targets on the device, as the network takes them."""
        names = [self.data.image_ids[number % len(self.data.image_ids)] for number in range(size)]
        images = [torch.tensor(self.data.pixels.read(name))[None].to(self.device) for name in names]
        box, label = torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([1])
        targets = [{"boxes": box.to(self.device), "labels": label.to(self.device)} for _ in names]
        return [image.contiguous() for image in network_input(images)], targets

    def seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Seconds of a call on an idle device, the mean of ``repeats``."""
        self.wait()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - started) / repeats

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_gib(self) -> float:
        """The most memory since the last call, NaN without a GPU."""
        if self.device.type != "cuda":
            return math.nan
        peak = torch.cuda.max_memory_allocated() / _GIB
        torch.cuda.reset_peak_memory_stats()
        return peak


def _step(bench: _Bench, name: str) -> Callable[[], Row]:
    def row() -> Row:
        size = bench.sizes.gpu_batches[0]
        if _WAYS[name].compiled and bench.device.type == "cpu":
            return not_measured("gpu", name, "on the CPU the compiler takes minutes")
        plain, plain_gib = bench.plain_step
        bench.peak_gib()
        ours, first = _step_seconds(bench, _WAYS[name], size)
        return Row("gpu", f"a step of {size} images of {bench.sizes.gpu_px} px, {name}", "float32", "ms",
                   ours * 1e3, plain * 1e3, "times less",
                   note=f"{size / ours:.1f} against {size / plain:.1f} images a second; {bench.peak_gib():.1f} "
                        f"against {plain_gib:.1f} GiB; the first step {first:.1f} s")  # fmt: skip

    return row


def _step_seconds(bench: _Bench, way: Way, size: int) -> tuple[float, float]:
    """Seconds of a step in the end, and of the first one."""
    detector: Any = bench.detector().train()
    detector = channels_last(detector) if way.channels_last else detector
    if way.compiled:
        networks.backbone_of(detector).compile()
    learned = [weight for weight in detector.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1e-4, momentum=0.9, fused=way.fused or None)
    images, targets = bench.batch(size)
    scaler = torch.amp.GradScaler(bench.device.type, enabled=way.precision == torch.float16)
    half = way.precision != torch.float32

    def step() -> None:
        with torch.autocast(bench.device.type, way.precision) if half else nullcontext():
            loss = torch.stack(list(detector(images, targets).values())).sum()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    first = bench.seconds(step, 1)
    bench.seconds(step, 2)
    return bench.seconds(step, bench.sizes.gpu_steps), first


class _Clock:
    """When the network passes from training to validation and back, over two epochs."""

    def __init__(self, bench: _Bench, detector: nn.Module) -> None:
        self.bench, self.started = bench, time.perf_counter()
        self.changes: list[float] = []
        self.training = False
        detector.register_forward_pre_hook(self.entered)

    def entered(self, network: nn.Module, inputs: object) -> None:
        if network.training != self.training:
            self.bench.wait()
            self.training = network.training
            self.changes.append(time.perf_counter())

    @property
    def first(self) -> float:
        """Seconds until the first batch was in the network."""
        return self.changes[0] - self.started

    @property
    def trained(self) -> float:
        """Seconds of the second epoch's training: the validation's workers start at the end of the first."""
        return self.changes[3] - self.changes[2]


def _fitted(bench: _Bench, name: str, knobs: dict[str, Any]) -> _Clock:
    """Two epochs of kit's training."""
    config = bench.config.replace({"training.max_epochs": 2, **knobs})
    run, detector = Run(bench.folder, name), bench.detector(config).cpu()
    run.folder.mkdir(parents=True)
    clock = _Clock(bench, detector)
    fit(run, config, bench.split, bench.data, detector)
    return clock


def _epoch(bench: _Bench, size: int) -> Callable[[], Row]:
    def row() -> Row:
        bench.peak_gib()
        knobs = {"training.batch_size": size, "training.effective_batch": size}
        clock = _fitted(bench, f"batches-of-{size}", knobs)
        images = len(bench.split.training(0))
        peak = bench.peak_gib()
        way = Way(torch.float16, channels_last=True) if bench.device.type == "cuda" else Way()
        bare = _step_seconds(bench, way, size)[0] * images / size
        return Row("gpu", f"one training epoch of {images} images in batches of {size}",
                   "bare forward, backward, step in memory, as many images", "s", clock.trained, bare,
                   "times as much", limit=_EPOCH_LIMIT,
                   note=f"{images / clock.trained:.1f} images a second, {peak:.1f} GiB; idle or else busy "
                        f"{max(0.0, 1 - bare / clock.trained):.0%} of the time")  # fmt: skip

    return row


def _workers(bench: _Bench, count: int) -> Callable[[], Row]:
    def row() -> Row:
        clock = _fitted(bench, f"workers-{count}", {"data.workers": count})
        images = len(bench.split.training(0))
        return Row("gpu", f"one training epoch, {count} workers", "until the first batch is in the network", "s",
                   clock.trained, clock.first, "times as much",
                   note=f"{images / clock.trained:.1f} images a second")  # fmt: skip

    return row


def _pinned(bench: _Bench) -> Callable[[], Row]:
    def row() -> Row:
        size = bench.sizes.gpu_batches[-1]
        pageable = torch.zeros(size, 1, bench.sizes.gpu_px, bench.sizes.gpu_px, dtype=torch.uint8)
        pinned = pageable.pin_memory() if bench.device.type == "cuda" else pageable
        times = [
            bench.seconds(lambda source=source: source.to(bench.device, non_blocking=True), 20)
            for source in (pinned, pageable)
        ]
        return Row("gpu", f"a batch of {size} copied from pinned memory, without waiting", "from pageable memory",
                   "ms", times[0] * 1e3, times[1] * 1e3, "times less")  # fmt: skip

    return row


def _source(bench: _Bench) -> Source:
    return Source("bench", 0, "", LABELS, bench.config.model.image_size_px, bench.config.inference)


def _views(bench: _Bench) -> Callable[[], Row]:
    def row() -> Row:
        detector, names = channels_last(bench.detector()).eval(), sorted(bench.pixels.facts)
        size = bench.config.inference.batch_size
        chunks = [names[start : start + size] for start in range(0, len(names), size)]
        shown = [
            [network_input([_shown(bench, view, name) for name in chunk]) for chunk in chunks]
            for view in views(bench.config.inference)
        ]

        @torch.inference_mode()
        def bare() -> None:
            with torch.autocast(bench.device.type, enabled=bench.device.type == "cuda"):
                for batches in shown:
                    for batch in batches:
                        detector(batch)

        def ours() -> object:
            return detect(_source(bench), detector, bench.pixels, names)

        bench.seconds(bare, 1)
        a, b = bench.seconds(ours, 1), bench.seconds(bare, 1)
        return Row("gpu", f"five views of {len(names)} images", "five bare forward passes", "s", a, b,
                   "times as much", limit=_VIEWS_LIMIT, note=f"{len(names) / a:.1f} images a second")  # fmt: skip

    return row


def _shown(bench: _Bench, view: Any, name: str) -> Tensor:
    return torch.tensor(view.apply(bench.pixels.read(name), bench.config.model.image_size_px))[None].to(
        bench.device
    )


def _compared(bench: _Bench, one: Any, other: Any, what: str, against: str) -> Row:
    """How far the detections of two ways are apart: counts, and scores by rank of each image."""
    tables = [made.sort_values(["image_id", "score"], ascending=[True, False]) for made in (one, other)]
    ranked = [
        table.assign(rank=table.groupby("image_id").cumcount()).set_index(["image_id", "rank"])["score"]
        for table in tables
    ]
    apart = (ranked[0] - ranked[1]).abs().max() if len(one) and len(other) else math.nan
    return Row("gpu", what, against, "detections", float(len(one)), float(len(other)), "apart",
               note=f"scores of the same rank furthest apart {apart:.2g}")  # fmt: skip


def _half(bench: _Bench) -> Callable[[], Row]:
    def row() -> Row:
        names, detector = sorted(bench.pixels.facts)[:8], channels_last(bench.detector()).eval()
        half = detect(_source(bench), detector, bench.pixels, names)
        plain = _undisturbed(bench, detector, names)
        return _compared(bench, half, plain, "detections in half precision", "in float32")

    return row


def _undisturbed(bench: _Bench, detector: nn.Module, names: list[str]) -> Any:
    """Detections in float32: the network leaves the autocast that ``detect`` enters."""
    forward = detector.forward

    def in_float32(*arguments: Any) -> Any:
        with torch.autocast(bench.device.type, enabled=False):
            return forward(*arguments)

    detector.forward = in_float32  # type: ignore[method-assign]
    try:
        return detect(_source(bench), detector, bench.pixels, names)
    finally:
        detector.forward = forward  # type: ignore[method-assign]


def _against_cpu(bench: _Bench) -> Callable[[], Row]:
    def row() -> Row:
        names, detector = sorted(bench.pixels.facts)[:2], channels_last(bench.detector()).eval()
        here = _undisturbed(bench, detector, names)
        there = detect(_source(bench), detector.cpu(), bench.pixels, names)
        return _compared(bench, here, there, "detections on the GPU, float32", "on the CPU")

    return row


def _finite(bench: _Bench, name: str) -> Callable[[], Row]:
    def row() -> Row:
        backbone = "efficientnet_lite0" if name in TIMM_DETECTORS else ""
        small = {"model.size": "tiny"} if name in SET_DETECTORS else {}
        # Frozen norms without weights would normalise nothing, and the numbers would grow from layer to layer.
        values = {"model.detector": name, "model.backbone": backbone, "model.norm": "batch", **small}
        detector = bench.detector(bench.config.replace(values)).train()
        images, targets = bench.batch(2)
        with torch.autocast(bench.device.type):
            loss = torch.stack(list(detector(images, targets).values())).sum()
        loss.float().backward()
        grads = [weight.grad for weight in detector.parameters() if weight.grad is not None]
        bad = sum(not bool(torch.isfinite(grad).all()) for grad in grads) + int(not bool(torch.isfinite(loss)))
        return Row("gpu", f"{name} under autocast: losses and gradients that are not finite", "none", "tensors",
                   float(bad), 0.0, "apart", limit=0)  # fmt: skip

    return row


def _resumed(bench: _Bench, wanted: bool) -> Callable[[], Row]:
    """Two epochs in one go against one, an end, and one more: the largest difference of a weight."""

    def trained(name: str, *epochs: int) -> dict[str, Tensor]:
        run = Run(bench.folder, name)
        run.folder.mkdir(parents=True)
        for stop in epochs:
            config = bench.config.replace({
                "training.max_epochs": epochs[-1], "training.deterministic": wanted, "model.detector": "fcos_tiny",
            })  # fmt: skip
            detector = bench.detector(config).cpu()
            if stop != epochs[-1]:
                detector.register_forward_pre_hook(_Stop(stop))
            try:
                fit(run, config, bench.split, bench.data, detector)
            except KeyboardInterrupt:
                continue
        return torch.load(run.last, weights_only=True, map_location="cpu")["state_dict"]

    def row() -> Row:
        whole, resumed = trained(f"whole-{wanted}", 2), trained(f"resumed-{wanted}", 1, 2)
        apart = max(float((whole[name].double() - resumed[name].double()).abs().max()) for name in whole)
        knob = f"training.deterministic={str(wanted).lower()}"
        return Row("gpu", f"weights of a training that was stopped and resumed, {knob}", "never stopped", "",
                   apart, 0.0, "apart")  # fmt: skip

    return row


class _Stop:
    """Interrupts a training when it enters its next epoch."""

    def __init__(self, epochs: int) -> None:
        self.left, self.was_training = epochs, True

    def __call__(self, network: nn.Module, inputs: object) -> None:
        if network.training and not self.was_training:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        self.was_training = network.training


def _demo(bench: _Bench) -> Callable[[], Row]:
    def row() -> Row:
        if bench.device.type != "cuda":
            return not_measured("gpu", "the demo whole", "on the CPU it takes minutes")
        result = run_demo(bench.folder / "demo", time.monotonic)
        return Row("gpu", "the demo whole", "the target", "s", result.seconds, 120.0, "times as much",
                   note=f"one-box mAP {result.score:.3f}")  # fmt: skip

    return row
