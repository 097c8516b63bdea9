"""What a training step in half precision keeps at least, by detector and size, counted without a GPU.

python -m tests.benchmarks.step_memory [NAME ...]
"""

import sys
from itertools import chain

import torch
from torch import Tensor

from kit.detector_names import SET_DETECTORS
from kit.detectors import networks, weights
from kit.detectors.networks import network_input

from .gpu_memory import Wanted
from .sizes import Sizes

_GIB = 2**30
_WEIGHT_COPIES = {
    "sgd": 4,
    "adamw": 5,
}  # weights, gradients, their mean copy, and the optimiser's one or two states


def counted(asked: Wanted) -> tuple[float, float]:
    """GiB of the weights and of what is kept for each, and of what the forward pass keeps for the backward one."""
    config = asked.config(Sizes())
    torch.manual_seed(0)
    detector = networks.build(weights.resolve_norms(config.model), 8).train()
    side = config.model.image_size_px
    images = network_input([torch.randint(256, (1, side, side), dtype=torch.uint8) for _ in range(asked.batch)])
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])} for _ in images]
    own = {tensor.untyped_storage().data_ptr() for tensor in chain(detector.parameters(), detector.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        loss = torch.stack(list(detector(images, targets).values())).sum()
    copies = _WEIGHT_COPIES[config.training.optimizer]
    of_weights = sum(weight.numel() * 4 for weight in detector.parameters() if weight.requires_grad) * copies
    assert loss.requires_grad  # the graph, and with it the storages, lives until here
    return of_weights / _GIB, sum(kept.values()) / _GIB


def main(names: list[str]) -> None:
    """Print a line per detector and size."""
    every = [Wanted(name, size, 4) for name in SET_DETECTORS for size in ("n", "s", "m", "l")]
    for asked in (*(Wanted(name, "", 4) for name in ("laptop", "seed")), *every):
        title = f"{asked.preset} {asked.size}".strip()
        if not names or title in names:
            of_weights, of_images = counted(asked)
            print(f"{title:12} {of_weights:.2f} GiB of weights, {of_images:.2f} GiB for 4 images", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
