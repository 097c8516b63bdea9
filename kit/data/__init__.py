"""From files to samples: decoded once, split by patient, augmented, audited. Only ``dataset`` needs torch."""

from kit.core.front_door import front_door

__all__, __getattr__ = front_door(
    __name__,
    {
        "competition": (
            "TestData",
            "TrainingData",
            "asks_twice",
            "data_folder",
            "has_test",
            "load_test",
            "load_training",
            "patients",
        ),
        "dataset": ("Batch", "DetectionDataset", "EpochSampler", "Sample", "collate", "loader", "training_dataset"),
        "images": ("read_grey",),
        "pixel_cache": ("PixelCache", "open_cache"),
    },
)
