"""The words and tables of both reports, each as one HTML file without script or outside reference.

Every text that came from a file is escaped, and the page's own policy forbids whatever might slip through.
"""

from __future__ import annotations

import base64
import html
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kit.files import write_text

_HASH_SHOWN = 12
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color: #262b33; background: #f6f7f9; font: 16px/1.55 system-ui, sans-serif }
body { margin: 0 }
main { max-width: 1040px; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 0 0 .4rem }
p { max-width: 72ch; margin: 0 0 1rem; color: #4a515c; overflow-wrap: anywhere }
section { background: #fff; border: 1px solid #e3e6ea; border-radius: 10px; padding: 1.2rem 1.4rem;
  margin: 1.2rem 0 }
figure { margin: 0 0 1rem; overflow-x: auto }
img { display: block; width: 100%; max-width: 1008px; min-width: 620px; height: auto }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; margin: 1.2rem 0 }
.cards div { background: #fff; border: 1px solid #e3e6ea; border-radius: 10px; padding: .8rem 1rem; color: #4a515c;
  font-size: .9rem }
.cards b { display: block; font-size: 1.6rem; line-height: 1.3; color: #262b33; font-variant-numeric: tabular-nums }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #edeff2; vertical-align: top;
  min-width: 7.5em; max-width: 22rem; overflow-wrap: anywhere }
