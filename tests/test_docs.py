"""The pages say what is there: links, paths, names, verbs, flags, knobs, packages; and how long they may be."""

import importlib
import re
import unicodedata

import pytest
from repository import ROOT
from test_house import PACKAGES

import tasks
from kit.reports.knobs_page import knobs_page

README_LINES = 200
PICTURE_BYTES = 300_000
FOLDERS = (".", "docs", "data", "submissions", ".github")
PAGES = {str(path.relative_to(ROOT)): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md")
         if folder in ("docs", ".github") else (ROOT / folder).glob("*.md"))}  # fmt: skip
GUIDES = {name: path for name, path in PAGES.items() if name != "CHANGELOG.md"}  # it names what is gone, too


def text(name):
    return PAGES[name].read_text(encoding="utf-8")


def prose(name):
    """A page without its indented and fenced blocks, where nothing is a link or a heading."""
    unfenced = re.sub(r"^```.*?^```", "", text(name), flags=re.M | re.S)
    return "\n".join(line for line in unfenced.splitlines() if not line.startswith("    "))


def anchors(name):
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.M)
    return {
        "".join(
            "-" if letter == " " else letter
            for letter in heading.lower().replace("`", "")
            if letter in " -_" or unicodedata.category(letter)[0] in "LN"
        )
        for heading in headings
    }


def links(name):
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)) if not target.startswith("http")]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(name):
    for target in links(name):
        path, _, anchor = target.partition("#")
        goal = (PAGES[name].parent / path).resolve() if path else PAGES[name]
        assert goal.exists(), target
        if anchor:
            assert anchor in anchors(str(goal.relative_to(ROOT))), target


def test_the_readme_links_to_every_page_in_docs():
    linked = {target.partition("#")[0] for target in links("README.md")}
    assert {name for name in PAGES if name.startswith("docs/")} <= linked


def test_the_readme_is_read_in_five_minutes():
    assert len(text("README.md").splitlines()) <= README_LINES


@pytest.mark.parametrize("name", GUIDES)
def test_every_file_of_the_repository_that_a_page_names_exists(name):
    named = re.findall(r"`((?:kit|tests|docs|\.ci|\.github)/[\w./*-]*|\w+\.(?:md|toml)|tasks\.py)`", text(name))
    for path in named:
        assert list(ROOT.glob(path)), path


@pytest.mark.parametrize("name", GUIDES)
def test_every_verb_that_a_page_shows_exists_with_its_flags(name):
    flags = {
        context.name: {flag for flag in context.flags if flag.startswith("--")} | {"--help"}
        for context in tasks.namespace.to_contexts()
    }
    flags |= {alias: flags[context.name] for context in tasks.namespace.to_contexts() for alias in context.aliases}
    for verb, rest in re.findall(r"invoke ([a-z][a-z.]*)((?:[^`&|\n\\]|\\\n)*)", text(name)):
        if verb in ("tasks", "task"):  # the word, not the command
            continue
        assert verb in flags, f"invoke {verb}"
        assert set(re.findall(r"--[a-z-]+", rest.partition("#")[0])) <= flags[verb], f"invoke {verb}{rest}"


def test_the_page_of_the_knobs_is_what_the_configuration_says():
    assert text("docs/knobs.md") == knobs_page(), "`invoke knobs` writes it"


def test_the_readme_has_every_package_in_its_order_with_the_first_sentence_of_its_docstring():
    rows = re.findall(r"^\| `(kit/\w+/|kit/\w+\.py|tasks\.py)` \| (.+?) \|$", text("README.md"), re.M)
    modules = {name: importlib.import_module(f"kit.{name}") for name in PACKAGES}
    names = {name: f"kit/{name}/" if hasattr(module, "__path__") else f"kit/{name}.py"
             for name, module in modules.items()}  # fmt: skip
    expected = [(names[name], first_sentence(module)) for name, module in modules.items()]
    assert rows == [*expected, ("tasks.py", first_sentence(tasks))]


def first_sentence(module):
    words = " ".join((module.__doc__ or "").split())
    return re.match(r".*?\.(?= |$)", words)[0].replace("``", "`")


def test_every_picture_is_small_and_shown():
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    shown = {(PAGES[name].parent / target).resolve() for name in PAGES for target in links(name)}
    for picture in pictures:
        assert picture.stat().st_size < PICTURE_BYTES, picture.name
        assert picture.resolve() in shown, picture.name
