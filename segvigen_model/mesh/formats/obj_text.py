"""The text layer of OBJ and MTL: bytes of any editor to plain lines, and names out of a line.

Afterwards a line ends with `\\n` alone. A continued line stays one line: where its parts met stands
`JOINT`, a kind of white space, so that errors can still count the lines of the file.
"""

from __future__ import annotations

import re

from segvigen_model.mesh.formats.limits import make_unreadable_error

JOINT = b"\x0b"
_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32",
              b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # fmt: skip
_CONTINUED = re.compile(rb"\\[ \t]*\n")
_COMMENT_START = re.compile(rb"(?:(?<=\s)|(?<=\A)|^)#(?!\d)", re.MULTILINE)
# "#1" is part of a name ("Grey #1"), "# red" and "#red" behind white space are comments.
_COMMENT = re.compile(r"(?:^|\s)#(?!\d).*", re.DOTALL)


def normalize_text(data: bytes) -> bytes:
    """Give text whose lines end with line feeds.

    Byte order marks are left out, UTF-16 and UTF-32 become UTF-8, CR and CR LF become LF. NEL ends
    lines only in a text that has no other ends: elsewhere the byte is a letter's.

    Raises:
        AssetRejected: unreadable; a byte order mark announces an encoding that the text has not.
    """
    for mark, encoding in _WIDE_BOMS.items():
        if data.startswith(mark):
            try:
                data = data.decode(encoding).encode()
            except UnicodeError as err:
                raise make_unreadable_error(f"text does not decode as {encoding}: {err}") from err
            break
    data = data.removeprefix(_BOM).rstrip(b"\x1a")  # what DOS ends a text with
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" not in data:
        data = data.replace(b"\xc2\x85", b"\n").replace(b"\x85", b"\n")
    if b"\n" + _BOM in data:  # files put one behind the other
        data = data.replace(b"\n" + _BOM, b"\n")
    if JOINT in data:
        data = data.replace(JOINT, b" ")
    return join_continued_lines(data)


def join_continued_lines(data: bytes) -> bytes:
    """Join lines that end with a backslash, as the standard wants it; a comment ends with its line.

    Length and line count stay: the backslash becomes a space, the line feed a `JOINT`.
    """
    if not _CONTINUED.search(data):
        return data
    text = bytearray(data)
    joined = 0  # what stands before has no comment that could reach here
    for match in _CONTINUED.finditer(text):
        start = max(joined, text.rfind(b"\n", joined, match.start()) + 1)
        joined = match.end()
        if not _COMMENT_START.search(text, start, match.start()):
            text[match.start()] = ord(" ")
            text[match.end() - 1] = JOINT[0]
    return bytes(text)


def count_line(text: bytes, offset: int) -> int:
    """Number of the line of the file, from 1, that a place in normalised text is in."""
    return text.count(b"\n", 0, offset) + text.count(JOINT, 0, offset) + 1


def decode_text(raw: bytes) -> str:
    """Decode a line: UTF-8, or else the Western code page of Windows, or else Latin-1."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def read_name(rest: bytes) -> str:
    """The name behind a keyword: without comment, quotes and doubled white space."""
    name = " ".join(_COMMENT.sub("", decode_text(rest)).split())
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name


def strip_comment(text: str) -> str:
    """The rest of a line without a comment behind it."""
    return _COMMENT.sub("", text).strip()
