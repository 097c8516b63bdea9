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


def second_run(run, name):
    """A run with the files of another, as if it had been made under its own name."""
    import json

    import pandas as pd

    from kit.runs.folder import Run

    other = Run(run.workspace, name)
    shutil.copytree(run.folder, other.folder)
    end = json.loads(run.finished.read_text())
    end["weights"] = {title.replace(run.name, name, 1): digest for title, digest in end["weights"].items()}
    end["seen"] = {title.replace(run.name, name, 1): digest for title, digest in end["seen"].items()}
    end["run"] = name
    other.finished.write_text(json.dumps(end))
    for path in other.folder.rglob("detections/*.parquet"):
        pd.read_parquet(path).assign(run=name).to_parquet(path, index=False)
    return other


def copied(source, goal):
    shutil.copytree(source, goal)  # with the files' times, which the pixel cache goes by
    return goal
