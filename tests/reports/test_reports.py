"""Both reports: what they count, what they draw, and that nothing from a file ever becomes markup."""

import html
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from command_line import PATIENCE_SECONDS
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from PIL import Image
from report_json import class_scores, report_content

from kit.boxes.geometry import CORNERS
from kit.core.json_files import write_json
from kit.data import statistics
from kit.data.audit import Finding
from kit.reports import dataset_charts, dataset_report, figures, pictures, run_charts, run_report
from kit.reports.audit_page import write_audit_page
from kit.reports.figures import PREDICTION, TRUTH, Mark
from kit.reports.html import write_page
from kit.reports.report_file import read_report
from kit.schemas.image_headers import ImageFacts

SCRIPT = "<script>document.title='ran'</script>"
DOLLARS = r"$\frac{$ & \"quoted\" 'label' of considerable length " + "x" * 200
LABELS = (SCRIPT, DOLLARS, "Mass")
CARDS = ("training images", "boxes", "test images", "test IDs")
PNG_START = b"\x89PNG\r\n\x1a\n"


def boxes_table(rows, *more):
    return pd.DataFrame(rows, columns=["image_id", *CORNERS, *more, "label"])


def images_in(folder, count, size=(60, 40)):
    """``count`` grey images of different exposure, the patient being every second one."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {}
    for number in range(count):
        path = folder / f"{number // 2:08d}_{number % 2:03d}.png"
        Image.new("L", size, 40 + 20 * number).save(path)
        facts[path.name] = ImageFacts(path, *size)
    return facts


def patients_of(*images):
    return {image_id: image_id[:8] for facts in images for image_id in facts}


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return images_in(tmp_path_factory.mktemp("train"), 6)


@pytest.fixture(scope="module")
def test(tmp_path_factory):
    return images_in(tmp_path_factory.mktemp("test"), 2, size=(30, 50))


def annotations_on(images):
    """One box on each image, the labels in turn; the first image has a second box."""
    rows = [(name, 6, 4, 30, 24, LABELS[place % 3]) for place, name in enumerate(images)]
    return boxes_table([*rows, (next(iter(images)), 30, 20, 60, 40, LABELS[1])])


def mapping_on(images):
    return pd.DataFrame({"ID": range(len(images)), "image_id": list(images)})


def describe(annotations, train, test, folder, seed=1):
    return dataset_report.dataset_report(
        annotations, mapping_on(test), train, test, patients_of(train, test), folder, seed
    )


@pytest.fixture(scope="module")
def described(train, test, tmp_path_factory):
    return describe(annotations_on(train), train, test, tmp_path_factory.mktemp("described"))


def report_with(folder, per_class, curve):
    """A report as it is read from its file."""
    content = report_content(per_class, curve, name=SCRIPT)
    write_json(folder / "report.json", content)
    return read_report(folder / "report.json")


def history_table(rows):
    columns = ["epoch", "step", "learning_rate", "train_loss", "map50", "map50_95", "seconds", "boxes_lost"]
    return pd.DataFrame(rows, columns=columns)


NO_BOXES = boxes_table([])
NO_CANDIDATES = boxes_table([], "score")
NO_ANSWERS = pd.DataFrame([], columns=["ID", "image_id", *CORNERS, "confidence", "label"])


@pytest.fixture(scope="module")
def reported(train, tmp_path_factory):
    truth = annotations_on(train)
    candidates = truth.assign(score=np.linspace(0.1, 0.9, len(truth)))
    answers = candidates.drop_duplicates("image_id").rename(columns={"score": "confidence"})
    answers.insert(0, "ID", range(len(answers)))
    history = history_table([(0, 3, 1e-3, 2.0, np.nan, np.nan, 1.0, 0), (1, 6, 1e-4, 1.0, 0.2, 0.1, 1.0, 1)])
    curve = [{"threshold": at, "map50": 0.25, "one_box_map50": None} for at in (0.0, 0.2, 0.4)]
    folder = tmp_path_factory.mktemp("reported")
    report = report_with(folder, {label: class_scores(0.5) for label in LABELS}, curve)
    return run_report.run_report(report, truth, candidates, answers, [history], train, folder, 1)


def markup(page):
    """The page without its pictures' bytes, each run of blanks as one."""
    return " ".join(re.sub(r"base64,[^\"]*", "base64,", page.read_text(encoding="utf-8")).split())


