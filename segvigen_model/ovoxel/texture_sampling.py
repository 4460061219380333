"""Texture look-ups inside compiled kernels: repeat wrapping, bilinear, between two mip levels."""

# Compiled kernels take what numba infers; their types stand in the docstrings.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202
from __future__ import annotations

import numpy as np

from segvigen_model.ovoxel.compiled import compile_jit

_MIN_DETERMINANT = 1e-6  # official: below it texture coordinates have no direction


@compile_jit
def compute_tangent_frame(triangle, uv, grid, frame):
    """Write dP/du and dP/dv (unit lengths per texture width) and give voxels per texture width.

    Args:
        triangle: (3, 3) float64, voxel units.
        uv: (3, 2) float32, v down.
        grid: voxels along each axis.
        frame: (2, 3) float64 out, left alone where the coordinates have no area.

    Returns:
        Texture widths per voxel, or 0 where the coordinates have no area.
    """
    u0, v0 = uv[1, 0] - uv[0, 0], uv[0, 1] - uv[1, 1]
    u1, v1 = uv[2, 0] - uv[0, 0], uv[0, 1] - uv[2, 1]
    det = u0 * v1 - v0 * u1
    if abs(det) < _MIN_DETERMINANT:
        return 0.0
    length_u, length_v = 0.0, 0.0
    for k in range(3):
        side0 = (triangle[1, k] - triangle[0, k]) / grid
        side1 = (triangle[2, k] - triangle[0, k]) / grid
        frame[0, k] = (side0 * v1 - side1 * v0) / det
        frame[1, k] = (side1 * u0 - side0 * u1) / det
        length_u += frame[0, k] ** 2
        length_v += frame[1, k] ** 2
    scale = np.sqrt(np.sqrt(length_u) * np.sqrt(length_v))
    if scale == 0.0:
        return 0.0
    return 1.0 / (grid * scale)


@compile_jit
def _sample_bilinear(texels, start, side, channels, u, v, out):
    x, y = u * side - 0.5, v * side - 0.5
    x_low, y_low = np.floor(x), np.floor(y)
    fx, fy = x - x_low, y - y_low
    # Sides are powers of two, so a mask wraps; out-of-range coordinates were wrapped before.
    x0, y0 = int(x_low) & (side - 1), int(y_low) & (side - 1)
    x1, y1 = (x0 + 1) & (side - 1), (y0 + 1) & (side - 1)
    for k in range(channels):
        a = texels[start + (y0 * side + x0) * channels + k] / 255.0
        b = texels[start + (y0 * side + x1) * channels + k] / 255.0
        c = texels[start + (y1 * side + x0) * channels + k] / 255.0
        d = texels[start + (y1 * side + x1) * channels + k] / 255.0
        upper = a * (1.0 - fx) + b * fx
        lower = c * (1.0 - fx) + d * fx
        out[k] = upper * (1.0 - fy) + lower * fy


@compile_jit
# A compiled kernel takes scalars and arrays, no objects.
def sample(materials, texture, u, v, widths, out):
    """Sample one texture.

    Args:
        materials: `textures.PackedMaterials`.
        texture: number of the texture.
        u: horizontal coordinate, any.
        v: vertical coordinate, down, any.
        widths: texture widths per voxel; chooses the mip level.
        out: (>= channels,) float64 out, 0..1.
    """
    side, depth = materials.sides[texture], materials.channels[texture]
    starts, texels = materials.levels[texture], materials.texels
    u, v = u - np.floor(u), v - np.floor(v)
    num_levels = 1
    while side >> num_levels > 0:
        num_levels += 1
    level = np.log2(widths * side) if widths > 0.0 else 0.0
    if level <= 0.0 or num_levels == 1:
        _sample_bilinear(texels, starts[0], side, depth, u, v, out)
        return
    low = int(min(level, num_levels - 1.0))
    _sample_bilinear(texels, starts[low], side >> low, depth, u, v, out)
    if low + 1 >= num_levels:
        return
    other = np.zeros(4)
    _sample_bilinear(texels, starts[low + 1], side >> (low + 1), depth, u, v, other)
    share = level - low
    for k in range(depth):
        out[k] = out[k] * (1.0 - share) + other[k] * share


@compile_jit
def rotate_normal(texel, frame, normal):
    """Turn a surface normal by a normal-map texel (0..1), in place.

    The frame is dP/du and dP/dv as they are, not made orthogonal to the normal: official.
    """
    along_u = np.sqrt(frame[0, 0] ** 2 + frame[0, 1] ** 2 + frame[0, 2] ** 2)
    along_v = np.sqrt(frame[1, 0] ** 2 + frame[1, 1] ** 2 + frame[1, 2] ** 2)
    x, y, z = texel[0] * 2.0 - 1.0, texel[1] * 2.0 - 1.0, texel[2] * 2.0 - 1.0
    length = 0.0
    for k in range(3):
        turned = x * frame[0, k] / along_u + y * frame[1, k] / along_v + z * normal[k]
        normal[k] = turned
        length += turned * turned
    if length > 0.0:
        for k in range(3):
            normal[k] /= np.sqrt(length)
