"""Whether a detector learns eight images by heart: its mAP@0.5 on the images of its training, from random weights.

`python tests/support/by_heart.py dfine` prints the steps, the processor's seconds and the mAP.
"""

import logging
import sys
import time

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision

from kit.config import ModelConfig, preset
from kit.data.synthetic.generator import LABELS, draw_findings, render
from kit.detectors import networks
from kit.detectors.weights import resolve_norms
from kit.training.optimizer import make_optimizer, set_rate

SIZE_PX, PEAK_RATE, LOOK_EVERY = 64, 2e-3, 25


def eight_images():
    """One image with one finding for each of the eight labels, as detectors take them, and their targets."""
    images, targets = [], []
    for number, label in enumerate(LABELS):
        rng = np.random.default_rng([7, number])
        (finding,) = draw_findings(rng, (label,), SIZE_PX)
        images.append(torch.from_numpy(render(rng, (finding,), SIZE_PX))[None])
        corners = [finding.x_min, finding.y_min, finding.x_max, finding.y_max]
        targets.append({"boxes": torch.tensor([corners]), "labels": torch.tensor([number + 1])})
    return networks.network_input(images), targets


def learn_by_heart(name, most_steps=500):
    """Train the tiny size of a detector on the eight images; the steps taken and the mAP@0.5 on the same images."""
    torch.manual_seed(0)
    config = resolve_norms(ModelConfig(detector=name, size="tiny", weights="none"))
    network = networks.build(config, len(LABELS))
    settings = preset(name).training
    optimizer = make_optimizer(network, settings)
    images, targets = eight_images()
    score = 0.0
    for step in range(1, most_steps + 1):
        set_rate(optimizer, PEAK_RATE * min(1.0, step / 25, 2 * (1 - step / (most_steps + 1))))
        network.train()
        loss = sum(network(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        optimizer.step()
        if step % LOOK_EVERY == 0:
            score = map50(network, images, targets)
            logging.getLogger(__name__).info("step %d: loss %.2f, mAP@0.5 %.3f", step, loss.detach(), score)
            if score == 1:
                return step, score
    return most_steps, score


@torch.inference_mode()
def map50(network, images, targets):
    """The mAP@0.5 of a network's detections on these images."""
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    metric.update(network.eval()(images), targets)
    return float(metric.compute()["map_50"])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)
    for detector in sys.argv[1:]:
        began = time.process_time()
        steps, reached = learn_by_heart(detector)
        print(
            f"{detector}: mAP@0.5 {reached:.3f} after {steps} steps, {time.process_time() - began:.0f} CPU seconds"
        )
