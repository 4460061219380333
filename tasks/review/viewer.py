"""The 3D viewer: one HTML file per round, served by Label Studio itself from the bucket.

Own small WebGL program, no library, so that it needs no Node at set-up. It runs in the editor's
origin; therefore only the two files beside this one may run in it (the content policy names their
hashes) and everything from the asset goes in as data.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.coords import mesh_to_unit
from segvigen_model.types import AssetMesh, ByteArray, IntArray
from tasks.review.buffers import Buffers
from tasks.review.colors import hex_color, part_colors
from tasks.review.config import part_label, task_labels

MAX_FACES = 300_000  # a page of some 20 MB; picking stays under a second

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>3D viewer</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<style>{style}</style></head><body>
<header><b id="title"></b>
<label>explode <input id="explode" type="range" min="0" max="1.5" step="0.05" value="0"></label>
<button id="original" aria-pressed="false">original colours</button>
<button id="wire" aria-pressed="false">wireframe</button>
<button id="all">show all</button><button id="question">?</button></header>
<div id="stage"><canvas id="canvas"></canvas><div id="help" hidden>
drag: turn &middot; <kbd>Shift</kbd> or right drag: move &middot; wheel: zoom<br>
click: say that this point belongs to the chosen label<br>
label's key or a row of the list: choose &middot; <kbd>Esc</kbd>: the editor's own choice<br>
double click on a row: this part alone</div></div>
<ul id="parts"></ul><div id="state"></div>
<script type="application/json" id="data">{data}</script>
<script>{script}</script></body></html>
"""
_TOO_LARGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>3D viewer</title>
<p>{faces} faces are too many for the 3D viewer; please use the sheet.</p></html>
"""


def render_viewer(mesh: AssetMesh, face_labels: IntArray, buffers: Buffers, *, title: str) -> bytes:
    """Build the page of one proposal.

    Args:
        mesh: the asset.
        face_labels: (F,) int32 part ids, dense.
        buffers: of the round's sheet; its cameras tell where a point shows there.
        title: one line, untrusted.

    Returns:
        UTF-8 HTML; the same input gives the same bytes.
    """
    if mesh.num_faces > MAX_FACES:
        return _TOO_LARGE.format(faces=mesh.num_faces).encode()
    style, script = _static("viewer.css"), _static("viewer.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _PAGE.format(
        policy=html.escape(policy, quote=False),
        style=style,
        script=script,
        data=_json(_payload(mesh, face_labels, buffers, title)),
    )
    return page.encode()


def face_colors(mesh: AssetMesh) -> ByteArray:
    """(F, 3) uint8 base colour at each face's middle: factor x texture x vertex colours."""
    factors = np.array([m.base_color_factor[:3] for m in mesh.materials], dtype=np.float64)
    colors = factors[mesh.face_material]
    if mesh.vertex_colors is not None:
        colors = colors * mesh.vertex_colors[mesh.faces][:, :, :3].mean(axis=1) / 255
    if mesh.corner_uv is not None:
        middle = mesh.corner_uv.mean(axis=1)
        for index, material in enumerate(mesh.materials):
            texture = material.base_color_texture
            if texture is None:
                continue
            mine = mesh.face_material == index
            uv = np.nan_to_num(middle[mine]) % 1.0
            height, width = texture.shape[:2]
            column = np.minimum((uv[:, 0] * width).astype(int), width - 1)
            row = np.minimum((uv[:, 1] * height).astype(int), height - 1)
            colors[mine] *= texture[row, column, :3] / 255
    return np.asarray((np.clip(colors, 0, 1) * 255).round().astype(np.uint8))


def _payload(
    mesh: AssetMesh, face_labels: IntArray, buffers: Buffers, title: str
) -> dict[str, Any]:
    num_parts = int(face_labels.max()) + 1
    triangles = mesh.triangles
    areas = np.linalg.norm(
        np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1
    )
    share = np.bincount(face_labels, weights=areas, minlength=num_parts) / max(areas.sum(), 1e-30)
    parts = [
        {"name": part_label(part), "color": hex_color(color), "share": round(float(size), 4)}
        for part, (color, size) in enumerate(zip(part_colors(num_parts), share, strict=True))
    ]
    points = mesh_to_unit(mesh.vertices, buffers.frame).astype("<f4")
    return {
        "title": title,
        "center": buffers.frame.center.tolist(),
        "scale": buffers.frame.scale,
        "points": _packed(points),
        "faces": _packed(mesh.faces.astype("<u4")),
        "part": _packed(face_labels.astype("<u2")),
        "original": _packed(face_colors(mesh)),
        "parts": parts,
        "labels": task_labels(num_parts),
        "sheet": list(buffers.size),
        "tiles": _tiles(buffers),
    }


def _tiles(buffers: Buffers) -> list[dict[str, Any]]:
    """Cameras of the tiles that show the whole object; a look inside hides what covers."""
    tiles = []
    for index, row in enumerate(buffers.cameras):
        view = buffers.camera(index)
        if view.name.startswith("inside"):
            continue
        place = {"left": row[0], "top": row[1], "size": row[2], "half": view.half}
        axes = {"center": view.center, "right": view.right, "up": view.up, "forward": view.forward}
        tiles.append({**place, **{name: axis.tolist() for name, axis in axes.items()}})
    return tiles


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _json(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@lru_cache(maxsize=4)
def _static(name: str) -> str:
    return (resources.files("tasks.review") / "static" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
