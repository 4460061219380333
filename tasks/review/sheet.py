"""The contact sheet: six views of one proposal on one picture, with part numbers and a legend.

One picture means one label bar, one set of hotkeys and one map from pixel to surface. The picture
is for people; the buffers that come with it are what the pipeline believes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from segvigen_model.coords import fit_frame
from segvigen_model.errors import AssetRejected
from segvigen_model.types import AssetMesh, ByteArray, FloatArray, IntArray
from tasks.review.buffers import Buffers, camera_row
from tasks.review.colors import BACKGROUND_COLOR, part_colors
from tasks.review.render import RayScene, View, render_hits, unit_triangles
from tasks.review.shading import OUTLINE_COLOR, shade_view
from tasks.review.views import plan_views

TILE_COLUMNS, TILE_ROWS = 3, 2
DEFAULT_WIDTH = 1536
LEGEND_ROW = 34  # pixels
LEGEND_CELL = 148
NUMBER_SIZE = 19  # font pixels at 512-pixel tiles
MIN_NUMBER_RADIUS = 5.0  # pixels of free part around a number, else it would hide the part
SMOOTH_COSINE = 0.85  # a vertex normal farther from its face's was averaged over an edge
TEXT_COLOR = (40, 46, 58)
FRAME_COLOR = (205, 210, 218)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
        meta: goes into the buffers (asset id, round, proposal hash).

    Returns:
        Picture and buffers; the same input gives the same bytes.

    Raises:
        AssetRejected: labels do not fit the mesh.
    """
    _check_labels(mesh, face_labels)
    frame = fit_frame(mesh.vertices)
    triangles = unit_triangles(mesh, frame)
    edges = triangles[:, 1:] - triangles[:, :1]
    face_normals = np.cross(edges[:, 0], edges[:, 1])
    areas = np.linalg.norm(face_normals, axis=1) / 2
    plan = plan_views(triangles, face_labels, areas, TILE_COLUMNS * TILE_ROWS)
    legend = _legend(face_labels, areas, plan.unseen_parts, width)
    size = width // TILE_COLUMNS
    canvas = _Canvas(size, legend.shape[0])
    normals = _corner_normals(mesh, face_normals)
    for index, view in enumerate(plan.views):
        scene = RayScene(triangles, view.only_faces)
        picture = shade_view(scene, view, face_labels, normals, size)
        hits = render_hits(scene, view, size)
        canvas.paste(index, view, picture, hits.face, hits.depth)
    canvas.picture[size * TILE_ROWS :, :] = BACKGROUND_COLOR
    canvas.picture[size * TILE_ROWS :, : legend.shape[1]] = legend
    labels = np.where(canvas.face >= 0, face_labels[canvas.face], -1)
    png = _annotate(canvas.picture, labels, canvas.tiles, plan.views, size)
    details = {
        **(meta or {}),
        "views": [view.name for view in plan.views],
        "num_parts": int(face_labels.max()) + 1,
        "num_faces": mesh.num_faces,
        "unseen_parts": list(plan.unseen_parts),
    }
    cameras = np.stack(canvas.cameras)
    buffers = Buffers(canvas.face, canvas.tiles, labels, canvas.depth, cameras, frame, details)
    return Sheet(png, buffers, plan.unseen_parts)


class _Canvas:
    """The sheet while its tiles arrive."""

    def __init__(self, size: int, legend_height: int) -> None:
        shape = (size * TILE_ROWS + legend_height, size * TILE_COLUMNS)
        self.size = size
        self.picture: ByteArray = np.full((*shape, 3), BACKGROUND_COLOR, dtype=np.uint8)
        self.face: IntArray = np.full(shape, -1, dtype=np.int32)
        self.tiles: IntArray = np.full(shape, -1, dtype=np.int8)
        self.depth: FloatArray = np.zeros(shape, dtype=np.float32)
        self.cameras: list[FloatArray] = []

    def paste(
        self, index: int, view: View, picture: ByteArray, face: IntArray, depth: FloatArray
    ) -> None:
        left = index % TILE_COLUMNS * self.size
        top = index // TILE_COLUMNS * self.size
        spot = np.s_[top : top + self.size, left : left + self.size]
        self.picture[spot] = picture
        self.face[spot] = face
        self.tiles[spot] = index
        self.depth[spot] = depth
        self.cameras.append(camera_row(view, left, top, self.size))


