"""Meshes from untrusted bytes, and back to GLB for viewers.

GLB, glTF with side files, OBJ with MTL, PLY, STL, OFF; in a confined process also FBX, 3MF, USD
and a ZIP with one of them. Nothing is welded or reordered: a file is read as it announces itself or
refused with `AssetRejected`, and what is left out is counted. Reads memory only, never a file or a
network address. Faces stand in the source's order; those of glTF in the order of trimesh's
`load(force="scene").to_geometry()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from segvigen_model.mesh.formats.archives import unpack_mesh
from segvigen_model.mesh.formats.fbx import read_fbx
from segvigen_model.mesh.formats.glb_writer import make_part_colors, mesh_to_glb
from segvigen_model.mesh.formats.gltf import read_gltf
from segvigen_model.mesh.formats.guards import MESH_SUFFIXES, SUFFIXES, check_file
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.model_3mf import read_3mf
from segvigen_model.mesh.formats.obj import read_obj
from segvigen_model.mesh.formats.off import read_off
from segvigen_model.mesh.formats.parts_writer import parts_to_glb
from segvigen_model.mesh.formats.pieces import Piece, join_pieces
from segvigen_model.mesh.formats.ply import read_ply
from segvigen_model.mesh.formats.stl import read_stl
from segvigen_model.mesh.formats.usd import read_usd
from segvigen_model.mesh.formats.usd_library import USD_KINDS
from segvigen_model.types import AssetMesh

__all__ = [
    "SUFFIXES",
    "MeshLimits",
    "make_part_colors",
    "mesh_from_bytes",
    "mesh_to_glb",
    "parts_to_glb",
]

# Formats that are decoded in a confined process only.
STUDIO_READERS: Mapping[str, Callable[[bytes, Mapping[str, bytes], MeshLimits], list[Piece]]] = {
    "fbx": read_fbx,
    "3mf": read_3mf,
}


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
    if kind == "zip":
        data, kind, files = unpack_mesh(data, limits, MESH_SUFFIXES)
        check_file(data, kind, files, limits)
    if kind in STUDIO_READERS:
        return join_pieces(STUDIO_READERS[kind](data, files, limits))
    if kind in USD_KINDS:
        return join_pieces(read_usd(data, kind, files, limits))
    if kind in ("glb", "gltf"):
        return join_pieces(read_gltf(data, kind, files, limits))
    if kind == "obj":
        return join_pieces([read_obj(data, files, limits)])
    if kind == "ply":
        return join_pieces([read_ply(data, files, limits)])
    if kind == "stl":
        return join_pieces([read_stl(data, limits)])
    return join_pieces([read_off(data, limits)])
