"""Files that a mesh names beside itself: glTF buffers and images, OBJ materials and textures.

Only plain relative names below the mesh's own folder are ever looked up. Others are not fetched;
the loader then refuses the mesh, or loads it plain and the absence is recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from segvigen_model.errors import AssetRejected
from tasks.keys import BadKey, check_key
from tasks.settings import IngestSettings
from tasks.store import Store

MAX_SEGMENT_BYTES = 255  # what file systems take
_MTL_TEXTURES = ("map_", "bump", "disp", "decal", "norm", "refl")


@dataclass(frozen=True, slots=True)
class SideFiles:
    """What was found: name as the loader asks for it -> bytes; and the names that are absent."""

    found: dict[str, bytes] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def fetch_side_files(
    raw: Store, key: str, data: bytes, suffix: str, settings: IngestSettings
) -> SideFiles:
    """Read the side files of one mesh.

    Args:
        raw: the bucket.
        key: the mesh's key; side files lie below its folder.
        data: the mesh's bytes.
        suffix: without dot, e.g. "gltf".
        settings: bounds on number and bytes.

    Raises:
        AssetRejected: too many side files, or too many bytes in all.
    """
    folder = key.rpartition("/")[0]
    budget = settings.max_bytes - len(data)
    found: dict[str, bytes] = {}
    missing: list[str] = []
    waiting = list(_names(data, suffix))
    while waiting:
        name, home = waiting.pop(0)
        if name in found or name in missing:
            continue
        if len(found) + len(missing) >= settings.max_side_files:
            limit = settings.max_side_files
            raise AssetRejected("too_many_side_files", f"more than {limit}; pack them as one GLB")
        content = _read(raw, [_join(folder, home, name), _join(folder, "", name)], budget)
        if content is None:
            missing.append(name)
            continue
        budget -= len(content)
        found[name] = content
        if name.lower().endswith(".mtl"):
            waiting.extend((texture, name.rpartition("/")[0]) for texture in _mtl(content))
    return SideFiles(found, tuple(missing))


def _names(data: bytes, suffix: str) -> Iterator[tuple[str, str]]:
    """(name, folder it is relative to) of everything that the mesh file itself names."""
    if suffix == "gltf":
        yield from ((name, "") for name in _gltf(data))
    elif suffix == "obj":
        yield from ((name, "") for name in _lines(data, ("mtllib",)))
    elif suffix == "ply":
        head = data[:4096].split(b"end_header")[0]
        for line in head.decode("latin-1").splitlines():
            if line.lower().startswith("comment texturefile "):
                yield _clean(line[len("comment texturefile ") :]), ""


def _gltf(data: bytes) -> Iterator[str]:
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
                yield _clean(unquote(uri))


def _mtl(data: bytes) -> Iterator[str]:
    # Options stand before the name ("-bm 1.0 name.png"): the last word is the file, unless the
    # name itself has spaces; then the whole rest is tried too.
    for rest in _lines(data, _MTL_TEXTURES):
        yield rest
        if " " in rest:
            yield rest.rpartition(" ")[2]


def _lines(data: bytes, words: tuple[str, ...]) -> Iterator[str]:
    markers = tuple(word.encode() for word in words)
    for line in data.splitlines():
        text = line.strip()
        if text.lower().startswith(markers):
            parts = text.decode("utf-8", "replace").split(maxsplit=1)
            if len(parts) == 2:
                yield _clean(parts[1])


def _clean(name: str) -> str:
    """Spell a name as the loader does: forward slashes, no leading "./"."""
    clean = name.strip().strip('"').replace("\\", "/")
    while clean.startswith("./"):
        clean = clean[2:]
    return clean


def _join(folder: str, home: str, name: str) -> str:
    return "/".join(part for part in (folder, home, name) if part)


def _read(raw: Store, candidates: list[str], budget: int) -> bytes | None:
    for key in dict.fromkeys(candidates):
        try:
            check_key(key)
        except BadKey:
            continue  # absolute or climbing: never looked up
        if ":" in key or any(len(part.encode()) > MAX_SEGMENT_BYTES for part in key.split("/")):
            continue
        size = raw.size(key)
        if size is None:
            continue
        if size > budget:
            raise AssetRejected("too_large", f"side file {key[:120]!r} has {size} bytes; shrink it")
        return raw.get(key)
    return None
