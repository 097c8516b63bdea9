"""A full or read-only disk, a missing folder, a file that goes away: an error with the path, and nothing lost.

The disk is full at a limit on the size of a file, which every user may set; and on a small tmpfs where the machine
lets us mount one.
"""

import contextlib
import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from mutations import snapshot
from repository import ROOT
from toy import TOY, copied, toy_config

from kit.config import load, override, save
from kit.core.errors import KitError
from kit.core.files import replacing, write_text
from kit.core.json_files import write_json
from kit.data.pixel_cache import open_cache
from kit.evaluation.predict import predict
from kit.evaluation.report import evaluate
from kit.reports.dataset_report import describe
from kit.runs.folder import Run
from kit.submission.folders import Origin, write_submission
from kit.training.train import train

NOBODY = 65534
KIB = 1024


@contextlib.contextmanager
def files_no_larger_than(size_bytes):
    """Every write beyond fails with EFBIG: Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def not_writable(folder):
    """Root may write anywhere and becomes a user who may not; anybody else takes it from themselves."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
        return
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.fixture
def open_folder():
    """A folder that another user can reach; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("size", [1, 100, 4 * KIB])
def test_a_full_disk_names_the_path_the_space_and_keeps_the_old_file(size, tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with files_no_larger_than(size), pytest.raises(KitError) as caught:
        write_text(path, "x" * 5 * KIB)
    assert str(path) in caught.value.expected
    assert os.strerror(errno.EFBIG) in caught.value.found
    assert "it needs more than" in caught.value.found
    assert re.search(r"\d [MG]iB free", caught.value.found)
    assert snapshot(tmp_path) == {"a.txt": b"old"}


def test_a_full_disk_files_no_submission_and_keeps_the_index(tmp_path):
    write_submission(tmp_path, "ID\n", Origin("first", "demo", 0.5), lambda path: None)
    before = snapshot(tmp_path)
    with files_no_larger_than(300), pytest.raises(KitError, match="submission"):
        write_submission(tmp_path, "ID\n" * 200, Origin("second", "demo", 0.5), lambda path: None)
    assert snapshot(tmp_path) == before
    assert write_submission(tmp_path, "ID\n", Origin("second", "demo", 0.5), lambda path: None).number == 2


def test_a_full_disk_makes_no_pixel_cache(toy):
    shutil.rmtree(toy / ".cache")
    with files_no_larger_than(100 * KIB), pytest.raises(KitError, match=r"\.u8"):
        open_cache(toy / "data" / "train", toy / ".cache", 1.0)
    assert [path.name for path in (toy / ".cache").iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_full_disk_stops_a_training_with_the_checkpoints_path_and_it_goes_on(toy, tmp_path):
    straight = copied(toy, tmp_path / "straight")
    run = Run(toy, "demo")
    with files_no_larger_than(900 * KIB), pytest.raises(KitError) as caught:
        train(toy, None, "demo", TOY)
    assert str(run.best) in caught.value.expected
    assert "it needs more than 0.9 MiB" in caught.value.found
    assert not run.best.exists()
    assert not list(toy.rglob("*.partial"))
    train(toy, None, "demo", TOY)
    train(straight, None, "demo", TOY)
    assert pd.read_csv(run.history)["map50"].equals(pd.read_csv(Run(straight, "demo").history)["map50"])


def test_a_full_disk_keeps_the_old_report(evaluated):
    run = Run(evaluated, "demo")
    before = run.report.read_bytes(), (run.folder / "report.html").read_bytes()
    with files_no_larger_than(2 * KIB), pytest.raises(KitError, match=r"figures|report"):
        evaluate(run)
    assert (run.report.read_bytes(), (run.folder / "report.html").read_bytes()) == before
    assert not list(evaluated.rglob("*.partial"))


def test_a_read_only_folder_is_an_error_with_its_path(open_folder):
    write_text(open_folder / "a.json", "old")
    with not_writable(open_folder):
        for write in (
            lambda: write_json(open_folder / "a.json", {}),
            lambda: write_submission(open_folder, "ID\n", Origin("m", "r", None), lambda path: None),
            lambda: write_text(open_folder / "new" / "a", "x"),
        ):
            with pytest.raises(KitError, match=str(open_folder)) as caught:
                write()
            assert os.strerror(errno.EACCES) in caught.value.found
    assert snapshot(open_folder) == {"a.json": b"old"}


def test_a_read_only_workspace_is_an_error_of_every_verb_with_a_path_in_it(trained_source, open_folder):
    workspace = copied(trained_source, open_folder / "w")
    for path in [workspace, *workspace.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = snapshot(workspace)
    run = Run(workspace, "demo")
    with not_writable(workspace):
        for verb in (
            lambda: train(workspace, None, "demo", TOY),
            lambda: train(workspace, "other", "demo", TOY),
            lambda: evaluate(run),
            lambda: predict(run),
            lambda: describe(workspace, toy_config()),
        ):
            with pytest.raises(KitError, match=str(workspace)):
                verb()
    assert snapshot(workspace) == before


def test_a_folder_that_is_missing_is_an_error_with_its_path(tmp_path):
    with pytest.raises(KitError, match="data"):
        train(tmp_path / "nowhere", None, "demo", TOY)
    with pytest.raises(KitError, match="train"):
        open_cache(tmp_path / "train", tmp_path / "cache", 1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["data/train.csv", "data/ID_to_Image_Mapping.csv", "data/train", "data/test", "runs/demo/config.json",
             "runs/demo/split.json", "runs/demo/best.ckpt", "runs/demo/detections/validation.parquet"],
)  # fmt: skip
def test_a_file_that_vanished_between_two_steps_is_an_error_with_its_path(name, evaluated):
    path = evaluated / name
    path.unlink() if path.is_file() else shutil.rmtree(path)
    before = {name: data for name, data in snapshot(evaluated).items() if not name.startswith(".cache")}
    with pytest.raises(KitError, match=Path(name).name):
        predict(Run(evaluated, "demo"))
    after = {name: data for name, data in snapshot(evaluated).items() if not name.startswith(".cache")}
    assert {name: data for name, data in after.items() if name in before} == before
    assert not list(evaluated.rglob("*.partial"))


def test_a_partial_that_somebody_deletes_meanwhile_is_an_error_and_the_old_file_stays(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(KitError, match=r"/a\n"), replacing(tmp_path / "a") as partial:
        partial.unlink()
    assert snapshot(tmp_path) == {"a": b"old"}


@pytest.mark.slow
def test_a_training_on_a_full_file_system_stops_in_words_and_goes_on_when_there_is_room(toy, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        workspace = copied(toy, disk / "w")
        (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - 300 * KIB))
        with pytest.raises(KitError, match=os.strerror(errno.ENOSPC)):
            train(workspace, None, "demo", TOY)
        assert not list(workspace.rglob("*.partial"))
        (disk / "other").unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        assert train(workspace, None, "demo", TOY).finished
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_batch_that_does_not_fit_gives_the_knob(toy):
    knobs = (*TOY, "model.image_size_px=1024", "training.batch_size=16", "training.effective_batch=16")
    said = said_with_little_memory(f'train(Path({str(toy)!r}), None, "demo", {knobs!r})')
    assert "a batch of 16 images of 1024 px to fit the memory" in said
    assert "lower training.batch_size" in said
    assert not list(toy.rglob("*.partial"))


@pytest.mark.slow
def test_a_batch_that_does_not_fit_while_detecting_gives_its_own_knob(trained):
    run = Run(trained, "demo")
    save(override(load(run.config), ["model.image_size_px=4096", "inference.batch_size=8"]), run.config)
    said = said_with_little_memory(f'predict(Run(Path({str(trained)!r}), "demo"))')
    assert "a batch of 8 images of 4096 px to fit the memory" in said
    assert "lower inference.batch_size" in said
    assert not list(trained.rglob("*.partial"))


def said_with_little_memory(call):
    """What a process says whose memory is limited to little more than it has when the call begins."""
    code = f"""
