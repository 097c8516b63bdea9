"""Scores of whole images by torchxrayvision, for `invoke adopt --image-scores`.

python docs/examples/image_scores.py [WORKSPACE] > scores.csv     (first: pip install torchxrayvision)
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
import torchxrayvision as xrv
from PIL import Image
from torchvision.transforms import Compose

WEIGHTS = "densenet121-res224-pc"  # trained on PadChest; -nih, -rsna and -all have seen NIH's images
LABELS = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltrate", "Mass", "Nodule", "Pneumonia", "Pneumothorax")
THEIRS = {"Infiltration": "Infiltrate"}  # what the classifier calls otherwise

model = xrv.models.DenseNet(weights=WEIGHTS).eval()
prepared = Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)])
data = Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "data"
rows = csv.writer(sys.stdout, lineterminator="\n")
rows.writerow(["image_id", "part", "label", "score"])
for path in sorted(path for part in ("train", "test") for path in (data / part).glob("*.png")):
    grey = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
    pixels = prepared(xrv.datasets.normalize(grey, 255)[None])
    with torch.no_grad():
        scores = model(torch.as_tensor(pixels)[None])[0].tolist()
    for pathology, score in zip(model.pathologies, scores, strict=True):
        label = THEIRS.get(pathology, pathology)
        if label in LABELS:
            rows.writerow([path.name, path.parent.name, label, f"{score:.6f}"])
