"""No code runs from data, and no name or label leads out of its place (SECURITY.md says what is trusted)."""

import ast
import html
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import PATIENCE_SECONDS
from markupsafe import escape
from report_json import class_scores, report_content
from repository import ROOT
from torchvision.models import detection
from toy import TOY

from kit.config import ModelConfig
from kit.core.errors import KitError
from kit.core.files import write_text
from kit.core.json_files import write_json
from kit.data.audit import Finding
from kit.detectors import weights
from kit.reports.audit_page import write_audit_page
from kit.reports.html import write_page
from kit.reports.report_file import read_report
from kit.runs.folder import Run
from kit.schemas.image_headers import image_headers
from kit.schemas.tables import read_annotations
from kit.submission.messages import slug

SOURCES = [ROOT / "tasks.py", *sorted((ROOT / "kit").rglob("*.py"))]
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "jsonpickle", "yaml"}
FIGURES = (
    "rules", "ceiling", "losses", "per-class", "precision-recall", "threshold", "confidences",
    "detections-per-image", "history", "grid", "image-1",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def given(call):
    return {word.arg: word.value for word in call.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_runs_or_unpickles_what_it_reads(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if (alias.name, alias.asname) != ("yaml", None)  # whose calls are seen below
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & UNPICKLES
    for name, call in calls(path):
        assert name not in RUNS_CODE, f"line {call.lineno}"
        if name.startswith("yaml."):  # its other loaders make objects of any class
            assert name == "yaml.safe_load", f"line {call.lineno}"
        if name.endswith("torch.load"):
            assert ast.unparse(given(call)["weights_only"]) == "True", f"line {call.lineno}"
        if name in ("np.load", "numpy.load", "pd.read_pickle", "np.fromfile"):
            assert name == "np.load" and "allow_pickle" not in given(call), f"line {call.lineno}"
        if name in ("pd.eval", "pd.read_html") or name.endswith((".eval", ".query")):
            assert name.endswith(("detector.eval", "network.eval", "body.eval")), f"line {call.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_hands_a_text_to_a_shell(path):
    for name, call in calls(path):
        assert name not in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput")
        assert not name.endswith(("context.run", "context.sudo")), "invoke's run takes a shell string"
        if name.startswith("subprocess."):
            assert "shell" not in given(call), f"line {call.lineno}"
            assert not isinstance(call.args[0], (ast.Constant, ast.JoinedStr)), f"line {call.lineno}"


HOSTILE = (
    "<script>document.title='OWNED'</script>",
    "<img src=x onerror=\"document.title='OWNED'\">",
    "'\"><svg onload=\"document.title='OWNED'\">",
    "</title></style></table><script>document.title='OWNED'</script>",
    "&lt;b&gt;",
    "{{7*7}}",
    "javascript:document.title='OWNED'",
)


def hostile_page(folder):
    """A run's page whose run, views, rules, classes and causes have these names."""
    content = report_content(dict.fromkeys(HOSTILE, class_scores(0.5)), [], name=HOSTILE[0])
    content["decision"]["rules"] = dict.fromkeys(HOSTILE, content["decision"]["rules"]["score"])
    causes = {label: {"count": 1, "gain": 0.1} for label in HOSTILE}
    content["losses"] = dict.fromkeys(("many_box", "one_box"), content["losses"]["one_box"] | {"causes": causes})
    content["members"][0]["views"] = list(HOSTILE)
    write_json(folder / "report.json", content)
    report = read_report(folder / "report.json")
    (folder / "figure.png").write_bytes(b"")
    figures = dict.fromkeys(FIGURES, folder / "figure.png")
    return write_page(folder / "page.html", "run_report.html", {"report": report, "figures": figures})


def hostile_audit(folder):
    """An audit's page whose findings and rows are these texts."""
    table = pd.DataFrame({label: [label, 1.0] for label in HOSTILE})
    findings = [Finding(label, label, label, label, table) for label in HOSTILE]
    return write_audit_page(folder / "audit.html", findings, {})


@pytest.mark.parametrize("write", [hostile_page, hostile_audit])
def test_a_hostile_label_stays_text_in_a_page(write, tmp_path):
    page = write(tmp_path).read_text()
    for label in HOSTILE:
        assert escape(label) in page
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "<svg" not in page


@pytest.mark.slow
def test_a_hostile_label_stays_text_in_a_real_browser(tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser among {', '.join(BROWSERS)}")
    page = hostile_page(tmp_path)
    trapped = page.with_name("trap.html")
    trapped.write_text(f"<!doctype html><title>x</title>{HOSTILE[0]}")  # the trap itself works
    titles = {}
    for path in (page, trapped):
        words = [
            browser, "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions",
            "--disable-background-networking", f"--user-data-dir={tmp_path / path.stem}", "--dump-dom",
            path.as_uri(),
        ]  # fmt: skip
        if os.geteuid() == 0:
            words.insert(1, "--no-sandbox")  # Chromium refuses its sandbox to root
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
        if done.returncode and not done.stdout:
            pytest.skip(f"{browser} does not start here: {done.stderr.splitlines()[-1:]}")
        titles[path] = done.stdout.partition("<title>")[2].partition("</title>")[0]
    assert titles[trapped] == "OWNED"
    assert html.unescape(titles[page]) == f"Run {HOSTILE[0]}"


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "..", "a/../../secret.png", "..\\secret.png", "%2e%2e/x.png"]
)
def test_an_image_id_cannot_leave_its_folder(name, tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"\x89PNG")
    table = pd.DataFrame([{"image_id": name, "x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1, "label": "Mass"}])
    table.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(KitError, match=r"without a path|that is there"):
        read_annotations(tmp_path / "train.csv", image_headers(folder))


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "..", ".", "a/b", "a\\b", "~", "-rf", "a\0b", "a\nb", "x;id", "$(id)"]
)
def test_a_runs_name_cannot_leave_its_folder(name, tmp_path):
    with pytest.raises(KitError):
        Run(tmp_path, name)


@pytest.mark.parametrize(
    "message", ["../../etc/cron.d/x", "/etc/passwd", "..", "a\0b", "$(id)", "`id`", "<script>", "\u202e"]
)
def test_a_message_cannot_leave_the_submissions_folder(message):
    assert set(slug(message)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_file_is_nobody_elses_while_it_is_written(tmp_path):
    from kit.core.files import replacing

    with replacing(tmp_path / "a") as partial:
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
        assert partial.parent == tmp_path  # not in the system's folder, where others could wait for it
    write_text(tmp_path / "b", "x")
    assert not [path for path in Path(tempfile.gettempdir()).glob("*.partial") if path.stat().st_uid == os.getuid()]


def test_weights_that_were_fetched_by_hand_are_checked_and_run_no_code(tmp_path, monkeypatch):
    """torch.hub would neither look at a file that is there already, nor refuse code in it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = ModelConfig(detector="fasterrcnn_mobilenet_v3_large_320_fpn", weights="coco")
    url = detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1.url
    planted = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"cposix\nmkdir\n(S'" + str(tmp_path / "it-ran").encode() + b"'\ntR.")
    with pytest.raises(KitError, match="SHA-256") as caught:
        weights.load_initial_weights(torch.nn.Linear(1, 1), config)
    assert str(planted) in str(caught.value)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.slow
def test_a_label_is_text_in_the_terminal_and_on_the_page(toy):
    path = toy / "data" / "train.csv"
    text = path.read_text()
    assert "Mass" in text and "Nodule" in text
    path.write_text(text.replace("Mass", "[/bold]").replace("Nodule", "<script>alert(1)</script>"))
    knobs = [word for knob in TOY for word in ("--set", knob)]
    for verb in ("explore", "audit"):
        done = subprocess.run(
            [sys.executable, "-m", "invoke", verb, *knobs, "--workspace", str(toy)],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        page = (toy / verb / f"{verb}.html").read_text()
        assert "<script>alert" not in page
        if verb == "explore":
            assert "[/bold]" in done.stdout
            assert "&lt;script&gt;alert(1)" in page
