"""Kaggle's machines and their GPUs; what of a run's knobs cannot work there is refused before anything is sent.

Knobs that describe this machine are not sent: those given with the push itself are meant for Kaggle's.
"""

from __future__ import annotations

from pathlib import Path

from kit.config import Config, knobs
from kit.core.errors import KitError
from kit.detector_names import SET_DETECTORS, TIMM_DETECTORS
from kit.training.schedule import accumulation

# Kaggle's names and the GPUs of each (the client's docs/kernels.md). For any other name Kaggle runs something else
# without a word: a retired one on a T4, or on no GPU at all.
MACHINES = {
    "NvidiaTeslaT4": 2,
    "NvidiaL4": 4,
    "NvidiaL4X1": 1,
    "NvidiaTeslaA100": 1,
    "NvidiaH100": 1,
    "NvidiaRtxPro6000": 1,
}
_DOWNLOADED, _FROM_SCRATCH = ("coco", "imagenet"), ("fcos_tiny",)


def machine_knobs() -> tuple[str, ...]:
    """The keys of the knobs that describe the machine which trains."""
    own = ("data.cache_max_gib", "data.workers", "inference.batch_size")
    return (*own, *(key for key in knobs() if key.startswith("trainer.")))


def without_machine(config: Config) -> Config:
    """The knobs of a run with the defaults of those that describe a machine."""
    defaults = Config()
    return config.replace({key: defaults.get(key) for key in machine_knobs()})


def usable_gpus(config: Config, present: int) -> int:
    """How many of a machine's GPUs the trainings use: one per fold, or all whose batches divide a step's.

    On a machine without GPUs, the trainings that run at the same time. At least 1.
    """
    folds, training = config.data.folds, config.training
    if folds > 1:
        most = min(config.kernel.devices, folds)
        return min(most, present) if present else most
    if config.trainer.devices > 0 or not present:
        return max(1, config.trainer.devices)
    divides = [
        count for count in range(1, present + 1) if not training.effective_batch % (training.batch_size * count)
    ]
    return max(divides, default=1)


def require_machine(config: Config, needs_weights: bool) -> None:
    """Raise KitError if a session on Kaggle's machine would fail, or run on another machine.

    ``needs_weights``: whether a training begins with ``model.weights``, because no checkpoint replaces them.
    """
    machine, trainer, source = config.kernel.machine, config.trainer, config.model.start
    if machine not in MACHINES:
        raise KitError(
            f"kernel.machine among {', '.join(MACHINES)}",
            f"{machine!r}, instead of which Kaggle runs another machine, or none with a GPU",
            "--set kernel.machine=NvidiaTeslaT4, which has two GPUs",
        )
    if trainer.nodes > 1:
        raise KitError("trainer.nodes=1: a session has one machine", f"{trainer.nodes}", "leave it out")
    gpus = 1 if config.data.folds > 1 else MACHINES[machine]  # each fold has one of its own
    if trainer.accelerator != "cpu" and trainer.devices > gpus:
        raise KitError(
            f"trainer.devices at most {gpus}, the GPUs of one training on {machine}", f"{trainer.devices}",
            "leave it out: a single split uses all GPUs, and folds use one each",
        )  # fmt: skip
    accumulation(config.training, max(1, trainer.devices))
    available = available_weights(config.model.detector)
    if needs_weights and source not in available and weights_file(config) is None:
        raise KitError(
            f"model.weights that Kaggle's machine has for {config.model.detector}: {', '.join(available)}; or a "
            "file of this machine, which is sent along",
            f"{source!r}" + (", and there is no such file" if source not in _DOWNLOADED else ""),
            f"push with --set model.weights={available[0]}, under another --run NAME if the run exists; or "
            "`invoke train` here",
        )
    if config.model.detector in SET_DETECTORS and config.kernel.internet == "off":
        raise KitError(
            f"the internet, to install transformers for model.detector={config.model.detector}",
            "kernel.internet=off", "--set kernel.internet=on",
        )  # fmt: skip
    if needs_weights and source in _DOWNLOADED and config.kernel.internet == "off":
        raise KitError(
            f"the internet, to download model.weights={source}", "kernel.internet=off",
            "--set kernel.internet=on; or --set model.weights=none, which needs no download",
        )  # fmt: skip


def weights_file(config: Config) -> Path | None:
    """The file of this machine that ``model.weights`` names; None if it names none that is there."""
    source = config.model.start
    return Path(source) if source not in (*_DOWNLOADED, "none") and Path(source).is_file() else None


def extras(detector: str) -> tuple[str, ...]:
    """The optional extras of kit that a detector needs: their packages are installed on Kaggle's machine."""
    return ("timm",) * (detector in TIMM_DETECTORS) + ("detr",) * (detector in SET_DETECTORS)


def available_weights(detector: str) -> tuple[str, ...]:
    """The values of ``model.weights`` that need no file: those that are published for a detector, and none."""
    if detector in TIMM_DETECTORS:
        return ("imagenet", "none")
    if detector in SET_DETECTORS:
        return ("coco", "none")
    return ("none",) if detector in _FROM_SCRATCH else (*_DOWNLOADED, "none")
