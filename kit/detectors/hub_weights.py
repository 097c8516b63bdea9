"""Published weights of D-FINE and RF-DETR: found in the cache or fetched, and the same for a whole run.

A run's ``weights.json`` records repository, revision and SHA-256 of the file that it started from. The file is read
as safetensors, which hold no code.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kit.config import ModelConfig
from kit.core.errors import KitError, reason
from kit.core.files import sha256
from kit.core.json_files import read_record, write_json

_FILE = "model.safetensors"
HUB = "https://huggingface.co"
_DIGITS = 12


@dataclass(frozen=True)
class WeightsRecord:
    """The file that a run started from; repository and revision are "" for a file of this machine."""

    repository: str
    file: str
    revision: str
    sha256: str


def starting_file(config: ModelConfig, repository: str, record: Path | None) -> Path:
    """The path of the starting weights: ``model.weights``, or the published file of ``repository``.

    Args:
        config: ``weights`` is coco or the path of a file.
        repository: The repository of the detector's published weights.
        record: The run's ``weights.json``, or None: written if it is missing, else the file must agree with it.

    Raises:
        KitError: The file cannot be fetched, or is not the one that the run started from.
    """
    known = read_record(record, WeightsRecord, _restore(record)) if record and record.exists() else None
    if config.weights == "coco":
        path, revision = _published(config, repository, known.revision if known else "")
        found = WeightsRecord(repository, path.name, revision, sha256(path))
    else:
        path = Path(config.weights)
        found = WeightsRecord("", path.name, "", _digest(path))
    if known is not None and known.sha256 != found.sha256:
        raise KitError(
            f"{path} as it was when the run began ({known.sha256[:_DIGITS]}..., in {record})",
            f"{found.sha256[:_DIGITS]}...",
            "restore the file, or train under another --run NAME",
        )
    if known is None and record is not None:
        write_json(record, asdict(found))
    return path


def by_hand(repository: str) -> Path:
    """Where a published file is looked for first: it can be put there on a machine without internet."""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{repository.replace('/', '--')}--{_FILE}"


def cached(page: str) -> tuple[Path, str] | None:
    """The file of a repository's page as the hub's client fetched it, and its revision; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    repository = page.removeprefix(f"{HUB}/")
    if repository == page:
        return None
    path = try_to_load_from_cache(repository, _FILE)
    return (Path(path), Path(path).parent.name) if isinstance(path, str) else None


def _published(config: ModelConfig, repository: str, revision: str) -> tuple[Path, str]:
    """The path of the published file, and the revision that it is of ("" if it was put there by hand)."""
    placed = by_hand(repository)
    if placed.exists():
        return placed, ""
    from huggingface_hub import hf_hub_download

    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    try:
        # Without a token: the repositories are public.
        path = hf_hub_download(repository, _FILE, revision=revision or None, token=False, endpoint=endpoint)
    except Exception as error:  # the client has many exceptions of its own, and lets those of its transport through
        raise KitError(
            f"to download the coco weights of {config.detector}, size {config.size}: {_FILE} of {repository}",
            reason(error),
            f"download {HUB}/{repository}/resolve/{revision or 'main'}/{_FILE} elsewhere and put it at {placed}, "
            "or train without: --set model.weights=none",
        ) from error
    return Path(path), Path(path).parent.name  # of the cache: .../snapshots/REVISION/model.safetensors


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise KitError(
            "model.weights to be coco, none or the path of a file", f"{path}: {reason(error)}",
            "--set model.weights=coco, or the path of a file that exists",
        ) from error  # fmt: skip


def _restore(path: Path | None) -> str:
    return f"restore {path}, or train under another --run NAME"
