"""Side files of OBJ and PLY: names checked, textures measured, before trimesh sees anything.

trimesh skips in silence what it cannot find; here an absent file is an error, or a warning where
the limits allow it, and a name that leads outside the asset's folder is always an error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.gltf_source import get_side_file
from segvigen_model.mesh.formats.images import Texture, check_pixels, open_image
from segvigen_model.mesh.formats.limits import MeshLimits

log = logging.getLogger(__name__)

MTL_LIBRARY = re.compile(rb"^[ \t]*mtllib[ \t]+([^\r\n]+)", re.MULTILINE)
MTL_TEXTURE = re.compile(rb"^([ \t]*)map_Kd[ \t]+([^\r\n]+)", re.MULTILINE | re.IGNORECASE)
PLY_TEXTURE = re.compile(
    rb"^comment[ \t]+TextureFile[ \t]+([^\r\n]+)", re.MULTILINE | re.IGNORECASE
)
# Options before the name in an MTL: how many words each takes at most, and at least.
MTL_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-mm": 2, "-o": 3, "-s": 3, "-t": 3,
    "-texres": 1, "-clamp": 1, "-bm": 1, "-imfchan": 1, "-type": 1,
}  # fmt: skip


def gather_side_files(
    data: bytes, kind: str, side_files: Mapping[str, bytes], limits: MeshLimits
) -> dict[str, bytes]:
    """Check every file that an OBJ or PLY names and give those that its parser may open.

    Raises:
        AssetRejected: external_reference, missing_side_file, bad_texture or texture_too_large.
    """
    given = {_normalize_name(name): content for name, content in side_files.items()}
    found: dict[str, bytes] = {}
    textures: list[str] = []
    if kind == "ply":
        textures = [_decode_text(name) for name in PLY_TEXTURE.findall(data[:65536])]
    for name in (
        [_decode_text(match) for match in MTL_LIBRARY.findall(data)] if kind == "obj" else []
    ):
        content = _find_side_file(name, given, limits)
        if content is not None:
            plain = MTL_TEXTURE.sub(_strip_options, content)
            found[_normalize_name(name)] = plain
            textures += [_decode_text(match[1]) for match in MTL_TEXTURE.findall(plain)]
    images: dict[str, Texture] = {}
    for name in dict.fromkeys(textures):
        content = _find_side_file(name, given, limits)
        if content is not None:
            found[_normalize_name(name)] = content
            images[name] = open_image(content, name)
    check_pixels(images.values(), limits.max_texture_pixels)
    return found


def _parse_texture_name(rest: str) -> str:
    """Give the file name of an MTL texture line, which may hold options and spaces."""
    words = rest.split()
    while words and words[0].lower() in MTL_OPTIONS:
        most = MTL_OPTIONS[words.pop(0).lower()]
        for _ in range(most):
            # Only -o, -s, -t leave numbers away; a name is not a number.
            if len(words) > 1 and (most == 1 or _is_number(words[0])):
                words.pop(0)
    return " ".join(words)


def _is_number(word: str) -> bool:
    return bool(re.fullmatch(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", word))


def _strip_options(match: re.Match[bytes]) -> bytes:
    rest = match.group(2)
    name = (
        _parse_texture_name(_decode_text(rest))
        if rest.lstrip().startswith(b"-")
        else _decode_text(rest)
    )
    return match.group(1) + b"map_Kd " + name.encode()


def _decode_text(name: bytes) -> str:
    return name.decode("utf-8", "replace").strip()


def _normalize_name(name: str) -> str:
    clean = name.strip().strip('"').replace("\\", "/")
    while clean.startswith("./"):
        clean = clean[2:]
    return clean


def _find_side_file(name: str, given: Mapping[str, bytes], limits: MeshLimits) -> bytes | None:
    try:
        return get_side_file(name.strip('"'), given)
    except AssetRejected as err:
        if err.reason != "missing_side_file" or limits.is_side_file_required:
            raise
        log.warning("side file absent, loaded without it name=%r", name[:120])
        return None
