"""The toy competition: its knobs, its config, and copies of its workspace."""

import shutil

TOY_TEST_IMAGES = 8
TOY = (
    f"competition.expected_ids={TOY_TEST_IMAGES}",
    "model.image_size_px=64",
    "training.max_epochs=2",
    "training.batch_size=4",
    "training.effective_batch=8",
    "data.validation_share=0.3",
    "data.largest_patient_share=0.5",
    "inference.views=plain,flip,zoom_out",
)
FOLDS = (*TOY, "data.folds=3", "training.max_epochs=1")


def toy_config():
    from kit.config import override, preset

    return override(preset("demo"), TOY)


def copied(source, goal):
    shutil.copytree(source, goal)  # with the files' times, which the pixel cache goes by
    return goal
