"""Whether the rows of a stored table can be a run's own, and how a table is made anew.

Rows of an unknown run, view, fold or image would drop out on their way to the answers, without a word.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from kit.core.errors import KitError, first_few
from kit.data.competition import TestData, TrainingData
from kit.runs.detections import KEY, read_detections
from kit.runs.folder import Run, Split
from kit.runs.members import members, read_adopted


def held_out_detections(run: Run) -> Path:
    """The path of a run's detections on the held-out images. Raises KitError if they are missing."""
    path = run.detections(TrainingData.detections_name)
    if not path.exists():
        raise KitError(f"the detections {path}", "no such file", remake_command(run, TrainingData.detections_name))
    return path


def read_held_out(run: Run, split: Split) -> pd.DataFrame:
    """A run's raw detections on the held-out images. Raises KitError if they are missing, broken or not its own."""
    path = held_out_detections(run)
    table = read_detections(path, f"delete {path}: {remake_command(run, TrainingData.detections_name)}")
    return require_own_rows(table, run, TrainingData.detections_name, split, split.validation)


def require_own_rows(
    table: pd.DataFrame, run: Run, part: str, split: Split, image_ids: Collection[str]
) -> pd.DataFrame:
    """The same table. Raises KitError if it has rows that the run, or a member of it, cannot have made.

    Args:
        table: Raw detections; zero rows are fine.
        run: The run, or one fold of it.
        part: ``validation`` or ``test``.
        split: The run's split. A trained run's held-out image has the fold that held it out: every other fold was
            trained on it.
        image_ids: The held-out or the test images.
    """
    of, path = members(run), run.detections(part)
    pairs = set(table[["run", "view"]].drop_duplicates().itertuples(index=False, name=None))
    strangers = sorted(pairs - {(member.run, view) for member in of for view in member.views})
    others = sorted(set(table["image_id"].unique()) - set(image_ids))
    labels = sorted(set(table["label"].unique()) - set(split.labels))
    faults = [f"rows of {first_few(' '.join(pair) for pair in strangers)}"] if strangers else []
    faults += [f"{len(others)} other image(s), such as {others[0]}"] if others else []
    faults += [f"rows of another label ({first_few(labels)})"] if labels else []
    if part == TestData.detections_name:
        folds = set(table[["run", "fold"]].drop_duplicates().itertuples(index=False, name=None))
        wrong = sorted(folds - {(member.run, fold) for member in of for fold in range(member.folds)})
        faults += [f"rows of fold {first_few(fold for _, fold in wrong)}"] if wrong and not strangers else []
    if run.adopted.exists() and table.attrs.get(KEY) != read_adopted(run).sha256:
        faults += [f"those of another file than {read_adopted(run).file}, which was adopted"]
    if part != TestData.detections_name and not others and not run.ensemble.exists() and not run.adopted.exists():
        moved = table[table["fold"] != table["image_id"].map(split.fold_of)]
        faults += [f"{len(moved)} rows of a fold that was trained on their image"] if len(moved) else []
    if faults:
        sources = first_few(f"{member.run} ({', '.join(member.views)}; {member.folds} folds)" for member in of)
        raise KitError(
            f"{path} to hold detections of {sources} on {len(image_ids)} images", "; ".join(faults),
            f"restore the file, or delete it: {remake_command(run, part)}",
        )  # fmt: skip
    return table


def asked_rows(table: pd.DataFrame, data: TestData) -> pd.DataFrame:
    """The detections on images that an ID asks for: those on other images of ``test/`` answer nothing."""
    asked = table["image_id"].isin(data.image_ids)
    return table if asked.all() else table[asked].reset_index(drop=True)


def remake_command(run: Run, part: str) -> str:
    """The command that makes the stored detections of a run anew."""
    if run.adopted.exists():
        command = f"invoke adopt --run {run.name} --detections {shlex.quote(read_adopted(run).file)}"
        return f"`{command}`, with the flags that it was adopted with, writes them anew"
    if part == TestData.detections_name:
        return f"`invoke predict --run {run.name}` makes them anew"
    verb = "evaluate" if run.ensemble.exists() else "train"
    return f"`invoke {verb} --run {run.name}` makes them anew"
