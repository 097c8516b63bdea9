"""The benchmark's table: its arithmetic, and that every row comes. No time is judged here."""

import json
import subprocess
import sys

import pytest
from repository import ROOT

from benchmarks.__main__ import BENCHMARKS, LONG, chosen, markdown
from benchmarks.measure import WHY, Row, in_turn, not_measured
from benchmarks.tables import detections, image_names, truth
from kit.core.errors import KitError
from kit.detector_names import DETECTOR_NAMES

MACHINE = {"processor": "P", "cores": 2, "torch": "2", "torch_threads": 2, "gpu": None}


def row(**changed):
    return Row(**{"name": "fusion", "what": "w", "against": "a", "unit": "s", "ours": 2.0, "other": 10.0,
                  "kind": "times less"} | changed)  # fmt: skip


def test_a_row_without_a_limit_is_neither_reached_nor_missed():
    assert row().reached is None
    assert row().verdict == "no limit"
    assert row().ratio == 10 / 2


@pytest.mark.parametrize(
    ("changed", "ratio", "reached"),
    [
        ({"limit": 5}, 5, True),
        ({"limit": 6}, 5, False),
        ({"limit": 5, "ceiling": 1.9}, 5, False),
        ({"kind": "times as much", "limit": 0.2}, 2 / 10, True),
        ({"kind": "times as much", "limit": 0.1}, 2 / 10, False),
        ({"kind": "apart", "ours": 10.2, "limit": 0.3}, 0.2, True),
        ({"kind": "apart", "ours": 10.4, "limit": 0.3}, 0.4, False),
    ],
)
def test_a_limit_is_read_in_the_rows_own_direction(changed, ratio, reached):
    assert row(**changed).ratio == pytest.approx(ratio)
    assert row(**changed).reached is reached
    assert ("missed" in row(**changed).verdict) is not reached
    assert (WHY["fusion"] in row(**changed).verdict) is not reached


def test_every_benchmark_says_why_its_limits_are_there_and_stands_in_the_docs():
    assert set(WHY) == set(BENCHMARKS)
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    for words in (
        "warm cache", "one training epoch", "threshold curve", "five views", "weighted boxes fusion",
        "resamples of the patients", "`invoke validate`", "among 20,000", "stored detections",
        "until its first step", "On a GPU", "resident memory", "page of",
        "DICOM files",
    ):  # fmt: skip
        assert words in page
    assert page.count("missed:") == sum(page.count(why) for why in WHY.values())


def test_two_ways_are_timed_in_turn():
    calls, now = [], iter(range(100))
    assert in_turn(lambda: calls.append("a"), lambda: calls.append("b"), 3, clock=lambda: next(now)) == (1, 1)
    assert calls == ["a", "b"] * 3


def test_made_up_tables_are_functions_of_their_seed():
    names = image_names(5)
    table = detections(names, 2, 3)
    assert len(table) == 5 * 2 * 3
    assert table.equals(detections(names, 2, 3))
    assert (table["x_min"] < table["x_max"]).all()
    assert truth(names)["image_id"].tolist() == names


def test_an_unknown_name_is_refused_with_the_nearest():
    assert chosen(None, long=True) == BENCHMARKS
    assert set(BENCHMARKS) - set(chosen(None)) == set(LONG)
    assert chosen("cold") == ("cold",)
    assert chosen("fusion") == ("fusion",)
    with pytest.raises(KitError, match="--only fusion"):
        chosen("fussion")


def test_a_row_that_was_not_measured_says_why_and_survives_the_file(tmp_path):
    lost = not_measured("gpu", "everything on a GPU", "no GPU here")
    assert lost.reached is None
    assert lost.verdict == "not measured (no GPU here)"
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"machine": MACHINE, "rows": [lost.as_dict(), row().as_dict()]}, allow_nan=False))
    assert markdown(path).splitlines()[-2:] == [
        "| everything on a GPU |  |  |  |  |  | not measured (no GPU here) |",
        "| w | a | 2 s | 10 s | 5 |  | no limit |",
    ]


@pytest.mark.slow
def test_the_gpus_rows_all_come_on_the_cpu(tmp_path):
    goal = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--tiny", "--only", "gpu", "--device", "cpu"]
    done = subprocess.run([*command, "--json", goal], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(goal.read_text())["rows"]
    assert sum("under autocast" in found["what"] for found in rows) == len(DETECTOR_NAMES)
    resumed = [found["ours"] for found in rows if "stopped and resumed" in found["what"]]
    assert resumed == [0, 0]
    failed = [found for found in rows if found["ours"] is None and "on the CPU" not in found["verdict"]]
    assert not failed


@pytest.mark.slow
def test_every_benchmark_has_its_rows_at_a_tiny_size(tmp_path):
    goal = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--tiny", "--json", goal],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(goal.read_text())
    names = {row["name"] for row in found["rows"]}
    assert names == set(BENCHMARKS)
    assert found["machine"]["cores"] >= 1
    assert "equal" in next(row["note"] for row in found["rows"] if row["name"] == "fusion")
    assert "bench.json" in done.stdout
