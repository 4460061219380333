"""The gate before any parser: is it the kind it claims to be, and how much does it announce?

Everything here reads headers and counts bytes; nothing is allocated in proportion to what the
file merely claims.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.converters import find_converter
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.obj import is_obj

MESH_SUFFIXES = (
    *("glb", "gltf", "obj", "ply", "stl", "off"),
    *("fbx", "3mf", "usd", "usda", "usdc", "usdz"),
)
SUFFIXES = (*MESH_SUFFIXES, "zip")
# First bytes of kinds that turn up under a mesh's name.
MAGICS = (
    (b"glTF", "a GLB"),
    (b"ply\n", "a PLY"),
    (b"ply\r", "a PLY"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a RIFF container"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"%PDF", "a PDF"),
    (b"Kaydara FBX", "an FBX"),
    (b"PXR-USDC", "a USD"),
    (b"#usda", "a USD"),
    (b"BLENDER", "a Blender file"),
    (b"<?xml", "XML"),
    (b"<!DOCTYPE", "HTML"),
    (b"<html", "HTML"),
)
# What stands at the start of a kind; of some kinds every file has it.
OWN_MAGICS = {
    "glb": "a GLB",
    "ply": "a PLY",
    "fbx": "an FBX",
    "usd": "a USD",
    "usda": "a USD",
    "usdc": "a USD",
    "3mf": "a ZIP archive",
    "usdz": "a ZIP archive",
    "zip": "a ZIP archive",
}
ALL_MAGIC = ("usd", "usda", "usdc", "3mf", "usdz", "zip")
OFF_HEADER = re.compile(rb"^(?:ST)?C?N?4?n?(?:OFF)\b", re.IGNORECASE)
STL_RECORD = 50  # bytes of a triangle in binary STL
SNIFFED = 65536


def check_file(data: bytes, kind: str, side_files: Mapping[str, bytes], limits: MeshLimits) -> None:
    """Refuse a file that is empty, too big, of another kind, or announces too much.

    Args:
        data: the whole file.
        kind: suffix without dot, lower case.
        side_files: counted together with the file.
        limits: bounds.
    """
    if kind not in SUFFIXES:
        raise AssetRejected(
            "unsupported_format",
            f"suffix {kind[:20]!r} is not read; {find_converter(kind, SUFFIXES)}",
        )
    if not data.strip(b"\x00 \t\r\n"):
        raise AssetRejected("empty_file", f"{len(data)} bytes without content; upload it again")
    size = len(data) + sum(len(side) for side in side_files.values())
    if size > limits.max_bytes:
        raise AssetRejected(
            "too_large", f"{size} bytes > {limits.max_bytes}; shrink it or raise max_bytes"
        )
    _check_kind(data, kind)
    counts = {"ply": _count_ply, "stl": _count_stl, "off": _count_off}
    if kind in counts:
        check_counts(*counts[kind](data), limits)


def _check_kind(data: bytes, kind: str) -> None:
    head = data[:SNIFFED].lstrip(b"\xef\xbb\xbf \t\r\n")
    fits = {
        "glb": lambda: data.startswith(b"glTF"),
        "gltf": lambda: head.startswith(b"{"),
        "ply": lambda: data.startswith(b"ply"),
        "stl": lambda: head.lower().startswith(b"solid") or _is_binary_stl(data),
        "off": lambda: bool(OFF_HEADER.match(_strip_comments(head))),
        "obj": lambda: is_obj(data),
        "fbx": lambda: data.startswith(b"Kaydara FBX") or b"FBXHeaderExtension" in head,
    }
    found = next((name for magic, name in MAGICS if data.startswith(magic)), None)
    own = OWN_MAGICS.get(kind)
    if found == own if kind in ALL_MAGIC else found in (None, own) and fits[kind]():
        return
    if found is None and (b"glTF".startswith(data[:4]) or b"ply\n".startswith(data[:4])):
        raise AssetRejected("truncated", f"only {len(data)} bytes are there; fetch it again")
    raise AssetRejected(
        "wrong_extension",
        f"named .{kind}, but the content is {found or 'of no kind we know'} "
        f"(starts with {data[:8]!r}); name it by its content",
    )


def _is_binary_stl(data: bytes) -> bool:
    # Text never has so few printable bytes; the announced length is checked later.
    return len(data) >= 84 and b"\x00" in data[:84] + data[84 : 84 + STL_RECORD]


def _strip_comments(head: bytes) -> bytes:
    lines = (line.split(b"#")[0].strip() for line in head.splitlines())
    return next((line for line in lines if line), b"")


def _make_truncated_error(what: str, announced: int, found: int) -> AssetRejected:
    return AssetRejected(
        "truncated",
        f"the {what} announces {announced} bytes or lines and has {found}; fetch it again",
    )


def _count_ply(data: bytes) -> tuple[int, int]:
    end = data.find(b"end_header", 0, SNIFFED)
    if end < 0:
        raise AssetRejected("truncated", "the PLY header has no end; fetch it again")
    counts = {"vertex": 0, "face": 0}
    for name, number in re.findall(rb"element\s+(\w+)\s+(\d{1,18})\b", data[:end]):
        counts[name.decode("ascii", "replace")] = int(number)
    # Text needs a line, binary at least a byte per element: a cheap bound on what is claimed.
    total, rest = sum(counts.values()), len(data) - end
    if total > rest:
        raise _make_truncated_error("PLY", total, rest)
    return counts["face"], counts["vertex"]


def _count_stl(data: bytes) -> tuple[int, int]:
    if data[:SNIFFED].lstrip().lower().startswith(b"solid") and b"facet" in data[:SNIFFED]:
        count = data.count(b"endfacet")
        return count, 3 * count
    if len(data) < 84:
        raise _make_truncated_error("STL", 84, len(data))
    count = struct.unpack_from("<I", data, 80)[0]
    if 84 + STL_RECORD * count > len(data):
        raise _make_truncated_error("STL", 84 + STL_RECORD * count, len(data))
    return count, 3 * count


def _count_off(data: bytes) -> tuple[int, int]:
    words: list[bytes] = []
    for line in data[:SNIFFED].splitlines():
        words.extend(re.split(rb"\s+", line.split(b"#")[0].strip()))
    numbers = [word for word in words if word.isdigit()][:2]
    if len(numbers) < 2 or any(len(number) > 18 for number in numbers):
        raise make_unreadable_error("the OFF header has no vertex and face counts")
    num_vertices, num_faces = (int(number) for number in numbers)
    if num_vertices + num_faces > len(data):
        raise _make_truncated_error("OFF", num_vertices + num_faces, len(data))
    return num_faces, num_vertices