def assert_png(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == round(figures.WIDTH_IN * 140)
        assert 100 < image.height < 20_000


def test_data_without_a_box_still_make_a_report(train, test, tmp_path):
    found = describe(NO_BOXES, train, test, tmp_path)
    assert len(found.tables["classes"]) == 0
    assert found.tables["boxes per image"].to_numpy().tolist() == [[0, len(train)]]
    for path in found.figures:
        assert_png(path)
    assert found.page.is_file()


def test_a_report_of_an_earlier_version_lacks_what_was_not_measured_then(tmp_path):
    content = report_content({"Mass": class_scores(0.5)}, [])
    for key in ("ceiling", "devices", "places", "box_scale"):
        del content[key]
    write_json(tmp_path / "report.json", content)
    report = read_report(tmp_path / "report.json")
    assert (report.ceiling, report.devices, report.places, report.box_scale) == (None, {}, {}, None)
    figures.save(run_charts.ceiling(report.ceiling), tmp_path / "ceiling.png")
    assert_png(tmp_path / "ceiling.png")


@pytest.mark.parametrize("images", [0, 1])
def test_a_run_without_truth_detections_or_history_still_makes_a_report(images, train, tmp_path):
    shown = dict(list(train.items())[:images])
    report = report_with(tmp_path, {"Mass": class_scores(None)}, [])
    found = run_report.run_report(
        report, NO_BOXES, NO_CANDIDATES, NO_ANSWERS, [history_table([])], shown, tmp_path, 1
    )
    # Nine charts, the grid, and a pair for each image.
    assert len(found.figures) == 9 + 1 + images
    for path in found.figures:
        assert_png(path)
    assert found.page.is_file()


def test_the_counts_are_those_of_the_tables(described):
    counts = described.tables["counts"].set_index("what")["count"].to_dict()
    # Six training images are three patients; the two test images are both of the first of them.
    assert counts == {
        "training images": 6,
        "boxes": 7,
        "training images without a box": 0,
        "training patients": 3,
        "test images": 2,
        "test IDs": 2,
        "test IDs that share their image": 0,
        "test patients": 1,
        "test patients who are also in training": 1,
        "test images of these patients": 2,
    }
    sizes = described.tables["image sizes"].to_numpy().tolist()
    assert sorted(sizes) == [["test", 30, 50, 2], ["training", 60, 40, 6]]


def test_classes_come_by_falling_number_of_boxes(described):
    classes = described.tables["classes"]
    assert classes["label"].tolist() == [DOLLARS, SCRIPT, "Mass"]
    assert classes["boxes"].tolist() == [3, 2, 2]
    assert classes["share"].tolist() == [3 / 7, 2 / 7, 2 / 7]
    assert described.tables["boxes per image"].to_numpy().tolist() == [[1, 5], [2, 1]]


def test_two_ids_of_one_image_are_counted(train, test):
    mapping = pd.DataFrame({"ID": [0, 1, 2], "image_id": [*test, next(iter(test))]})
    tables = statistics.dataset_tables(NO_BOXES, mapping, train, test, patients_of(train, test))
    assert tables["counts"].set_index("what")["count"]["test IDs that share their image"] == 2


def test_box_shares_are_those_of_the_own_image(tmp_path):
    images = {"wide.png": ImageFacts(tmp_path, 200, 100), "high.png": ImageFacts(tmp_path, 50, 100)}
    table = boxes_table([("wide.png", 20, 10, 60, 30, "a"), ("high.png", 20, 10, 50, 30, "a")])
    shares = statistics.box_fractions(table, images)
    # Centres ((20 + 60) / 2 / 200, (10 + 30) / 2 / 100) and (35 / 50, 20 / 100).
    assert shares.to_numpy()[:, 1:].astype(float) == pytest.approx(
        np.array([[0.2, 0.2, 0.2, 0.2], [0.7, 0.2, 0.6, 0.2]])
    )


def test_co_occurrence_counts_images_not_boxes(train, test):
    first, second = list(train)[:2]
    rows = [(first, "a"), (first, "a"), (first, "b"), (second, "a")]
    table = boxes_table([(name, 1, 1, 9, 9, label) for name, label in rows])
    tables = statistics.dataset_tables(table, mapping_on(test), train, test, patients_of(train, test))
    assert tables["co-occurrence"].to_numpy().tolist() == [["a", 2, 1], ["b", 1, 1]]
    # The standard deviation of one box is unknown.
    spread = tables["box size and position"].set_index("label")
    assert spread.loc["a", "width mean"] == pytest.approx(8 / 60)
    assert np.isnan(spread.loc["b", "width sd"])


def test_the_figures_are_png_files_in_their_folders(described, reported):
    assert [path.stem for path in described.figures] == [
        "classes", "boxes-per-image", "box-size", "box-position", "co-occurrence", "samples",
    ]  # fmt: skip
    assert {path.parent for path in described.figures} == {described.page.parent}
    assert [path.stem for path in reported.figures] == [
        "per-class", "rules", "ceiling", "losses", "threshold", "precision-recall", "confidences",
        "detections-per-image", "history", "grid", *(f"image-{number}" for number in range(1, 7)),
    ]  # fmt: skip
    assert {path.parent for path in reported.figures} == {reported.page.parent / "figures"}
    for path in (*described.figures, *reported.figures):
        assert_png(path)
    assert not list(reported.page.parent.rglob("*.partial"))


def test_the_pages_need_nothing_from_outside(described, reported):
    for found in (described, reported):
        page = markup(found.page)
        assert re.findall(r'src="(.{21})', page) == ["data:image/png;base64"] * len(found.figures)
        assert not re.search(r"https?://|<script|<link|<iframe|@import|url\(|href=", page)
        assert "default-src 'none'" in page


def test_a_value_that_a_template_names_and_nobody_gives_is_an_error(tmp_path):
    with pytest.raises(UndefinedError, match="tables"):
        write_page(tmp_path / "page.html", "dataset_report.html", {"counts": dict.fromkeys(CARDS, 1)})
    assert not (tmp_path / "page.html").exists()


def test_text_from_files_stays_text(described, reported):
    assert "&lt;script&gt;document.title=&#39;ran&#39;&lt;/script&gt;" in markup(described.page)
    page = markup(reported.page)
    assert "<title>Run &lt;script&gt;" in page
    assert "Views: plain, &lt;script&gt;" in page
    assert "\\&#34;quoted\\&#34;" in page


def test_tables_show_three_decimals_thousands_and_dashes(reported):
    page = markup(reported.page)
    assert '<td>location prior, mAP@0.5</td><td class="n">0.019</td><td class="n">–</td>' in page
    assert "trained on 1,234 images" in page
    assert "Of the test images, 25% show a patient who is also in train" in page
    assert "fused by wbf at IoU 0.4, scores from 0.05; the usual way is suppress at IoU 0.3." in page
    row = '<tr><td>wbf</td><td class="n">0.05</td> <td class="n">–</td><td class="n">–</td></tr>'
    assert '<tr><td>suppress</td><td class="n">0</td> <td class="n">0.125</td><td class="n">–</td></tr>' in page
    assert row in page
    # One-box AP is unknown (null) and drawn as a dash.
    row = '<td>Mass</td><td class="n">–</td> <td>–</td><td class="n">0.500</td> <td>0.500 to 0.500</td>'
    assert row in page


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_title_survives_as_text(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("page") / "audit.html"
    finding = Finding(text, text, text, text, pd.DataFrame({text: [text]}))
    page = write_audit_page(path, [finding], {}).read_text(encoding="utf-8")
    body = page.split("</style>")[1]
    tags = {"body", "main", "h1", "h2", "p", "div", "b", "section", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(re.findall(r"<(\w+)", body)) == tags
    shown = html.unescape(re.findall("<td>(.*?)</td>", body, re.DOTALL)[0])
    assert shown == text.replace("\r\n", "\n").replace("\r", "\n")


def test_the_same_call_writes_the_same_page(described, train, test, tmp_path):
    again = describe(annotations_on(train), train, test, tmp_path)
    assert again.page.read_bytes() == described.page.read_bytes()


def test_the_same_seed_draws_the_same_images_and_another_seed_others(train, tmp_path):
    truth = annotations_on(train)
    samples = [pictures.samples(truth, ["Mass"], train, seed) for seed in (1, 1)]
    first, again = (shown_pixels(figure) for figure in samples)
    assert first == again
    orders = {tuple(pictures.drawn_images(train, seed)) for seed in range(5)}
    assert len(orders) > 1
    assert pictures.drawn_images(train, 3) == pictures.drawn_images(dict(reversed(train.items())), 3)


def shown_pixels(figure):
    return [image.get_array().tobytes() for axes in figure.axes for image in axes.get_images()]


def test_a_candidate_that_is_the_answer_is_drawn_once():
    candidates = boxes_table(
        [("i", 0, 0, 9, 9, 0.9, "a"), ("i", 0, 0, 9, 9, 0.8, "b"), ("i", 5, 5, 9, 9, 0.1, "a")], "score"
    )
    answers = pd.DataFrame(
        [(0, "i", 0, 0, 8.5, 9, 0.4, "a")], columns=["ID", "image_id", *CORNERS, "confidence", "label"]
    )
    marks = pictures.prediction_marks(candidates, answers, 5)
    # The answer comes last, so it lies on top; its confidence stands instead of the candidate's score.
    assert [mark.text for mark in marks] == ["a 0.10", "b 0.80", "a 0.40"]
    assert {mark.colour for mark in marks} == {PREDICTION}
    assert [mark.text for mark in pictures.prediction_marks(candidates, NO_ANSWERS, 2)] == ["b 0.80", "a 0.90"]


@pytest.mark.parametrize("size", [(60, 40), (30, 90), (50, 50)])
def test_words_at_a_box_stay_inside_the_picture_and_apart(size, tmp_path):
    path = tmp_path / "image.png"
    Image.new("L", size, 90).save(path)
    width, height = (float(side) for side in size)
    corner = (width - 4, height - 4, width, height)
    marks = [Mark(corner, "Pneumothorax 0.55", TRUTH, 1.0) for _ in range(3)]
    figure, (axes, _) = figures.blank(3.8, 1, 2)
    figures.picture(axes, ImageFacts(path, *size), "title", marks, figures.WIDTH_IN / 2)
    figure.savefig(tmp_path / "figure.png")
    inside = axes.get_window_extent()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 3
    for box in boxes:
        assert inside.x0 <= box.x0 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    heights = sorted(box.y0 for box in boxes)
    assert min(np.diff(heights)) > 0.9 * boxes[0].height


def test_an_image_that_cannot_be_read_says_why(tmp_path):
    _, (axes,) = figures.blank(3)
    figures.picture(axes, ImageFacts(tmp_path / "missing.png", 0, 0), "missing", [], 3)
    assert [text.get_text() for text in axes.texts] == ["cannot be read: no such file"]


def test_a_dollar_in_a_label_is_no_formula(tmp_path):
    table = pd.DataFrame({"label": ["$x^{", "a_$1$"], "boxes": [2, 1], "share": [2 / 3, 1 / 3]})
    figure = dataset_charts.classes(table)
    names = figure.axes[0].get_yticklabels()
    assert [name.get_text() for name in names] == ["$x^{", "a_$1$"]
    assert not any(name.get_parse_math() for name in names)
    figures.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(PNG_START)


def test_a_letter_that_the_font_lacks_is_no_error(tmp_path):
    figures.save(
        dataset_charts.classes(pd.DataFrame({"label": ["胸水\n\x07"], "boxes": [1], "share": [1.0]})),
        tmp_path / "a.png",
    )
    assert_png(tmp_path / "a.png")


def test_a_history_without_any_validation_says_so():
    table = history_table([(0, 3, 1e-3, 2.0, np.nan, np.nan, 1.0, 0)])
    loss, in_loop, rate = run_charts.history(table, 0).axes
    assert "not recorded" in [text.get_text() for text in in_loop.texts]
    assert "2" in [text.get_text() for text in loss.texts]
    assert "0.001" in [text.get_text() for text in rate.texts]


def test_classes_of_a_run_stand_by_falling_precision_with_a_dash_for_the_unknown(tmp_path):
    scores = {"low": class_scores(0.125), "none": class_scores(None), "high": class_scores(0.5)}
    (axes,) = run_charts.per_class(report_with(tmp_path, scores, []).per_class).axes
    assert [name.get_text() for name in axes.get_yticklabels()] == ["high (2)", "low (2)", "none (2)"]
    assert [text.get_text() for text in axes.texts][:3] == ["0.500", "0.125", "–"]


def test_images_without_detections_are_counted_as_zero():
    candidates = boxes_table([("a", 0, 0, 1, 1, 0.5, "x"), ("a", 0, 0, 1, 1, 0.01, "x")], "score")
    panels = run_charts.detections_per_image(candidates, ["a", "b"]).axes
    heights = [[bar.get_height() for bar in axes.patches] for axes in panels]
    # Any score: one image with none, one with two; from .05 on: one with none, one with one.
    assert heights == [[1, 0, 1], [1, 1], [1, 1]]


def test_drawing_touches_nothing_global():
    program = (
        "import sys, kit.reports.html; assert 'matplotlib' not in sys.modules; import matplotlib; "
        "before = dict(matplotlib.rcParams); from kit.reports import dataset_charts; import pandas as pd; "
        "dataset_charts.boxes_per_image(pd.DataFrame({'boxes': [1], 'images': [1]})); "
        "assert 'matplotlib.pyplot' not in sys.modules; assert dict(matplotlib.rcParams) == before"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_a_script_label_as_text_and_does_not_run_it(described, tmp_path):
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}", "--dump-dom", described.page.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert "<title>The data</title>" in done.stdout
    assert "&lt;script&gt;document.title='ran'&lt;/script&gt;" in done.stdout
    assert "<script" not in done.stdout
