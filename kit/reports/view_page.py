"""The page of images as one HTML file: its data as one JSON block, its scripts inline, and nothing from outside.

Whatever came from a file is text in the JSON block, which the scripts write as text; the page's own policy lets
only these scripts run, by their hashes, and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kit.core.progress import Track, silent
from kit.reports.html import write_page
from kit.reports.thumbnails import thumbnail_size, thumbnails
from kit.reports.view_data import CAUSE_NAMES, ScoredPath, Side, View, ViewedImage, detection_rows, truth_rows

FORMAT = 1
SCRIPTS, STYLE = ("counts.js", "charts.js", "gallery.js"), "view.css"
MOST_IMAGES = 1_000  # of a page
MOST_BYTES = 38_000_000  # of a page's images as text; the rest of a page is far smaller than 2 MB
_PAIR = 2


def write_view(path: Path, view: View, track: Track = silent, most_images: int = MOST_IMAGES) -> tuple[Path, ...]:
    """Write the page, and further ones (``view-2.html`` ...) if there are too many images for one; their paths.

    The first page has the images that come first in the view's first order. Pages of an earlier call that are no
    longer needed are deleted.
    """
    names = _ordered(view)
    shown = {image.pixels.digests[image.image_id] for image in view.images.values()}
    thumbs = thumbnails(list(view.images.values()), min(len(shown), most_images), track)
    entries = _entries(view, path)
    pages = _pages(names, view, entries, thumbs, most_images)
    paths = [path if not number else path.with_name(f"{path.stem}-{number + 1}{path.suffix}")
             for number in range(len(pages))]  # fmt: skip
    for number, (page, of_page) in enumerate(zip(paths, pages, strict=True)):
        content = _content(view, of_page, entries, thumbs)
        content["pages"] = {"number": number, "files": [other.name for other in paths], "images": len(names)}
        write_page(page, "view.html", _template_values(view, content))
    for stale in path.parent.glob(f"{path.stem}-*{path.suffix}"):
        if stale not in paths and stale.stem.removeprefix(f"{path.stem}-").isdecimal():
            stale.unlink(missing_ok=True)
    return tuple(paths)


def block(content: Mapping[str, Any]) -> str:
    """JSON as the text of a script element: pure ASCII, without the signs that end an element or a comment."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _ordered(view: View) -> list[str]:
    """The images by the first order, falling, then by name; an image's copies follow it."""
    first = next(iter(view.orders.values()), {})
    by_value = sorted(view.images, key=lambda name: (-first.get(name, 0.0), name))
    together = dict.fromkeys(
        other for name in by_value for other in (name, *view.images[name].beside) if other in view.images
    )
    return list(together)


def _entries(view: View, path: Path) -> dict[str, dict[str, Any]]:
    """By image, its entry in the JSON block, but for its thumbnail's number."""
    truth = truth_rows(view.truth, view.labels)
    sides = [_side_rows(side, view) for side in view.sides]
    findings: dict[str, list[list[Any]]] = {name: [] for name in view.images}
    for number, finding in enumerate(view.findings):
        for name, note in finding.notes.items():
            findings[name].append([number, note])
    entries = {}
    for name, image in view.images.items():
        facts = image.pixels.facts[image.image_id]
        entries[name] = {
            "name": name,
            "file": relative_address(facts.path, path.parent),
            "size": [facts.width_px, facts.height_px],
            "patient": image.patient,
            "fold": image.fold,
            "truth": truth.get(name, []),
            "sides": [rows(name) for rows in sides],
            "orders": [_number(order.get(name)) for order in view.orders.values()],
            "findings": findings[name],
            "beside": list(image.beside),
        }
    return entries


def _side_rows(side: Side, view: View) -> Callable[[str], dict[str, Any]]:
    """A function from an image to what one side says of it."""
    one, many = (_path_rows(path, view) for path in (side.one, side.many))
    prior = set(side.prior)
    return lambda name: {
        "one": one(name), "many": many(name), "prior": name in prior, "right": side.right.get(name),
    }  # fmt: skip


def _path_rows(path: ScoredPath, view: View) -> Callable[[str], list[list[float]] | None]:
    # The truth of a path is that of its images: the whole of it, of each.
    truth = view.truth[view.truth["image_id"].isin(set(path.scored))].reset_index(drop=True)
    rows, scored = detection_rows(path, truth, view.labels), set(path.scored)
    return lambda name: rows.get(name, []) if name in scored else None


def relative_address(file: Path, folder: Path) -> str:
    """The address of a file in a page of that folder: a relative path in which every odd letter is quoted."""
    way = os.path.relpath(file.resolve().parent, folder.resolve())
    return f"./{quote(Path(way).as_posix())}/{quote(file.name, safe='')}"


def _pages(
    names: Sequence[str],
    view: View,
    entries: Mapping[str, Mapping[str, Any]],
    thumbs: Mapping[str, str],
    most_images: int,
) -> list[list[str]]:
    """The images of each page, in order: as many as fit."""
    pages: list[list[str]] = [[]]
    size = 0
    for name in names:
        image = view.images[name]
        letters = len(thumbs[image.pixels.digests[image.image_id]]) + len(block(entries[name]))
        if pages[-1] and (len(pages[-1]) >= most_images or size + letters > MOST_BYTES):
            pages.append([])
            size = 0
        pages[-1].append(name)
        size += letters
    return pages


def _content(
    view: View, names: Sequence[str], entries: Mapping[str, dict[str, Any]], thumbs: Mapping[str, str]
) -> dict[str, Any]:
    """The JSON block of a page."""
    number = {name: index for index, name in enumerate(names)}
    digests = [_digest(view.images[name]) for name in names]
    shared = {digest: index for index, digest in enumerate(dict.fromkeys(digests))}
    return {
        "format": FORMAT,
        "source": view.source,
        "title": view.title,
        "labels": list(view.labels),
        "causes": list(CAUSE_NAMES),
        "orders": list(view.orders),
        "sides": [
            {"name": side.name, "scores": {"one": side.one.scores, "many": side.many.scores}} for side in view.sides
        ],
        "findings": [
            {"check": finding.check, "level": finding.level, "text": finding.text} for finding in view.findings
        ],
        "thumbs": [thumbs[digest] for digest in shared],
        "images": [
            entries[name]
            | {
                "thumb": shared[digest],
                "thumbSize": list(thumbnail_size(*entries[name]["size"])),
                "beside": [number[other] for other in entries[name]["beside"] if other in number],
            }
            for name, digest in zip(names, digests, strict=True)
        ],
    }


def _template_values(view: View, content: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: _file(name) for name in (*SCRIPTS, STYLE)}
    return {
        "title": view.title,
        "lead": view.lead,
        "style": texts[STYLE],
        "style_hash": content_hash(texts[STYLE]),
        "scripts": [texts[name] for name in SCRIPTS],
        "script_hashes": [content_hash(texts[name]) for name in SCRIPTS],
        "block": block(content),
        "pages": content["pages"],
        "sides": view.sides,
        "twice": len(view.sides) == _PAIR,
    }


def content_hash(text: str) -> str:
    """The hash of an inline script or style, as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _file(name: str) -> str:
    return resources.files("kit.reports").joinpath("viewer", name).read_text(encoding="utf-8")


def _digest(image: ViewedImage) -> str:
    return image.pixels.digests[image.image_id]


def _number(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
