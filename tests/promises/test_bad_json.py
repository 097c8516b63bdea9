"""The kit's JSON files with one thing wrong: what is read is what stands there, or it is refused in words.

"What stands there" is read a second time by Python's json, with its own leniencies (NaN, doubled keys) off.
"""

import dataclasses
import json
import re

import pandas as pd
import pytest
from mutations import json_mutants, snapshot
from report_json import class_scores, report_content

from kit.boxes.geometry import CORNERS
from kit.choosing.one_box import prior_answers
from kit.config import Config, KaggleConfig, knobs, load, override, preset, save
from kit.core.errors import KitError
from kit.core.json_files import fingerprint, read_record, write_record
from kit.data.provenance import DownloadRecord, read_download
from kit.demo import DemoResult, finished_demo
from kit.detectors.weights_source import WeightsSource
from kit.importing.record import ImportRecord
from kit.kaggle.kernels.output import _manifest as read_manifest
from kit.kaggle.kernels.push_log import Push, _window, read_push, record_path
from kit.kaggle.kernels.session import Manifest
from kit.kaggle.unpacked import Unpacked
from kit.reports.report_file import read_report
from kit.runs.folder import Finished, Run, Split, finished_runs, read_finished, read_split, read_stages
from kit.runs.members import Adopted, Ensemble, Member, read_adopted, read_ensemble
from kit.runs.stages import DataSet, Stage, Stages
from kit.submission.attempts import Clock, _age_seconds
from kit.submission.folders import Attempt, Origin, read_submissions, write_submission
from kit.submission.preview import _competition

pytestmark = pytest.mark.usefixtures("undrawn")

HASH = "0123456789abcdef" * 4
ORIGIN = Origin("first", "demo", 0.25, {"demo": HASH}, {"training": {"seed": 1}}, {"commit": "c", "clean": True})
SPLIT = Split(("Mass", "Nodule"), ("a.png", "b.png", "c.png"), (("a.png",), ("c.png",)), HASH)
FINISHED = Finished(
    "best", (3, 2), (4, 4), {"demo/fold-0": HASH, "demo/fold-1": HASH}, "2024-01-01T00:00:00.000000+00:00"
)
DEMO = DemoResult(0.6, 0.02, 0.6, 170, 1.5, "s.csv", HASH, "r", "f")


def strict_json(data):
    def once(pairs):
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    def refuse(name):
        raise AssertionError(name)

    def number(text):  # beyond 2^53 a whole number and a float of the same value are one
        return int(text) if abs(int(text)) < 2**53 else float(text)

    return json.loads(data, object_pairs_hook=once, parse_constant=refuse, parse_int=number)


def plain(value):
    """Tuples as the lists that JSON has."""
    return strict_json(json.dumps(value).encode())


def config_content():
    known = preset("demo").as_dict()
    return {name: known[name] for name in ("model", "training", "inference", "fusion")}


MANIFEST = {
    "number": 1, "created_at": "2024-01-01T00:00:00+00:00", "origin": plain(dataclasses.asdict(ORIGIN)),
    "csv_sha256": HASH, "status": "", "public_score": 0.25, "ref": 7,
}  # fmt: skip
FILES = {
    "config": list(json_mutants(config_content(), 1, values=330, flips=40)),
    "split": list(json_mutants(plain(dataclasses.asdict(SPLIT)), 2, values=250, flips=30)),
    "finished": list(json_mutants(plain(dataclasses.asdict(FINISHED)), 3, values=150, flips=30)),
    "demo": list(json_mutants(plain(dataclasses.asdict(DEMO)), 4, values=150, flips=10)),
    "manifest": list(json_mutants(MANIFEST, 5, values=300, flips=40)),
}
ATTEMPT = Attempt("ab12", "a-slug", "first", False, HASH, "2024-01-01T00:00:00+00:00", "complete", 7, 0.25)
FILES["attempt"] = list(
    json_mutants(MANIFEST | {"attempts": [plain(dataclasses.asdict(ATTEMPT))]}, 7, values=300, flips=10)
)
MEMBERS = (Member("one", ("plain", "flip"), 2.0, 3), Member("two", ("plain",)))
RECORDS = {
    "ensemble": Ensemble(MEMBERS, {"one/fold-0": HASH, "two": HASH}, {"one": HASH, "two": HASH}),
    "adopted": Adopted("theirs.csv", HASH, ("plain",), 5),
    "download": DownloadRecord("a-slug", HASH, "hand", {"train.csv": 12, "train/a.png": 3}),
    "unpacked": Unpacked("a-slug", {"train.csv": 12}, ("train",), HASH),
    "push": Push("ab12", "ada/demo", 3, "https://x", "demo", {"kaggle": {"deadline_seconds": 30.0}}, HASH, 1.5),
    "kernel": Manifest("ab12", "demo", "finished", {"best.ckpt": HASH}),
    "stages": Stages((Stage("first"), Stage(
        "demo", DataSet("set", "import", 3, 4, HASH, HASH,
                        ImportRecord("coco", "set", "1", {"--size": 64}, HASH, {"a.json": HASH}, 3, 0, 4, ("n",))),
        WeightsSource("run", "best.ckpt", "", "", HASH),
    ))),
}  # fmt: skip
for number, (kind, record) in enumerate(RECORDS.items(), start=10):
    FILES[kind] = list(json_mutants(plain(dataclasses.asdict(record)), number, values=150, flips=10))
