"""The page of images in a real Chromium: its counts are Python's, its keys and links work, nothing leaves it."""

import json
import urllib.parse
from dataclasses import replace

import numpy as np
import pytest
from chromium import Watched, browser, needs_chromium
from made_up_view import HOSTILE_NAMES, NAMES, made_up_view
from toy import copied

from kit.evaluation.run_view import view_run
from kit.metrics.error_analysis import CAUSES, RIGHT, analyse_errors, detection_causes
from kit.reports.view_data import SUBMISSION
from kit.reports.view_page import write_view
from kit.runs.folder import Run

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view")
    view, truth, found = made_up_view(folder, NAMES)
    (path,) = write_view(folder / "runs" / "a" / "view.html", view)
    return path, view, truth, found


@pytest.fixture
def watched(chromium, made):
    window = Watched(chromium, made[0])
    yield window
    window.require_quiet()
    window.close()


def matrix_of(truth, found, labels):
    """The confusion matrix and the images of each of its cells, from the tables."""
    causes = detection_causes(truth, found, NAMES)
    number = {label: index for index, label in enumerate(labels)}
    cells, images = np.zeros((len(labels) + 1,) * 2, dtype=int), {}
    taken = set()

    def add(row, column, image):
        cells[row, column] += 1
        images.setdefault((row, column), set()).add(image)

    for image, label, cause, box in zip(
        found["image_id"], found["label"], causes.cause, causes.true_box, strict=True
    ):
        on_box = cause in (RIGHT, "wrong class")
        add(number[truth["label"][box]] if on_box else len(labels), number[label], image)
        taken |= {box} if on_box else set()
    for box, (image, label) in enumerate(zip(truth["image_id"], truth["label"], strict=True)):
        if box not in taken:
            add(number[label], len(labels), image)
    return cells, images


def test_the_made_up_run_has_boxes_that_only_a_wrong_class_or_a_wrong_place_is_near(made):
    _, _, truth, found = made
    kept = found[found["score"] >= 0.57].reset_index(drop=True)
    causes = detection_causes(truth, kept, NAMES)
    right, other, aside = (set(causes.true_box[causes.cause == cause]) for cause in (RIGHT, *CAUSES[:2]))
    assert other - right - aside
    assert aside - right - other
    assert set(range(len(truth))) - right - other - aside


def shown_matrix(window):
    cells = window.page.eval_on_selector_all(
        ".cell", "cells => cells.map(cell => [cell.dataset.row, cell.dataset.column, cell.textContent])"
    )
    return {(int(row), int(column)): int(count.replace(",", "")) for row, column, count in cells}


def shown_causes(window):
    values = window.page.eval_on_selector_all(
        "section[aria-label='Causes of loss'] .value", "spans => spans.map(span => span.textContent)"
    )
    return [int(value.replace(",", "")) for value in values]


@pytest.mark.parametrize("step", [0, 29, 57, 100])
def test_counts_at_a_step_of_the_slider_are_those_of_python_at_that_threshold(step, watched, made):
    _, view, truth, found = made
    watched.slide(step)
    kept = found[found["score"] >= step / 100].reset_index(drop=True)
    analysed = analyse_errors(truth, kept, NAMES)
    expected = [analysed.found, *(analysed.causes[cause].count for cause in CAUSES)]
    assert shown_causes(watched) == expected
    cells, _ = matrix_of(truth, kept, view.labels)
    shown = shown_matrix(watched)
    assert len(shown) == cells.size - 1
    assert all(cells[cell] == count for cell, count in shown.items())
    bins, _ = np.histogram(kept["score"], np.arange(21) / 20)
    titles = watched.page.eval_on_selector_all(".column", "bars => bars.map(bar => bar.title.split(': ')[1])")
    assert [int(title.replace(",", "")) for title in titles] == bins.tolist()
    assert watched.count() == len(NAMES)


def test_clicking_a_cell_shows_exactly_its_images_and_a_second_click_all(watched, made):
    _, view, truth, found = made
    cells, images = matrix_of(truth, found, view.labels)
    for row, column in list(zip(*np.nonzero(cells), strict=True))[::4]:
        cell = f".cell[data-row='{row}'][data-column='{column}']"
        watched.page.click(cell)
        assert set(watched.shown()) == images[row, column]
        assert watched.count() == len(images[row, column])
        assert watched.page.get_attribute(cell, "aria-pressed") == "true"
        watched.page.click(cell)
        assert watched.count() == len(NAMES)


