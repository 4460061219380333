"""Text of any editor: line ends, encodings, continued lines, and lines that are still counted."""

from __future__ import annotations

import pytest

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.obj_text import count_line, normalize_text, read_name

PLAIN = b"v 1 2 3\nf 1 1 1\n"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.replace(b"\n", b"\xc2\x85"),
        PLAIN.replace(b"\n", b"\x85"),
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN + b"\x1a",
        PLAIN.decode().encode("utf-16"),
        b"\xfe\xff" + PLAIN.decode().encode("utf-16-be"),
        PLAIN.decode().encode("utf-32"),
    ],
)
def test_every_encoding_gives_the_same_lines(data):
    assert normalize_text(data) == PLAIN


def test_marks_between_joined_files_and_bytes_of_letters():
    assert normalize_text(b"o a\n\xef\xbb\xbfo b\n") == b"o a\no b\n"
    name = "o \u00c5\u0085\n".encode()
    assert normalize_text(name) == name, "NEL ends no line where line feeds do"


def test_text_that_is_not_in_the_encoding_of_its_mark():
    with pytest.raises(AssetRejected, match="unreadable: text does not decode as utf-16"):
        normalize_text(b"\xff\xfe\x00\xd8v 1 2 3")


def test_continued_lines_are_joined_and_counted():
    text = normalize_text(b"f 1 2 \\\r\n 3 \\ \n 4\n# folder C:\\\nv 1 2 3\nusemtl a\\b\nf 1\n")
    lines = text.split(b"\n")
    assert lines[0].split() == [b"f", b"1", b"2", b"3", b"4"]
    assert lines[1:] == [b"# folder C:\\", b"v 1 2 3", b"usemtl a\\b", b"f 1", b""]
    assert count_line(text, text.index(b"4")) == 3 and count_line(text, text.index(b"v")) == 5
    assert normalize_text(b"v 0 # C:\\\nf 1\\\n2\n").count(b"\n") == 2


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        (b" a  b\tc ", "a b c"),
        (b"Grey #1 # the grey", "Grey #1"),
        (b"a#b", "a#b"),
        (b'"a b"', "a b"),
        (b"gr\xfcn", "gr\u00fcn"),
        (b"\x81\x9d", "\x81\x9d"),
        (b"# only a comment", ""),
    ],
)
def test_names_of_a_line(rest, name):
    assert read_name(rest) == name
