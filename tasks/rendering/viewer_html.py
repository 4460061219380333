"""The 3D viewer: one HTML file per round, served by Label Studio itself from the bucket.

Its script is three.js and `infra/viewer/src`, bundled by `infra/viewer/build.py`. It runs in the
editor's origin; therefore only that script and one style sheet may run in it (the content policy
names their hashes) and everything from the asset goes in as data. Part names, categories and colour
slots come from the sheet's `meta` (pixel_buffers.py).
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segvigen_model.coords import mesh_to_unit
from segvigen_model.errors import MissingExtra
from segvigen_model.mesh.strays import find_framed_vertices
from segvigen_model.types import AssetMesh, ByteArray, FloatArray, Frame, IntArray
from tasks.labelling.part_colors import assign_part_colors, format_hex_color
from tasks.labelling.taxonomy import Taxonomy
from tasks.rendering.labels import format_part_label, make_task_labels
from tasks.rendering.pixel_buffers import PART_CATEGORIES, PART_NAMES, PART_SLOTS, Buffers
from tasks.storage.canonical import canonical_json

MAX_FACES = 300_000  # a page of some 30 MB; picking stays far under a second
SCRIPT = "viewer.bundle.js"
# Longest side of a texture in the page, by how many there are: some 2 MB together at most.
PICTURE_SIDES = ((4, 1024), (16, 512), (64, 256))
MIN_PICTURE_SIDE = 64
PICTURE_QUALITY = 85

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>3D viewer</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<style>{style}</style></head><body>
<header><b id="title"></b>
<label>explode <input id="explode" type="range" min="0" max="1.5" step="0.05" value="0"></label>
<button id="original" aria-pressed="false">original colours</button>
<button id="wire" aria-pressed="false">wireframe</button>
<button id="all">show all</button><button id="reset">reset view</button>
<button id="undo">undo</button><button id="question">?</button></header>
<div id="stage"><canvas id="canvas"></canvas><div id="help" hidden>
<b>Mouse</b><br>drag: turn &middot; right drag: move &middot; wheel: zoom<br>
click: this point belongs to the chosen label<br>
<kbd>Alt</kbd>-click: it does <b>not</b> belong to the chosen part<br>
<kbd>Ctrl</kbd>-click on model or list: choose parts for merge, split, name<br>
<b>Keys</b> (while the mouse is over this view)<br>
a label's key: choose it &middot; <kbd>Esc</kbd>: forget what is chosen<br>
<kbd>Shift M</kbd> merge &middot; <kbd>Shift S</kbd> split &middot; <kbd>Shift N</kbd> name<br>
<kbd>Shift C</kbd> category &middot; <kbd>Shift U</kbd> or <kbd>Ctrl Z</kbd> undo<br>
<kbd>Shift I</kbd> chosen alone &middot; <kbd>Shift H</kbd> hide chosen &middot;
<kbd>Shift A</kbd> show all<br>
<kbd>Shift O</kbd> original colours &middot; <kbd>Shift W</kbd> wireframe<br>
<kbd>Shift E</kbd> explode &middot; <kbd>Shift V</kbd> reset view &middot;
<kbd>?</kbd> this help</div></div>
<ul id="parts"></ul>
<div id="edits">
<button id="merge" title="Shift M: all chosen parts become the first one">merge</button>
<button id="split" title="Shift S: segment again inside the chosen part">split</button>
<label>into <input id="pieces" type="number" min="1" max="32" placeholder="auto"></label>
<input id="words" type="text" maxlength="64" placeholder="name of the chosen part">
<button id="name" title="Shift N: give the chosen part this name">name</button>
<select id="category" title="Shift C: category of the chosen part"></select>
<ul id="commands"></ul></div>
<div id="state"></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script></body></html>
"""
_TOO_LARGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>3D viewer</title>
<p>{faces} faces are too many for the 3D viewer; please use the sheet.</p></html>
"""


def render_viewer(
    mesh: AssetMesh,
    face_labels: IntArray,
    buffers: Buffers,
    *,
    title: str,
    taxonomy: Taxonomy | None = None,
) -> bytes:
    """Build the page of one proposal.

    Args:
        mesh: the asset.
        face_labels: (F,) int32 part ids, dense.
        buffers: of the round's sheet; its cameras tell where a point shows there, and its meta
            may hold `part_names`, `part_categories` and `part_slots`.
        title: one line, untrusted.
        taxonomy: categories to choose from.

    Returns:
        UTF-8 HTML; the same input gives the same bytes.

    Raises:
        MissingExtra: the viewer's script has not been built.
    """
    if mesh.num_faces > MAX_FACES:
        return _TOO_LARGE.format(faces=mesh.num_faces).encode()
    style, script = _read_static("viewer.css"), _read_static(SCRIPT)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _PAGE.format(
        policy=html.escape(policy, quote=False),
        style=style,
        script=script,
        data=_encode_json(_build_payload(mesh, face_labels, buffers, title, taxonomy)),
    )
    return page.encode()


def compute_face_colors(mesh: AssetMesh) -> ByteArray:
    """(F, 3) uint8 base colour of each face: factor x vertex colours, without the textures."""
    factors = np.array([m.base_color_factor[:3] for m in mesh.materials], dtype=np.float64)
    colors = factors[mesh.face_material]
    if mesh.vertex_colors is not None:
        colors = colors * mesh.vertex_colors[mesh.faces][:, :, :3].mean(axis=1) / 255
    return np.asarray((np.clip(colors, 0, 1) * 255).round().astype(np.uint8))


def encode_face_pictures(mesh: AssetMesh) -> tuple[IntArray, list[bytes]]:
    """Base colour textures, made small and encoded anew, and which face wears which.

    Returns:
        (F,) uint16: 0 = none, else index + 1 into the list; JPEG files.
    """
    slots = np.zeros(mesh.num_faces, dtype=np.uint16)
    if mesh.corner_uv is None:
        return slots, []
    textures: dict[int, ByteArray] = {}  # several materials often share one
    worn = [int(index) for index in np.unique(mesh.face_material)]
    for index in worn:
        texture = mesh.materials[index].base_color_texture
        if texture is not None:
            textures.setdefault(id(texture), texture)
    places = {key: place for place, key in enumerate(textures, start=1)}
    for index in worn:
        texture = mesh.materials[index].base_color_texture
        slots[mesh.face_material == index] = places.get(id(texture), 0)
    side = next((s for count, s in PICTURE_SIDES if len(textures) <= count), MIN_PICTURE_SIDE)
    return slots, [_encode_jpeg(texture, side) for texture in textures.values()]


def _encode_jpeg(texture: ByteArray, side: int) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(texture[:, :, :3]))
    image.thumbnail((side, side), Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=PICTURE_QUALITY)
    return out.getvalue()


def _build_payload(
    mesh: AssetMesh,
    face_labels: IntArray,
    buffers: Buffers,
    title: str,
    taxonomy: Taxonomy | None,
) -> dict[str, Any]:
    parts = _describe_parts(mesh, face_labels, buffers)
    colors = {part["label"]: part["color"] for part in parts}
    labels = make_task_labels(len(parts))
    slots, pictures = encode_face_pictures(mesh)
    shown = _center_unframed_vertices(mesh, buffers.frame)
    data: dict[str, Any] = {
        "title": title,
        "center": buffers.frame.center.tolist(),
        "scale": buffers.frame.scale,
        "points": _pack_values(mesh_to_unit(shown, buffers.frame).astype("<f4")),
        "faces": _pack_values(mesh.faces.astype("<u4")),
        "part": _pack_values(face_labels.astype("<u2")),
        "original": _pack_values(compute_face_colors(mesh)),
        "pictures": [base64.b64encode(picture).decode() for picture in pictures],
        "parts": parts,
        "labels": [
            {**label, "background": colors.get(label["value"], label["background"])}
            for label in labels
        ],
        "taxonomy": taxonomy.to_json() if taxonomy else [],
        "sheet": list(buffers.size),
        "tiles": _describe_tiles(buffers),
    }
    if pictures and mesh.corner_uv is not None:
        data["slot"] = _pack_values(slots.astype("<u2"))
        data["uv"] = _pack_values(np.nan_to_num(mesh.corner_uv).astype("<f4"))
    return data


def _center_unframed_vertices(mesh: AssetMesh, frame: Frame) -> FloatArray:
    """Vertices, strays and those without a face in the middle: the page frames all it is given."""
    return np.where(find_framed_vertices(mesh)[:, None], mesh.vertices, frame.center)


def _describe_parts(
    mesh: AssetMesh, face_labels: IntArray, buffers: Buffers
) -> list[dict[str, Any]]:
    num_parts = int(face_labels.max()) + 1
    triangles = mesh.triangles
    areas = np.linalg.norm(
        np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1
    )
    share = np.bincount(face_labels, weights=areas, minlength=num_parts) / max(areas.sum(), 1e-30)
    slots = _get_part_values(buffers, PART_SLOTS, range(num_parts))
    colors = assign_part_colors(max(slots, default=-1) + 1)
    names = _get_part_values(buffers, PART_NAMES, [""] * num_parts)
    categories = _get_part_values(buffers, PART_CATEGORIES, [""] * num_parts)
    return [
        {
            "label": format_part_label(part),
            "name": str(names[part] or ""),
            "category": str(categories[part] or ""),
            "color": format_hex_color(colors[slots[part]]),
            "share": round(float(share[part]), 5),
        }
        for part in range(num_parts)
    ]


def _get_part_values(buffers: Buffers, name: str, otherwise: Sequence[Any]) -> Sequence[Any]:
    """One value per part from the sheet's meta, if it is there and complete."""
    values = buffers.meta.get(name)
    return values if isinstance(values, list) and len(values) == len(otherwise) else otherwise


def _describe_tiles(buffers: Buffers) -> list[dict[str, Any]]:
    """Cameras of the tiles that show the whole object; a look inside hides what covers."""
    tiles = []
    for index, row in enumerate(buffers.cameras):
        view = buffers.get_camera(index)
        if view.name.startswith("inside"):
            continue
        place = {"left": row[0], "top": row[1], "size": row[2], "half": view.half}
        axes = {"center": view.center, "right": view.right, "up": view.up, "forward": view.forward}
        tiles.append({**place, **{name: axis.tolist() for name, axis in axes.items()}})
    return tiles


def _pack_values(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _encode_json(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = canonical_json(value)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@lru_cache(maxsize=4)
def _read_static(name: str) -> str:
    try:
        return (resources.files("tasks.rendering") / "static" / name).read_text(encoding="utf-8")
    except FileNotFoundError as err:
        raise MissingExtra(
            f"the 3D viewer's file {name}", "run `python -m infra.viewer.build` (needs `[review]`)"
        ) from err


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
