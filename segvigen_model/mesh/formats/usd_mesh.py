"""One mesh of a USD scene as a piece: polygons, holes, orientation, materials of faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.corners import name_all_faces, number_rows, split_vertices
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.pieces import Piece
from segvigen_model.mesh.formats.triangulate import triangulate_polygons
from segvigen_model.mesh.formats.usd_library import import_usd
from segvigen_model.mesh.formats.usd_materials import UsdMaterials
from segvigen_model.mesh.formats.usd_primvars import (
    Corners,
    read_array,
    read_colors,
    read_normals,
    read_uv,
)
from segvigen_model.types import BoolArray, FaceOrigin, FloatArray, IntArray, Material, NameColumn


@dataclass(frozen=True, slots=True)
class _Surface:
    """Points and polygons; `is_hole` is (P,)."""

    points: FloatArray
    corners: Corners
    sizes: IntArray
    is_hole: BoolArray


def read_mesh(prim: Any, materials: UsdMaterials, limits: MeshLimits, time: Any) -> Piece:
    """Read one mesh, in its own frame.

    Args:
        prim: the mesh.
        materials: of the scene.
        limits: checked before triangles are made.
        time: of the values.

    Raises:
        AssetRejected: truncated, unreadable or too large.
    """
    surface = _read_surface(prim, time)
    check_counts(int(np.maximum(surface.sizes - 2, 0).sum()), len(surface.points), limits)
    cut = triangulate_polygons(surface.points, surface.corners.points, surface.sizes)
    is_kept = ~surface.is_hole[cut.polygons]
    triangles, polygons = cut.corners[is_kept], cut.polygons[is_kept]
    if str(import_usd("UsdGeom").Mesh(prim).GetOrientationAttr().Get(time)) == "leftHanded":
        triangles = triangles[:, ::-1]
    bound, numbers, repeated = _read_materials(prim, len(surface.sizes), time)
    found = [materials.read(material, time) for material in bound]
    corners, is_plain = surface.corners, numbers == len(found)
    colors = read_colors(prim, corners, time)
    is_hidden = colors is not None and not is_plain.all()
    colors = None if is_hidden else colors
    normals = read_normals(prim, corners, time)
    uv = read_uv(prim, materials.get_uv_name(bound), corners, time)
    first, owner, new = split_vertices(
        corners.points,
        None if normals is None else number_rows(normals),
        None if colors is None else number_rows(colors),
    )
    name, group = str(prim.GetName()), str(prim.GetParent().GetName())
    return Piece(
        vertices=surface.points[owner],
        faces=new[triangles],
        materials=(*found, materials.plain),
        name=name,
        face_material=numbers[polygons],
        corner_uv=None if uv is None else uv[triangles],
        colors=None if colors is None else colors[first],
        normals=None if normals is None else normals[first].astype(np.float32),
        origin=FaceOrigin(
            polygons=polygons,
            objects=name_all_faces(name, len(polygons)),
            groups=name_all_faces(group if group != "/" else "", len(polygons)),
            materials=_name_materials(found, numbers[polygons]),
        ),
        num_polygons=len(surface.sizes),
        repairs=(
            *_count_repairs(prim, surface, time, cut.num_crossed),
            ("display_colors_under_a_material", int(is_hidden)),
            ("faces_in_two_subsets", repeated),
        ),
        announced={"polygons": len(surface.sizes)},
    )


def _count_repairs(
    prim: Any, surface: _Surface, time: Any, num_crossed: int
) -> tuple[tuple[str, int], ...]:
    scheme = str(import_usd("UsdGeom").Mesh(prim).GetSubdivisionSchemeAttr().Get(time))
    return (
        ("faces_under_three_corners", int((surface.sizes < 3).sum())),
        ("polygons_that_cut_themselves", num_crossed),
        ("hole_faces_left_out", int((surface.is_hole & (surface.sizes >= 3)).sum())),
        ("subdivision_surfaces_read_as_polygons", int(scheme != "none")),
    )


def _read_surface(prim: Any, time: Any) -> _Surface:
    mesh, path = import_usd("UsdGeom").Mesh(prim), str(prim.GetPath())[:120]
    points = read_array(mesh.GetPointsAttr().Get(time), 3, "points").astype(np.float64)
    sizes = read_array(mesh.GetFaceVertexCountsAttr().Get(time), 1, "faceVertexCounts")
    named = read_array(mesh.GetFaceVertexIndicesAttr().Get(time), 1, "faceVertexIndices")
    holes = read_array(mesh.GetHoleIndicesAttr().Get(time), 1, "holeIndices").astype(np.int64)
    sizes, named = sizes.astype(np.int64), named.astype(np.int64)
    if len(sizes) and sizes.min() < 0:
        raise make_unreadable_error(f"a face of {path} has {sizes.min()} corners")
    total = int(sizes.sum())
    text = f"the faces of {path} have {total} corners, {len(named)} are there"
    if len(named) < total:
        raise AssetRejected("truncated", f"{text}; fetch the file again")
    if len(named) > total:
        raise make_unreadable_error(text)
    if total and not 0 <= named.min() <= named.max() < len(points):
        bad = named.min() if named.min() < 0 else named.max()
        raise make_unreadable_error(f"a face of {path} names point {bad} of {len(points)}")
    if len(holes) and not 0 <= holes.min() <= holes.max() < len(sizes):
        raise make_unreadable_error(f"{path} has a hole at face {holes.max()} of {len(sizes)}")
    is_hole: BoolArray = np.zeros(len(sizes), dtype=np.bool_)
    is_hole[holes] = True
    owners = np.repeat(np.arange(len(sizes)), sizes)
    return _Surface(points, Corners(named, owners, len(points), len(sizes)), sizes, is_hole)


def _read_materials(prim: Any, num_faces: int, time: Any) -> tuple[list[Any], IntArray, int]:
    """Bound materials, (P,) the number of each face's (as many as there are = none), repeats."""
    shade = import_usd("UsdShade")
    bound: list[Any] = []
    whole = _find_bound(prim)
    numbers: IntArray = np.full(num_faces, -1, dtype=np.int64)
    if whole:
        bound.append(whole)
        numbers[:] = 0
    is_taken: BoolArray = np.zeros(num_faces, dtype=np.bool_)
    repeated = 0
    for subset in shade.MaterialBindingAPI(prim).GetMaterialBindSubsets():
        rows = read_array(subset.GetIndicesAttr().Get(time), 1, "GeomSubset").astype(np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < num_faces:
            raise make_unreadable_error(
                f"{str(subset.GetPath())[:120]} names face {rows.max()} of {num_faces}"
            )
        repeated += int(is_taken[rows].sum())
        is_taken[rows] = True
        own = _find_bound(subset.GetPrim())
        if own:
            numbers[rows] = len(bound)
            bound.append(own)
    return bound, np.where(numbers < 0, len(bound), numbers), repeated


def _find_bound(prim: Any) -> Any:
    shade = import_usd("UsdShade")
    api = shade.MaterialBindingAPI(prim)
    for purpose in (shade.Tokens.allPurpose, shade.Tokens.preview, shade.Tokens.full):
        material = api.ComputeBoundMaterial(purpose)[0]
        if material:
            return material
    return None


def _name_materials(found: Sequence[Material], numbers: IntArray) -> NameColumn | None:
    if not found:
        return None
    rows = np.where(numbers < len(found), numbers, -1).astype(np.int32)
    return NameColumn(rows, tuple(material.name for material in found))
