"""Turns hits into a picture: lit part colours, outlines between parts, silhouettes, creases.

Drawn at twice the size and averaged down, so that thin outlines stay readable.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from segvigen_model.types import BoolArray, ByteArray, FloatArray, IntArray
from tasks.review.colors import BACKGROUND_COLOR, part_colors
from tasks.review.render import Hits, RayScene, View, render_hits

SUPERSAMPLING = 2
CREASE_COSINE = 0.8  # sharper bends get a thin line
DEPTH_JUMP = 0.025  # unit lengths between neighbouring pixels that count as an edge
OUTLINE_COLOR = (18, 22, 30)
# Lights in camera coordinates (right, up, towards the eye); weights sum to about 1 with ambient.
KEY_LIGHT, KEY_WEIGHT = (-0.45, 0.65, 0.62), 0.55
FILL_LIGHT, FILL_WEIGHT = (0.7, -0.1, 0.7), 0.2
AMBIENT = 0.42


def shade_view(
    scene: RayScene, view: View, face_labels: IntArray, corner_normals: FloatArray, size: int
) -> ByteArray:
    """Draw one tile.

    Args:
        scene: what is shot at (already restricted to `view.only_faces`, if any).
        view: the camera.
        face_labels: (F,) int32 part ids.
        corner_normals: (F, 3, 3) float32 normals at the corners, any orientation.
        size: tile side in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    fine = size * SUPERSAMPLING
    hits = render_hits(scene, view, fine)
    hit = hits.face >= 0
    labels = np.where(hit, face_labels[hits.face], -1)
    normals = _normals(hits, hit, view, corner_normals)
    colors = part_colors(int(face_labels.max()) + 1).astype(np.float32)
    picture = np.full((fine, fine, 3), BACKGROUND_COLOR, dtype=np.float32)
    lit = colors[labels[hit]] * _light(normals[hit])[:, None]
    picture[hit] = np.minimum(lit, 255)
    _draw_lines(picture, labels, normals, hits.depth)
    shape = (size, SUPERSAMPLING, size, SUPERSAMPLING, 3)
    return np.asarray(picture.reshape(shape).mean(axis=(1, 3)).round().astype(np.uint8))


def _normals(hits: Hits, hit: BoolArray, view: View, corner_normals: FloatArray) -> FloatArray:
    """(S, S, 3) float32 interpolated normals in camera axes, turned towards the eye."""
    corners = corner_normals[hits.face[hit]]
    weight = hits.uv[hit]
    mixed = (
        corners[:, 0] * (1 - weight.sum(axis=1, keepdims=True))
        + corners[:, 1] * weight[:, :1]
        + corners[:, 2] * weight[:, 1:]
    )
    axes = np.stack([view.right, view.up, -view.forward], axis=1).astype(np.float32)
    turned = mixed @ axes
    turned *= np.where(turned[:, 2:] < 0, -1, 1)
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    normals = np.zeros((*hits.face.shape, 3), dtype=np.float32)
    normals[hit] = turned / np.maximum(length, 1e-12)
    return normals


def _light(normals: FloatArray) -> FloatArray:
    """(N,) brightness factor."""
    total = np.full(len(normals), AMBIENT, dtype=np.float32)
    for direction, weight in ((KEY_LIGHT, KEY_WEIGHT), (FILL_LIGHT, FILL_WEIGHT)):
        unit = np.array(direction, dtype=np.float32) / np.float32(np.linalg.norm(direction))
        total += weight * np.maximum(normals @ unit, 0)
    return total


def _draw_lines(
    picture: FloatArray, labels: IntArray, normals: FloatArray, depth: FloatArray
) -> None:
    """Darken part borders and silhouettes fully, depth steps and creases lightly; in place."""
    border = _changes(labels)
    jump = _steps(depth) > DEPTH_JUMP
    bend = _bends(normals)
    inside = labels >= 0
    strength = np.zeros(labels.shape, dtype=np.float32)
    strength[bend & inside] = 0.25
    strength[jump & inside] = 0.55
    strength[ndimage.binary_dilation(border, iterations=1)] = 0.9
    ink = np.array(OUTLINE_COLOR, dtype=np.float32)
    picture += strength[..., None] * (ink - picture)


def _changes(values: IntArray) -> BoolArray:
    """Pixels whose right or lower neighbour has another value."""
    changed = np.zeros(values.shape, dtype=bool)
    changed[:, :-1] |= values[:, :-1] != values[:, 1:]
    changed[:-1] |= values[:-1] != values[1:]
    return changed


def _steps(depth: FloatArray) -> FloatArray:
    step = np.zeros_like(depth)
    step[:, :-1] = np.abs(np.diff(depth, axis=1))
    step[:-1] = np.maximum(step[:-1], np.abs(np.diff(depth, axis=0)))
    return step


def _bends(normals: FloatArray) -> BoolArray:
    bend = np.zeros(normals.shape[:2], dtype=bool)
    bend[:, :-1] |= (normals[:, :-1] * normals[:, 1:]).sum(axis=-1) < CREASE_COSINE
    bend[:-1] |= (normals[:-1] * normals[1:]).sum(axis=-1) < CREASE_COSINE
    return bend
