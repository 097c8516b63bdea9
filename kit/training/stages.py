"""What a training starts with, recorded: the stages before it, its data set, its weights."""

from __future__ import annotations

from pathlib import Path

from kit.config import Config
from kit.core.json_files import fingerprint, read_record, write_record
from kit.data.competition import TrainingData
from kit.data.provenance import read_download
from kit.data.synthetic.generator import TRUTH
from kit.detectors.checkpoints import load_checkpoint
from kit.detectors.weights import weights_source
from kit.detectors.weights_source import RUN
from kit.importing.record import ImportRecord, record_path
from kit.runs.folder import Run
from kit.runs.stages import FOLDER, IMPORTED, SYNTHETIC, DataSet, Stage, Stages, saved_stages

_OTHER_START = "train under another --run NAME, from another file of weights or with --set model.weights=none"


def record_stages(run: Run, config: Config, data: TrainingData) -> None:
    """Write a run's ``stages.json``, or that of a fold: the stages of its starting weights, then its own.

    Called when the weights have just been loaded. Raises KitError if the record of the import, of the download or
    of the first stage is damaged.
    """
    start = weights_source(config.model, run.weights)
    before = _stages_of(Path(config.model.weights)) if start.kind == RUN else ()
    stage = Stage(run.title, data_set(run.workspace, data), start)
    write_record(run.stages, Stages((*before, stage)))


def data_set(workspace: Path, data: TrainingData) -> DataSet:
    """The training half of a workspace, named by its import or download, else by its folder."""
    folder = workspace / "data"
    path, download = record_path(folder), read_download(folder)
    imported = None
    name, origin = workspace.resolve().name, FOLDER
    if path.exists():
        imported = read_record(path, ImportRecord, f"restore {path}, or delete it: its data then have no source")
        name, origin = imported.source, IMPORTED
    elif download is not None:
        name, origin = download.slug, download.origin
    elif (workspace / TRUTH).exists():
        origin = SYNTHETIC
    digest = fingerprint(sorted(data.pixels.digests.items()))
    return DataSet(name, origin, len(data.image_ids), len(data.annotations), data.table_sha256, digest, imported)


def _stages_of(path: Path) -> tuple[Stage, ...]:
    """The stages of a checkpoint of kit; one of an earlier version has its place in ``runs/`` alone."""
    saved = saved_stages(load_checkpoint(path, _OTHER_START).get("kit"), f"the stages in {path}", _OTHER_START)
    if saved is not None:
        return saved.stages
    parts = path.absolute().parts
    home = len(parts) - parts[::-1].index("runs") if "runs" in parts[:-2] else len(parts) - 1
    return (Stage("/".join(parts[home:-1]) or path.name),)
