"""What the terminal shows: whole numbers, whole tables in a pipe, a question and its answer."""

import io
import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kit.core.errors import KitError
from kit.tasks.console import confirm, show_frame, show_table

LONG = ("Atelectasis of one lobe", "Pleural thickening, both sides")
NUMBERS = ("label", "boxes", "images", "smallest side", "median side", "largest side", "share")


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 80 columns, without colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def pipe(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "40")


def rows():
    return [(label, 617 + i, 83, 0.12345, 0.5, 1234.5678, 0.0625) for i, label in enumerate(LONG)]


def test_on_a_narrow_terminal_labels_are_cut_and_numbers_are_whole(narrow, capsys):
    show_table("boxes by class", NUMBERS, rows())
    said = capsys.readouterr().out
    for number in ("617", "618", "83", "0.123", "0.500", "1234.568", "0.062", "smallest side"):
        assert number in said
    assert "Pleural" in said
    assert LONG[1] not in said
    assert "…" in said


def test_in_a_pipe_nothing_is_cut_or_wrapped(pipe, capsys):
    show_frame("boxes by class", pd.DataFrame(rows(), columns=NUMBERS))
    lines = capsys.readouterr().out.splitlines()
    for label in LONG:
        assert any(label in line and "1234.568" in line for line in lines)


def test_a_long_sentence_wraps_on_a_terminal_and_loses_no_word(narrow, capsys):
    text = "forty words " * 20 + "end"
    show_table("audit", ("check", "level", "what"), [("same-image", "warning", text)])
    said = capsys.readouterr().out
    assert said.count("forty") == said.count("words") == 20
    assert all(cell_len(line) <= 80 for line in said.splitlines())


def test_numbers_that_need_more_than_the_terminal_are_whole_all_the_same(narrow, capsys):
    show_table("", [f"column {i}" for i in range(20)], [[0.123456 + i for i in range(20)]])
    said = capsys.readouterr().out
    assert all(f"{0.123 + i:.3f}" in said for i in range(20))


@pytest.mark.parametrize("cells", [[], [()], [("", None)]])
def test_a_table_without_rows_or_texts_is_shown(cells, narrow, capsys):
    show_table("empty", ("a", "b"), [row for row in cells if row])
    assert "a" in capsys.readouterr().out


@given(st.lists(st.tuples(st.text(max_size=60), st.floats(-1e9, 1e9)), max_size=4), st.integers(20, 120))
def test_every_number_is_whole_whatever_the_labels_are(table, columns):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", str(columns)), ("TERM", "dumb")):
            patch.setenv(name, value)
        said = io.StringIO()
        patch.setattr(sys, "stdout", said)
        show_table("t", ("label", "score"), table)
    assert all(f"{number:.3f}" in said.getvalue() for _, number in table)


@pytest.mark.parametrize("stream", [None, io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8")])
def test_a_closed_standard_input_and_one_that_is_no_text_answer_no(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(KitError, match="--yes"):
        confirm("send it?", yes=False)
    confirm("send it?", yes=True)  # as advised
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    confirm("send it?", yes=False)  # the other way
