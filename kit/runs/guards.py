"""What must hold before a run is used: it can be trained, its data are those it was started with."""

from __future__ import annotations

from kit.config import TRUTH_KNOBS, load
from kit.core.errors import KitError
from kit.core.text_files import has_sha256
from kit.data.competition import TrainingData
from kit.runs.folder import IMAGE_SCORES, Finished, Run, Split, anew, read_finished, require_finished
from kit.runs.members import read_adopted
from kit.schemas.file_names import TABLE


def require_trainable(run: Run) -> None:
    """Raise KitError for a run that is made of others' detections, or is a copy: there is nothing to train."""
    kind = "an ensemble" if run.ensemble.exists() else "adopted" if run.adopted.exists() else ""
    if kind:
        is_evidence = run.adopted.exists() and read_adopted(run).scores
        use = (
            f"ensemble --run NAME --of DETECTOR --with {run.name}" if is_evidence else f"evaluate --run {run.name}"
        )
        raise KitError(
            "the name of a run to train", f"{run.name!r}, which is {kind}",
            f"`invoke {use}`, or train under another --run NAME",
        )  # fmt: skip
    if run.finished.exists():
        read_finished(run)


def require_detector(run: Run) -> Finished:
    """How the run ended. Raises KitError if it has not, or if it has scores of whole images and no detections."""
    finished = require_finished(run)
    if finished.kept == IMAGE_SCORES:
        raise KitError(
            f"run {run.name!r} to have detections",
            "scores of whole images alone: they say what is on an image, not where it is",
            f"`invoke ensemble --run NAME --of DETECTOR --with {run.name}` makes a run that uses them beside the "
            "detections of a run DETECTOR; then repeat the command with --run NAME",
        )
    return finished


def require_same_truth(first: Run, other: Run) -> None:
    """Raise KitError if two runs were started with knobs that give them different true boxes."""
    ours, theirs = load(first.config), load(other.config)
    differing = [key for key in TRUTH_KNOBS if ours.get(key) != theirs.get(key)]
    if differing:
        found = "; ".join(f"{key}={ours.get(key)} and {theirs.get(key)}" for key in differing)
        raise KitError(
            f"runs {first.name!r} and {other.name!r} to be scored on the same true boxes", found,
            f"train or adopt one of them anew under another --run NAME, with --set {differing[0]}="
            f"{ours.get(differing[0])}",
        )  # fmt: skip


def require_same_data(run: Run, split: Split, data: TrainingData) -> None:
    """Raise KitError where train.csv or the images are not those that the run was started with."""
    changed = sorted(set(split.images) ^ set(data.image_ids))
    table = run.workspace / "data" / TABLE
    if changed or (split.table_sha256 != data.table_sha256 and not has_sha256(table, split.table_sha256)):
        images = f", {len(changed)} images added or gone, such as {changed[0]}" if changed else ""
        raise KitError(
            f"the train.csv and images that run {run.name!r} was started with ({split.table_sha256[:12]}...)",
            f"train.csv {data.table_sha256[:12]}...{images}",
            f"put the old files back, or {anew(run)}",
        )