def _check_labels(mesh: AssetMesh, face_labels: IntArray) -> None:
    if face_labels.shape != (mesh.num_faces,) or not mesh.num_faces:
        raise AssetRejected(
            "labels_mismatch",
            f"{face_labels.shape} labels for {mesh.num_faces} faces; propose the asset again",
        )
    if face_labels.min() < 0:
        raise AssetRejected("labels_mismatch", "unlabelled faces (-1); propose the asset again")


def _corner_normals(mesh: AssetMesh, face_normals: FloatArray) -> FloatArray:
    """(F, 3, 3) float32; the source's normals, but flat ones where they round off an edge."""
    length = np.linalg.norm(face_normals, axis=1, keepdims=True)
    unit = (face_normals / np.maximum(length, 1e-30)).astype(np.float32)
    flat = np.repeat(unit[:, None], 3, axis=1)
    if mesh.vertex_normals is None:
        return flat
    given = np.asarray(mesh.vertex_normals[mesh.faces], dtype=np.float32)
    is_smooth = (given * flat).sum(axis=-1, keepdims=True) > SMOOTH_COSINE
    return np.where(is_smooth, given, flat)


def _legend(
    face_labels: IntArray, areas: FloatArray, unseen: tuple[int, ...], width: int
) -> ByteArray:
    """A strip with colour, number and share of every part, and hints."""
    share = np.bincount(face_labels, weights=areas) / max(float(areas.sum()), 1e-30)
    columns = width // LEGEND_CELL
    rows = -(-len(share) // columns)
    picture = Image.new("RGB", (width, rows * LEGEND_ROW + 8), BACKGROUND_COLOR)
    draw = ImageDraw.Draw(picture)
    font = _font(15)
    for part, (color, fraction) in enumerate(zip(part_colors(len(share)), share, strict=True)):
        left = part % columns * LEGEND_CELL + 10
        top = part // columns * LEGEND_ROW + 8
        red, green, blue = (int(value) for value in color)
        draw.rounded_rectangle(
            (left, top, left + 22, top + 22), 5, (red, green, blue), OUTLINE_COLOR
        )
        hidden = " unseen" if part in unseen else ""
        text = f"{part}  {fraction * 100:.1f} %{hidden}"
        draw.text((left + 30, top + 11), text, TEXT_COLOR, font, anchor="lm")
    return np.asarray(picture)


def _annotate(
    picture: ByteArray, labels: IntArray, tiles: IntArray, views: tuple[View, ...], size: int
) -> bytes:
    """Write view names and part numbers, draw tile frames; returns PNG bytes."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    name_font = _font(max(size // 30, 11))
    number_font = _font(max(NUMBER_SIZE * size // 512, 11))
    for index, view in enumerate(views):
        left = index % TILE_COLUMNS * size
        top = index // TILE_COLUMNS * size
        draw.rectangle((left, top, left + size - 1, top + size - 1), outline=FRAME_COLOR)
        draw.text((left + 10, top + 8), view.name, TEXT_COLOR, name_font)
        tile = labels[top : top + size, left : left + size]
        for part, column, row in number_spots(tile):
            _number(draw, number_font, str(part), left + column, top + row)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    return out.getvalue()


def number_spots(tile: IntArray) -> list[tuple[int, int, int]]:
    """Where each part's number goes: the point of the part farthest from its border.

    Args:
        tile: (S, S) part id per pixel, -1 = background.

    Returns:
        (part, column, row) for parts wide enough to carry a number.
    """
    same = np.zeros(tile.shape, dtype=bool)
    same[1:-1, 1:-1] = (
        (tile[1:-1, 1:-1] == tile[:-2, 1:-1])
        & (tile[1:-1, 1:-1] == tile[2:, 1:-1])
        & (tile[1:-1, 1:-1] == tile[1:-1, :-2])
        & (tile[1:-1, 1:-1] == tile[1:-1, 2:])
    )
    room = ndimage.distance_transform_edt(same)
    rows, columns = np.nonzero(room >= MIN_NUMBER_RADIUS)
    order = np.argsort(-room[rows, columns], kind="stable")
    parts, first = np.unique(tile[rows, columns][order], return_index=True)
    best = order[first]
    return [
        (int(part), int(column), int(row))
        for part, column, row in zip(parts, columns[best], rows[best], strict=True)
        if part >= 0
    ]


def _number(draw: ImageDraw.ImageDraw, font: Font, text: str, column: int, row: int) -> None:
    draw.text(
        (column, row), text, (255, 255, 255), font, anchor="mm", stroke_width=3,
        stroke_fill=OUTLINE_COLOR,
    )  # fmt: skip


def _font(pixels: int) -> Font:
    return ImageFont.load_default(pixels)
