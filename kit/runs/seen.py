"""The images that weights were trained on, stage by stage: ``seen.parquet`` beside each checkpoint.

A checkpoint has the file's SHA-256. A later stage keeps the rows of the stages before it, so that they outlive
their workspaces: name, stage, digest of the pixels, perceptual hash and a copy of 64 x 64 pixels of each image.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from kit.core.errors import KitError, reason
from kit.core.files import replacing, sha256
from kit.core.json_files import read_record, write_record
from kit.core.progress import Track, silent
from kit.data.duplicates import Prints, comparable_prints, small_copies
from kit.data.perceptual_hash import HASH_BYTES, SIDE_PX, packed_bits
from kit.data.pixel_cache import PixelCache
from kit.runs.folder import Run

SEEN_FILE = "seen.parquet"
CHECKPOINT_KEY = "seen_sha256"  # in the part "kit" of a checkpoint
COLUMNS = ("name", "stage", "digest", "hash", "copy")
_COPY_BYTES = SIDE_PX**2


@dataclass(frozen=True)
class Seen:
    """Images with their prints, and the stage that trained on each: its number, workspace and run."""

    stages: tuple[str, ...]
    prints: Prints
    hashes: UInt8[np.ndarray, "n 32"]

    @classmethod
    def nothing(cls) -> Seen:
        """No images."""
        return cls(
            (), Prints((), (), np.zeros((0, SIDE_PX, SIDE_PX), np.uint8)), np.zeros((0, HASH_BYTES), np.uint8)
        )

    @property
    def by_stage(self) -> dict[str, int]:
        """The number of images of each stage, the first stage first."""
        return {stage: self.stages.count(stage) for stage in dict.fromkeys(self.stages)}

    def before(self) -> Seen:
        """The images of all stages but the last."""
        last = list(self.by_stage)[-1:]
        return self.of([index for index, stage in enumerate(self.stages) if stage not in last])

    def of(self, indices: Sequence[int]) -> Seen:
        """Some of the images, by index."""
        prints = self.prints
        chosen = Prints(
            tuple(prints.names[index] for index in indices),
            tuple(prints.digests[index] for index in indices),
            prints.copies[list(indices)],
        )
        return Seen(tuple(self.stages[index] for index in indices), chosen, self.hashes[list(indices)])

    def joined(self, other: Seen) -> Seen:
        """These images, then those of another."""
        mine, theirs = self.prints, other.prints
        prints = Prints(
            mine.names + theirs.names, mine.digests + theirs.digests, np.concatenate([mine.copies, theirs.copies])
        )
        return Seen(self.stages + other.stages, prints, np.concatenate([self.hashes, other.hashes]))


@dataclass(frozen=True)
class Allowed:
    """The content of ``allowed.json``: by what was allowed, the images that were seen before."""

    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def seen_path(run: Run) -> Path:
    """The images that the weights of a run, or of one of its folds, were trained on; beside its checkpoints."""
    return run.home / SEEN_FILE


def allowed_path(run: Run) -> Path:
    """Present if an earlier stage saw images of the test, or held out, and that was allowed."""
    return run.folder / "allowed.json"


def prints_of(pixels: PixelCache, image_ids: Collection[str], track: Track = silent) -> Prints:
    """The prints of some of the readable images, the copies upright by their EXIF orientations, none inverted."""
    (copies,) = small_copies([pixels], track)
    wanted, names = set(image_ids), list(pixels.digests)
    rows = [index for index, name in enumerate(names) if name in wanted]
    chosen = tuple(names[index] for index in rows)
    prints = Prints(chosen, tuple(pixels.digests[name] for name in chosen), copies[rows])
    return comparable_prints(prints, pixels.facts, ())


def with_stage(before: Seen, run: Run, prints: Prints) -> Seen:
    """What the stages before have seen, and the training images of a run, which are one stage more."""
    stage = f"{len(before.by_stage) + 1} {run.workspace.resolve().name}/{run.title}"
    return before.joined(Seen((stage,) * len(prints.names), prints, packed_bits(prints.copies)))


def write_seen(path: Path, seen: Seen) -> None:
    """Write the table, 3 to 4 kB an image, atomically."""
    import pyarrow as pa  # on use: only training writes it
    import pyarrow.parquet

    prints = seen.prints
    columns = [
        pa.array(prints.names, pa.string()),
        pa.array(seen.stages, pa.string()),
        pa.array(prints.digests, pa.string()),
        _bytes(seen.hashes, HASH_BYTES),
        _bytes(prints.copies, _COPY_BYTES),
    ]
    with replacing(path) as partial, partial.open("wb") as file:
        pyarrow.parquet.write_table(pa.table(columns, names=list(COLUMNS)), file, compression="zstd")


def read_seen(path: Path, digest: str, do: str) -> Seen:
    """The table that has this SHA-256. Raises KitError with the advice ``do`` if it is lost or was changed."""
    import pyarrow.parquet

    try:
        actual = sha256(path)
        if actual != digest:
            raise KitError(
                f"{path}, the images that the weights beside it saw, as it was written ({digest[:12]}...)",
                f"{actual[:12]}...", do,
            )  # fmt: skip
        table = pyarrow.parquet.read_table(io.BytesIO(path.read_bytes())).to_pydict()
        return _seen(table)
    except FileNotFoundError as error:
        raise KitError(f"{path}, the images that the weights beside it saw", "no such file", do) from error
    except (KitError, MemoryError):
        raise
    # pyarrow raises ArrowInvalid, OSError, TypeError and others for a broken file.
    except Exception as error:
        raise KitError(f"{path} to be a table of {', '.join(COLUMNS)}", reason(error), do) from error


def read_allowed(run: Run) -> Allowed:
    """What was allowed for a run, and with which images; nothing without the file."""
    path = allowed_path(run)
    if not path.exists():
        return Allowed()
    return read_record(path, Allowed, f"restore {path}, or delete it and give --allow again")


def record_allowed(run: Run, images: Mapping[str, Sequence[str]]) -> None:
    """Add what is allowed for a run to its ``allowed.json``."""
    known = dict(read_allowed(run).images)
    wanted = known | {check: tuple(sorted({*known.get(check, ()), *names})) for check, names in images.items()}
    if wanted != known:
        write_record(allowed_path(run), Allowed(wanted))


def recorded_sha256(checkpoint: Mapping[str, Any]) -> str:
    """The SHA-256 of ``seen.parquet`` that a checkpoint of kit keeps; "" for any other file."""
    made = checkpoint.get("kit")
    digest = made.get(CHECKPOINT_KEY) if isinstance(made, dict) else None
    return digest if isinstance(digest, str) else ""


def _seen(table: Mapping[str, Sequence[Any]]) -> Seen:
    names, stages, digests, hashes, copies = (table[name] for name in COLUMNS)
    return Seen(
        tuple(map(str, stages)),
        Prints(
            tuple(map(str, names)),
            tuple(map(str, digests)),
            np.frombuffer(b"".join(copies), np.uint8).reshape(len(names), SIDE_PX, SIDE_PX),
        ),
        np.frombuffer(b"".join(hashes), np.uint8).reshape(len(names), HASH_BYTES),
    )


def _bytes(rows: UInt8[np.ndarray, "n ..."], size: int) -> Any:
    """Rows of bytes as a column of fixed size."""
    import pyarrow as pa

    return pa.array([row.tobytes() for row in rows], pa.binary(size))
