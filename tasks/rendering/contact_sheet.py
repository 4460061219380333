"""The contact sheet: six views of one proposal on one picture, with part numbers and a legend.

One picture means one label bar, one set of hotkeys and one map from pixel to surface. The picture
is for people; the buffers that come with it are what the pipeline believes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from segvigen_model.errors import AssetRejected, MissingExtra
from segvigen_model.mesh.strays import fit_mesh_frame
from segvigen_model.rendering.rasterizer import ParallelHits
from segvigen_model.types import AssetMesh, ByteArray, FloatArray, Frame, IntArray
from tasks.labelling.part_colors import BACKGROUND_COLOR, assign_part_colors
from tasks.rendering.pixel_buffers import PART_NAMES, PART_SLOTS, Buffers, make_camera_row
from tasks.rendering.shading import OUTLINE_COLOR, SUPERSAMPLING, shade_view
from tasks.rendering.view_selection import plan_views
from tasks.rendering.views import View, compute_unit_triangles, render_hits

TILE_COLUMNS, TILE_ROWS = 3, 2
DEFAULT_WIDTH = 1536
# Pixels of a 512-pixel tile; the page shows it at about 210, where this is still read.
LEGEND_ROW, LEGEND_CELL, LEGEND_SIZE = 46, 218, 27
LEGEND_NAMED_CELL = 380
NAME_SIZE = 24
NUMBER_SIZES = (16, 30)  # a number grows with the free part around it
MIN_NUMBER_RADIUS = 5.0  # less free part, and a number would hide it
SMOOTH_COSINE = 0.85  # a vertex normal farther from its face's was averaged over an edge
TEXT_COLOR = (40, 46, 58)
FRAME_COLOR = (205, 210, 218)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A rendered contact sheet.

    Attributes:
        png: the picture.
        buffers: pixel -> surface.
        unseen_parts: parts above the share that no tile shows; named in the legend.
    """

    png: bytes
    buffers: Buffers
    unseen_parts: tuple[int, ...]


