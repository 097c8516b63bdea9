"""The presets: sets of knobs under a name. A preset changes the defaults of ``kit.config``."""

from __future__ import annotations

from typing import Any

DEFAULT_PRESET, DEFAULT_PRESET_WITHOUT_GPU = "seed", "laptop"
PRESETS: dict[str, dict[str, Any]] = {
    # The recipe of the public notebook, without its defects.
    "seed": {},
    # A small detector for a computer without a GPU.
    "laptop": {
        "model.detector": "fasterrcnn_mobilenet_v3_large_320_fpn",
        "model.image_size_px": 384,
        "training.max_epochs": 20,
        "training.effective_batch": 4,
        "training.warmup_epochs": 1.0,
        "training.patience": 6,
    },
    # Trains from scratch on the synthetic competition in two to four minutes on two cores.
    "demo": {
        "model.detector": "fcos_tiny",
        "model.weights": "none",
        "model.image_size_px": 128,
        "augmentation.rotate_degrees": 5.0,
        "augmentation.shift": 0.03,
        "augmentation.dropout_p": 0.0,
        "training.max_epochs": 16,
        "training.effective_batch": 4,
        "training.optimizer": "adamw",
        "training.learning_rate": 2e-3,
        "training.weight_decay": 0.05,
        "training.warmup_epochs": 1.0,
        "training.patience": 0,
        "fusion.method": "wbf",
        "fusion.iou": 0.4,
    },
}
