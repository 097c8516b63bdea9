"""What a push sends along, as a private data set on Kaggle: uploaded once, then awaited until it is processed.

That is the state of a run, the file of weights that a new training starts from, and the workspace's groups.csv.

``kernels/.NAME.dataset`` records the upload; so the same command goes on waiting and sends nothing twice.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kit.config import KaggleConfig
from kit.core.files import make_folder, write_text
from kit.core.json_files import read_record, write_json
from kit.kaggle.errors import Refused, Unanswered
from kit.kaggle.kernels.api import Kernels
from kit.kaggle.kernels.session import RUN_ARCHIVE
from kit.runs.folder import Run

_READY, _LOST = "ready", ("failed", "deleted")
_LOOKS, _LONGEST_PAUSE = 60, 10  # looks at the status; the pauses grow to so many times kaggle.pause_seconds
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Upload:
    """An upload: the data set OWNER/SLUG, the state in it, whether Kaggle has confirmed it and a push has used it.

    ``before`` is the data set's version when the upload began, 0 if there was no data set.
    """

    dataset: str
    state_sha256: str
    before: int
    confirmed: bool = False
    used: bool = False


def run_files(run: Run) -> list[Path]:
    """The files of a run that are uploaded: all but hidden ones (locks)."""
    paths = sorted(run.folder.rglob("*"))
    return [path for path in paths if path.is_file() and not path.name.startswith(".")]


def is_uploaded(run: Run, state: str) -> bool:
    """Whether Kaggle has confirmed an upload of this state, as ``state_sha256``."""
    upload = _recorded(run)
    return upload is not None and upload.state_sha256 == state and upload.confirmed


def provide(
    kernels: Kernels,
    run: Run,
    dataset: str,
    state: str,
    settings: KaggleConfig,
    again: bool,
    files: Mapping[str, Path] | None = None,
) -> None:
    """Upload the state of a run as the data set OWNER/SLUG, unless it is there; wait until Kaggle has processed it.

    ``files`` are uploaded with it, under their keys; ``state`` tells one upload from another.

    With ``again`` a state that a push has used, or that Kaggle could not process, is uploaded once more.

    Raises Refused if Kaggle did not take it or could not process it, Unanswered if either is not known, or not yet:
    the same command then goes on from there.
    """
    upload, version = _recorded(run), kernels.dataset_version(dataset)
    is_same = upload is not None and (upload.dataset, upload.state_sha256) == (dataset, state)
    if upload is None or not is_same or not _has_arrived(upload, version) or (again and _is_spent(kernels, upload)):
        _send(kernels, run, Upload(dataset, state, version), files or {})
    for look in range(_LOOKS):
        status = kernels.dataset_status(dataset)
        if status == _READY:
            return
        if status in _LOST:
            raise Refused(
                f"the data set {dataset} to be ready", f"Kaggle says: {status}",
                f"see https://www.kaggle.com/datasets/{dataset}; the same command with --again uploads it anew",
            )  # fmt: skip
        if look == 0:
            log.info("waiting until Kaggle has processed the data set %s", dataset)
        time.sleep(settings.pause_seconds * min(look + 1, _LONGEST_PAUSE))
    raise Unanswered(
        f"the data set {dataset} to be ready", f"Kaggle still processes it ({status or 'not shown yet'})",
        "repeat the command later: it goes on waiting and uploads nothing",
    )  # fmt: skip


def mark_used(run: Run) -> None:
    """Record that a push has used the uploaded state of a run."""
    upload = _recorded(run)
    if upload is not None:
        write_json(_record_path(run), asdict(replace(upload, used=True)))


def _is_spent(kernels: Kernels, upload: Upload) -> bool:
    """Whether a push has used an upload, or none can."""
    return upload.used or kernels.dataset_status(upload.dataset) in _LOST


def _has_arrived(upload: Upload, version: int) -> bool:
    return version > 0 and (upload.confirmed or version > upload.before)


def _send(kernels: Kernels, run: Run, upload: Upload, more: Mapping[str, Path]) -> None:
    slug = upload.dataset.split("/")[1]
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_folder(Path(temporary) / "dataset")
        if files := run_files(run):
            with zipfile.ZipFile(folder / RUN_ARCHIVE, "w") as archive:
                for path in files:
                    archive.write(path, path.relative_to(run.folder).as_posix())
        for name, path in more.items():
            shutil.copyfile(path, folder / name)
        meta = {"id": upload.dataset, "title": slug, "licenses": [{"name": "unknown"}]}
        write_text(folder / "dataset-metadata.json", json.dumps(meta))
        write_json(_record_path(run), asdict(upload))
        try:
            kernels.save_dataset(folder, upload.dataset, f"state {upload.state_sha256[:16]}", not upload.before)
        except Refused:
            _record_path(run).unlink(missing_ok=True)
            raise
        write_json(_record_path(run), asdict(replace(upload, confirmed=True)))


def _recorded(run: Run) -> Upload | None:
    path = _record_path(run)
    return read_record(path, Upload, f"delete {path}: the state is then uploaded anew") if path.exists() else None


def _record_path(run: Run) -> Path:
    return run.workspace / "kernels" / f".{run.name}.dataset"
