"""Which folders are runs: copies, renamed and broken ones stop no other run, and are said once."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from toy import TOY_TEST_IMAGES, second_run, toy_config

from kit.config import Config, load, save
from kit.core.errors import KitError
from kit.core.json_files import write_json
from kit.evaluation.comparison import compare
from kit.evaluation.predict import predict
from kit.evaluation.report import current_report, evaluate
from kit.runs.ensemble import ensemble, refresh
from kit.runs.folder import (
    Run,
    existing,
    finished_runs,
    mark_finished,
    names,
    newest_finished,
    read_finished,
    workspace_config,
)
from kit.runs.knobs import adjust
from kit.training.train import train

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def run(tmp_path):
    """A finished run 'demo' without weights or detections."""
    run = Run(tmp_path / "place", "demo")
    save(toy_config(), run.config)
    mark_finished(run, "best", (1,), (2,), {"demo": "a" * 64})
    return run


def test_a_workspace_without_runs_has_the_default_knobs(tmp_path):
    assert names(tmp_path) == finished_runs(tmp_path) == []
    assert workspace_config(tmp_path) == Config()


@pytest.mark.parametrize("name", ["demo copy", "demo (1)", ".demo", "demo.", "Kopie von demo", "démo"])
def test_a_folder_whose_name_is_no_runs_is_passed_over_and_named_once(name, run, caplog):
    shutil.copytree(run.folder, run.folder.with_name(name))
    for _ in range(3):
        assert newest_finished(run.workspace) == run
        assert workspace_config(run.workspace) == toy_config()
        assert existing(run.workspace, "demo") == run
    assert caplog.text.count(f"{name} is passed over") == 1


BROKEN = {
    "finished.json": ("{", "[]", '{"kept": "best"}', ""),
    "config.json": ("{", '{"training": {"batch_size": 0}}', '{"trainin": {}}'),
}


@pytest.mark.parametrize(("file", "content"), [(file, text) for file, texts in BROKEN.items() for text in texts])
def test_a_run_with_a_broken_file_is_passed_over_and_named_once(file, content, run, caplog):
    other = Run(run.workspace, "other")
    save(toy_config(), other.config)
    mark_finished(other, "best", (1,), (2,), {"other": "b" * 64})
    assert newest_finished(run.workspace) == other
    (other.folder / file).write_text(content)
    for _ in range(3):
        assert newest_finished(run.workspace) == run
        assert workspace_config(run.workspace) == toy_config()
    assert caplog.text.count("run other is passed over") == 1
    assert file in caplog.text


def test_if_no_other_run_is_left_it_is_said_and_a_new_one_can_be_trained(run, caplog):
    run.finished.write_text("{")
    with pytest.raises(KitError, match="invoke train"):
        newest_finished(run.workspace)
    assert workspace_config(run.workspace) == Config()
    assert "restore" in caplog.text
    with pytest.raises(KitError, match=r"finished\.json"):
        read_finished(run)


def test_a_broken_end_of_an_ensemble_advises_to_make_it_anew(run):
    members = [{"run": name, "views": ["plain"]} for name in ("one", "other")]
    write_json(run.ensemble, {"members": members, "weights": {}, "detections": {}})
    run.finished.write_text("{")
    with pytest.raises(KitError, match="make the ensemble anew under another --run NAME"):
        read_finished(run)


def test_a_copy_is_passed_over_and_every_verb_that_names_it_says_what_to_do(run, caplog):
    copy = Run(run.workspace, "a-copy")
    shutil.copytree(run.folder, copy.folder)
    assert newest_finished(run.workspace) == run
    assert caplog.text.count("run a-copy is passed over") == 1
    both = Run(run.workspace, "both")
    uses = (
        evaluate,
        predict,
        lambda it: compare(it, run),
        lambda it: compare(run, it),
        lambda it: ensemble(both, ("demo", it.name)),
        lambda it: train(it.workspace, it.name),
    )
    for use in uses:
        with pytest.raises(KitError, match="those of run 'demo'") as caught:
            use(copy)
        assert "--run demo" in caught.value.do
        assert f"move {copy.folder} out of" in caught.value.do
    assert not both.folder.exists()
    copy.folder.rename(run.workspace / "elsewhere")
    assert newest_finished(run.workspace) == existing(run.workspace, "demo") == run


def test_a_copied_ensemble_is_refused_by_every_verb_too(run, caplog):
    members = [{"run": name, "views": ["plain"]} for name in ("one", "other")]
    write_json(run.ensemble, {"members": members, "weights": {}, "detections": {}})
    mark_finished(run, "ensemble", (), (), {"one": "a" * 64, "other": "b" * 64})
    assert read_finished(run).run == "demo"
    copy = Run(run.workspace, "a-copy")
    shutil.copytree(run.folder, copy.folder)
    assert newest_finished(run.workspace) == run
    assert caplog.text.count("run a-copy is passed over") == 1
    uses = (evaluate, predict, refresh, lambda it: compare(it, run))
    for use in uses:
        with pytest.raises(KitError, match="those of run 'demo'") as caught:
            use(copy)
        assert f"--run demo; a copy cannot be used: move {copy.folder} out of" in caught.value.do
    copy.folder.rename(run.workspace / "elsewhere")
    assert newest_finished(run.workspace) == run


def test_an_ensemble_that_was_recorded_without_a_name_goes_on_working(run):
    write_json(run.ensemble, {"members": [], "weights": {}, "detections": {}})
    mark_finished(run, "ensemble", (), (), {"one": "a" * 64, "other": "b" * 64})
    end = json.loads(run.finished.read_text())
    del end["run"]
    run.finished.write_text(json.dumps(end))
    assert read_finished(run).run == ""
    assert newest_finished(run.workspace) == run


def test_a_renamed_folder_says_its_old_name_and_works_again_under_it(run):
    other = run.folder.rename(run.folder.with_name("other"))
    with pytest.raises(KitError, match=f"rename the folder back: mv {other} {run.folder}"):
        read_finished(Run(run.workspace, "other"))
    other.rename(run.folder)
    assert read_finished(run).weights == {"demo": "a" * 64}


def test_the_way_back_of_a_renamed_folder_is_one_command_wherever_it_lies(tmp_path):
    run = Run(tmp_path / "chest x-rays", "demo")
    run.folder.mkdir(parents=True)
    mark_finished(run, "best", (1,), (1,), {"demo": "a" * 64})
    run.folder.rename(run.folder.with_name("other"))
    with pytest.raises(KitError) as refused:
        read_finished(Run(run.workspace, "other"))
    verb, old, new = shlex.split(refused.value.do.partition(": ")[2])
    assert verb == "mv"
    Path(old).rename(new)
    assert read_finished(run).weights == {"demo": "a" * 64}


@pytest.mark.slow
def test_a_copied_ensemble_without_a_name_is_an_ensemble_with_a_report_of_its_own(evaluated):
    demo = Run(evaluated, "demo")
    second_run(demo, "half")
    both, copy = Run(evaluated, "both"), Run(evaluated, "again")
    ensemble(both, ("demo", "half"), (), (f"competition.expected_ids={TOY_TEST_IMAGES}",))
    evaluate(both)
    shutil.copytree(both.folder, copy.folder)
    end = json.loads(both.finished.read_text())
    copy.finished.write_text(json.dumps({key: value for key, value in end.items() if key != "run"}))
    report = current_report(copy)
    assert report.run == "again"
    assert report.many_box == current_report(both).many_box


def test_knobs_change_only_while_nobody_uses_the_results(run):
    adjust(run, ("fusion.iou=0.5",))
    assert load(run.config).fusion.iou == 0.5
    assert json.loads(run.config.read_text())["fusion"]["iou"] == 0.5
