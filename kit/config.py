"""Every knob of the kit, with one line of documentation each.

The key of a knob is ``section.name`` (``training.batch_size``), in ``--set`` and in ``config.json`` alike.
Text values are parsed here and never evaluated.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kit.core.errors import KitError, closest_names
from kit.core.json_files import read_record, write_json
from kit.core.knob_values import as_text, check_value, knob, value_from_text
from kit.detector_names import DETECTOR_NAMES, SET_DETECTORS, SIZES, require_backbone, require_used
from kit.presets import PRESETS

VIEW_NAMES = ("plain", "flip", "bright", "zoom_out", "zoom_in")
RULE_NAMES = ("calibrated-frequency", "calibrated", "score")  # in the order of preference, see kit/choosing
FUSION_METHODS = ("suppress", "wbf", "wbf_sum", "wbf_or")
AUTO = "auto"


@dataclass(frozen=True)
class CompetitionConfig:
    """The competition and the size of its submissions."""

    slug: str = knob("m-2-big-data-dlia-project-2025", "name of the competition in its Kaggle address")
    expected_ids: int = knob(170, "rows of a submission: one per ID of the mapping", low=1)


@dataclass(frozen=True)
class DataConfig:
    """How tables and images are read and split."""

    orientation: str = knob(
        "ignore",
        "ignore: images as they lie in the file; exif: turned by their EXIF orientation, as viewers show them",
        choices=("ignore", "exif"),
    )
    invert: str = knob(
        "none",
        "listed: exchange black and white of the images in the audit's list of inverted ones",
        choices=("none", "listed"),
    )
    patient_pattern: str = knob(
        r"^(\d{8})_\d{3}", "regular expression at the start of an image_id; its first group names the patient"
    )
    largest_patient_share: float = knob(
        0.1, "largest share of images one patient may have; more means that patient_pattern is wrong", low=0, high=1
    )
    repeated_boxes: str = knob(
        "keep",
        "several readers' boxes of one class that overlap in an image (IoU above .5); fuse: their mean is one box",
        choices=("keep", "fuse"),
    )
    folds: int = knob(1, "folds to train, each held out once; 1: a single split", low=1, high=50)
    validation_share: float = knob(0.15, "share of training images held out by a single split", low=0.01, high=0.9)
    split_candidates: int = knob(256, "random splits to draw; the one best balanced by class is kept", low=1)
    cache_max_gib: float = knob(8.0, "largest pixel cache, GiB", low=0)
    workers: int = knob(
        -1, "worker processes that prepare samples; -1: four with a GPU, none on the CPU", low=-1, high=256
    )


@dataclass(frozen=True)
class ModelConfig:
    """The detector, and which of its raw detections are kept."""

    detector: str = knob("fasterrcnn_resnet50_fpn_v2", "name of the detector", choices=DETECTOR_NAMES)
    size: str = knob(
        "s",
        "size of dfine and rfdetr; tiny is for tests and starts at random; other detectors have one size",
        choices=SIZES,
    )
    backbone: str = knob("", "timm network of a detector named ..._timm, such as efficientnet_lite0")
    fpn_channels: int = knob(
        256, "channels of the feature pyramid on a timm network: a multiple of 32", low=64, high=4096
    )
    weights: str = knob("coco", "starting weights: coco, imagenet (backbone only), none, or the path of a file")
    norm: str = knob(
        "auto",
        "norm layers of the backbone; auto: as the weights were trained",
        choices=("auto", "batch", "frozen"),
    )
    norm_eps: float = knob(-1.0, "epsilon of the norm layers; -1: as the weights were trained", low=-1, high=1)
    image_size_px: int = knob(1024, "longer side of the image that the network gets, pixels", low=32, high=8192)
    score_floor: float = knob(0.001, "lowest score of a stored detection", low=0, high=1)
    nms_iou: float = knob(0.3, "IoU above which the detector suppresses a box of the same class", low=0, high=1)
    detections_per_image: int = knob(100, "most detections stored per image and view", low=1)

    @property
    def start(self) -> str:
        """The weights that it starts from: in place of coco none for a tiny D-FINE or RF-DETR."""
        unpublished = self.detector in SET_DETECTORS and self.size == "tiny" and self.weights == "coco"
        return "none" if unpublished else self.weights


@dataclass(frozen=True)
class AugmentationConfig:
    """How training images are augmented; no other images are."""

    flip_p: float = knob(0.5, "probability of a horizontal flip", low=0, high=1)
    affine_p: float = knob(0.5, "probability of a shift, scale and rotation", low=0, high=1)
    shift: float = knob(0.0625, "largest shift, as a share of the side", low=0, high=0.5)
    scale: float = knob(0.1, "largest change of size, as a share", low=0, high=0.9)
    rotate_degrees: float = knob(15.0, "largest rotation in either direction, degrees", low=0, high=180)
    brightness_p: float = knob(0.5, "probability of a change of brightness and contrast", low=0, high=1)
    brightness: float = knob(0.2, "largest change of brightness, as a share", low=0, high=1)
    contrast: float = knob(0.2, "largest change of contrast, as a share", low=0, high=1)
    dropout_p: float = knob(0.2, "probability that square holes are cut; boxes are kept", low=0, high=1)
    dropout_holes: int = knob(8, "most holes per image", low=1)
    dropout_side: float = knob(0.0625, "side of a hole, share of the image's side (64 of 1024 px)", low=0, high=1)
    min_visibility: float = knob(
        0.3, "a box is dropped, and counted, if less than this share of its area stays in the image",
        low=0, high=1,
    )  # fmt: skip
    min_area_px: float = knob(
        1.0, "a box is dropped, and counted, if it has a smaller area at model.image_size_px, square pixels", low=0
    )


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe of a training."""

    max_epochs: int = knob(60, "most passes over the training images", low=1)
    batch_size: int = knob(4, "images per device and step", low=1)
    effective_batch: int = knob(16, "images per optimiser step: batch_size x devices x accumulation", low=1)
    seed: int = knob(
        42, "random seed of the split, the order, the augmentation and the initial weights", low=0, high=2**63 - 1
    )
    optimizer: str = knob("sgd", "optimiser", choices=("sgd", "adamw"))
    learning_rate: float = knob(5e-3, "learning rate at the end of the warm-up", low=0, high=1e30)
    momentum: float = knob(0.9, "momentum of sgd; adamw ignores it", low=0, high=1)
    weight_decay: float = knob(1e-4, "weight decay", low=0)
    warmup_epochs: float = knob(5.0, "epochs of linear warm-up", low=0)
    warmup_start_rate: float = knob(
        1e-4, "learning rate of the first step, if there is a warm-up", low=0, high=1e30
    )
    final_rate: float = knob(1e-6, "learning rate of the last step, at the end of the cosine", low=0, high=1e30)
    backbone_rate: float = knob(
        1.0, "factor on the learning rate of the backbone, whose weights are pretrained", low=0, high=1000
    )
    layer_decay: float = knob(
        1.0, "rfdetr: factor on the learning rate of each layer of the backbone below the next", low=0, high=1
    )
    decay_norms: bool = knob(True, "false: no weight decay on norms and biases")
    decay_embeddings: bool = knob(True, "rfdetr; false: no weight decay on the embeddings of its backbone")
    clip_norm: float = knob(1.0, "largest norm of the gradients; 0: no clipping", low=0)
    patience: int = knob(15, "epochs without a better validation mAP before training stops; 0: never", low=0)
    precision: str = knob(
        "auto", "auto: half precision on a GPU, 32 bits on the CPU", choices=("auto", "32", "16", "bf16")
    )
    deterministic: bool = knob(
        False, "true: on a GPU the same weights each time, where torch has such algorithms; slower"
    )
    ema_decay: float = knob(0.0, "decay of the running mean of weights and buffers; 0: no mean", low=0, high=1)
    keep: str = knob(
        "best",
        "weights that predict: best epoch, last epoch, or their running mean",
        choices=("best", "last", "ema"),
    )


