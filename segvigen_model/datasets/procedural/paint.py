"""Colours for procedural meshes: a few schemes that give the parts away, most that do not.

The model must not learn "one colour, one part", so parts share materials at random, are grey, or
carry a texture (noise, gradient, checks, stripes) that runs across them.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.types import ByteArray, FloatArray, IntArray, Material

SCHEMES = ("grey", "shared", "kind", "part", "texture")
SCHEME_SHARES = (0.2, 0.35, 0.15, 0.1, 0.2)
TEXTURE_SIZE = 64


def draw_random_color(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """An opaque colour, muted or vivid."""
    value = rng.uniform(0.05, 0.98, 3)
    if rng.random() < 0.5:
        value = value.mean() + (value - value.mean()) * rng.uniform(0.1, 0.5)
    return float(value[0]), float(value[1]), float(value[2]), 1.0


def draw_pattern(rng: np.random.Generator, size: int = TEXTURE_SIZE) -> ByteArray:
    """(size, size, 4) uint8 picture: noise, gradient, checks or stripes between two colours."""
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1) / size
    kind = rng.integers(4)
    if kind == 0:
        cells = rng.random((8, 8))
        mix = np.kron(cells, np.ones((size // 8, size // 8)))
    elif kind == 1:
        mix = np.abs((grid @ rng.uniform(-1, 1, 2) + rng.random()) % 2 - 1)
    elif kind == 2:
        mix = (np.floor(grid * rng.integers(2, 7)).sum(-1) % 2).astype(float)
    else:
        mix = 0.5 + 0.5 * np.sin(grid @ rng.uniform(5, 40, 2))
    mix = np.clip(mix + rng.normal(0, 0.05, mix.shape), 0, 1)[..., None]
    first, second = (np.array(draw_random_color(rng)) for _ in range(2))
    return (255 * (first * mix + second * (1 - mix))).round().astype(np.uint8)


def project_box_uv(triangles: FloatArray, scale: float) -> FloatArray:
    """(F, 3, 2) float32 texture coordinates by projection along each face's main axis."""
    low = triangles.reshape(-1, 3).min(0)
    unit = (triangles - low) / max(float(np.ptp(triangles)), 1e-9) * scale
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    main = np.abs(normal).argmax(1)
    axes = np.array([[1, 2], [0, 2], [0, 1]])[main]
    return np.take_along_axis(unit, axes[:, None, :].repeat(3, 1), axis=2).astype(np.float32)


def assign_materials(
    rng: np.random.Generator, part_names: tuple[str, ...], scheme: str
) -> tuple[IntArray, tuple[Material, ...]]:
    """Choose a material per part.

    Args:
        rng: source of choice.
        part_names: "leg_2" belongs to the kind "leg".
        scheme: one of SCHEMES.

    Returns:
        (P,) int32 material per part, and the materials.
    """
    num_parts = len(part_names)
    index: IntArray
    if scheme == "part":
        index = np.arange(num_parts)
    elif scheme == "kind":
        kinds = [name.rsplit("_", 1)[0] for name in part_names]
        index = np.unique(kinds, return_inverse=True)[1]
    elif scheme == "grey":
        index = np.zeros(num_parts, int)
    else:
        index = rng.integers(0, rng.integers(1, 4), num_parts)
        index = np.unique(index, return_inverse=True)[1]
    materials = tuple(make_material(rng, i, scheme) for i in range(int(index.max()) + 1))
    return index.astype(np.int32), materials


def make_material(rng: np.random.Generator, number: int, scheme: str) -> Material:
    """One material of a scheme."""
    name = f"material_{number}"
    rough = float(rng.uniform(0.2, 1.0))
    if scheme == "texture":
        return Material(
            name, metallic_factor=0.0, roughness_factor=rough, base_color_texture=draw_pattern(rng)
        )
    level = float(rng.uniform(0.3, 0.9))
    color = (level, level, level, 1.0) if scheme == "grey" else draw_random_color(rng)
    return Material(name, color, metallic_factor=0.0, roughness_factor=rough)