import resource, sys
from pathlib import Path
import kit.training.fit, kit.reports.audit_report
from kit.config import load, override, save
from kit.core.errors import KitError
from kit.evaluation.predict import predict
from kit.runs import Run
from kit.training.train import train
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + {600 * KIB * KIB}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    {call}
except KitError as error:
    sys.exit(str(error))
"""
    # Libraries warn when memory is short; what counts is how the process ends.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False,
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.slow
def test_eighty_epochs_need_no_more_memory_than_twenty(toy):
    """The limit is a fifth of a MiB per epoch; what is there before the tenth epoch does not count."""
    code = f"""
import threading, time
from pathlib import Path
from kit.runs import Run, read_history
from kit.training.train import train
run, seen = Run(Path({str(toy)!r}), "demo"), []
def watch():
    while True:
        if run.history.exists():
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            seen.append((len(run.history.read_text().splitlines()) - 1, pages))
        time.sleep(0.1)
threading.Thread(target=watch, daemon=True).start()
train(run.workspace, None, "demo", {(*TOY, "training.max_epochs=80", "training.effective_batch=4")!r})
for epoch, pages in seen:
    print(epoch, pages)
"""
    # Libraries warn when memory is short; what counts is how the process ends.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False,
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    early = max(pages for epoch, pages in rows if 10 <= epoch < 20)
    late = max(pages for epoch, pages in rows if 70 <= epoch < 80)
    grown_mib = (late - early) * resource.getpagesize() / KIB**2
    assert grown_mib < 0.2 * 60, f"{grown_mib:.0f} MiB in 60 epochs"


def test_the_signal_of_a_file_limit_is_ignored_by_python():
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
