"""The page of images as text: its data, its policy, its addresses, how it is split."""

import base64
import io
import json
import re
import shutil
import subprocess
import urllib.parse

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_view import HOSTILE_LABELS, NAMES, made_up_view, read_block
from PIL import Image
from repository import ROOT

from kit.data.images import fitted_size
from kit.data.pixel_cache import open_cache
from kit.metrics.average_precision import match, mean_average_precision, score_detections
from kit.metrics.error_analysis import analyse_errors
from kit.reports import thumbnails, view_page
from kit.reports.view_data import CAUSE_NAMES, View, ViewedImage, path_scores, score_steps
from kit.reports.view_page import block, content_hash, relative_address, write_view

VIEWER = ROOT / "kit" / "reports" / "viewer"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view")
    view, truth, found = made_up_view(folder, NAMES)
    (page,) = write_view(folder / "runs" / "a" / "view.html", view)
    return view, truth, found, page, read_block(page)


def test_the_block_has_every_image_with_the_form_that_the_docs_name(made):
    view, truth, found, _, content = made
    assert sorted(image["name"] for image in content["images"]) == list(NAMES)
    documented = (ROOT / "docs" / "view.md").read_text(encoding="utf-8")
    for key in {*content, *content["images"][0], *content["images"][0]["sides"][0], *content["sides"][0]["scores"]}:
        assert f"`{key}`" in documented, key
    assert content["causes"] == list(CAUSE_NAMES)
    image = next(image for image in content["images"] if image["truth"])
    rows = truth[truth["image_id"] == image["name"]]
    assert [content["labels"][row[4]] for row in image["truth"]] == rows["label"].tolist()
    assert sum(len(image["sides"][0]["many"]) for image in content["images"]) == len(found)
    assert view.source == content["source"] == "run"


def test_the_causes_on_the_page_are_those_of_the_analysis(made):
    _, truth, found, _, content = made
    causes = [row[6] for image in content["images"] for row in image["sides"][0]["many"]]
    analysed = analyse_errors(truth, found, NAMES)
    assert causes.count(0) == analysed.found
    for number, cause in enumerate(CAUSE_NAMES[1:-1], start=1):
        assert causes.count(number) == analysed.causes[cause].count
    for image in content["images"]:  # a hit lies on the true box of its class that it names
        for *_, label, _, cause, box in image["sides"][0]["many"]:
            assert cause != 0 or image["truth"][box][4] == label


def test_the_first_order_is_the_page_order_and_equal_pictures_are_written_once(made):
    *_, content = made
    costs = [image["orders"][0] for image in content["images"]]
    assert costs == sorted(costs, reverse=True)
    assert len(content["thumbs"]) == len(NAMES) - 1
    assert len(set(content["thumbs"])) == len(content["thumbs"])


def test_no_text_from_outside_becomes_markup(made):
    _, _, _, page, content = made
    text = page.read_text(encoding="utf-8")
    assert content["labels"] == sorted(HOSTILE_LABELS)
    assert set(re.findall(r"<script[^>]*>", text)) == {"<script>", '<script type="application/json" id="data">'}
    assert text.count("<script") == 1 + len(view_page.SCRIPTS)
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.S)
    assert "<img" not in body
    assert "onerror='" not in body
    assert "\u2028" not in text


def test_any_letter_survives_the_block():
    text = "".join(map(chr, range(0x250))) + "\u2028\u2029\ufeff\uffff\U0001f600</script><!--]]>"
    written = block({"text": text})
    assert not set("<>&\u2028\u2029") & set(written)
    assert written.isascii()
    assert json.loads(written) == {"text": text}


def test_the_policy_allows_the_pages_own_scripts_alone(made):
    text = made[3].read_text(encoding="utf-8")
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[0]
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == len(view_page.SCRIPTS)
    for script in scripts:
        assert f"'{content_hash(script)}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<link|<iframe|@import|url\(| style=| on\w+=\"", text)


def test_addresses_are_relative_and_quoted(made):
    *_, page, content = made
    for image in content["images"]:
        address = image["file"]
        assert re.fullmatch(r"\./(\.\./)+data/train/[A-Za-z0-9%._~-]+", address), address
        assert (page.parent / urllib.parse.unquote(address)).is_file()


