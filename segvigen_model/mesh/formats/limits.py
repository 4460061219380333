"""What a file may cost before it is refused, and the one way to say that a file cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

from segvigen_model.errors import AssetRejected


@dataclass(frozen=True, slots=True)
class MeshLimits:
    """Bounds on one asset; each is checked before the memory it guards is taken.

    Attributes:
        max_bytes: size of the file, and of all its side files together.
        max_faces: triangles after instancing.
        max_vertices: vertices after instancing.
        max_texture_pixels: pixels of all different textures together.
        max_nodes: scene nodes and geometries.
        is_side_file_required: refuse an OBJ or PLY whose material or texture file is absent;
            else load it plain and log a warning.
    """

    max_bytes: int = 2 * 1024**3
    max_faces: int = 2_000_000
    max_vertices: int = 6_000_000
    max_texture_pixels: int = 64_000_000
    max_nodes: int = 200_000
    is_side_file_required: bool = True


def check_counts(num_faces: int, num_vertices: int, limits: MeshLimits) -> None:
    """Refuse a mesh by the counts its header announces, before anything is built."""
    if num_faces > limits.max_faces:
        raise AssetRejected(
            "too_many_faces",
            f"{num_faces} faces > {limits.max_faces}; decimate the mesh or raise max_faces",
        )
    if num_vertices > limits.max_vertices:
        raise AssetRejected(
            "too_many_vertices",
            f"{num_vertices} vertices > {limits.max_vertices}; decimate the mesh or raise "
            "max_vertices",
        )


def make_unreadable_error(
    what: str, hint: str = "export the mesh again, best as GLB"
) -> AssetRejected:
    """Make the error for bytes that are not a readable mesh."""
    return AssetRejected("unreadable", f"{what}; {hint}")
