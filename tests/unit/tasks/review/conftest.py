"""Small meshes with known parts, and their sheets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import trimesh

from segvigen_model.types import AssetMesh, IntArray, Material
from tasks.review.sheet import Sheet, render_sheet


def mesh_of(boxes: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[AssetMesh, IntArray]:
    """One part per (extents, centre) box."""
    parts = []
    for extents, center in boxes:
        box = trimesh.creation.box(extents=extents)
        box.apply_translation(center)
        parts.append(box)
    labels = np.concatenate([np.full(len(p.faces), i) for i, p in enumerate(parts)])
    whole = trimesh.util.concatenate(parts)
    mesh = AssetMesh(
        vertices=np.asarray(whole.vertices, dtype=np.float64),
        faces=np.asarray(whole.faces, dtype=np.int64),
        face_material=np.zeros(len(whole.faces), dtype=np.int32),
        materials=(Material(base_color_factor=(1.0, 0.5, 0.0, 1.0)),),
    )
    return mesh, labels.astype(np.int32)


TABLE = (
    ((2.0, 0.2, 1.0), (10.0, 1.0, 0.0)),
    ((0.2, 0.9, 0.2), (9.2, 0.45, 0.3)),
    ((0.2, 0.9, 0.2), (10.8, 0.45, 0.3)),
)


@pytest.fixture(scope="session")
def make_mesh() -> Callable[..., tuple[AssetMesh, IntArray]]:
    return mesh_of


@pytest.fixture(scope="session")
def table() -> tuple[AssetMesh, IntArray]:
    return mesh_of(TABLE)


@pytest.fixture(scope="session")
def table_sheet(table) -> Sheet:
    return render_sheet(*table, width=384, meta={"asset_id": "a", "round": 0})
