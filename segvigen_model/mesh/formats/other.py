"""OBJ, PLY, STL and OFF through trimesh, fed from memory only.

trimesh asks a resolver for side files; ours knows nothing but the mapping it was given, so a file
can name any path or address it likes and nothing outside that mapping is ever opened.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import trimesh

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.images import decode_pixels
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.mesh.formats.pieces import Piece, place_piece
from segvigen_model.types import ByteArray, FloatArray, Material


class MappingResolver(trimesh.resolvers.Resolver):  # type: ignore[misc]
    """Serves side files from a mapping, and nothing else."""

    def __init__(self, side_files: Mapping[str, bytes]) -> None:
        self._side_files = side_files

    def get(self, key: str) -> bytes:
        """Give the bytes of one side file; an unknown name is an OSError, as trimesh expects."""
        name = _clean_name(key)
        if name not in self._side_files:
            raise FileNotFoundError(name)
        return self._side_files[name]

    def keys(self) -> list[str]:
        """List the names that can be asked for."""
        return list(self._side_files)

    def namespaced(self, namespace: str) -> MappingResolver:
        """Give the resolver of a folder; folders are part of the names here."""
        return self

    def write(self, name: str, data: bytes) -> None:
        """Refuse: a loader has nothing to write."""
        raise OSError(f"read-only: {name}")


def _clean_name(name: str) -> str:
    """Bring the spelling of a side file's name to the mapping's: forward slashes, no `./`."""
    return name.strip().strip('"').replace("\\", "/").removeprefix("./")


def read_with_trimesh(data: bytes, suffix: str, side_files: Mapping[str, bytes]) -> list[Piece]:
    """Read a mesh into pieces, in the order of trimesh's `load(force="scene").to_geometry()`."""
    try:
        return _read_scene(data, suffix, side_files)
    except AssetRejected:
        raise
    except Exception as err:  # parsers of untrusted text raise whatever they meet
        raise make_unreadable_error(
            f"{suffix.upper()} does not parse: {type(err).__name__}: {err}"
        ) from err


def _read_scene(data: bytes, suffix: str, side_files: Mapping[str, bytes]) -> list[Piece]:
    scene: Any = trimesh.load(
        io.BytesIO(data),
        file_type=suffix,
        resolver=MappingResolver(side_files),
        force="scene",
        process=False,
    )
    materials: dict[int, Material] = {}
    pieces = []
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh):
            pieces.append(
                place_piece(_build_piece(geometry, str(name), materials), np.asarray(matrix))
            )
    return pieces


def _build_piece(mesh: Any, name: str, materials: dict[int, Material]) -> Piece:
    visual = mesh.visual
    vertices = np.array(mesh.vertices, dtype=np.float64)
    faces = np.array(mesh.faces, dtype=np.int64).reshape(-1, 3)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise make_unreadable_error(f"{name[:80]!r} has vertices of shape {vertices.shape}")
    normals = mesh._cache.cache.get("vertex_normals")  # only what the file itself gave
    if normals is not None and np.shape(normals) != vertices.shape:
        normals = None
    if visual.kind == "face":
        # Colours per face need corners of their own; faces keep their rows.
        colors = np.repeat(np.asarray(visual.face_colors, dtype=np.uint8), 3, axis=0)
        return Piece(
            vertices[faces.ravel()],
            np.arange(faces.size).reshape(-1, 3),
            (_make_plain_material(materials),),
            name,
            colors=colors,
            normals=None if normals is None else normals[faces.ravel()],
        )
    if visual.kind == "vertex":
        colors = np.asarray(visual.vertex_colors, dtype=np.uint8)
        material = _make_plain_material(materials)
        return Piece(vertices, faces, (material,), name, colors=colors, normals=normals)
    if visual.kind == "texture":
        key = id(visual.material)
        if key not in materials:
            materials[key] = _convert_simple_material(visual.material)
        own, uv = (materials[key],), _get_uv(visual.uv)
        return Piece(vertices, faces, own, name, uv=uv, normals=normals)
    return Piece(vertices, faces, (_make_plain_material(materials),), name, normals=normals)


def _make_plain_material(materials: dict[int, Material]) -> Material:
    """Give the one material of all surfaces that name none: white, rough, not metallic."""
    return materials.setdefault(0, Material(name="plain", metallic_factor=0.0))


def _get_uv(uv: Any) -> FloatArray | None:
    if uv is None or len(uv) == 0:
        return None
    flipped = np.array(uv, dtype=np.float64)[:, :2]
    flipped[:, 1] = 1.0 - flipped[:, 1]  # trimesh has v up
    return flipped.astype(np.float32)


def _convert_simple_material(source: Any) -> Material:
    name = str(source.name or "")
    image = getattr(source, "image", None)
    texture: ByteArray | None = None if image is None else decode_pixels(image, "RGBA", name)
    diffuse = np.asarray(source.diffuse, dtype=np.float64) / 255.0
    if texture is not None and (not diffuse[:3].any() or "kd" not in source.kwargs):
        # Exporters write Kd 0 or none beside a texture and mean the texture alone.
        diffuse = np.ones(4)
    shine = max(float(source.glossiness or 0.0), 0.0)
    red, green, blue, alpha = (float(value) for value in diffuse[:4])
    return Material(
        name=name,
        base_color_factor=(red, green, blue, alpha),
        metallic_factor=0.0,
        roughness_factor=float((2.0 / (shine + 2.0)) ** 0.25),
        base_color_texture=texture,
    )
