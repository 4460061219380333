"""Part-labelled shapes made in code: `make_asset(category, seed)` is deterministic.

Each category is a function that lists its parts on a Builder; structure, sizes and colours are
random by seed. Labels are per part instance: four legs are four parts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from segvigen_model.datasets.procedural import creatures, furniture, objects, places, vehicles
from segvigen_model.datasets.procedural.builder import Builder, LabelledMesh
from segvigen_model.datasets.procedural.paint import (
    SCHEME_SHARES,
    SCHEMES,
    assign_materials,
    project_box_uv,
)
from segvigen_model.types import AssetMesh

MAKERS: dict[str, Callable[[Builder], None]] = {
    **furniture.MAKERS,
    **vehicles.MAKERS,
    **objects.MAKERS,
    **places.MAKERS,
    **creatures.MAKERS,
}
CATEGORIES: tuple[str, ...] = tuple(sorted(MAKERS))

__all__ = ["CATEGORIES", "LabelledMesh", "make_asset"]


def make_asset(category: str, seed: int, *, textured: bool | None = None) -> LabelledMesh:
    """Make one shape.

    Args:
        category: one of CATEGORIES.
        seed: any integer; the same seed gives the same mesh.
        textured: True = image texture, False = plain colours, None = either.

    Returns:
        The mesh with one label per part instance.

    Raises:
        ValueError: the category is unknown.
    """
    if category not in MAKERS:
        raise ValueError(f"unknown category {category!r}; choose one of {', '.join(CATEGORIES)}")
    rng = np.random.default_rng([zlib.crc32(category.encode()), seed & 0xFFFFFFFF])
    builder = Builder(rng)
    MAKERS[category](builder)
    return paint_builder(builder, category, seed, choose_scheme(rng, textured))


def choose_scheme(rng: np.random.Generator, textured: bool | None) -> str:
    """Draw a colour scheme, bound to textures or their absence when asked."""
    if textured:
        return "texture"
    shares = np.array(SCHEME_SHARES)
    if textured is False:
        shares[SCHEMES.index("texture")] = 0
    return str(rng.choice(SCHEMES, p=shares / shares.sum()))


def paint_builder(builder: Builder, category: str, seed: int, scheme: str) -> LabelledMesh:
    """Give the collected solids materials and put faces in file order (by material)."""
    vertices, faces, labels, names = builder.merge_solids()
    part_material, materials = assign_materials(builder.rng, names, scheme)
    order = np.argsort(part_material[labels], kind="stable")
    faces, labels = faces[order], labels[order]
    face_material = part_material[labels]
    uv_scale = float(builder.rng.uniform(0.5, 3))
    mesh = AssetMesh(
        vertices=vertices,
        faces=faces,
        face_material=face_material,
        materials=materials,
        corner_uv=project_box_uv(vertices[faces], uv_scale) if scheme == "texture" else None,
        face_geometry=face_material.copy(),
        geometry_names=tuple(f"geom_{i:03d}" for i in range(len(materials))),
    )
    return LabelledMesh(mesh, labels, names, category, seed)