@dataclass(frozen=True)
class InferenceConfig:
    """How a network's detections are made."""

    views: tuple[str, ...] = knob(VIEW_NAMES, "test-time views, separated by commas", choices=VIEW_NAMES)
    batch_size: int = knob(4, "images per forward pass of one view", low=1)
    brightness: float = knob(1.2, "factor on the pixels of the view 'bright'", low=0.1, high=10)


@dataclass(frozen=True)
class FusionConfig:
    """How the detections of all views become one list of candidates."""

    method: str = knob(
        "suppress",
        "suppress: keep the best of overlapping boxes; wbf: average boxes and scores; wbf_sum: add the scores; "
        "wbf_or: the chance that one of them is right; auto: the best on held-out images",
        choices=(*FUSION_METHODS, AUTO),
    )
    iou: float | str = knob(
        0.3, "IoU above which two boxes of a class are one; auto: the best on held-out images",
        low=0, high=1, choices=(AUTO,),
    )  # fmt: skip
    skip_score: float = knob(
        0.0, "a detection of a lower score does not vote; with an auto also tried: 0.05, or 0 in place of a number",
        low=0, high=1,
    )  # fmt: skip
    usual_method: str = knob(
        "suppress",
        "what auto leaves only if another method is measurably better; setting auto notes the one before",
        choices=FUSION_METHODS,
    )  # fmt: skip
    usual_iou: float = knob(
        0.3,
        "what auto leaves only if another IoU is measurably better; setting auto notes the one before",
        low=0, high=1,
    )  # fmt: skip

    @property
    def is_open(self) -> bool:
        """Whether held-out images decide: the method, the IoU or both are ``auto``."""
        return AUTO in (self.method, self.iou)

    @property
    def usual(self) -> FusionConfig:
        """The same with the usual values in place of ``auto``."""
        method = self.usual_method if self.method == AUTO else self.method
        return dataclasses.replace(self, method=method, iou=self.usual_iou if self.iou == AUTO else self.iou)

    @property
    def least_iou(self) -> float:
        """The IoU as a number. Raises ValueError if it is ``auto``."""
        return float(self.iou)


