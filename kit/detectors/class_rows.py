"""The rows of a detector's class layers, one set per label: a later stage takes them over by the labels' names.

Copied by position, rows of one label would start as another's, without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

# torchvision's class layers have the background first; those of its region proposals know no class.
_WITH_BACKGROUND = re.compile(r"(classification_head\.cls_logits|box_predictor\.(cls_score|bbox_pred))\.\w+$")
_PER_ANCHOR = re.compile(r"cls_logits\.\w+$")  # the classes of the first anchor, then those of the second
_LABELS_ALONE = re.compile(r"\.(class_embed|enc_score_head|enc_out_class_embed)(\.\d+)?\.(weight|bias)$")
_PADDING_LAST = re.compile(r"\.denoising_class_embed\.weight$")  # of D-FINE


def saved_labels(checkpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of a checkpoint of kit in the order of its class rows; none for another file."""
    made = checkpoint.get("kit")
    labels = made.get("labels") if isinstance(made, dict) else None
    texts = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return tuple(labels) if texts and labels else ()


def by_label(
    weights: Mapping[str, Any], saved: Sequence[str], own: Mapping[str, Tensor], labels: Sequence[str]
) -> dict[str, Any]:
    """The weights with the class layers in the shape of ``own``: rows of a label in both are copied by its name.

    The rows of a new label stay as in ``own``; those of the background are copied. Other tensors stay as they are.

    Args:
        weights: The tensors of a checkpoint.
        saved: Its labels, in the order of their rows.
        own: The tensors of the new detector.
        labels: Its labels, likewise.
    """
    moved = dict(weights)
    for name, weight in weights.items():
        if name not in own or not isinstance(weight, Tensor) or weight.shape[1:] != own[name].shape[1:]:
            continue
        theirs, ours = _rows(name, weight, len(saved)), _rows(name, own[name], len(labels))
        if theirs is None or ours is None or theirs.shape[1] != ours.shape[1]:
            continue
        others = len(ours) - len(labels)  # the background, or padding
        pairs = [(number, number) for number in range(others)]
        pairs += [
            (others + saved.index(label), others + number) for number, label in enumerate(labels) if label in saved
        ]
        filled = own[name].clone()
        for source, goal in pairs:
            filled[torch.from_numpy(ours[goal])] = weight[torch.from_numpy(theirs[source])].to(filled.dtype)
        moved[name] = filled
    return moved


def _rows(name: str, weight: Tensor, labels: int) -> Int64[np.ndarray, "classes rows"] | None:
    """The row numbers of each class of a tensor, the background or padding first; None if it has no class rows."""
    count = len(weight) if weight.ndim else 0
    numbers = np.arange(count, dtype=np.int64)
    if _WITH_BACKGROUND.search(name) and count and count % (labels + 1) == 0:
        return numbers.reshape(-1, labels + 1).T if _PER_ANCHOR.search(name) else numbers.reshape(labels + 1, -1)
    if _PADDING_LAST.search(name) and count == labels + 1:
        return np.roll(numbers, 1)[:, None]
    return numbers[:, None] if _LABELS_ALONE.search(name) and count == labels else None
