"""The stored detections of a run: parquet files, each with a key that says what it was made from."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from kit.config import InferenceConfig
from kit.core.errors import KitError, reason
from kit.core.files import replacing
from kit.core.json_files import fingerprint
from kit.data.pixel_cache import PixelCache
from kit.detectors.source import Source
from kit.schemas.detections import TEXT_COLUMNS, check_detections, detection_table

KEY = "kit_source"
_REMAKE = "delete it; the next `invoke train` or `invoke predict` of the run makes it anew"


def merge_detections(
    path: Path, tables: Sequence[pd.DataFrame], image_ids: Sequence[str] | None = None
) -> pd.DataFrame:
    """Stored tables, or their rows on some images, as one at ``path``; it is written unless it is up to date."""
    key = merged_key([table.attrs.get(KEY) for table in tables], image_ids)
    if path.exists() and (merged := read_detections(path)).attrs.get(KEY) == key:
        return merged
    table = detection_table(
        [rows if image_ids is None else rows[rows["image_id"].isin(image_ids)] for rows in tables]
    )
    write_detections(table, path, key)
    return table


def merged_key(keys: Sequence[str | None], image_ids: Sequence[str] | None) -> str:
    """The key of stored tables with these keys as one, or of their rows on some images."""
    return fingerprint([keys, image_ids])


def write_detections(table: pd.DataFrame, path: Path, key: str) -> None:
    """Store a table together with a key that says what it was made from."""
    table.attrs = {KEY: key}
    with replacing(path) as partial, partial.open("wb") as file:  # pyarrow takes no path that is not UTF-8
        table.to_parquet(file, index=False)


def read_detections(path: Path, do: str = _REMAKE) -> pd.DataFrame:
    """Read and check a stored table. Raises KitError with the advice ``do`` if it is broken."""
    return check_detections(read_parquet(path, "detections", do, TEXT_COLUMNS), str(path), do)


def read_parquet(path: Path, content_name: str, do: str, repeated: Sequence[str] = ()) -> pd.DataFrame:
    """A stored table as it is. Raises KitError with the advice ``do`` if the file is broken.

    Columns of ``repeated`` texts become categories: as texts of their own they take most of the time.
    """
    try:
        content = io.BytesIO(path.read_bytes())
    except OSError as error:  # the file may be whole
        raise KitError(
            f"to read {path}", reason(error), "let this user read the file, then repeat the command"
        ) from error
    try:
        return pd.read_parquet(content, read_dictionary=list(repeated))
    except (MemoryError, ImportError):
        raise
    # pyarrow and pandas raise ArrowInvalid, OSError, TypeError and others for a broken file.
    except Exception as error:
        raise KitError(f"{path} to be a table of {content_name}", reason(error), do) from error


def read_made_from(path: Path, key: str) -> pd.DataFrame | None:
    """The stored table if its key is this one; None if it has another, or if there is no file.

    Its chunks are removed: a process that was killed between writing the table and removing them left them behind.
    """
    if not path.exists():
        return None
    stored = read_detections(path)
    if stored.attrs.get(KEY) != key:
        return None
    shutil.rmtree(chunks_of(path), ignore_errors=True)
    return stored


def chunks_of(path: Path) -> Path:
    """The folder of the chunks that a table is put together from."""
    return path.with_suffix(".parts")


def detections_key(source: Source, pixels: PixelCache, image_ids: Sequence[str]) -> str:
    """The key of the detections that a source makes of these images: of weights, knobs and pixels."""
    # The batch size is the machine's: a smaller one, after a full memory, goes on with the same chunks.
    usual = replace(source, inference=replace(source.inference, batch_size=InferenceConfig().batch_size))
    return fingerprint([asdict(usual), [(image_id, pixels.digests[image_id]) for image_id in image_ids]])
