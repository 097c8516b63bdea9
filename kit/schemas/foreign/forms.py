"""The forms of detections from elsewhere that kit reads, told apart by the file's ending and its content.

Pickles are not read: reading one runs the code in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kit.core.errors import KitError, first_few
from kit.core.json_files import read_json
from kit.schemas.csv_text import Fault, TableError
from kit.schemas.foreign.coco import coco_results, ids_of, read_ids
from kit.schemas.foreign.content import Foreign, counted_from_1
from kit.schemas.foreign.per_image import outputs_by_image, read_folder
from kit.schemas.foreign.tables import read_table

_TABLES = (".csv", ".parquet")
_FORMS = "a file that ends in .csv, .parquet, .json, or a folder with a file per image"
_JSON_FORMS = (
    "a list of COCO results, a COCO data set, or an object by image with the lists boxes, labels and scores"
)
_PICKLE = (
    "a pickle is not read, since it can run code; adopt the JSON beside it: detectron2 writes "
    "coco_instances_results.json; MMDetection writes PREFIX.bbox.json with --cfg-options "
    "test_evaluator.format_only=True test_evaluator.outfile_prefix=PREFIX"
)
_CONVERT = {
    **dict.fromkeys((".pth", ".pt", ".pkl", ".pickle"), _PICKLE),
    ".txt": "YOLO's text files have a line a box and a file per image: name their folder with --detections FOLDER",
}
_CONVERT_OTHERS = "convert it to COCO results (.json) or to a CSV file, and adopt that: docs/ensembles.md"


def read_foreign(path: Path, labels: Sequence[str], images_file: Path | None, do: str) -> Foreign:
    """The rows of a file or folder of detections, with faults for those that cannot be read.

    Args:
        path: The file or folder.
        labels: The competition's labels, sorted.
        images_file: A COCO data set whose ids the detections use, if they bring none.
        do: The advice of a TableError about its rows.

    Raises:
        TableError: The file is none of its form.
        KitError: kit does not read such files, or ``images_file`` has no use.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        if images_file:
            raise _no_use(images_file, f"the files in {path} have the names of the images")
        return read_folder(path, do)
    if suffix not in (*_TABLES, ".json"):
        raise KitError(_FORMS, path.name, _CONVERT.get(suffix, _CONVERT_OTHERS))
    ids = read_ids(images_file, labels, do) if images_file else counted_from_1(labels)
    if suffix in _TABLES:
        return replace(read_table(path, labels, ids, do), counted=images_file is None)
    content = read_json(path, do, finite=False)
    if isinstance(content, dict) and {"images", "annotations"} & set(content):
        if images_file:
            raise _no_use(images_file, f"{path.name} has images of its own")
        return coco_results(path, content.get("annotations"), labels, ids_of(path, content, labels, do), do)
    if isinstance(content, dict) and not any(
        isinstance(each, dict) and "boxes" in each for each in content.values()
    ):
        found = f"an object with the keys {first_few(content)}"
        raise TableError(path, [Fault(path, None, found, _JSON_FORMS)], _CONVERT_OTHERS)
    read = outputs_by_image if isinstance(content, dict) else coco_results
    return replace(read(path, content, labels, ids, do), counted=images_file is None)


def _no_use(images_file: Path, found: str) -> KitError:
    return KitError(f"--images {images_file} to be of use", found, "leave --images out")
