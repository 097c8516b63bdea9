"""A list of held-out images: names as people write them, and one fault for each cause."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.core.errors import KitError
from kit.runs.image_list import read_image_list
from kit.schemas.csv_text import TableError

KNOWN = tuple(f"{number:08d}_000.png" for number in range(9))
FORMS = {
    "name": lambda name: name,
    "stem": lambda name: name.removesuffix(".png"),
    "path": lambda name: f"/data/train/{name}",
    "Windows": lambda name: f"C:\\data\\train\\{name}",
    "stem in a folder": lambda name: f"train/{name.removesuffix('.png')}",
    "blanks": lambda name: f"  {name}\t",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train").mkdir()
    return tmp_path / "train"


def read(folder, lines, known=KNOWN):
    path = folder.parent / "held.txt"
    path.write_text("\n".join(lines) + "\n")
    return read_image_list(path, known, folder)


def refused(folder, lines, known=KNOWN):
    with pytest.raises(TableError) as caught:
        read(folder, lines, known)
    return caught.value


@pytest.mark.parametrize("form", FORMS)
@given(chosen=st.lists(st.sampled_from(KNOWN), min_size=1))
def test_names_are_taken_as_people_write_them(tmp_path_factory, form, chosen):
    folder = tmp_path_factory.getbasetemp() / "train"
    folder.mkdir(exist_ok=True)
    assert read(folder, map(FORMS[form], chosen)) == tuple(sorted(set(chosen)))


def test_other_names_than_the_files_are_said_once(folder, caplog):
    caplog.set_level(logging.INFO, "kit")
    read(folder, KNOWN)
    assert caplog.messages == []
    read(folder, map(FORMS["stem"], KNOWN))
    assert caplog.messages == ["held.txt: 9 images named otherwise than their files, such as 00000000_000"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (str.upper, "upper and lower case"), (lambda name: name.replace(".png", ".jpg"), "its own extension"),
        (lambda name: name.lstrip("0") or name, "its zeros"), (lambda name: f"x{name}", "image of train/"),
        (lambda name: f"test/{name}", "image of train/"), (lambda name: f"data\\TEST\\{name}", "image of train/"),
    ],
)  # fmt: skip
def test_a_cause_is_one_line_with_its_count_and_its_advice_works(change, says, folder):
    error = refused(folder, map(change, KNOWN))
    assert says in str(error)
    assert len(error.faults) <= 2
    assert error.faults[-1].line in (1, 2)
    assert any(
        text in error.do for text in ("name the images of train/", "write each image_id as its file is named")
    )
    assert read(folder, KNOWN) == KNOWN  # as advised


def test_a_stem_of_two_images_is_neither(folder):
    both = ("a.png", "a.jpg", "b.png")
    assert len(refused(folder, ["a", "b"], both).faults) == 1
    assert read(folder, ["a.jpg", "b"], both) == ("a.jpg", "b.png")


@pytest.mark.parametrize("lines", [[], [""], ["  ", "\t"]])
def test_a_list_without_names_is_a_fault(lines, folder):
    assert "no rows" in str(refused(folder, lines))


def test_a_list_that_is_not_there_is_named(folder):
    with pytest.raises(KitError, match="no such file"):
        read_image_list(folder / "none.txt", KNOWN, folder)