@dataclass(frozen=True)
class DecisionConfig:
    """How the one box of each ID is chosen."""

    rule: str = knob(
        "auto",
        "rule that chooses the one box; auto: the best on held-out images",
        choices=("auto", *RULE_NAMES),
    )
    threshold: float = knob(
        0.0, "lowest score of a candidate; applied only if it improves the score on the held-out images",
        low=0, high=1,
    )  # fmt: skip
    localisation: str = knob(
        "none",
        "auto: p is learned also from how good a candidate's place is, unless that is worse on held-out images",
        choices=("none", "auto"),
    )
    box_scale: str = knob(
        "none", "auto: factors on each class's boxes, if the held-out score improves", choices=("none", "auto")
    )
    fallback_confidence: float = knob(
        1e-6, "confidence of the location prior's box, which answers if an image has no candidate", low=1e-8, high=1
    )


@dataclass(frozen=True)
class TrainerConfig:
    """The machines that train; these knobs may change when a run is resumed."""

    accelerator: str = knob("auto", "auto: a GPU if there is one", choices=("auto", "cpu", "gpu"))
    devices: int = knob(
        -1, "training processes on this machine; -1: one per GPU, or one on the CPU", low=-1, high=256
    )
    nodes: int = knob(1, "machines that train together, under torchrun", low=1, high=256)


@dataclass(frozen=True)
class KaggleConfig:
    """How long the kit waits for Kaggle, and where Kaggle's machines have the data."""

    deadline_seconds: float = knob(30.0, "longest wait for an answer of Kaggle, seconds", low=0.1)
    attempts: int = knob(5, "attempts at a read while Kaggle is busy or out of reach", low=1, high=100)
    pause_seconds: float = knob(1.0, "pause before the second attempt, seconds; then doubled", low=0)
    longest_pause_seconds: float = knob(60.0, "longest pause, also if Kaggle asks for a longer one, seconds", low=0)
    stall_seconds: float = knob(90.0, "give up a download after this long without data, seconds", low=1)
    unpacked_max_gib: float = knob(20.0, "largest size of a competition's unpacked archive, GiB", low=0)
    input_root: str = knob("/kaggle/input", "folder in which Kaggle's machines mount a competition's data")
    score_wait_seconds: float = knob(600.0, "longest wait of submit for the score, seconds", low=0)
    score_pause_seconds: float = knob(2.0, "first pause before asking for the score again, seconds", low=0.1)
    settle_seconds: float = knob(120.0, "how long a lost upload is searched for after its deadline, seconds", low=0)


@dataclass(frozen=True)
class KernelConfig:
    """A training on Kaggle's machines."""

    machine: str = knob("NvidiaTeslaT4", "Kaggle's name of a machine with a GPU; NvidiaTeslaT4 has two")
    devices: int = knob(2, "most folds trained at the same time, each on a GPU of its own", low=1, high=8)
    internet: str = knob("on", "whether the kernel may download packages and weights", choices=("on", "off"))
    max_hours: float = knob(11.0, "the kernel stops at the end of an epoch after this long, hours", low=0, high=12)
    poll_seconds: float = knob(30.0, "pause before asking for a kernel's state again, seconds", low=0.1)


