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
    # https://github.com/Peterande/D-FINE: configs/dfine/custom/dfine_hgnetv2_s_custom.yml has the learning rate,
    # half of it for the backbone (sizes m and l: .1 and .05), the weight decay, and none on norms and biases;
    # there the backbone's norms are fixed in size l alone, here in all, as transformers has them (model.norm);
    # configs/dfine/include/optimizer.yml the clipping, the decay of the mean, and 500 steps of warm-up (here 5
    # epochs). There it trains 120 epochs at 640 px in steps of 32 images; here 60 in steps of 16, for small data.
    "dfine": {
        "model.detector": "dfine",
        "model.size": "s",
        "model.image_size_px": 640,
        "training.optimizer": "adamw",
        "training.learning_rate": 2.5e-4,
        "training.backbone_rate": 0.5,
        "training.weight_decay": 1.25e-4,
        "training.decay_norms": False,
        "training.warmup_start_rate": 0.0,
        "training.clip_norm": 0.1,
        "training.ema_decay": 0.9999,
        "training.keep": "ema",
    },
    # https://github.com/roboflow/rf-detr: rfdetr/config.py and rfdetr/main.py have the learning rate, the weight
    # decay, the clipping, the decay of the mean, steps of 16 images, no warm-up, and 512 px for size s.
    # rfdetr/models/backbone/backbone.py has the backbone's rate, 1.5e-4 x .7^2 x .8^(layers above + 2), and no
    # decay on its norms, biases and embeddings. Norms and biases outside the backbone decay there; its decoder has
    # .7 of the learning rate, here all of it. There it trains 100 epochs; here 60, for small data.
    "rfdetr": {
        "model.detector": "rfdetr",
        "model.size": "s",
        "model.image_size_px": 512,
        "training.optimizer": "adamw",
        "training.learning_rate": 1e-4,
        "training.backbone_rate": 0.735,
        "training.layer_decay": 0.8,
        "training.weight_decay": 1e-4,
        "training.decay_norms": False,
        "training.decay_embeddings": False,
        "training.warmup_epochs": 0.0,
        "training.clip_norm": 0.1,
        "training.ema_decay": 0.993,
        "training.keep": "ema",
    },
}
