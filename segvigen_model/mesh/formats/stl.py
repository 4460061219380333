"""STL, binary and text, distinguished by length and content.

A binary file announces its facets; 84 + 50 n bytes have to be there, and bytes behind them are
tolerated unless they are facets too. A header that begins with `solid` says nothing. Corners stay
three to a facet, as the format has them. Facets without area are kept.

Colours in the attribute bytes are read in the two known ways: of Materialise when the header says
`COLOR=`, and of VisCAM when every attribute that is not zero has its top bit set. Others are left.
"""

from __future__ import annotations

import struct

import numpy as np

from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.pieces import Piece
from segvigen_model.mesh.formats.polygons import PLAIN
from segvigen_model.mesh.formats.stl_text import is_stl_text, read_stl_text
from segvigen_model.mesh.formats.text_rows import make_truncated_error
from segvigen_model.types import ByteArray, FaceOrigin, FloatArray, IntArray, NameColumn

HEADER_BYTES = 84
RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
# Facets behind the announced ones lie about where the others lie; other bytes read as numbers do
# not: their exponents are anything.
NEAR = 100.0


def read_stl(data: bytes, limits: MeshLimits) -> Piece:
    """Read an STL file.

    Args:
        data: the whole file.
        limits: checked on the facets announced or counted, before memory is taken.

    Raises:
        AssetRejected: the file cannot be used.
    """
    if not _fills_records(data) and is_stl_text(data):
        return _build_text_piece(data, limits)
    if len(data) < HEADER_BYTES:
        raise make_truncated_error("bytes of an STL header", HEADER_BYTES, len(data))
    (count,) = struct.unpack_from("<I", data, 80)
    end = HEADER_BYTES + RECORD.itemsize * count
    if end > len(data):
        found = (len(data) - HEADER_BYTES) // RECORD.itemsize
        raise make_truncated_error("facets", count, found)
    check_counts(count, 3 * count, limits)
    records = np.frombuffer(data, RECORD, count, HEADER_BYTES)
    _check_rest(data[end:], records["corners"])
    colors, repairs = _read_attributes(data[:80], records["attribute"])
    with np.errstate(invalid="ignore"):  # NaN of any kind is refused when the pieces are joined
        vertices = records["corners"].reshape(-1, 3).astype(np.float64)
    repairs["trailing_bytes"] = len(data) - end
    return Piece(
        vertices=vertices,
        faces=np.arange(3 * count, dtype=np.int64).reshape(-1, 3),
        materials=(PLAIN,),
        name="geometry_0",
        colors=None if colors is None else np.repeat(colors, 3, axis=0),
        repairs=tuple(repairs.items()),
        announced={"faces": count},
    )


def is_stl(data: bytes) -> bool:
    """Whether bytes may be an STL at all: text with its first word, or a header with zero bytes."""
    # Text never has so few printable bytes; the announced length is checked by the reader.
    return is_stl_text(data) or (len(data) >= HEADER_BYTES and b"\x00" in data[:134])


def _fills_records(data: bytes) -> bool:
    """Whether the length is exactly that of the announced facets, which no text can have."""
    if len(data) < HEADER_BYTES:
        return False
    (count,) = struct.unpack_from("<I", data, 80)
    return len(data) == HEADER_BYTES + RECORD.itemsize * int(count)


def _build_text_piece(data: bytes, limits: MeshLimits) -> Piece:
    solids = read_stl_text(data, limits)
    vertices = np.concatenate([each.corners for each in solids]).reshape(-1, 3)
    sizes = [len(each.corners) for each in solids]
    owners = np.repeat(np.arange(len(solids), dtype=np.int32), sizes)
    names = tuple(each.name for each in solids)
    return Piece(
        vertices=vertices,
        faces=np.arange(len(vertices), dtype=np.int64).reshape(-1, 3),
        materials=(PLAIN,),
        name="geometry_0",
        geometries=NameColumn(owners, names),
        origin=FaceOrigin(objects=NameColumn(owners, names)),
        repairs=(("missing_endsolid", sum(not each.is_closed for each in solids)),),
        announced={"faces": int(sum(sizes)), "solids": len(solids)},
    )


def _check_rest(rest: bytes, corners: FloatArray) -> None:
    """Refuse bytes behind the announced facets that are facets: then the count is wrong."""
    more = np.frombuffer(rest, RECORD, len(rest) // RECORD.itemsize)
    if not len(more) or not rest.strip(b"\x00"):
        return
    size = float(np.maximum(np.abs(corners).max(initial=0.0), np.finfo(np.float32).tiny))
    normals = more["normal"].reshape(-1) * size
    values = np.abs(np.concatenate([more["corners"].reshape(-1), normals]))
    # Numbers of a mesh are zero or of its size; bytes of text are either huge or tiny.
    is_like = (values == 0) | ((values > size / 1e6) & (values < size * NEAR))
    if len(corners) == 0 or is_like.all():
        raise make_unreadable_error(
            f"the STL announces {len(corners)} facets, and {len(more)} more stand behind them"
        )


def _read_attributes(
    header: bytes, attributes: IntArray
) -> tuple[ByteArray | None, dict[str, int]]:
    """(F, 4) uint8 colours of facets or None, and what was left unread."""
    given = attributes != 0
    place = header.find(b"COLOR=")
    if 0 <= place <= len(header) - 10:
        default = np.frombuffer(header, np.uint8, 4, place + 6)
        own = (attributes < 0x8000) & given.any()  # all zero: the writer knew one colour
        red, green, blue = ((attributes >> shift) & 31 for shift in (0, 5, 10))
        colors = _expand(red, green, blue)
        colors[~own] = default
        return colors, {}
    if not given.any():
        return None, {}
    if (attributes[given] < 0x8000).any():
        return None, {"attribute_bytes_left_out": int(given.sum())}
    red, green, blue = ((attributes >> shift) & 31 for shift in (10, 5, 0))
    colors = _expand(red, green, blue)
    colors[~given] = 255
    return colors, {}


def _expand(red: IntArray, green: IntArray, blue: IntArray) -> ByteArray:
    """Five bits of each channel to (F, 4) uint8, opaque."""
    channels = np.stack([red, green, blue, np.full_like(red, 31)], axis=1)
    colors: ByteArray = np.rint(channels * (255.0 / 31.0)).astype(np.uint8)
    return colors
