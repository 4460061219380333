"""Turns hits into a picture: lit part colours, outlines between parts, silhouettes, creases.

Drawn at twice the size and averaged down, so that thin outlines stay readable; compiled, because
that is millions of pixels per sheet.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from segvigen_model.rendering.rasterizer import ParallelHits
from segvigen_model.types import ByteArray, FloatArray, IntArray
from tasks.labelling.part_colors import BACKGROUND_COLOR, assign_part_colors
from tasks.rendering.views import View

SUPERSAMPLING = 2
CREASE_COSINE = 0.8  # sharper bends get a thin line
DEPTH_JUMP = 0.025  # unit lengths between neighbouring pixels that count as an edge
OUTLINE_COLOR = (18, 22, 30)
BORDER_INK, JUMP_INK, CREASE_INK = 0.9, 0.55, 0.25  # how dark each kind of line is
# Lights in camera axes (right, up, towards the eye), with their weights.
LIGHTS = ((-0.45, 0.65, 0.62, 0.52), (0.7, -0.1, 0.7, 0.18))
AMBIENT = 0.5


def shade_view(
    hits: ParallelHits,
    view: View,
    face_labels: IntArray,
    corner_normals: FloatArray,
    colors: ByteArray | None = None,
) -> ByteArray:
    """Draw one tile.

    Args:
        hits: of the view, SUPERSAMPLING times as large as the tile.
        view: the camera.
        face_labels: (F,) int32 part ids.
        corner_normals: (F, 3, 3) float32 normals at the corners, any orientation.
        colors: (P, 3) uint8 part colours; the sequence's first when None.

    Returns:
        (S, S, 3) uint8.
    """
    labels = np.where(hits.face >= 0, face_labels[hits.face], -1).astype(np.int32)
    axes = np.stack([view.right, view.up, -view.forward]).astype(np.float32)
    normals = _compute_eye_normals(
        hits.face, hits.weights.astype(np.float32), corner_normals.astype(np.float32), axes
    )
    lights = np.array(LIGHTS, dtype=np.float32)
    lights[:, :3] /= np.linalg.norm(lights[:, :3], axis=1, keepdims=True)
    if colors is None:
        colors = assign_part_colors(int(face_labels.max()) + 1)
    inks = np.array([BACKGROUND_COLOR, OUTLINE_COLOR, *colors], dtype=np.float32)
    picture = _paint(labels, normals, hits.depth.astype(np.float32), inks, lights)
    return np.asarray(picture)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _compute_eye_normals(
    face: IntArray, weights: FloatArray, corner_normals: FloatArray, axes: FloatArray
) -> FloatArray:
    """(S, S, 3) float32 interpolated normals in camera axes, turned towards the eye."""
    size = face.shape[0]
    normals = np.zeros((size, size, 3), dtype=np.float32)
    for row in range(size):
        for column in range(size):
            index = face[row, column]
            if index < 0:
                continue
            w, u, v = weights[row, column]
            x = y = z = np.float32(0)
            for k in range(3):  # scalars only: small arrays would be allocated per pixel
                n = w * corner_normals[index, 0, k] + u * corner_normals[index, 1, k]
                n += v * corner_normals[index, 2, k]
                x += axes[0, k] * n
                y += axes[1, k] * n
                z += axes[2, k] * n
            length = max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
            if z < 0:
                length = -length
            normals[row, column, 0] = x / length
            normals[row, column, 1] = y / length
            normals[row, column, 2] = z / length
    return normals


@njit(cache=True)  # type: ignore[untyped-decorator]
def _paint(
    labels: IntArray,
    normals: FloatArray,
    depth: FloatArray,
    inks: FloatArray,
    lights: FloatArray,
) -> ByteArray:
    """(S / SUPERSAMPLING, same, 3) uint8; `inks` = background, outline, then the parts' colours."""
    size = labels.shape[0] // SUPERSAMPLING
    picture = np.zeros((size, size, 3), dtype=np.uint8)
    total = np.zeros(3, dtype=np.float32)
    for row in range(size):
        for column in range(size):
            total[:] = 0
            for i in range(row * SUPERSAMPLING, (row + 1) * SUPERSAMPLING):
                for j in range(column * SUPERSAMPLING, (column + 1) * SUPERSAMPLING):
                    label = labels[i, j]
                    ink = _compute_outline(labels, normals, depth, i, j)
                    light = np.float32(AMBIENT)
                    if label >= 0:
                        for k in range(lights.shape[0]):
                            facing = _dot(normals[i, j], lights[k])
                            light += lights[k, 3] * max(facing, np.float32(0))
                    for c in range(3):
                        value = inks[0, c]
                        if label >= 0:
                            value = min(inks[label + 2, c] * light, np.float32(255))
                        total[c] += value + ink * (inks[1, c] - value)
            for c in range(3):
                picture[row, column, c] = np.uint8(total[c] / SUPERSAMPLING**2 + 0.5)
    return picture


@njit(cache=True, inline="always")  # type: ignore[untyped-decorator]
def _dot(a: FloatArray, b: FloatArray) -> np.float32:
    total: np.float32 = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return total


@njit(cache=True)  # type: ignore[untyped-decorator]
def _compute_outline(
    labels: IntArray, normals: FloatArray, depth: FloatArray, i: int, j: int
) -> np.float32:
    """How much of the outline colour a fine pixel gets: its neighbours right and below decide."""
    size = labels.shape[0]
    ink = np.float32(0)
    for di, dj in ((0, 0), (0, -1), (-1, 0), (0, 1), (1, 0)):  # borders are two pixels wider
        a, b = i + di, j + dj
        if 0 <= a < size and 0 <= b < size:
            if b + 1 < size and labels[a, b] != labels[a, b + 1]:
                return np.float32(BORDER_INK)
            if a + 1 < size and labels[a, b] != labels[a + 1, b]:
                return np.float32(BORDER_INK)
    if labels[i, j] < 0:
        return ink
    for a, b in ((i, j + 1), (i + 1, j)):
        if a < size and b < size:
            if abs(depth[i, j] - depth[a, b]) > DEPTH_JUMP:
                return np.float32(JUMP_INK)
            if _dot(normals[i, j], normals[a, b]) < CREASE_COSINE:
                ink = np.float32(CREASE_INK)
    return ink