th { overflow-wrap: normal; font-weight: 600; color: #4a515c; vertical-align: bottom }
.n { text-align: right; white-space: nowrap; padding: .3rem .9rem; min-width: 0 }
th.n { white-space: normal }
@media (max-width: 600px) { main { padding: 1rem .6rem } section { padding: 1rem .8rem } }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: what it shows, how to read it, then its figures and its table."""

    title: str
    text: str
    figures: Sequence[Path] = ()
    table: pd.DataFrame | None = None


def dataset_page(path: Path, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Path]) -> Path:
    """Write the page of the report on the data and return its path."""
    counts = tables["counts"].set_index("what")["count"]
    headline = {name: _cell(counts[name]) for name in ("training images", "boxes", "test images", "test IDs")}
    sections = [
        Section(
            "Counts",
            "Patients matter more than images: two images of one patient resemble each other, so a patient must "
            "stand on one side of a split only. The last rows say how much of the test set shows patients who "
            "are also in the training set.",
            table=tables["counts"],
        ),
        Section("Image sizes", "In pixels, as the files are.", table=tables["image sizes"]),
        Section(
            "Classes",
            "The score is the mean over the classes, so a rare class counts as much as a common one.",
            [figures["classes"]],
            tables["classes"],
        ),
        Section(
            "Boxes per image",
            "Training images may carry several boxes; a submission has one box per ID.",
            [figures["boxes-per-image"]],
            tables["boxes per image"],
        ),
        Section(
            "Box size",
            "Every tick is a box. The bar spans the middle half of the boxes, the circle is the median.",
            [figures["box-size"]],
        ),
        Section(
            "Box position",
            "Dots are box centres; the darker a place, the larger the share of the class's boxes that cover it. "
            "A class whose boxes all cover one place can be guessed without looking: that is the location prior. "
            "The table gives mean and standard deviation as shares of the image's width and height.",
            [figures["box-position"]],
            tables["box size and position"],
        ),
        Section(
            "Classes that occur together",
            "Images that show both classes; in grey on the diagonal, images that show the class at all.",
            [figures["co-occurrence"]],
        ),
        Section(
            "Samples",
            "Up to two random training images per class, drawn by the seed, with all their boxes.",
            [figures["samples"]],
        ),
    ]
    return write_page(path, "The data", "What the training and test tables hold, and where the boxes lie.",
                  headline, sections)  # fmt: skip


def run_page(path: Path, report: Mapping[str, Any], figures: Mapping[str, Path]) -> Path:
    """Write the page of an evaluated run from the content of its ``report.json`` and return its path."""
    images, weights, fusion = report["images"], report["weights"], report["fusion"]
    many, one = report["many_box"], report["one_box"]
    hashes = ", ".join(f"{name} {digest[:_HASH_SHOWN]}…" for name, digest in weights["sha256"].items())
    several = f"{images['folds']} folds, each " if images["folds"] > 1 else ""
    trained = f" {several}trained on {images['training']:,} images;" if images["training"] is not None else ""
    lead = (
        f"Kit {report['kit_version']}. Weights: {weights['kept']}, SHA-256 {hashes};{trained} validated on "
        f"{images['validation']:,} with {images['boxes']:,} boxes. Views: {_looks(report['members'])}, "
        f"fused by {fusion['method']} at IoU {fusion['iou']}."
    )
    headline = {
        "one-box mAP@0.5": _cell(one["map50"]),
        "the prior's floor": _cell(one["prior_map50"]),
        "many-box mAP@0.5": _cell(many["map50"]),
        "images for one-box": _cell(one["images"]),
    }
    sections = [
        Section(
            "Scores",
            "One-box takes the submission's own path: one box per image, on the validation images that have "
            "exactly one true box, as every test image has. Compare it with the public score. Many-box scores "
            "every stored box on all validation images and says how good the detector is, whatever is chosen "
            "from it. The prior's floor is what one fixed box for all images scores, without looking at any; a "
            f"model at that level has learned nothing. {one['fallbacks']:,} of the one-box answers fell back to "
            "the prior's box because nothing was found. The three variants read the same precision-recall curve "
            "at 101 points (COCO), as an area, and at 11 points (VOC). Only scores on equally many images can be "
            "compared, and on about a hundred images a difference below .04 proves nothing. Each image is judged "
            f"by weights that saw no image of its patient. {_shared_patients(images)}",
            table=_score_table(many, one),
        ),
        Section(
            "Classes",
            "The mean over these classes is the score. A class without a true box has no average precision and "
            "drops out of the mean; with few boxes it is mostly chance.",
            [figures["per-class"]],
            _class_table(report["per_class"]),
        ),
        Section(
            "Precision and recall",
            "Walking down the scores from the left: how many of the true boxes were found (recall), and how "
            "many of the boxes given so far are right (precision). A curve that ends early never finds the rest.",
            [figures["precision-recall"]],
        ),
        Section(
            "Threshold",
            "What the scores would be if only detections of at least this score were kept, from the stored "
            "detections. Many-box can only fall. One-box changes where a real box gives way to the prior's.",
            [figures["threshold"]],
            _threshold_table(report["threshold"]),
        ),
        Section(
            "Confidences",
            "Above, the score of every candidate; below, the confidence of the answers that were chosen among "
            "them. The upper counts grow tenfold from line to line.",
            [figures["confidences"]],
        ),
        Section(
            "Detections per image",
            "Many faint boxes are harmless: ranked low, they cost nothing.",
            [figures["detections-per-image"]],
        ),
        *_training_sections(report, figures),
        Section(
            "Random validation images",
            "Truth in green; predictions in red, the answer in a thick line with its confidence, the best other "
            "candidates in thin lines with their scores. The seed draws the images.",
            [figures["grid"]],
        ),
        Section(
            "Truth beside predictions",
            "Left the truth, right what was predicted, in the same colours and lines.",
            [place for name, place in figures.items() if name.startswith("image-")],
        ),
    ]
    return write_page(path, f"Run {report['run']}", lead, headline, sections)


def write_page(path: Path, title: str, lead: str, headline: Mapping[str, str], sections: Sequence[Section]) -> Path:
    """Write one self-contained page: title, a lead, numbers in large, then the sections; returns ``path``."""
    cards = "".join(f"<div><b>{_text(value)}</b>{_text(name)}</div>" for name, value in headline.items())
    body = "".join(map(_section, sections))
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body><main>"
        f'<h1>{_text(title)}</h1><p class="lead">{_text(lead)}</p><div class="cards">{cards}</div>'
        f"{body}</main></body></html>\n",
    )
    return path


def _looks(members: Sequence[Mapping[str, Any]]) -> str:
    if len(members) == 1:
        return ", ".join(members[0]["views"])
    return "; ".join(f"{one['run']} ({', '.join(one['views'])}; weight {one['weight']:g})" for one in members)


def _shared_patients(images: Mapping[str, Any]) -> str:
    share = images["test_patients_in_train_share"]
    if share is None:
        return "There are no test images here."
    return (
        f"Of the test images {share:.0%} show a patient who is also in train; there the public score may be higher."
    )


def _training_sections(report: Mapping[str, Any], figures: Mapping[str, Path]) -> list[Section]:
    """How the run was trained; nothing where it was not: an ensemble, adopted detections."""
    if not report["training"]:
        return []
    return [
        Section(
            "Training",
            "The mAP in the loop only picks the epoch whose weights are kept (dashed line): it is measured "
            "without the test-time views and without the choice of one box. Quote the scores above. The epoch was "
            "chosen on the images that are scored, and no interval covers that choice: the range of the last ten "
            "epochs says how much of it may be luck.",
            [place for name, place in figures.items() if name.startswith("history")],
            _training_table(report["training"]),
        ),
    ]


def _training_table(folds: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    columns = {
        "fold": list(range(len(folds))),
        "chosen epoch": [part["epoch"] for part in folds],
        "epochs": [part["epochs"] for part in folds],
        "in-loop mAP@0.5, chosen": [part["chosen_map50"] for part in folds],
        "last epoch": [part["last_map50"] for part in folds],
        "lowest of the last ten": [part["last_ten_low"] for part in folds],
        "highest of the last ten": [part["last_ten_high"] for part in folds],
    }
    return pd.DataFrame(columns)


def _score_table(many: Mapping[str, Any], one: Mapping[str, Any]) -> pd.DataFrame:
    names = {
        "map50": "mAP@0.5, 101 points",
        "map50_area": "mAP@0.5, area",
        "map50_11": "mAP@0.5, 11 points",
        "map50_95": "mAP@[.5:.95]",
        "prior_map50": "the prior's mAP@0.5",
        "images": "images",
        "boxes": "true boxes",
        "fallbacks": "answers by the prior",
    }
    rows = [(text, one.get(key), many.get(key)) for key, text in names.items()]
    return pd.DataFrame(rows, columns=["score", "one box", "many boxes"], dtype=object)


def _class_table(per_class: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    names = {
        "one_box_ap50": "one-box AP@0.5",
        "ap50": "many-box AP@0.5",
        "ap50_area": "area",
        "ap50_11": "11 points",
        "boxes": "true boxes",
        "detections": "detections",
    }
    rows = [(label, *(scores[key] for key in names)) for label, scores in per_class.items()]
    return pd.DataFrame(rows, columns=["class", *names.values()], dtype=object)


def _threshold_table(threshold: Mapping[str, Any]) -> pd.DataFrame:
    said = {threshold["best"]: "best", threshold["applied"]: "applied"}
    if threshold["best"] == threshold["applied"]:
        said = {threshold["best"]: "best, applied"}
    rows = [
        (f"{point['threshold']:.2f}", point["one_box_map50"], point["map50"], said.get(point["threshold"], ""))
        for point in threshold["curve"]
    ]
    return pd.DataFrame(rows, columns=["threshold", "one box", "many boxes", "note"], dtype=object)


def _section(section: Section) -> str:
    pictures = "".join(
        f'<figure><img alt="{_text(section.title)}" src="data:image/png;base64,{_base64(figure)}"></figure>\n'
        for figure in section.figures
    )
    table = "" if section.table is None else _table(section.table)
    return f"<section><h2>{_text(section.title)}</h2><p>{_text(section.text)}</p>\n{pictures}{table}</section>\n"


def _table(table: pd.DataFrame) -> str:
    """Numbers stand right; a column is one of numbers if all its cells are (missing ones left out)."""
    numeric = {name: all(isinstance(value, numbers.Number) for value in table[name].dropna()) for name in table}
    sides = [' class="n"' if numeric[name] else "" for name in table]
    head = "".join(f"<th{side}>{_text(str(name))}</th>" for side, name in zip(sides, table, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{side}>{_text(_cell(value))}</td>" for side, value in zip(sides, row, strict=True))
        + "</tr>\n"
        for row in table.itertuples(index=False, name=None)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>'


def _cell(value: Any) -> str:
    """Whole numbers with thousands, others with three decimals, a dash for what is missing."""
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if value is None or (isinstance(value, numbers.Real) and not math.isfinite(value)):
        return "–"
    return f"{value:.3f}" if isinstance(value, numbers.Real) else str(value)


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
