"""The gate before any parser: is it the kind that it claims to be, and is it not too large?

Only first bytes are looked at. What a header announces is checked by the format's reader, before
anything is allocated in proportion to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.converters import find_converter
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.obj import is_obj
from segvigen_model.mesh.formats.off_header import is_off
from segvigen_model.mesh.formats.stl import is_stl
from segvigen_model.mesh.formats.usd_library import LAYER_KINDS, USD_KINDS

MESH_SUFFIXES = ("glb", "gltf", "obj", "ply", "stl", "off", "fbx", "3mf", *USD_KINDS)
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
    "3mf": "a ZIP archive",
    "usdz": "a ZIP archive",
    "zip": "a ZIP archive",
    **dict.fromkeys(LAYER_KINDS, "a USD"),  # text or binary under each of the names
}
ALL_MAGIC = ("3mf", "zip", *USD_KINDS)
SNIFFED = 65536


def check_file(data: bytes, kind: str, side_files: Mapping[str, bytes], limits: MeshLimits) -> None:
    """Refuse a file that is empty, too big or of another kind.

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


def _check_kind(data: bytes, kind: str) -> None:
    head = data[:SNIFFED].lstrip(b"\xef\xbb\xbf \t\r\n")
    fits = {
        "glb": lambda: data.startswith(b"glTF"),
        "gltf": lambda: head.startswith(b"{"),
        "ply": lambda: head.startswith(b"ply"),
        "stl": lambda: is_stl(data),
        "off": lambda: is_off(data),
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