POINT = {"threshold": 0.0, "map50": 0.25, "one_box_map50": 0.2}
FILES["report"] = list(json_mutants(report_content({"Mass": class_scores(0.5)}, [POINT]), 6, values=500, flips=40))
UNSIGNED = report_content({"Mass": class_scores(0.5)}, [POINT]) | {"sha256": ""}
SIGNED = UNSIGNED | {"sha256": fingerprint(UNSIGNED)}
FILES["signed"] = list(json_mutants(SIGNED, 8, values=300, flips=20))
DEFAULTS = {key: plain(Config().get(key)) for key in knobs()}


def assert_config_as_it_stands(config, data):
    content = strict_json(data)
    stated = {f"{section}.{name}": value for section, names in content.items() for name, value in names.items()}
    assert {key: plain(config.get(key)) for key in DEFAULTS} == DEFAULTS | stated


def assert_each_is_read_or_refused(kind, step, path, read, as_it_stands):
    """Write each mutant to ``path`` and read it; nothing else in the folder may change."""
    around = {name: data for name, data in snapshot(path.parent).items() if name != path.name}
    accepted = refused = 0
    for mutant in FILES[kind][::step]:
        path.write_bytes(mutant.data)
        try:
            try:
                value = read()
            except KitError as error:
                refused += 1
                assert path.name in str(error)
                assert error.found
                assert error.do
                str(error).encode()
            else:
                accepted += 1
                as_it_stands(value, mutant.data)
        except BaseException as problem:
            problem.add_note(f"mutant: {mutant.name}")
            raise
        assert snapshot(path.parent) == around | {path.name: mutant.data}
    assert 0 < accepted < refused


def test_a_bad_config_is_read_as_it_stands_or_refused(step, tmp_path):
    path = tmp_path / "config.json"
    assert_each_is_read_or_refused("config", step, path, lambda: load(path), assert_config_as_it_stands)


def same_record(value, data):
    content = strict_json(data)
    ours = plain(dataclasses.asdict(value))
    assert {name: ours[name] for name in content} == content


def test_a_bad_split_is_read_as_it_stands_or_refused(step, tmp_path):
    run = Run(tmp_path, "demo")
    run.folder.mkdir(parents=True)
    assert_each_is_read_or_refused("split", step, run.split, lambda: read_split(run), same_record)


def test_a_bad_end_of_a_run_is_read_as_it_stands_or_refused(step, tmp_path):
    run = Run(tmp_path, "demo")
    run.folder.mkdir(parents=True)
    assert_each_is_read_or_refused("finished", step, run.finished, lambda: read_finished(run), same_record)


def test_a_bad_report_is_read_as_it_stands_or_refused(step, tmp_path):
    path, again = tmp_path / "runs" / "demo" / "report.json", tmp_path / "again.json"
    path.parent.mkdir(parents=True)

    def as_it_stands(report, data):
        write_record(again, report)
        assert_stated(strict_json(data), strict_json(again.read_bytes()))

    assert_each_is_read_or_refused("report", step, path, lambda: read_report(path), as_it_stands)


def test_a_report_that_is_read_can_answer(step, tmp_path):
    """Whatever numbers a report of an earlier version holds: no error of numpy, and confidences in 0..1."""
    path = tmp_path / "runs" / "demo" / "report.json"
    path.parent.mkdir(parents=True)
    candidates = pd.DataFrame([("a.png", 1, 1, 9, 9, 0.5, "Mass", 1.0), ("a.png", 2, 2, 9, 9, 0.9, "Hernia", 0.5)],
                              columns=["image_id", *CORNERS, "score", "label", "agreement"])  # fmt: skip
    mapping, sizes = pd.DataFrame({"ID": [0], "image_id": ["a.png"]}), {"a.png": (10, 10)}
    answered = 0
    for mutant in FILES["report"][::step]:
        path.write_bytes(mutant.data)
        try:
            report = read_report(path)
        except KitError:
            continue
        answered += 1
        judged = report.decision.rule.judge(candidates, sizes)
        assert judged["confidence"].between(0, 1).all(), mutant.name
        assert len(prior_answers(report.prior, mapping, sizes, 1.0)) == 1, mutant.name
    assert answered


def test_a_report_with_its_fingerprint_is_read_unchanged_or_refused(step, tmp_path):
    path = tmp_path / "runs" / "demo" / "report.json"
    path.parent.mkdir(parents=True)

    def as_it_stands(report, data):
        assert strict_json(data) | {"sha256": ""} == UNSIGNED

    assert_each_is_read_or_refused("signed", step, path, lambda: read_report(path), as_it_stands)


