"""Names of other files in an untrusted mesh file. Runs in the parser's process, under its limits.

Names are spelled as the loader spells them; whether one may be looked up is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.fbx_materials import list_texture_names
from segvigen_model.mesh.formats.fbx_scene import read_scene
from segvigen_model.mesh.formats.fbx_tree import parse_fbx
from segvigen_model.mesh.formats.gltf_source import parse_json
from segvigen_model.mesh.formats.isolation import NeedsIsolation
from segvigen_model.mesh.formats.mtl import find_texture_names, parse_library_names
from segvigen_model.mesh.formats.obj_text import normalize_text
from segvigen_model.mesh.formats.ply_header import MAX_HEADER_BYTES
from segvigen_model.mesh.formats.ply_header import find_texture_names as find_ply_textures
from segvigen_model.mesh.formats.usd_library import (
    LAYER_KINDS,
    list_asset_names,
    open_layer,
    replace_tile,
)

MAX_NAME_CHARS = 4096  # more than any object's key; the rest of a longer name is cut off
# Kinds that name files, which may name more.
NAMING_KINDS = ("gltf", "obj", "mtl", "ply", "fbx", *LAYER_KINDS)
CHAINED_KINDS = ("mtl", *LAYER_KINDS)
PLY_HEAD_BYTES = MAX_HEADER_BYTES  # what of a PLY has to be looked at


_LIBRARY = re.compile(
    rb"^[ \t\v\f]*mtllib[ \t\v\f]+([^\n]{1,%d})" % MAX_NAME_CHARS, re.IGNORECASE | re.MULTILINE
)


def find_names(data: bytes, kind: str, most: int) -> list[str]:
    """Different names in the order of the file.

    Args:
        data: the whole file.
        kind: "gltf", "obj", "mtl", "ply", "fbx", "usd", "usda" or "usdc"; others name nothing.
        most: no more are looked for.
    """
    found: dict[str, None] = {}
    for name in _NAMES[kind](data) if kind in _NAMES else ():
        # White space round a URI is written as %20 and part of the name; in lines it is none.
        is_exact = kind == "gltf" and name != name.strip()
        found[(name if is_exact else normalize_name(name))[:MAX_NAME_CHARS]] = None
        if len(found) >= most:
            break
    return list(found)


def _find_gltf_names(data: bytes) -> Iterator[str]:
    try:
        document = parse_json(data)
    except AssetRejected:
        return  # the loader says what is wrong with it
    if not isinstance(document, dict):
        return
    for kind in ("buffers", "images"):
        entries = document.get(kind)
        for entry in entries if isinstance(entries, list) else []:
            uri = entry.get("uri") if isinstance(entry, dict) else None
            if isinstance(uri, str) and not uri.startswith("data:"):
                yield unquote(uri)


def find_library_names(data: bytes) -> Iterator[str]:
    """Names of the material libraries of an OBJ, as written."""
    text = normalize_text(data)
    return (name for match in _LIBRARY.finditer(text) for name in parse_library_names(match[1]))


def normalize_name(name: str) -> str:
    """Spell a name as the loader does: forward slashes, no quotes, no leading "./"."""
    clean = name.strip().strip('"').replace("\\", "/")
    while clean.startswith("./"):
        clean = clean[2:]
    return clean


def _find_fbx_names(data: bytes) -> Iterator[str]:
    try:
        yield from list_texture_names(read_scene(parse_fbx(data)))
    except AssetRejected:
        return  # the loader says what is wrong with it


def _find_usd_names(data: bytes) -> Iterator[str]:
    try:
        yield from (replace_tile(name) for name in list_asset_names(open_layer(data, "")))
    except NeedsIsolation:
        raise
    except AssetRejected:
        return  # the loader says what is wrong with it


_NAMES: Mapping[str, Callable[[bytes], Iterator[str]]] = {
    "gltf": _find_gltf_names,
    "obj": find_library_names,
    "fbx": _find_fbx_names,
    **dict.fromkeys(LAYER_KINDS, _find_usd_names),
    "mtl": find_texture_names,
    "ply": lambda data: iter(find_ply_textures(data)),
}
