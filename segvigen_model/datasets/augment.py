"""Random variants of a labelled mesh: turned, mirrored, stretched, recoloured, fused.

Recolouring is frequent on purpose: the packs' own colours nearly give the parts away.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.procedural.builder import make_rotation
from segvigen_model.datasets.procedural.paint import SCHEMES, assign_materials, project_box_uv
from segvigen_model.types import AssetMesh, FloatArray, IntArray

KEEP_COLORS = 0.15
FUSE_SHARE = 0.5
SCHEME_SHARES = (0.35, 0.3, 0.05, 0.08, 0.22)  # grey, shared, kind, part, texture


def draw_pose(rng: np.random.Generator) -> FloatArray:
    """(3, 3): mostly a turn about Y, sometimes another axis up; mirror and stretch."""
    matrix = np.diag(rng.uniform(0.8, 1.25, 3))
    if rng.random() < 0.5:
        matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
    kind = rng.random()
    if kind < 0.35:
        matrix = make_rotation((0, 1, 0), rng.integers(4) * np.pi / 2) @ matrix
    elif kind < 0.8:
        matrix = make_rotation((0, 1, 0), rng.uniform(0, 2 * np.pi)) @ matrix
    if kind > 0.65:
        axis = np.eye(3)[rng.integers(3)]
        matrix = make_rotation(axis, rng.integers(1, 4) * np.pi / 2) @ matrix
    if rng.random() < 0.1:
        matrix = make_rotation(rng.normal(size=3), rng.uniform(0, 0.5)) @ matrix
    return matrix


def pose_mesh(mesh: AssetMesh, matrix: FloatArray) -> AssetMesh:
    """Move vertices by a (3, 3) matrix; a mirror also flips the winding."""
    faces, uv = mesh.faces, mesh.corner_uv
    if np.linalg.det(matrix) < 0:
        faces = faces[:, ::-1]
        uv = None if uv is None else uv[:, ::-1]
    return replace(
        mesh, vertices=mesh.vertices @ matrix.T, faces=faces, corner_uv=uv, vertex_normals=None
    )


def recolor_mesh(mesh: AssetMesh, labels: IntArray, rng: np.random.Generator) -> AssetMesh:
    """Give every part a random material of a random scheme; face order stays."""
    scheme = str(rng.choice(SCHEMES, p=SCHEME_SHARES))
    names = tuple(f"part{i}_0" for i in range(int(labels.max()) + 1))
    part_material, materials = assign_materials(rng, names, scheme)
    uv = project_box_uv(mesh.triangles, float(rng.uniform(0.5, 3))) if scheme == "texture" else None
    return replace(
        mesh,
        face_material=part_material[labels].astype(np.int32),
        materials=materials,
        corner_uv=uv,
        vertex_colors=None,
    )


def augment_mesh(
    mesh: AssetMesh, labels: IntArray, rng: np.random.Generator, *, fuse_grid: int
) -> tuple[AssetMesh, IntArray]:
    """One random variant; half of them are single shells."""
    mesh = pose_mesh(mesh, draw_pose(rng))
    if rng.random() < FUSE_SHARE:
        mesh, labels = fuse_mesh(mesh, labels, grid=fuse_grid, seed=int(rng.integers(1 << 30)))
        return recolor_mesh(mesh, labels, rng), labels
    if rng.random() < KEEP_COLORS:
        return mesh, labels
    return recolor_mesh(mesh, labels, rng), labels


def keep_few_parts(
    mesh: AssetMesh, labels: IntArray, rng: np.random.Generator
) -> tuple[AssetMesh, IntArray]:
    """Keep two to four parts of an object: simple scenes with few faces."""
    parts = np.unique(labels)
    kept = np.isin(labels, rng.choice(parts, min(int(rng.integers(2, 5)), len(parts)), False))
    used = np.unique(mesh.faces[kept])
    small = replace(
        mesh,
        vertices=mesh.vertices[used],
        faces=np.searchsorted(used, mesh.faces[kept]),
        face_material=mesh.face_material[kept],
        corner_uv=None if mesh.corner_uv is None else mesh.corner_uv[kept],
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors[used],
        vertex_normals=None if mesh.vertex_normals is None else mesh.vertex_normals[used],
        face_geometry=None if mesh.face_geometry is None else mesh.face_geometry[kept],
        origin=mesh.origin.take(kept),
    )
    return small, labels[kept]