def test_bars_of_causes_and_confidences_show_their_images(watched, made):
    _, _, truth, found = made
    causes = detection_causes(truth, found, NAMES)
    watched.page.click("button.row:has-text('wrong place')")
    assert set(watched.shown()) == set(found["image_id"][causes.cause == "wrong place"])
    watched.page.click(".column:nth-child(10)")
    low = found[(found["score"] >= 9 / 20) & (found["score"] < 10 / 20)]
    assert set(watched.shown()) == set(low["image_id"])


def test_filters_combine_and_look_for_one_box_that_fits_all(watched, made):
    _, view, truth, found = made
    causes = detection_causes(truth, found, NAMES)
    label = view.labels[-1]
    watched.page.select_option("#control-answered", str(len(view.labels) - 1))
    watched.choose("cause", "wrong class")
    fitting = (found["label"] == label) & (causes.cause == "wrong class")
    assert set(watched.shown()) == set(found["image_id"][fitting])
    watched.choose("fold", "1")
    assert set(watched.shown()) == {name for name in found["image_id"][fitting] if view.images[name].fold == 1}
    watched.page.click("#reset")
    watched.page.select_option("#control-truth", "0")
    assert set(watched.shown()) == set(truth["image_id"][truth["label"] == view.labels[0]])
    watched.page.click("#reset")
    watched.choose("boxes", "0")
    assert set(watched.shown()) == set(NAMES) - set(truth["image_id"])
    watched.page.click("#reset")
    watched.choose("patient", "patient 2")
    assert set(watched.shown()) == {name for name in NAMES if view.images[name].patient == "patient 2"}
    watched.page.click("#reset")
    watched.choose("right", "yes")
    assert set(watched.shown()) == {name for name, right in view.sides[0].right.items() if right}
    watched.page.click("#reset")
    watched.choose("finding", "odd <check>")
    assert set(watched.shown()) == set(NAMES[:2])


def test_sorting_follows_the_orders_and_the_name(watched, made):
    _, view, _, _ = made
    cost = view.orders["cost, all candidates"]
    assert watched.shown() == sorted(NAMES, key=lambda name: (-round(cost[name], 6), name))
    watched.choose("order", "name")
    assert watched.shown() == sorted(NAMES)
    watched.page.check("#control-reverse")
    assert watched.shown() == sorted(NAMES, reverse=True)


def test_keys_move_open_close_slide_and_hide(watched):
    press = watched.page.keyboard.press
    names = watched.shown()

    def focused():
        return watched.page.evaluate("document.activeElement.closest('.card')?.dataset.name")

    for key, index in (("j", 0), ("j", 1), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0)):
        press(key)
        assert focused() == names[index], key
    press("Enter")
    assert watched.page.is_visible("#large")
    assert watched.page.text_content("#large-name") == names[0]
    press("ArrowRight")
    assert watched.page.text_content("#large-name") == names[1]
    press("Escape")
    assert not watched.page.is_visible("#large")
    focus = "name => document.activeElement.closest('.card')?.dataset.name === name"
    watched.page.wait_for_function(focus, arg=names[1])  # a dialog says later that it was closed
    press("+")
    press("+")
    press("-")
    assert watched.page.text_content("#slider-value") == "0.05"
    assert watched.page.is_visible(".marks >> nth=0")
    press("b")
    assert watched.page.locator(".marks").count() > 0
    assert not watched.page.is_visible(".marks >> nth=0")
    press("b")
    press("i")
    assert watched.page.evaluate("getComputedStyle(document.querySelector('.card img')).filter").endswith(
        "invert(1)"
    )
    press("?")
    assert watched.page.is_visible("#help")
    press("Escape")
    press("/")
    watched.page.keyboard.type("j+b0000")  # in a field, letters are letters
    assert watched.page.input_value("#control-text") == "j+b0000"
    assert watched.count() == 0
    watched.page.fill("#control-text", "00000")
    assert watched.count() == sum("00000" in name for name in names)
    press("Escape")
    assert watched.page.evaluate("document.activeElement === document.body")