@dataclass(frozen=True)
class Config:
    """All knobs of a run, by section, as in the file ``runs/NAME/config.json``."""

    competition: CompetitionConfig = field(default_factory=CompetitionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    kaggle: KaggleConfig = field(default_factory=KaggleConfig)
    kernel: KernelConfig = field(default_factory=KernelConfig)

    def __post_init__(self) -> None:
        for key, spec in knobs().items():
            check_value(key, spec, self.get(key))
        try:
            re.compile(self.data.patient_pattern)
        except re.error as error:
            raise KitError(
                "data.patient_pattern to be a regular expression", f"{self.data.patient_pattern!r}: {error}",
                r"write one whose first group names the patient, such as ^(\d{8})_\d{3}",
            ) from error  # fmt: skip
        if not self.model.weights:
            raise KitError(
                "model.weights to be coco, imagenet, none or the path of a file",
                "an empty text",
                "--set model.weights=none",
            )
        require_backbone(self.model.detector, self.model.backbone, self.model.fpn_channels)
        if self.training.keep == "ema" and not self.training.ema_decay:
            raise KitError(
                "training.ema_decay above 0 if training.keep=ema", "training.ema_decay=0",
                "add --set training.ema_decay=0.998, or keep best or last",
            )  # fmt: skip

    def get(self, key: str) -> Any:
        """The value of ``section.name``."""
        section, _, name = key.partition(".")
        return getattr(getattr(self, section), name)

    def replace(self, values: Mapping[str, Any]) -> Config:
        """A copy with some knobs changed; ``values`` maps ``section.name`` to the new value."""
        sections: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
        changed = {
            section: dataclasses.replace(getattr(self, section), **names) for section, names in sections.items()
        }
        return dataclasses.replace(self, **changed)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The values by section and name, as they are written to JSON: lists for tuples."""
        values = dataclasses.asdict(self)
        return {
            section: {name: list(value) if isinstance(value, tuple) else value for name, value in names.items()}
            for section, names in values.items()
        }


TRUTH_KNOBS = ("data.repeated_boxes", "data.orientation")  # they change the true boxes or their place
_USUAL = {"fusion.method": "fusion.usual_method", "fusion.iou": "fusion.usual_iou"}  # kept when auto is set
_FREE_KNOBS = ("data.workers", "data.cache_max_gib", "inference.batch_size")
_FREE_SECTIONS = ("competition", "fusion", "decision", "trainer", "kaggle", "kernel")


def knobs() -> dict[str, dataclasses.Field[Any]]:
    """Every knob by its key, in the order of this file; ``metadata`` holds its line, range and choices."""
    return {
        f"{section.name}.{spec.name}": spec
        for section in fields(Config)
        for spec in fields(section.default_factory)  # type: ignore[arg-type]
    }


def preset(name: str) -> Config:
    """The configuration of a preset. Raises KitError with the closest names if there is no such preset."""
    if name not in PRESETS:
        nearest = closest_names(name, PRESETS)
        raise KitError(
            "the name of a preset", repr(name), f"nearest: {nearest} (--preset {nearest.partition(',')[0]})"
        )  # fmt: skip
    return Config().replace(PRESETS[name])


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Apply ``KEY=VALUE`` texts in order.

    Raises KitError for a wrong key, type or range, and for a knob that the detector does not have.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            default = _spec(key.strip()).default
            raise KitError(
                "--set KEY=VALUE", repr(assignment), f"write it as --set {key.strip()}={as_text(default)}"
            )
        values[key.strip()] = parse(key.strip(), text.strip())
    for key, usual in _USUAL.items():
        if values.get(key) == AUTO != config.get(key):
            values.setdefault(usual, config.get(key))
    defaults = {key: _spec(key).default for key in values}
    require_used({"model.detector": config.model.detector, **values}, defaults)
    return config.replace(values)


def parse(key: str, text: str) -> Any:
    """The value of a knob from text, in the type of its default. Raises KitError for another type."""
    return value_from_text(key, _spec(key), text)


def load(path: Path) -> Config:
    """Read ``config.json``; a missing knob has its default. Raises KitError for a wrong key, type or range."""
    return read_record(path, Config, f"restore {path}, or start another run with --run NAME")


def save(config: Config, path: Path) -> None:
    """Write every knob to ``config.json``, atomically."""
    write_json(path, config.as_dict())


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The knobs that differ and change training or detection: key -> (old value, new value).

    Knobs that describe the machine, and those that act on stored detections only, are left out.
    """
    return {
        key: (old.get(key), new.get(key))
        for key in knobs()
        if key not in _FREE_KNOBS and key.split(".")[0] not in _FREE_SECTIONS and old.get(key) != new.get(key)
    }


def _spec(key: str) -> dataclasses.Field[Any]:
    specs = knobs()
    if key not in specs:
        raise KitError("the key of a knob", repr(key), f"nearest: {closest_names(key, specs)}")
    return specs[key]
