"""The same text from every editor is the same text."""

import codecs

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.core.errors import KitError
from kit.core.files import sha256
from kit.core.text_files import decoded, has_sha256, is_plain, possible_sizes, read_text, text_sha256

ENCODINGS = {
    "plain": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16, the other way": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
}
UNMARKED = {
    encoding: lambda text, encoding=encoding: text.encode(encoding) for encoding in ("utf-16-le", "utf-16-be")
}
LINE_ENDS = ("\n", "\r\n", "\r")
LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\ufeff\0"), max_size=12), max_size=6
)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
@given(lines=LINES)
@example(lines=[])
@example(lines=["image_id,label", "é.png,Épanchement"])
def test_a_text_is_read_alike_from_every_encoding_and_with_every_line_end(encoding, line_end, lines):
    assert decoded(ENCODINGS[encoding](line_end.join(lines))) == "\n".join(lines)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@given(
    text=st.text(st.characters(max_codepoint=126, exclude_characters="\r\0"), min_size=1, max_size=40),
    letters=st.text(st.characters(min_codepoint=256, max_codepoint=0xD7FF), max_size=3),
)
def test_utf_16_without_a_mark_is_known_by_its_zeros(encoding, text, letters):
    """If half of the letters or more are Latin ones, as in a table or in JSON; none has a low byte of 0."""
    mixed = text + "".join(letter for letter in letters if ord(letter) % 256)[: len(text)]
    assert decoded(mixed.encode(encoding)) == mixed
    assert not is_plain(mixed.encode(encoding))


@pytest.mark.parametrize("content", [b"\0", b"a\0b", b"ID,a\0b\n1,2\n", b"{}\0\0", b"\0\0", b"a,b\n1,\0\0\n"])
def test_a_zero_in_other_bytes_is_no_utf_16(content):
    assert decoded(content) == content.decode()


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("encoding", ENCODINGS | UNMARKED)
def test_the_same_table_has_the_same_hash(encoding, line_end, tmp_path):
    path, plain = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_bytes((ENCODINGS | UNMARKED)[encoding](f"a,b{line_end}1,é{line_end}"))
    plain.write_bytes("a,b\n1,é\n".encode())
    assert text_sha256(path) == text_sha256(plain) == sha256(plain)
    assert has_sha256(path, sha256(plain))
    assert has_sha256(path, sha256(path))  # as earlier versions recorded it
    assert not has_sha256(path, "0" * 64)
    assert not has_sha256(tmp_path / "none", sha256(plain))
    if line_end != "\r":
        assert {path.stat().st_size, plain.stat().st_size} <= possible_sizes(path)
    assert is_plain(plain.read_bytes())
    assert is_plain(path.read_bytes()) == (path.read_bytes() == plain.read_bytes())


def test_other_tables_and_bytes_that_are_no_text_have_other_hashes(tmp_path):
    digests = set()
    for content in (b"a,b\n1,2\n", b"a,b\n1,2", b"a,b\n1,3\n", b"\xff\xff\xff", b""):
        (tmp_path / "t.csv").write_bytes(content)
        digests.add(text_sha256(tmp_path / "t.csv"))
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such file"), (b"a\nb\xe9\n", "byte 0xe9 in line 2 is no UTF-8"), (b"\xff\xfea", "no UTF-16-LE")],
)
def test_what_is_no_text_is_refused_with_its_line(content, says, tmp_path):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KitError, match=says) as refused:
        read_text(path, "a list of names", "write one")
    assert str(path) in str(refused.value)
    assert refused.value.do == "write one"
    path.write_text("a\n")
    assert read_text(path, "a list of names", "write one") == "a\n"
