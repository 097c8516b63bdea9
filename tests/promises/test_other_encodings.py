"""Names that are no UTF-8: refused in words with a way out at every verb, and nothing whole is called broken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from invoke import Context, Exit
from toy import copied, toy_config

import tasks
from kit.core.errors import KitError
from kit.core.files import is_utf8, with_escapes
from kit.data.competition import load_test, load_training
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.reports.audit_report import audit_workspace
from kit.runs.detections import KEY, read_detections, write_detections
from kit.runs.folder import Run
from kit.schemas.detections import DETECTION_COLUMNS
from kit.schemas.foreign.forms import read_foreign
from kit.schemas.foreign.per_image import read_folder
from kit.schemas.image_headers import image_names
from kit.schemas.tables import validate_submission

NAME = os.fsdecode(b"caf\xe9 'x'.png")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a name is always a text")


def as_advised(error):
    """Run the command that an error gives."""
    subprocess.run(["bash", "-c", error.value.do.partition("for example: ")[2]], check=True)


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_image_whose_name_is_no_utf8_is_refused_by_every_verb_until_it_is_renamed(part, trained):
    folder = trained / "data" / part
    first = image_names(folder)[0]
    shutil.copy(folder / first, folder / NAME)
    run, table = Run(trained, "demo"), trained / "no.csv"
    verbs = {
        "train": [lambda: load_training(trained, toy_config()), lambda: evaluate(run)],
        "test": [lambda: load_test(trained, toy_config()), lambda: validate_submission(table, trained / "data", 8)],
    }
    for verb in (lambda: audit_workspace(trained, toy_config()), lambda: predict(run), *verbs[part]):
        with pytest.raises(KitError, match="file names in UTF-8") as caught:
            verb()
        assert "caf\\xe9 'x'.png" in caught.value.found
        assert str(folder) in caught.value.expected
        assert is_utf8(str(caught.value))
    as_advised(caught)
    assert {"caf___x_.png", first} <= set(image_names(folder))
    assert audit_workspace(trained, toy_config()).findings


def test_many_such_names_are_one_line(tmp_path):
    for number in range(128, 200):
        (tmp_path / os.fsdecode(bytes([number]) + b".png")).touch()
    with pytest.raises(KitError) as caught:
        image_names(tmp_path)
    assert "and 67 more" in caught.value.found
    assert str(caught.value).count("\n") == 2


def test_a_folder_of_detections_with_such_a_name_is_refused_until_it_is_renamed(tmp_path):
    (tmp_path / "classes.txt").write_text("Mass\n")
    (tmp_path / os.fsdecode(b"\xff\xfe.txt")).write_text("0 0.5 0.5 0.1 0.1 0.9\n")
    with pytest.raises(KitError, match="file names in UTF-8") as caught:
        read_folder(tmp_path, "so")
    as_advised(caught)
    assert read_folder(tmp_path, "so").cells.table["image_id"].tolist() == ["__"]


@pytest.fixture
def strange(tmp_path):
    """A folder whose name is no UTF-8."""
    folder = tmp_path / os.fsdecode(b"w\xe9")
    folder.mkdir()
    return folder


def one_row():
    values = ("demo", 0, "plain", "a.png", 1.0, 2.0, 3.0, 4.0, 0.5, "Mass")
    return pd.DataFrame([values], columns=list(DETECTION_COLUMNS))


def test_tables_of_detections_are_whole_wherever_they_lie(strange):
    path = strange / "validation.parquet"
    write_detections(one_row(), path, "a key")
    read = read_detections(path)
    assert read.attrs == {KEY: "a key"}
    assert read["x_max"].tolist() == [3.0]
    assert len(read_foreign(path, ["Mass"], None, "so").cells.table) == 1


def test_a_table_that_cannot_be_opened_is_not_called_broken(tmp_path):
    path = tmp_path / "validation.parquet"
    path.mkdir()
    with pytest.raises(KitError, match="to read") as caught:
        read_detections(path)
    assert "delete" not in str(caught.value)
    path.rmdir()
    write_detections(one_row(), path, "a key")
    assert len(read_detections(path)) == 1
    path.write_bytes(path.read_bytes()[:-20])  # that is broken
    with pytest.raises(KitError, match="delete it"):
        read_detections(path)


VERBS = {name: tasks.namespace[name] for name in tasks.namespace.task_names}
WITH_TEXTS = [
    (name, argument.name, argument.kind)
    for name, task in VERBS.items()
    for argument in task.get_arguments()
    if argument.takes_value
]


@pytest.fixture
def restored(monkeypatch):
    """The streams as they were before a verb guarded them."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))


@pytest.mark.parametrize(("name", "flag", "kind"), WITH_TEXTS)
def test_a_flag_that_is_no_utf8_is_refused_by_every_verb(name, flag, kind, strange, restored):
    value = [str(strange)] if kind is list else str(strange)
    with pytest.raises(Exit, match="in UTF-8") as caught:
        VERBS[name].body(Context(), **{flag.replace("-", "_"): value})
    assert f"--{flag.strip('_').replace('_', '-')} in UTF-8" in caught.value.message
    assert with_escapes(str(strange)) in caught.value.message
    assert is_utf8(caught.value.message)


def test_a_link_is_a_way_to_a_workspace_whose_name_is_no_utf8(strange, tmp_path, toy_source, capsys, restored):
    """As the refusal advises."""
    copied(toy_source, strange / "toy")
    Path(tmp_path / "link").symlink_to(strange / "toy")
    VERBS["audit"].body(Context(), workspace=str(tmp_path / "link"))
    assert "audit.html" in capsys.readouterr().out
