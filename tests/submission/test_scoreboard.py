"""The submissions side by side: what was good, what was not and why, in a table and a plot."""

import os

import numpy as np
import pytest
from PIL import Image

from kit.reports.comparison_charts import ScorePoint, local_against_public
from kit.submission.folders import Attempt, Origin, read_submissions, record_attempt, write_submission
from kit.submission.scoreboard import COLUMNS, PLOT_NAME, best, draw, plot_is_stale, rows

EXPECTED = {"mean": 0.2, "low": 0.15, "high": 0.25}


def filed(folder, public=None, status="", reason="", expected=EXPECTED, local=0.21):
    number = len(list(folder.glob("*/"))) + 1
    origin = Origin("a try", "seed", local, expected=expected)
    submission = write_submission(folder, f"ID\n{number}\n", origin, lambda path: None)
    if status:
        ref = None if status == "failed" else 100 + number
        attempt = Attempt("cafe", "s", "m", False, "h", "2027-01-15T08:00:00+00:00", status, ref, public, reason)
        submission = record_attempt(submission, attempt)
    return submission


def test_no_submissions_are_a_table_without_rows_and_a_plot_that_says_so(tmp_path):
    assert rows([]) == []
    assert best([]) is None
    assert not plot_is_stale(tmp_path)
    assert draw(tmp_path) == tmp_path / PLOT_NAME
    with Image.open(tmp_path / PLOT_NAME) as image:
        assert image.width > 500


def test_a_row_has_what_was_expected_what_came_and_why_not(tmp_path):
    filed(tmp_path)
    filed(tmp_path, 0.1, "complete")
    filed(tmp_path, None, "error", "no such image")
    filed(tmp_path, 0.19, "complete", expected={})
    filed(tmp_path, 0.19, "complete", local=None)
    shown = rows(read_submissions(tmp_path))
    assert len(COLUMNS) == len(shown[0])
    assert shown == [
        ("0001", "a try", "seed", "0.210", "0.200 (0.150-0.250)", "", ""),
        ("0002", "a try", "seed", "0.210", "0.200 (0.150-0.250)", "0.100", "complete"),
        ("0003", "a try", "seed", "0.210", "0.200 (0.150-0.250)", "", "error: no such image"),
        ("0004", "a try", "seed", "0.210", "", "0.190 *", "complete"),
        ("0005", "a try", "seed", "", "0.200 (0.150-0.250)", "0.190", "complete"),
    ]


def test_the_plot_is_drawn_anew_only_where_a_score_may_be_missing_in_it(tmp_path):
    filed(tmp_path)
    assert not plot_is_stale(tmp_path)
    manifest = filed(tmp_path, 0.2, "complete").folder / "manifest.json"
    assert plot_is_stale(tmp_path)
    draw(tmp_path)
    os.utime(tmp_path / PLOT_NAME, (2e9, 2e9))
    os.utime(manifest, (1.9e9, 1.9e9))
    assert not plot_is_stale(tmp_path)
    os.utime(manifest, (2.1e9, 2.1e9))
    assert plot_is_stale(tmp_path)


def test_negative_results_and_failures_are_drawn_or_left_out_but_never_break_the_plot(tmp_path):
    filed(tmp_path, 0.0, "complete", expected={}, local=0.0)
    filed(tmp_path, None, "failed", "refused")
    filed(tmp_path, 0.3, "complete", expected={}, local=None)  # nothing to compare with
    assert draw(tmp_path).exists()


@pytest.mark.parametrize("count", [0, 1, 2, 9, 200])
def test_every_point_is_in_the_plot_and_the_best_carries_its_number(count):
    points = [ScorePoint(n, 0.2, 0.1, 0.3, n / 1000) for n in range(1, count + 1)]
    against, along = local_against_public(points, best=count or None).axes
    dots = [line for line in against.lines if line.get_marker() == "o"]
    assert [float(np.asarray(line.get_ydata())[0]) for line in dots] == [point.public for point in points]
    assert len([line for line in along.lines if line.get_marker() == "o"]) == count
    words = [text.get_text() for text in against.texts]
    assert (f"{count:04d}" in words) == (count > 0)
    assert ("0001" in words) == (0 < count <= 8)
    assert ("no public score yet" in words) == (count == 0)
