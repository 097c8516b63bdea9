"""The names after ``import --from``, and their readers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kit.core.errors import KitError, closest_names
from kit.core.files import is_there
from kit.importing.forms.boxed_set import BoxedSet
from kit.importing.forms.chestx_det import read_chestx_det
from kit.importing.forms.coco import read_coco
from kit.importing.forms.nih import read_nih
from kit.importing.forms.rsna import read_rsna
from kit.importing.forms.siim import read_siim
from kit.importing.forms.vindr import read_vindr
from kit.importing.forms.voc import read_voc
from kit.importing.forms.yolo import read_yolo

FORMS: dict[str, Callable[[Path], BoxedSet]] = {
    "vindr": read_vindr,
    "rsna": read_rsna,
    "siim": read_siim,
    "chestx-det": read_chestx_det,
    "nih": read_nih,
    "coco": read_coco,
    "yolo": read_yolo,
    "voc": read_voc,
}


def read_set(form: str, source: Path) -> BoxedSet:
    """A set in its publisher's form. Raises KitError for an unknown form, TableError for a table that is none."""
    if form not in FORMS:
        known = ", ".join(FORMS)
        raise KitError(f"--from with one of {known}", repr(form), f"nearest: {closest_names(form, FORMS)}")
    if not is_there(source):
        raise KitError(f"the set's folder (or file) after --source: {source}", "nothing there", "correct the path")
    return FORMS[form](source)
