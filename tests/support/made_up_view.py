"""Pages of images for the tests: made-up runs with hostile names and labels, and the data that a page holds."""

import json
import re
import shutil

import numpy as np
import pandas as pd
from box_tables import random_case
from PIL import Image

from kit.data.pixel_cache import open_cache
from kit.evaluation.run_view import answered_right
from kit.metrics.average_precision import match
from kit.metrics.error_analysis import detection_causes
from kit.metrics.image_cost import image_costs
from kit.reports.view_data import COMPARISON, RUN, ImageFinding, ScoredPath, Side, View, ViewedImage, path_scores

HOSTILE_LABELS = (
    "</script><script>document.title='ran'</script>", "\" onerror='document.title=1'", "javascript:alert(1)",
    "line\u2028end\u2029 <!-- <script>", "plain",
)  # fmt: skip
HOSTILE_NAMES = (
    "javascript:alert(1).png", "\"><img src=x onerror=document.title='ran'>.png", "a b#c?d=100%&e'.png",
    "</script>\u2028.png".replace("/", "\u2215"), "../up.png".replace("/", "%2F"),
)  # fmt: skip
SIDE_PX = 48


def read_block(page):
    """The JSON block of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def images_in(folder, names):
    """Grey pictures, every one different, but the last two, which are equal."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in names[:-1]:
        Image.fromarray(rng.integers(0, 256, (SIDE_PX, SIDE_PX), dtype=np.uint8)).save(folder / name)
    shutil.copyfile(folder / names[-2], folder / names[-1])
    return open_cache(folder, folder.parent / ".cache", 1.0)


def case(seed, names):
    """Truth and detections with hostile labels on images of these names."""
    truth, found, plain = random_case(seed, classes=4, images=len(names), coarse=False)
    labels = {f"class {number}": label for number, label in enumerate(HOSTILE_LABELS)}
    tables = []
    for table in (truth, found):
        renamed = table.assign(
            image_id=table["image_id"].map(dict(zip(plain, names, strict=True))), label=table["label"].map(labels)
        )
        tables.append(renamed.reset_index(drop=True))
    truth, found = tables
    # Of three detections one has another class than it was drawn with, and one lies half its width aside.
    turn = dict(zip(HOSTILE_LABELS, (*HOSTILE_LABELS[1:], HOSTILE_LABELS[0]), strict=True))
    other, aside = found.index % 3 == 1, found.index % 3 == 2
    found["label"] = found["label"].where(~other, found["label"].map(turn))
    shift = (found["x_max"] - found["x_min"]) / 2 * aside
    found["x_min"], found["x_max"] = found["x_min"] + shift, found["x_max"] + shift
    return truth, found, labels


def side_of(name, truth, found, images):
    """A run's side: all detections, and the best of each image that has one true box."""
    counts = truth.groupby("image_id").size()
    of_one = set(counts.index[counts == 1])
    one_truth = truth[truth["image_id"].isin(of_one)].reset_index(drop=True)
    best = found.sort_values("score", ascending=False, kind="stable").drop_duplicates("image_id")
    best = best[best["image_id"].isin(of_one)].reset_index(drop=True)
    causes, one_causes = detection_causes(truth, found, images), detection_causes(one_truth, best, of_one)
    paths = []
    for table, on, of, why in ((one_truth, of_one, best, one_causes), (truth, images, found, causes)):
        matches = match(table, of, on)
        paths.append(ScoredPath(of, on, why, path_scores(matches, dict.fromkeys(matches.classes, (0.1, 0.9)))))
    return Side(name, *paths, set(sorted(of_one)[:1]), answered_right(best, one_causes, found, causes, truth))


def made_up_view(folder, names, seeds=(0,)):
    """A view of made-up runs, one for each seed, and the tables behind its first run."""
    cache = images_in(folder / "data" / "train", names)
    truth, found, labels = case(seeds[0], names)
    sides = [side_of(f"run {seed}", truth, case(seed, names)[1], names) for seed in seeds]
    images = {
        name: ViewedImage(cache, name, f"patient {number // 2}", number % 3) for number, name in enumerate(names)
    }
    orders = {"cost, all candidates": image_costs(match(truth, found, names))}
    findings = [ImageFinding("odd <check>", "warning", "text & <b>", {names[0]: "note </script>", names[1]: ""})]
    view = View(
        RUN if len(seeds) == 1 else COMPARISON, f"Run {HOSTILE_LABELS[0]}", [HOSTILE_LABELS[1]],
        sorted(labels.values()), images, truth, sides, orders, findings,
    )  # fmt: skip
    return view, truth, pd.DataFrame(found)


NAMES = tuple(sorted({*HOSTILE_NAMES, *(f"{number:08d}_{number % 3:03d}.png" for number in range(15))}))