def test_pictures_near_the_window_are_drawn_with_the_change_not_a_frame_later(chromium, made):
    window = Watched(chromium, made[0], viewport={"width": 390, "height": 300})
    drawn = """() => {
        change({invert: !state.invert});
        return [...document.querySelectorAll(".card")].map((card) => {
            const {top, bottom} = card.getBoundingClientRect();
            return [top < innerHeight && bottom > 0, card.querySelector("img") !== null];
        });
    }"""
    for last in (False, True):
        window.page.evaluate("last => [...document.querySelectorAll('.card')].at(-last).scrollIntoView()", last)
        cards = window.page.evaluate(drawn)
        assert any(near for near, _ in cards)
        assert all(picture for near, picture in cards if near)
        assert not all(picture for _, picture in cards)
    window.require_quiet()
    window.close()


def test_the_focus_stays_on_its_image_and_a_slider_takes_only_the_keys_that_it_needs(watched):
    press = watched.page.keyboard.press
    names = watched.shown()

    def focused():
        return watched.page.evaluate("document.activeElement.closest('.card')?.dataset.name")

    press("ArrowRight")  # nothing had the focus
    press("j")
    for key in ("b", "b", "i", "i"):
        press(key)
        assert focused() == names[1], key
    press("j")
    assert focused() == names[2]
    watched.page.focus("#control-slider")
    press("ArrowRight")
    assert watched.page.text_content("#slider-value") == "0.01"
    press("+")
    assert watched.page.text_content("#slider-value") == "0.06"
    press("b")
    assert not watched.page.is_checked("#control-marks")
    assert watched.page.evaluate("document.activeElement.id") == "control-slider"


def test_a_page_in_the_dark_prints_dark_letters_on_white(chromium, made):
    window = Watched(chromium, made[0], color_scheme="dark")
    window.page.emulate_media(media="print")
    colours = "one => [getComputedStyle(one).color, getComputedStyle(one).backgroundColor]"
    assert window.page.eval_on_selector(":root", colours) == ["rgb(38, 43, 51)", "rgb(255, 255, 255)"]
    assert window.page.eval_on_selector(".card", colours)[1] == "rgb(255, 255, 255)"
    window.require_quiet()
    window.close()


def test_a_link_opens_the_same_state(chromium, made, watched):
    watched.page.select_option("#control-answered", "0")
    watched.slide(20)
    watched.choose("order", "name")
    name = watched.shown()[1]
    watched.page.click(".card >> nth=1 >> .open")
    address = urllib.parse.urlsplit(watched.page.url).fragment
    again = Watched(chromium, made[0], f"#{address}")
    assert again.shown() == watched.shown()
    assert again.page.text_content("#large-name") == name
    assert again.page.text_content("#slider-value") == "0.20"
    assert again.page.url == watched.page.url
    again.page.evaluate("location.hash = '#slider=abc&order=99&side=7&open=nothing&path=x&cause=1'")
    again.page.wait_for_function("state.cause === '1'")
    assert not again.page.is_visible("#large")
    again.require_quiet()
    again.close()


def test_hostile_names_and_labels_are_text_and_links_lead_to_the_files(watched, made):
    path, view, _, _ = made
    assert watched.page.title() == view.title
    assert watched.page.text_content("h1") == view.title
    assert watched.page.locator("main img[src='x']").count() == 0
    for name in HOSTILE_NAMES:
        watched.page.evaluate("name => change({open: name})", name)
        assert watched.page.text_content("#large-name") == name
        link = watched.page.evaluate("document.getElementById('large-file').href")
        assert link == (path.parents[2] / "data" / "train" / name).as_uri()
    watched.page.keyboard.press("Escape")
    texts = watched.page.eval_on_selector_all(
        "#control-truth option", "options => options.map(one => one.textContent)"
    )
    assert texts == ["any", *view.labels, "no true box"]


