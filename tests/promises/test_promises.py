"""The table in docs/promises.md counts what the tests try."""

import re

import lowest
import test_bad_files
import test_bad_images
import test_bad_json
import test_bad_stores
import test_bad_tables
import test_kills
import test_two_at_once
from repository import ROOT

PROMISES = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")


def tried_in_process():
    tables = sum(map(len, test_bad_tables.TABLES.values()))
    json = sum(map(len, test_bad_json.FILES.values()))
    stores = len(test_bad_stores.PARQUET) + len(test_bad_stores.CHECKPOINTS) + test_bad_stores.TRAPS
    return tables + json + stores + test_bad_images.images_tried()


def test_the_page_says_how_much_is_tried():
    said = re.search(r"\| Bad files \| ([\d,]+) in process, (\d+) from the command line", PROMISES)
    assert said, "the page has a row of bad files with both numbers"
    assert int(said[1].replace(",", "")) == tried_in_process() >= 2_000
    cases = len(test_bad_files.CASES) + len(test_bad_files.SUBMISSIONS)
    assert int(said[2]) == cases + 3 * len(test_bad_files.IMAGES) + 1
    assert f"| {test_kills.KILLS} kills at random points" in PROMISES
    assert f"| {test_two_at_once.AT_ONCE} `predict` at the same time" in PROMISES
    assert f"| {test_bad_stores.TRAPS} hostile checkpoints" in PROMISES
    assert f"| {len(lowest.FILES)} test files on Python 3.11" in PROMISES
