"""Meshes from untrusted bytes, and back to GLB for viewers.

GLB, glTF with side files, OBJ with MTL, PLY, STL, OFF. Nothing is welded, reordered or repaired:
a file is taken as it is or refused with `AssetRejected`. Reads memory only, never a file or a
network address. Face order is that of trimesh's `load(force="scene").to_geometry()`.
"""

from __future__ import annotations

from collections.abc import Mapping

from segvigen_model.mesh.formats.glb_writer import make_part_colors, mesh_to_glb
from segvigen_model.mesh.formats.gltf import read_gltf
from segvigen_model.mesh.formats.guards import SUFFIXES, check_file
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts
from segvigen_model.mesh.formats.obj import read_obj
from segvigen_model.mesh.formats.other import read_with_trimesh
from segvigen_model.mesh.formats.parts_writer import parts_to_glb
from segvigen_model.mesh.formats.pieces import join_pieces
from segvigen_model.mesh.formats.references import gather_side_files
from segvigen_model.types import AssetMesh

__all__ = [
    "SUFFIXES",
    "MeshLimits",
    "make_part_colors",
    "mesh_from_bytes",
    "mesh_to_glb",
    "parts_to_glb",
]


def mesh_from_bytes(
    data: bytes,
    suffix: str,
    *,
    side_files: Mapping[str, bytes] | None = None,
    limits: MeshLimits = MeshLimits(),  # noqa: B008 - frozen
) -> AssetMesh:
    """Read a mesh.

    Args:
        data: the whole file.
        suffix: its kind, e.g. ".glb" or "obj".
        side_files: name as written in the file -> bytes (buffers, textures, MTL).
        limits: what the asset may cost.

    Returns:
        The mesh, mesh frame.

    Raises:
        AssetRejected: the file cannot be used; `reason` is the cause.
    """
    kind = suffix.lstrip(".").lower()
    files = side_files or {}
    check_file(data, kind, files, limits)
    if kind in ("glb", "gltf"):
        return join_pieces(read_gltf(data, kind, files, limits))
    if kind == "obj":
        return join_pieces([read_obj(data, files, limits)])
    mesh = join_pieces(read_with_trimesh(data, kind, gather_side_files(data, kind, files, limits)))
    check_counts(len(mesh.faces), len(mesh.vertices), limits)  # polygons became triangles
    return mesh
