"""The user's own three commands, as they stand, from an empty folder to a public score: `pytest -s` shows them.

Only what a network gives to a newcomer is there before: a file of weights for the preset that a laptop takes. Its
run's config.json names the file and makes the training short; the commands have no flag for any of it.
"""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import PATIENCE_SECONDS
from kaggle_server import TOKEN, KaggleServer
from PIL import Image
from repository import ROOT

from kit.choosing import one_box
from kit.config import CompetitionConfig, preset, save
from kit.detectors import networks
from kit.detectors.weights import resolve_norms
from kit.metrics import average_precision
from kit.runs.folder import Run
from kit.submission.folders import read_submissions

TRAIN_IMAGES, TEST_IMAGES = 24, 170
BOX_PX, CELL_PX = 14, 6
SHORT = {
    "model.image_size_px": 96,
    "model.score_floor": 0.99,  # nothing is found so early: the prior's boxes are sent, and some of them are right
    "training.max_epochs": 1,
    "inference.views": ("plain",),
}


def write_competition(folder):
    """Small grey pictures with one bright square each, a bit brighter for a Nodule; where the test truth is."""
    rng = np.random.default_rng(1)
    tables = {"train": [], "test": []}
    for number in range(TRAIN_IMAGES + TEST_IMAGES):
        part = "train" if number < TRAIN_IMAGES else "test"
        name, label = f"{number:08d}_000.png", ("Mass", "Nodule")[number % 2]
        cells = rng.integers(0, 120, (4, 16), dtype=np.uint8)
        grey = np.kron(cells, np.ones((CELL_PX, CELL_PX), np.uint8))
        x = int(rng.integers(40, 44))
        grey[4 : 4 + BOX_PX, x : x + BOX_PX] = 200 + 50 * (number % 2)
        (folder / "data" / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(folder / "data" / part / name)
        tables[part].append((name, x, 4, x + BOX_PX, 4 + BOX_PX, label))
    columns = ["image_id", "x_min", "y_min", "x_max", "y_max", "label"]
    pd.DataFrame(tables["train"], columns=columns).to_csv(folder / "data" / "train.csv", index=False)
    truth = pd.DataFrame(tables["test"], columns=columns)
    truth.to_csv(folder / "truth.csv", index=False)
    mapping = pd.DataFrame({"ID": range(TEST_IMAGES), "image_id": truth["image_id"]})
    mapping.to_csv(folder / "data" / "ID_to_Image_Mapping.csv", index=False)
    return folder / "truth.csv"


def prepare_run(workspace, weights):
    """What the default run of a laptop starts from: a file in the shape of COCO's weights, and little patience."""
    config = preset("laptop").replace({**SHORT, "model.weights": str(weights)})
    torch.save(networks.build(config.model, 90).state_dict(), weights)
    config = dataclasses.replace(config, model=resolve_norms(config.model))
    save(config, Run(workspace, "laptop").config)


@pytest.mark.slow
def test_download_train_and_submit_end_in_a_public_score(tmp_path):
    server_side, workspace, home = tmp_path / "server", tmp_path / "work", tmp_path / "home"
    for folder in (server_side, workspace, home):
        folder.mkdir()
    (workspace / "tasks.py").symlink_to(ROOT / "tasks.py")
    truth = write_competition(server_side)
    prepare_run(workspace, tmp_path / "weights.pth")
    slug = CompetitionConfig.slug
    with KaggleServer() as server:
        competition = server.add_competition(slug, server_side / "data", truth)
        environment = server.environment(home) | {
            "PYTHONPATH": str(ROOT), "COLUMNS": "110", "CUDA_VISIBLE_DEVICES": "", "TORCH_HOME": str(home),
        }  # fmt: skip
        transcript = []
        for words, answer in (
            (["download"], ""),
            (["train"], ""),
            (["submit", "--message", "first try"], "y\n"),
            (["submissions"], ""),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "invoke", *words], cwd=workspace, env=environment, input=answer,
                capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
            )  # fmt: skip
            shown = " ".join(f'"{word}"' if " " in word else word for word in words)
            transcript.append(f"$ invoke {shown}\n{done.stderr}{done.stdout}")
            print(transcript[-1])
            assert done.returncode == 0, done.stderr
        assert server.errors == []
        assert server.names().count("CreateSubmission") == 1
        (remote,) = competition.submissions
    (submission,) = read_submissions(workspace / "submissions")
    answers = one_box.answers_to_detections(pd.read_csv(submission.csv))
    boxes = pd.read_csv(truth)
    score = average_precision.score_detections(boxes, answers, sorted(boxes["image_id"])).map50
    assert score > 0
    assert submission.public_score == pytest.approx(score, abs=5e-6)
    assert submission.origin.message == "first try"
    assert re.fullmatch(r"first try \[kit 0001 [0-9a-f]{8}\]", remote["description"])
    assert remote["content"] == submission.csv.read_bytes()
    assert f"public score {score:.3f}" in transcript[2]
    assert f"{score:.3f} *" in transcript[3]
    assert TOKEN not in "".join(transcript)
    assert not [path for path in workspace.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