def assert_stated(stated, written):
    """What a file states stands in the other one, which may state more: the defaults of knobs."""
    if isinstance(stated, dict):
        for name, value in stated.items():
            assert_stated(value, written[name])
    elif isinstance(stated, list):
        assert len(stated) == len(written)
        for value, other in zip(stated, written, strict=True):
            assert_stated(value, other)
    else:
        assert stated == written


def test_a_bad_result_of_a_demo_is_none_or_refused(step, tmp_path):
    def none(value, data):
        assert value is None  # its submission is not there

    assert_each_is_read_or_refused("demo", step, tmp_path / "result.json", lambda: finished_demo(tmp_path), none)


def test_a_bad_manifest_is_read_as_it_stands_or_refused(step, tmp_path):
    write_submission(tmp_path, "ID\n", ORIGIN, lambda path: None)

    def as_it_stands(submissions, data):
        (one,) = submissions
        stands = strict_json(data)
        ours = {field.name: getattr(one, field.name) for field in dataclasses.fields(one) if field.name != "folder"}
        ours = plain(ours | {"origin": dataclasses.asdict(one.origin)})
        origin = stands.pop("origin")
        assert {name: ours["origin"][name] for name in origin} == origin
        assert {name: ours[name] for name in stands} == stands

    path = tmp_path / "0001-first" / "manifest.json"
    assert_each_is_read_or_refused("manifest", step, path, lambda: read_submissions(tmp_path), as_it_stands)


def test_the_attempts_of_a_bad_manifest_have_an_age_and_a_competition(step, tmp_path):
    """What is read from a manifest can be used: its times, and the knobs of a run that is gone."""
    write_submission(tmp_path, "ID\n", ORIGIN, lambda path: None)
    clock = Clock(lambda: 1.8e9, lambda seconds: None)

    def used(submissions, data):
        (one,) = submissions
        assert all(_age_seconds(attempt, clock) >= 0 for attempt in one.attempts)

    path = tmp_path / "0001-first" / "manifest.json"
    assert_each_is_read_or_refused("attempt", step, path, lambda: read_submissions(tmp_path), used)


def test_knobs_of_a_manifest_are_used_or_refused_by_name(tmp_path):
    folder = tmp_path / "submissions"
    write_submission(folder, "ID\n", ORIGIN, lambda path: None)
    path = folder / "0001-first" / "manifest.json"
    whole = json.loads(path.read_bytes())
    for section, said in (
        ({"expected_id": 8}, "nearest: expected_ids"),
        ({"expected_ids": "8"}, "expected_ids is '8', not a whole number"),
        ({"expected_ids": -1}, "-1"),
        ({"slug": None}, "slug is None, not a text"),
        (3, "origin.config.competition is 3, not an object"),
    ):
        config = whole["origin"]["config"] | {"competition": section}
        path.write_text(json.dumps(whole | {"origin": whole["origin"] | {"config": config}}))
        with pytest.raises(KitError, match=re.escape(said)) as caught:
            _competition(tmp_path, read_submissions(folder)[0])
        assert str(path) in str(caught.value)
        save(override(Config(), ["competition.expected_ids=8"]), Run(tmp_path, "demo").config)  # as advised
        if section != 3:
            assert _competition(tmp_path, read_submissions(folder)[0]).expected_ids == 8
        Run(tmp_path, "demo").config.unlink()


@pytest.mark.parametrize("kind", RECORDS)
def test_every_other_record_is_read_as_it_stands_or_refused(kind, step, tmp_path):
    run = Run(tmp_path, "demo")
    data, push = tmp_path / "data", record_path(run)
    path, read = {
        "ensemble": (run.ensemble, lambda: read_ensemble(run)),
        "adopted": (run.adopted, lambda: read_adopted(run)),
        "download": (data / ".download.json", lambda: read_download(data)),
        "unpacked": (data / "unpacked.json", lambda: read_record(data / "unpacked.json", Unpacked, "call again")),
        "push": (push, lambda: read_push(run)),
        "stages": (run.stages, lambda: read_stages(run)),
        "kernel": (run.folder / "manifest.json", lambda: read_manifest(run.folder / "manifest.json")),
    }[kind]
    path.parent.mkdir(parents=True)

    def as_it_stands(record, data):
        assert_stated(strict_json(data), plain(dataclasses.asdict(record)))
        if kind == "push":
            assert _window(record, KaggleConfig()) >= 150

    assert_each_is_read_or_refused(kind, step, path, read, as_it_stands)


def test_a_run_with_a_bad_end_is_used_or_passed_over(step, tmp_path):
    run = Run(tmp_path, "demo")
    run.folder.mkdir(parents=True)
    run.config.write_text("{}")
    for mutant in FILES["finished"][::step]:
        run.finished.write_bytes(mutant.data)
        assert finished_runs(tmp_path) in ([], [run]), mutant.name
