"""FBX from version 7.0 on, binary and text: our own reader, in a confined process only.

Every polygon stays one polygon, cut by `triangulate.py`. Models are taken in the file's order, each
geometry at its model with pivots and geometric transforms, in glTF's frame: metres, Y up; the file
says its own unit and axes. Skins and blend shapes rest as the geometry is stored. The bindings at
hand (ufbx 0.0.5) free objects that are in use and end the process; assimp triangulates before one
can ask for polygons.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.corners import name_all_faces, number_rows, split_vertices
from segvigen_model.mesh.formats.fbx_layers import read_layer, read_polygon_materials
from segvigen_model.mesh.formats.fbx_materials import MaterialReader
from segvigen_model.mesh.formats.fbx_scene import (
    FbxObject,
    FbxScene,
    compute_geometric_matrix,
    read_scene,
)
from segvigen_model.mesh.formats.fbx_tree import FbxNode, parse_fbx
from segvigen_model.mesh.formats.isolation import require_isolation
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.pieces import Piece, place_piece
from segvigen_model.mesh.formats.triangulate import Triangles, triangulate_polygons
from segvigen_model.types import ByteArray, FaceOrigin, FloatArray, IntArray, NameColumn

# Surfaces that are no polygons.
OTHER_SURFACES = ("NurbsSurface", "Nurb", "NurbsCurve", "Patch", "TrimNurbsSurface")


def read_fbx(data: bytes, side_files: Mapping[str, bytes], limits: MeshLimits) -> list[Piece]:
    """Read an FBX file into placed pieces.

    Args:
        data: the whole file.
        side_files: textures, by relative or base name.
        limits: checked on each geometry's counts before triangles are made.

    Raises:
        AssetRejected: the file cannot be used.
    """
    require_isolation("FBX")
    scene = read_scene(parse_fbx(data))
    models = [found for found in scene.objects.values() if found.kind == "Model"]
    if len(models) > limits.max_nodes:
        raise AssetRejected(
            "too_many_nodes", f"{len(models)} models > {limits.max_nodes}; join its meshes"
        )
    drawn = [
        (model, geometry)
        for model in models
        for geometry, _ in scene.list_children(model.number, "Geometry")
        if geometry.subkind == "Mesh"
    ]
    materials = MaterialReader(scene, side_files, limits)
    materials.open_textures([model for model, _ in drawn])
    pieces, num_faces, num_vertices = [], 0, 0
    for model, geometry in drawn:
        piece = _read_model(scene, model, geometry, materials)
        num_faces, num_vertices = num_faces + len(piece.faces), num_vertices + len(piece.vertices)
        check_counts(num_faces, num_vertices, limits)
        pieces.append(piece)
    return [*pieces, _tell(scene, materials)]


def _tell(scene: FbxScene, materials: MaterialReader) -> Piece:
    """A piece without faces that says what was left out."""
    others = [
        found
        for found in scene.objects.values()
        if found.kind == "Geometry" and found.subkind in OTHER_SURFACES
    ]
    return Piece(
        np.zeros((0, 3)),
        np.zeros((0, 3), dtype=np.int64),
        (materials.plain,),
        repairs=(("surfaces_without_polygons", len(others)), *materials.list_repairs()),
    )


def _read_model(
    scene: FbxScene, model: FbxObject, geometry: FbxObject, reader: MaterialReader
) -> Piece:
    positions = _read_positions(geometry.node)
    corners, sizes = _read_polygons(geometry.node, len(positions))
    owners = np.repeat(np.arange(len(sizes)), sizes)
    cut = triangulate_polygons(positions, corners, sizes)
    node = geometry.node
    normals = read_layer(node, "LayerElementNormal", "Normals", 3, corners, owners)
    colors = read_layer(node, "LayerElementColor", "Colors", 4, corners, owners)
    normals = None if normals is None else np.nan_to_num(normals)
    packed = None if colors is None else _convert_colors(colors)
    first, owner, new = split_vertices(
        corners,
        None if normals is None else number_rows(normals),
        None if packed is None else number_rows(packed),
    )
    materials = scene.list_children(model.number, "Material")
    numbers = _read_face_materials(node, cut, len(sizes), len(materials))
    found = [reader.read(material) for material, _ in materials]
    if (numbers == len(found)).any():
        found.append(reader.plain)
    piece = Piece(
        vertices=positions[owner],
        faces=new[cut.corners],
        materials=tuple(found) or (reader.plain,),
        name=model.name or geometry.name or f"model_{model.number}",
        face_material=numbers,
        corner_uv=_read_uv(node, corners, owners, cut),
        colors=None if packed is None else packed[first],
        normals=None if normals is None else normals[first].astype(np.float32),
        origin=FaceOrigin(
            polygons=cut.polygons,
            objects=name_all_faces(model.name, len(numbers)),
            groups=name_all_faces(geometry.name, len(numbers)),
            materials=NameColumn(
                np.where(numbers < len(materials), numbers, -1).astype(np.int32),
                tuple(material.name for material, _ in materials),
            ),
        ),
        num_polygons=len(sizes),
        repairs=(
            ("faces_under_three_corners", int((sizes < 3).sum())),
            ("polygons_that_cut_themselves", cut.num_crossed),
        ),
        announced={"polygons": len(sizes)},
    )
    matrix = scene.place_model(model.number) @ compute_geometric_matrix(model.properties)
    return place_piece(piece, matrix)


def _read_positions(node: FbxNode) -> FloatArray:
    held = node.find("Vertices")
    values = np.zeros(0) if held is None else held.read_array(np.float64)
    if len(values) % 3:
        raise AssetRejected(
            "truncated", f"FBX Vertices has {len(values)} numbers, not three each; fetch it again"
        )
    return values.reshape(-1, 3)


def _read_polygons(node: FbxNode, num_vertices: int) -> tuple[IntArray, IntArray]:
    """(C,) vertices of corners and (P,) corners of polygons; the last one is stored as ~n."""
    held = node.find("PolygonVertexIndex")
    stored = np.zeros(0, dtype=np.int64) if held is None else held.read_array(np.int64)
    is_last = stored < 0
    if len(stored) and not is_last[-1]:
        raise AssetRejected("truncated", "the last FBX polygon is not closed; fetch the file again")
    corners = np.where(is_last, ~stored, stored)
    if len(corners) and int(corners.max()) >= num_vertices:
        raise make_unreadable_error(
            f"an FBX polygon names vertex {corners.max()} of {num_vertices}"
        )
    ends = np.flatnonzero(is_last)
    sizes: IntArray = np.diff(ends, prepend=-1)
    return corners, sizes


def _read_face_materials(
    node: FbxNode, cut: Triangles, num_polygons: int, num_materials: int
) -> IntArray:
    """(F,) number among the model's materials; `num_materials` = none."""
    numbers = read_polygon_materials(node, num_polygons)
    if numbers is None:
        numbers = np.zeros(num_polygons, dtype=np.int64)
    known = np.where((numbers < 0) | (numbers >= num_materials), num_materials, numbers)
    found: IntArray = known[cut.polygons]
    return found


def _read_uv(
    node: FbxNode, corners: IntArray, owners: IntArray, cut: Triangles
) -> FloatArray | None:
    values = read_layer(node, "LayerElementUV", "UV", 2, corners, owners)
    if values is None:
        return None
    values[:, 1] = 1.0 - values[:, 1]  # FBX has v up
    uv: FloatArray = np.nan_to_num(values)[cut.corners].astype(np.float32)
    return uv


def _convert_colors(colors: FloatArray) -> ByteArray:
    packed: ByteArray = np.rint(np.clip(np.nan_to_num(colors, nan=1.0), 0.0, 1.0) * 255.0).astype(
        np.uint8
    )
    return packed