def test_the_scripts_are_few_readable_lines_that_write_text_only():
    lines = [line for path in VIEWER.glob("*.js") for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted(path.name for path in VIEWER.glob("*.js")) == sorted(view_page.SCRIPTS)
    assert len(lines) <= 900
    assert max(map(len, lines)) <= 130
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|fetch|XMLHttp|WebSocket|import\("
    )
    assert not [line for line in lines if re.search(forbidden, line)]


@pytest.mark.parametrize("score", [0.0, 0.29, 0.57, 0.28999999999999998, 0.2899999, 1 / 3, 0.9999999, 1.0])
def test_a_score_stands_on_the_same_side_of_every_step_as_in_python(score):
    (steps,) = score_steps(np.array([score]))
    for slider in range(101):
        assert (steps >= slider * 100) == (score >= slider / 100)


@given(st.floats(0, 1))
def test_any_score_does(score):
    (steps,) = score_steps(np.array([score]))
    slider = int(score * 100)
    for step in {max(0, slider - 1), slider, min(100, slider + 1)}:
        assert (steps >= step * 100) == (score >= step / 100)


def test_scores_at_a_step_are_those_of_the_detections_that_it_leaves(made):
    _, truth, found, _, content = made
    scores = content["sides"][0]["scores"]["many"]
    whole = score_detections(truth, found, NAMES)
    assert scores["map50"][0] == pytest.approx(whole.map50, abs=1e-4)
    for step in (0, 29, 57, 100):
        kept = found[found["score"] >= step / 100]
        matches = match(truth, kept, NAMES)
        assert scores["map50"][step] == pytest.approx(mean_average_precision(matches), abs=1e-4)
        for label, of in scores["classes"].items():
            hits, boxes = matches.classes[label].hits, int(matches.classes[label].positives.sum())
            recall, precision = of["points"][step]
            assert (of["boxes"], recall) == (boxes, pytest.approx(hits.sum() / boxes, abs=1e-4))
            assert precision == (pytest.approx(hits.mean(), abs=1e-4) if len(hits) else None)
    assert path_scores(match(truth[:0], found[:0], []), {}) == {"map50": [None] * 101, "classes": {}}


def test_too_many_images_are_split_over_pages_that_name_each_other(made, tmp_path):
    view = made[0]
    first = tmp_path / "view.html"
    pages = write_view(first, view, most_images=8)
    assert [page.name for page in pages] == ["view.html", "view-2.html", "view-3.html"]
    contents = [read_block(page) for page in pages]
    names = [image["name"] for content in contents for image in content["images"]]
    assert names == [image["name"] for image in made[4]["images"]]
    for number, (page, content) in enumerate(zip(pages, contents, strict=True)):
        assert content["pages"] == {"number": number, "files": [page.name for page in pages], "images": len(NAMES)}
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert f"Page {number + 1} of 3: the {len(NAMES)} images are too many for one." in text
    assert write_view(first, view) == (first,)
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["view.html"]


def test_a_page_is_split_by_its_bytes_too(made, tmp_path, monkeypatch):
    monkeypatch.setattr(view_page, "MOST_BYTES", 20_000)
    pages = write_view(tmp_path / "view.html", made[0])
    assert len(pages) > 1
    assert sum(len(read_block(page)["images"]) for page in pages) == len(NAMES)


def test_git_takes_no_page_of_images(tmp_path):
    shutil.copyfile(ROOT / ".gitignore", tmp_path / ".gitignore")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    folders = ("runs/a", "comparisons/a-vs-b", "submissions/0001-a", "explore")
    pages = [f"{folder}/{name}.html" for folder in folders for name in ("view", "view-2")]
    told = ["git", "-C", tmp_path, "check-ignore", *pages, "submissions/0001-a/manifest.json"]
    ignored = subprocess.run(told, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ignored == pages


def test_a_view_without_an_image_is_a_page_too(tmp_path):
    empty = pd.DataFrame(columns=["image_id", "x_min", "y_min", "x_max", "y_max", "label"])
    (page,) = write_view(tmp_path / "view.html", View("data", "Nothing", [], [], {}, empty, (), {}))
    assert read_block(page)["images"] == []


def test_thumbnails_are_small_grey_and_as_good_as_fits(tmp_path, monkeypatch):
    folder = tmp_path / "train"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (600, 900), dtype=np.uint8)).save(folder / "large.png")
    Image.fromarray(rng.integers(0, 256, (50, 40), dtype=np.uint8)).save(folder / "small.png")
    cache = open_cache(folder, tmp_path / ".cache", 1.0)
    images = [ViewedImage(cache, name, "p") for name in cache.facts]

    def made():
        return [base64.b64decode(text) for text in thumbnails.thumbnails(images, 2).values()]

    opened = [Image.open(io.BytesIO(jpeg)) for jpeg in made()]
    assert [(image.format, image.mode, image.size) for image in opened] == [
        ("JPEG", "L", (384, 256)), ("JPEG", "L", (40, 50)),
    ]  # fmt: skip
    assert thumbnails.thumbnail_size(900, 600) == fitted_size(900, 600, 384) == (384, 256)
    before = sum(map(len, made()))
    monkeypatch.setattr(thumbnails, "TOTAL_BYTES", before)  # the text is a third longer than the JPEGs
    assert sum(map(len, made())) < before


def test_an_address_never_begins_with_a_scheme(tmp_path):
    assert relative_address(tmp_path / "javascript:x.png", tmp_path) == "././javascript%3Ax.png"
