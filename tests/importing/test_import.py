"""An import goes on after a kill, does nothing when it is done, and never takes one set for another."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from command_line import PATIENCE_SECONDS
from PIL import Image
from published import CORNERS, ONE_LABEL, WRITERS
from repository import ROOT
from test_forms import COCO, NAMES, options, pictures, written
from toy import TOY, toy_config

from kit.core.errors import KitError
from kit.data.competition import load_training
from kit.importing import carry_out, finished_import, plan_import
from kit.schemas.csv_text import TableError
from kit.schemas.image_headers import image_header

FORMS = sorted(WRITERS)


class Stopped(Exception):
    pass


def stopping_after(count):
    """A track that stops the conversion like Ctrl-C after so many images."""

    def track(items, what, total):
        for number, item in enumerate(items):
            if what == "converting" and number == count:
                raise Stopped
            yield item

    return track


def state(workspace):
    return {path.relative_to(workspace): (path.stat().st_mtime_ns, path.stat().st_ino)
            for path in sorted(workspace.rglob("*")) if path.is_file()}  # fmt: skip


def test_a_stopped_import_goes_on_and_shows_no_data_before_its_end(tmp_path):
    wanted = options("coco", written("coco", tmp_path / "set"), tmp_path / "work")
    with pytest.raises(Stopped):
        carry_out(plan_import(wanted), stopping_after(2))
    assert not (wanted.workspace / "data").exists()
    made = {path.name: path.stat().st_ino for path in wanted.workspace.rglob("*.png")}
    assert len(made) >= 2
    assert finished_import(wanted) is None
    carry_out(plan_import(wanted))
    after = {path.name: path.stat().st_ino for path in (wanted.workspace / "data" / "train").iterdir()}
    assert set(after) == {f"{name}.png" for name in NAMES}
    assert made.items() <= after.items()  # the very files
    assert not (wanted.workspace / ".import").exists()


def test_a_finished_import_is_left_as_it_is(tmp_path):
    wanted = options("coco", written("coco", tmp_path / "set"), tmp_path / "work")
    record = carry_out(plan_import(wanted))
    before = state(wanted.workspace)
    assert finished_import(wanted) == record
    assert state(wanted.workspace) == before


def test_an_import_that_was_killed_while_it_moved_its_files_goes_on(tmp_path):
    wanted = options("coco", written("coco", tmp_path / "set"), tmp_path / "work")
    carry_out(plan_import(wanted))
    data, staging = wanted.workspace / "data", wanted.workspace / ".import"
    whole = {path.relative_to(data) for path in data.rglob("*")}
    staging.mkdir()
    for name in ("train.csv", "import"):  # the last two
        (data / name).rename(staging / name)
    (staging / "size").write_text("1024")
    assert finished_import(wanted) is None
    carry_out(plan_import(wanted))
    assert {path.relative_to(data) for path in data.rglob("*")} == whole


def test_other_labels_before_the_end_convert_no_image_again_and_another_size_all(tmp_path):
    source = written("coco", tmp_path / "set")
    first = options("coco", source, tmp_path / "work")
    with pytest.raises(Stopped):
        carry_out(plan_import(first), stopping_after(0))
    made = {path.name: path.stat().st_ino for path in first.workspace.rglob("*.png")}
    (tmp_path / "map.csv").write_text("source,target\nNodule,\n")
    second = options("coco", source, tmp_path / "work", labels=tmp_path / "map.csv", empty_share=0.0)
    with pytest.raises(Stopped):
        carry_out(plan_import(second), stopping_after(0))
    kept = {path.name: path.stat().st_ino for path in first.workspace.rglob("*.png")}
    assert set(kept) == {f"{name}.png" for name in NAMES[:2]} and made.items() <= kept.items()
    smaller = options("coco", source, tmp_path / "work", labels=tmp_path / "map.csv", empty_share=0.0, size_px=16)
    carry_out(plan_import(smaller))
    facts = [image_header(path) for path in (tmp_path / "work" / "data" / "train").iterdir()]
    assert {(fact.width_px, fact.height_px) for fact in facts} == {(16, 12)}
    table = pd.read_csv(tmp_path / "work" / "data" / "train.csv")
    assert table["label"].tolist() == ["Mass", "Mass"]


@pytest.mark.parametrize("change", ["source", "flag", "table"])
def test_another_import_into_the_workspace_is_refused_and_goes_where_the_advice_says(change, tmp_path):
    source = written("coco", tmp_path / "set")
    carry_out(plan_import(options("coco", source, tmp_path / "work")))
    wanted = options("coco", source, tmp_path / "work", size_px=512 if change == "flag" else 1024)
    if change == "source":
        Image.fromarray(pictures()[NAMES[0]]).save(source / "train2017" / "another.png")
    if change == "table":
        (source / COCO).write_text((source / COCO).read_text().replace("Nodule", "Nodules"))
    with pytest.raises(KitError) as refused:
        finished_import(wanted)
    assert f"delete {tmp_path / 'work' / 'data'}" in refused.value.do and "another folder" in refused.value.do
    elsewhere = options("coco", source, tmp_path / "other", size_px=wanted.size_px)
    assert finished_import(elsewhere) is None
    carry_out(plan_import(elsewhere))
    shutil.rmtree(tmp_path / "work" / "data")
    assert finished_import(wanted) is None
    carry_out(plan_import(wanted))
    assert finished_import(wanted)


def test_a_workspace_with_other_data_is_refused_and_left_as_it_is(toy, tmp_path):
    before = state(toy)
    with pytest.raises(KitError) as refused:
        finished_import(options("coco", written("coco", tmp_path / "set"), toy))
    assert "no import put there" in refused.value.found and "--into" in refused.value.do
    assert state(toy) == before


def test_a_workspace_inside_the_source_is_refused(tmp_path):
    source = written("coco", tmp_path / "set")
    with pytest.raises(KitError) as refused:
        finished_import(options("coco", source, source / "work"))
    assert "--into" in refused.value.do
    assert finished_import(options("coco", source, tmp_path / "work")) is None  # the advice


def test_images_that_cannot_be_decoded_are_listed_together_and_repaired_ones_are_taken(tmp_path):
    source = written("rsna", tmp_path / "set")
    wanted = options("rsna", source, tmp_path / "work")
    broken = [source / "stage_2_train_images" / f"{name}.dcm" for name in NAMES[1:3]]
    whole = [path.read_bytes() for path in broken]
    for path in broken:
        path.write_bytes(path.read_bytes()[:-100])
    plan = plan_import(wanted)
    with pytest.raises(TableError) as refused:
        carry_out(plan)
    assert [fault.file for fault in refused.value.faults] == broken
    assert "the same command again" in refused.value.do
    made = {path.name: path.stat().st_ino for path in wanted.workspace.rglob("*.png")}
    assert set(made) == {f"{NAMES[number]}.png" for number in (0, 3, 4)}
    for path, content in zip(broken, whole, strict=True):  # the advice
        path.write_bytes(content)
    carry_out(plan_import(wanted))
    after = {path.name: path.stat().st_ino for path in (wanted.workspace / "data" / "train").iterdir()}
    assert made.items() <= after.items() and len(after) == 5


def test_headers_that_are_wrong_are_said_before_any_image_is_converted(tmp_path):
    from dicom_files import write_dicom

    source = written("rsna", tmp_path / "set")
    path = source / "stage_2_train_images" / f"{NAMES[0]}.dcm"
    whole = path.read_bytes()
    write_dicom(path, np.zeros((48, 64), np.uint16), BurnedInAnnotation="YES")
    with pytest.raises(TableError) as refused:
        plan_import(options("rsna", source, tmp_path / "work"))
    assert f"{NAMES[0]}.dcm: found 'letters burnt into the pixels" in str(refused.value)
    path.write_bytes(whole)
    assert plan_import(options("rsna", source, tmp_path / "work")).train


@pytest.mark.parametrize("name", ["a\nb", " a", "a\x1b[2J"])
def test_a_name_that_no_table_takes_is_refused_and_a_renamed_file_is_taken(name, tmp_path):
    source = written("yolo", tmp_path / "set")
    path = source / "images" / "train" / f"{NAMES[0]}.png"
    path.rename(path.with_name(f"{name}.png"))
    with pytest.raises(TableError) as refused:
        plan_import(options("yolo", source, tmp_path / "work"))
    assert "an image_id that is not empty" in str(refused.value) and "rename the file" in refused.value.do
    assert "\x1b" not in str(refused.value)
    path.with_name(f"{name}.png").rename(path)  # the advice
    assert len(plan_import(options("yolo", source, tmp_path / "work")).train) == 5


def test_an_orientation_is_kept_and_no_other_tag(tmp_path):
    source = written("coco", tmp_path / "set")
    path = source / "train2017" / f"{NAMES[0]}.png"
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Doe, Jane"
    Image.fromarray(pictures()[NAMES[0]]).save(path, exif=exif)
    wanted = options("coco", source, tmp_path / "work")
    carry_out(plan_import(wanted))
    new = wanted.workspace / "data" / "train" / path.name
    assert image_header(new).tag == 6
    assert b"Doe" in path.read_bytes() and b"Doe" not in new.read_bytes()


def test_no_patient_s_id_stands_anywhere_in_the_workspace(tmp_path):
    from dicom_files import write_dicom

    source = written("rsna", tmp_path / "set")
    for number, name in enumerate(NAMES):
        path = source / "stage_2_train_images" / f"{name}.dcm"
        write_dicom(
            path, pictures()[name].astype(np.uint16), PatientID=f"MRN-{number % 3}-secret", PatientName="Doe^J"
        )
    wanted = options("rsna", source, tmp_path / "work")
    carry_out(plan_import(wanted))
    for path in wanted.workspace.rglob("*"):
        if path.is_file():
            assert not any(word in path.read_bytes() for word in (b"MRN", b"secret", b"Doe")), path
    groups = pd.read_csv(wanted.workspace / "data" / "groups.csv")["group"]
    assert groups[0] == groups[3] != groups[1] == groups[4] and groups.nunique() == 3


def invoked(*words, **others):
    command = [sys.executable, "-m", "invoke", "import", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **others
    )


@pytest.mark.slow
def test_the_verb_is_killed_goes_on_says_what_it_did_and_then_does_nothing(tmp_path):
    """With processes of its own, which end with it."""
    rng = np.random.default_rng(1)
    many = {f"p{number:03d}": rng.integers(0, 255, (700, 900)).astype(np.uint8) for number in range(240)}
    boxes = pd.DataFrame(
        [(name, 40, 60, 240, 260, "Nodule/Mass") for name in many], columns=["image_id", *CORNERS, "label"]
    )
    WRITERS["vindr"](tmp_path / "set", many, boxes)
    words = ("--from", "vindr", "--source", tmp_path / "set", "--into", tmp_path / "work", "--size", "256")
    process = invoked(*words, start_new_session=True)
    staging = tmp_path / "work" / ".import" / "train"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(staging.glob("*.png")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)  # its processes are not told
    process.communicate()
    made = {path.name: path.stat().st_ino for path in staging.glob("*.png")}
    assert 0 < len(made) < 240
    deadline = time.monotonic() + PATIENCE_SECONDS
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)  # as long as one of the group lives
            time.sleep(0.1)
        raise AssertionError("a process outlived its parent")
    said, _ = (process := invoked(*words)).communicate()
    assert process.returncode == 0, said
    assert "Nodule or Mass?" in said and "imported 240 images with 240 boxes" in said
    after = {path.name: path.stat().st_ino for path in (tmp_path / "work" / "data" / "train").iterdir()}
    assert len(after) == 240 and len(made.items() & after.items()) >= len(made) - 2
    before = state(tmp_path / "work")
    said, _ = (process := invoked(*words)).communicate()
    assert process.returncode == 0 and "already imported: 240 images with 240 boxes" in said
    assert state(tmp_path / "work") == before
    said, _ = (process := invoked(*words, "--empty", "2")).communicate()
    assert process.returncode == 1 and "--empty with a share, 0 to 1" in said and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_set_in_its_publisher_s_form_is_imported_audited_trained_and_scored(form, toy_source, tmp_path, undrawn):
    from kit.reports.audit_report import audit_workspace

    table = pd.read_csv(toy_source / "data" / "train.csv")
    table["image_id"] = table["image_id"].str.removesuffix(".png")
    table[CORNERS] = table[CORNERS].round().astype(int)
    levels = {path.stem: np.asarray(Image.open(path).convert("L"))
              for path in sorted((toy_source / "data" / "train").iterdir())}  # fmt: skip
    WRITERS[form](tmp_path / "set", levels, table)
    wanted = options(form, tmp_path / "set", tmp_path / "work")
    carry_out(plan_import(wanted))
    audit = audit_workspace(wanted.workspace, toy_config())
    assert audit.counts["fault"] == 0
    data = load_training(wanted.workspace, toy_config())
    assert data.labels == ((ONE_LABEL[form],) if form in ONE_LABEL else tuple(sorted(set(table["label"]))))
    assert len(data.annotations) == len(table)
    from kit.evaluation.report import evaluate
    from kit.runs.folder import read_stages
    from kit.training.train import train

    run = train(wanted.workspace, "first", "demo", [*TOY, "training.max_epochs=1"]).run
    assert evaluate(run).images.validation > 0
    (stage,) = read_stages(run).stages
    assert (stage.data.origin, stage.data.imported.form, stage.data.boxes) == ("import", form, len(table))