def test_every_picture_has_words_and_every_control_a_name(watched):
    watched.page.evaluate("document.querySelectorAll('.card').forEach(fill)")
    assert watched.page.locator(".card img").count() == len(NAMES)
    assert watched.page.eval_on_selector_all("img", "images => images.every(image => image.alt.length > 10)")
    nameless = """elements => elements.filter(one => !(one.labels && one.labels.length)
        && !one.getAttribute('aria-label') && !one.textContent.trim()).length"""
    assert watched.page.eval_on_selector_all("input, select, button, a", nameless) == 0


@pytest.mark.parametrize("options", [{"viewport": {"width": 390, "height": 844}}, {"color_scheme": "dark"}])
def test_a_phone_and_the_dark_need_no_sideways_scrolling(options, chromium, made):
    window = Watched(chromium, made[0], "#slider=10", **options)
    width = window.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    back = window.page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor")
    assert (back == "rgb(20, 23, 28)") == ("color_scheme" in options)
    window.require_quiet()
    window.close()


def test_the_page_asks_for_nothing_even_if_a_script_slips_in(chromium, made, tmp_path):
    text = made[0].read_text(encoding="utf-8")
    slipped = tmp_path / "slipped.html"
    run = "document.title='ran'"
    evil = f"<script>{run}</script><img src='https://example.org/x.png' onerror=\"{run}\">"
    slipped.write_text(text.replace("<main>", f"<main>{evil}"), encoding="utf-8")
    window = Watched(chromium, slipped)
    assert window.page.title() == made[1].title
    assert window.count() == len(NAMES)
    assert len(window.faults) >= 2  # the policy says what it refused
    window.close()


def test_a_page_offers_no_filter_of_candidates_or_priors_that_it_has_not(chromium, made, tmp_path):
    view = made[1]
    (side,) = view.sides
    many = replace(side.many, detections=side.many.detections[:0], causes=None, scores={})
    sent = replace(side, one=replace(side.one, causes=None, scores={}), many=many, prior=(), right={})
    bare = replace(view, source=SUBMISSION, truth=view.truth[:0], sides=(sent,))
    for number, (page, offered) in enumerate(((view, True), (bare, False))):
        (path,) = write_view(tmp_path / str(number) / "view.html", page)
        window = Watched(chromium, path)
        assert window.count() == len(NAMES)
        for key in ("path", "prior"):
            assert window.page.locator(f"#control-{key}").count() == offered, key
        window.require_quiet()
        window.close()


def test_two_runs_stand_side_by_side_with_filters_of_who_is_right(chromium, tmp_path):
    view, _, _ = made_up_view(tmp_path, NAMES, seeds=(0, 1))
    (path,) = write_view(tmp_path / "c" / "view.html", view)
    window = Watched(chromium, path)
    first, second = (side.right for side in view.sides)
    window.choose("right", "only run 0")
    assert set(window.shown()) == {name for name in first if first[name] and not second[name]}
    window.choose("right", "only run 1")
    assert set(window.shown()) == {name for name in first if second[name] and not first[name]}
    window.page.click("#reset")
    window.page.evaluate("document.querySelectorAll('.card').forEach(fill)")
    assert window.page.locator(".card img").count() == 2 * len(NAMES)
    window.choose("side", "run 1")
    causes = detection_causes(view.truth, view.sides[1].many.detections, NAMES)
    assert shown_causes(window)[0] == (causes.cause == RIGHT).sum()
    window.require_quiet()
    window.close()


def test_a_runs_counts_on_screen_are_those_of_its_report(chromium, evaluated_source, tmp_path):
    run = Run(copied(evaluated_source, tmp_path / "toy"), "demo")
    (path,) = view_run(run)
    report = json.loads(run.report.read_text())
    window = Watched(chromium, path)
    assert window.count() == report["images"]["validation"]
    for kind, losses in (("many", report["losses"]["many_box"]), ("one", report["losses"]["one_box"])):
        window.page.select_option("#control-path", kind)
        counts = [losses["found"], *(losses["causes"][cause]["count"] for cause in CAUSES)]
        assert shown_causes(window) == counts
        note = window.page.text_content("section[aria-label='Average precision'] .note")
        assert note.startswith(f"mAP@0.5 {losses['map50']:.3f} at threshold 0.00")
    window.require_quiet()
    window.close()
