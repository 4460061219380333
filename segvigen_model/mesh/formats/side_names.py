"""Names of other files in an untrusted mesh file. Runs in the parser's process, under its limits.

Names are spelled as the loader spells them; whether one may be looked up is not decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote

MAX_NAME_CHARS = 4096  # more than any object's key; the rest of a longer name is cut off
PLY_HEAD_BYTES = 4096


def _compile_line_pattern(words: bytes) -> re.Pattern[bytes]:
    """Lines that begin with one of the words, and what stands behind it."""
    rest = rb")\S*[ \t]+([^\r\n]{1,%d})" % MAX_NAME_CHARS
    return re.compile(rb"(?:\A|[\r\n])[ \t]*(?:" + words + rest, re.IGNORECASE)


_LIBRARY = _compile_line_pattern(rb"mtllib")
_TEXTURE = _compile_line_pattern(rb"map_|bump|disp|decal|norm|refl")
_PLY_TEXTURE = _compile_line_pattern(rb"comment[ \t]+texturefile")


def find_names(data: bytes, kind: str, most: int) -> list[str]:
    """Different names in the order of the file.

    Args:
        data: the whole file.
        kind: "gltf", "obj", "mtl" or "ply"; others name nothing.
        most: no more are looked for.
    """
    found: dict[str, None] = {}
    for name in _NAMES[kind](data) if kind in _NAMES else ():
        found[_normalize_name(name)[:MAX_NAME_CHARS]] = None
        if len(found) >= most:
            break
    return list(found)


def _find_gltf_names(data: bytes) -> Iterator[str]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return  # the loader says what is wrong with it
    if not isinstance(document, dict):
        return
    for kind in ("buffers", "images"):
        entries = document.get(kind)
        for entry in entries if isinstance(entries, list) else []:
            uri = entry.get("uri") if isinstance(entry, dict) else None
            if isinstance(uri, str) and not uri.startswith("data:"):
                yield unquote(uri)


def _find_obj_names(data: bytes) -> Iterator[str]:
    return _find_rests(_LIBRARY, data)


def _find_mtl_names(data: bytes) -> Iterator[str]:
    # Options stand before the name ("-bm 1.0 name.png"): the last word is the file, unless the
    # name itself has spaces; then the whole rest is tried too.
    for rest in _find_rests(_TEXTURE, data):
        yield rest
        if " " in rest:
            yield rest.rpartition(" ")[2]


def _find_ply_names(data: bytes) -> Iterator[str]:
    return _find_rests(_PLY_TEXTURE, data[:PLY_HEAD_BYTES].split(b"end_header")[0])


def _find_rests(pattern: re.Pattern[bytes], data: bytes) -> Iterator[str]:
    return (match[1].decode("utf-8", "replace").strip() for match in pattern.finditer(data))


def _normalize_name(name: str) -> str:
    """Spell a name as the loader does: forward slashes, no leading "./"."""
    clean = name.strip().strip('"').replace("\\", "/")
    while clean.startswith("./"):
        clean = clean[2:]
    return clean


_NAMES: Mapping[str, Callable[[bytes], Iterator[str]]] = {
    "gltf": _find_gltf_names,
    "obj": _find_obj_names,
    "mtl": _find_mtl_names,
    "ply": _find_ply_names,
}