def render_sheet(
    mesh: AssetMesh,
    face_labels: IntArray,
    *,
    width: int = DEFAULT_WIDTH,
    meta: Mapping[str, Any] | None = None,
) -> Sheet:
    """Draw the sheet of one proposal.

    Args:
        mesh: the asset.
        face_labels: (F,) int32 part ids, dense, >= 0.
        width: of the picture in pixels; tiles are a third of it.
        meta: goes into the buffers (asset id, round, proposal hash); `part_slots` and
            `part_names`, lists of length P, say how parts are coloured and called.

    Returns:
        Picture and buffers; the same input gives the same bytes.

    Raises:
        AssetRejected: labels do not fit the mesh.
    """
    _check_labels(mesh, face_labels)
    frame = fit_mesh_frame(mesh)
    triangles = compute_unit_triangles(mesh, frame)
    edges = triangles[:, 1:] - triangles[:, :1]
    face_normals = np.cross(edges[:, 0], edges[:, 1])
    areas = np.linalg.norm(face_normals, axis=1) / 2
    plan = plan_views(triangles, face_labels, areas, TILE_COLUMNS * TILE_ROWS)
    share = np.bincount(face_labels, weights=areas) / max(float(areas.sum()), 1e-30)
    colors = assign_part_colors(len(share), _get_part_list(meta, PART_SLOTS, len(share)))
    names = _get_part_list(meta, PART_NAMES, len(share))
    legend = _draw_legend(share, colors, names or [""] * len(share), plan.unseen_parts, width)
    canvas = _Canvas(width // TILE_COLUMNS, legend)
    normals = _compute_corner_normals(mesh, face_normals)
    for index, view in enumerate(plan.views):
        fine = render_hits(triangles, view, canvas.size * SUPERSAMPLING)
        picture = shade_view(fine, view, face_labels, normals, colors)
        canvas.paste(index, view, picture, render_hits(triangles, view, canvas.size))
    details = {
        **(meta or {}),
        "views": [view.name for view in plan.views],
        "num_parts": int(face_labels.max()) + 1,
        "num_faces": mesh.num_faces,
        "unseen_parts": list(plan.unseen_parts),
    }
    buffers = canvas.build_buffers(face_labels, frame, details)
    png = _annotate(canvas.picture, buffers.part, plan.views, canvas.size)
    return Sheet(png, buffers, plan.unseen_parts)


class _Canvas:
    """The sheet while its tiles arrive."""

    def __init__(self, size: int, legend: ByteArray) -> None:
        shape = (size * TILE_ROWS + legend.shape[0], legend.shape[1])
        self.size = size
        self.picture: ByteArray = np.full((*shape, 3), BACKGROUND_COLOR, dtype=np.uint8)
        self.picture[size * TILE_ROWS :] = legend
        self.face: IntArray = np.full(shape, -1, dtype=np.int32)
        self.tiles: IntArray = np.full(shape, -1, dtype=np.int8)
        self.depth: FloatArray = np.zeros(shape, dtype=np.float32)
        self.cameras: list[FloatArray] = []

    def paste(self, index: int, view: View, picture: ByteArray, hits: ParallelHits) -> None:
        left = index % TILE_COLUMNS * self.size
        top = index // TILE_COLUMNS * self.size
        spot = np.s_[top : top + self.size, left : left + self.size]
        self.picture[spot] = picture
        self.face[spot] = hits.face
        self.tiles[spot] = index
        self.depth[spot] = hits.depth
        self.cameras.append(make_camera_row(view, left, top, self.size))

    def build_buffers(
        self, face_labels: IntArray, frame: Frame, meta: Mapping[str, Any]
    ) -> Buffers:
        part = np.where(self.face >= 0, face_labels[self.face], -1)
        cameras = np.stack(self.cameras)
        return Buffers(self.face, self.tiles, part, self.depth, cameras, frame, meta)


def _check_labels(mesh: AssetMesh, face_labels: IntArray) -> None:
    if face_labels.shape != (mesh.num_faces,) or not mesh.num_faces:
        raise AssetRejected(
            "labels_mismatch",
            f"{face_labels.shape} labels for {mesh.num_faces} faces; propose the asset again",
        )
    if face_labels.min() < 0:
        raise AssetRejected("labels_mismatch", "unlabelled faces (-1); propose the asset again")


def _compute_corner_normals(mesh: AssetMesh, face_normals: FloatArray) -> FloatArray:
    """(F, 3, 3) float32; the source's normals, but flat ones where they round off an edge."""
    length = np.linalg.norm(face_normals, axis=1, keepdims=True)
    unit = (face_normals / np.maximum(length, 1e-30)).astype(np.float32)
    flat = np.repeat(unit[:, None], 3, axis=1)
    if mesh.vertex_normals is None:
        return flat
    given = np.asarray(mesh.vertex_normals[mesh.faces], dtype=np.float32)
    is_smooth = (given * flat).sum(axis=-1, keepdims=True) > SMOOTH_COSINE
    return np.where(is_smooth, given, flat)


def _get_part_list(meta: Mapping[str, Any] | None, name: str, length: int) -> list[Any] | None:
    """A list with one entry per part from the meta, or None."""
    values = (meta or {}).get(name)
    return list(values) if isinstance(values, (list, tuple)) and len(values) == length else None


def _draw_legend(
    share: FloatArray,
    colors: ByteArray,
    names: Sequence[str],
    unseen: tuple[int, ...],
    width: int,
) -> ByteArray:
    """A strip with colour, number, name and share of every part."""
    zoom = width / DEFAULT_WIDTH
    wide = LEGEND_NAMED_CELL if any(names) else LEGEND_CELL
    cell, row, size = (round(v * zoom) for v in (wide, LEGEND_ROW, LEGEND_SIZE))
    columns = width // cell
    rows = -(-len(share) // columns)
    picture = Image.new("RGB", (width, rows * row + size // 2), BACKGROUND_COLOR)
    draw = ImageDraw.Draw(picture)
    font = _load_font(size)
    for part, (color, fraction) in enumerate(zip(colors, share, strict=True)):
        left = part % columns * cell + size // 2
        top = part // columns * row + size // 2
        red, green, blue = (int(value) for value in color)
        box = (left, top, left + size, top + size)
        draw.rounded_rectangle(box, size // 4, (red, green, blue), OUTLINE_COLOR)
        amount = "unseen" if part in unseen else f"{fraction * 100:.1f} %"
        room = cell - size * 3
        text = _fit_text(draw, font, f"{part}  {names[part]}".rstrip(), f"  {amount}", room)
        draw.text((left + size * 1.3, top + size / 2), text, TEXT_COLOR, font, anchor="lm")
    return np.asarray(picture)


def _fit_text(
    draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, text: str, tail: str, room: float
) -> str:
    """Text and tail, the text cut so that both fit into `room` pixels."""
    if draw.textlength(text + tail, font) <= room:
        return text + tail
    while len(text) > 3 and draw.textlength(f"{text}...{tail}", font) > room:
        text = text[:-1]
    return f"{text.rstrip()}...{tail}"


def _annotate(picture: ByteArray, labels: IntArray, views: tuple[View, ...], size: int) -> bytes:
    """Write view names and part numbers, draw tile frames; returns PNG bytes."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    zoom = size / (DEFAULT_WIDTH // TILE_COLUMNS)
    name_font = _load_font(round(NAME_SIZE * zoom))
    for index, view in enumerate(views):
        left = index % TILE_COLUMNS * size
        top = index // TILE_COLUMNS * size
        draw.rectangle((left, top, left + size - 1, top + size - 1), outline=FRAME_COLOR)
        draw.text((left + size // 50, top + size // 60), view.name, TEXT_COLOR, name_font)
        tile = labels[top : top + size, left : left + size]
        for part, column, row, room in place_numbers(tile, MIN_NUMBER_RADIUS * zoom):
            low, high = (limit * zoom for limit in NUMBER_SIZES)
            font = _load_font(round(min(max(room * 1.4, low), high)))
            _draw_number(draw, font, str(part), left + column, top + row)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    return out.getvalue()


def place_numbers(tile: IntArray, min_room: float) -> list[tuple[int, int, int, float]]:
    """Where each part's number goes: the point of the part farthest from its border.

    Args:
        tile: (S, S) part id per pixel, -1 = background.
        min_room: pixels of free part that a number needs on all sides.

    Returns:
        (part, column, row, room) for parts wide enough to carry a number.
    """
    same = np.zeros(tile.shape, dtype=bool)
    same[1:-1, 1:-1] = (
        (tile[1:-1, 1:-1] == tile[:-2, 1:-1])
        & (tile[1:-1, 1:-1] == tile[2:, 1:-1])
        & (tile[1:-1, 1:-1] == tile[1:-1, :-2])
        & (tile[1:-1, 1:-1] == tile[1:-1, 2:])
    )
    room = ndimage.distance_transform_edt(same)
    rows, columns = np.nonzero(room >= min_room)
    order = np.argsort(-room[rows, columns], kind="stable")
    parts, first = np.unique(tile[rows, columns][order], return_index=True)
    best = order[first]
    return [
        (int(part), int(column), int(row), float(room[row, column]))
        for part, column, row in zip(parts, columns[best], rows[best], strict=True)
        if part >= 0
    ]


def _draw_number(
    draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, text: str, column: int, row: int
) -> None:
    draw.text(
        (column, row), text, (255, 255, 255), font, anchor="mm", stroke_fill=OUTLINE_COLOR,
        stroke_width=max(round(font.size / 8), 1),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _load_font(pixels: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(max(pixels, 8))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise MissingExtra("FreeType support in Pillow", "install Pillow's own wheel")
    return font
