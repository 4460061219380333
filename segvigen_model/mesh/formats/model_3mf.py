"""3MF packages: our own strict reader, in a confined process only (`isolation.py`).

What the build holds is read: each item's object, its components at their transforms, in the file's
order. Positions are in glTF's frame: metres by the file's unit, Y up where 3MF has Z up. Base
materials become materials, colours vertex colours, texture coordinates one material a texture.
Trimesh reads neither materials nor units and skips broken references in silence; lib3mf is eleven
megabytes of C++ for what is a small XML file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.archives import Archive, open_archive
from segvigen_model.mesh.formats.corners import split_vertices
from segvigen_model.mesh.formats.images import check_pixels, decode_pixels, open_image
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.model_3mf_xml import NONE, ModelPart, ObjectPart, parse_model
from segvigen_model.mesh.formats.pieces import Piece, place_piece
from segvigen_model.types import FaceOrigin, FloatArray, IntArray, Material, NameColumn

# 3MF has Z up, glTF has Y up.
TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
MAX_DEPTH = 32  # components within components


@dataclass(frozen=True, slots=True)
class _Package:
    """A package being read; parts, pieces and materials are made once."""

    archive: Archive
    limits: MeshLimits
    parts: dict[str, ModelPart] = field(default_factory=dict)
    pieces: dict[tuple[str, int], Piece] = field(default_factory=dict)
    materials: dict[tuple[str, int, int], Material] = field(default_factory=dict)
    images: dict[str, Material] = field(default_factory=dict)
    plain: Material = field(default_factory=lambda: Material(name="plain", metallic_factor=0.0))


def read_3mf(data: bytes, side_files: Mapping[str, bytes], limits: MeshLimits) -> list[Piece]:
    """Read a 3MF package into placed pieces.

    Args:
        data: the whole file.
        side_files: not looked at; a package holds all it needs.
        limits: bounds, checked while the XML is read.

    Raises:
        AssetRejected: the file cannot be used.
    """
    package = _Package(open_archive(data, limits, "3MF"), limits)
    root = _find_root(package.archive)
    model = _open_part(package, root)
    to_metres = np.diag([model.scale, model.scale, model.scale, 1.0])
    drawn: list[tuple[str, int, FloatArray]] = []
    for path, number, matrix in model.items:
        _list_objects(package, (path or root, number), TO_Y_UP @ to_metres @ matrix, drawn, 0)
    parts = [package.parts[path].objects[number] for path, number, _ in drawn]
    check_counts(
        sum(len(part.corners) // 3 for part in parts),
        sum(len(part.points) // 3 for part in parts),
        limits,
    )
    return [
        place_piece(_read_object(package, path, number), matrix) for path, number, matrix in drawn
    ]


def _find_root(archive: Archive) -> str:
    """Path of the model part that the package's relations name, or the usual one."""
    for name in archive.entries:
        if name.lower() == "_rels/.rels":
            text = archive.read(name).decode("utf-8", "replace")
            for relation in text.split("<Relationship ")[1:]:
                if "3dmodel" in relation.split("Type=", 1)[-1][:80] and 'Target="' in relation:
                    return relation.split('Target="', 1)[1].split('"', 1)[0]
    return "3D/3dmodel.model"


def _clean(path: str) -> str:
    return path.replace("\\", "/").lstrip("/")


def _open_part(package: _Package, path: str) -> ModelPart:
    if path not in package.parts:
        package.parts[path] = parse_model(_read_entry(package, path), package.limits)
    return package.parts[path]


def _read_entry(package: _Package, path: str) -> bytes:
    names = {name.lower(): name for name in package.archive.entries}
    found = names.get(_clean(path).lower())
    if found is None:
        raise AssetRejected(
            "unreadable", f"the 3MF refers to {path[:80]!r}, which is not in it; export it again"
        )
    return package.archive.read(found)


def _list_objects(
    package: _Package,
    key: tuple[str, int],
    matrix: FloatArray,
    drawn: list[tuple[str, int, FloatArray]],
    depth: int,
) -> None:
    """Append the meshes of an object and its components, with their places."""
    path, number = key
    part = _open_part(package, path).objects.get(number)
    if part is None:
        raise make_unreadable_error(f"the 3MF builds object {number}, which is not there")
    if depth > MAX_DEPTH:
        raise make_unreadable_error(f"3MF object {number} contains itself or is nested too deep")
    if part.corners:
        drawn.append((path, number, matrix))
    if len(drawn) > package.limits.max_nodes:
        raise AssetRejected(
            "too_many_nodes",
            f"the build has more than {package.limits.max_nodes} meshes; join them",
        )
    for other, child, local in part.components:
        _list_objects(package, (other or path, child), matrix @ local, drawn, depth + 1)


def _read_object(package: _Package, path: str, number: int) -> Piece:
    key = (path, number)
    if key not in package.pieces:
        package.pieces[key] = _build_piece(package, path, package.parts[path].objects[number])
    return package.pieces[key]


def _build_piece(package: _Package, path: str, part: ObjectPart) -> Piece:
    points = np.frombuffer(part.points, dtype=np.float64).reshape(-1, 3)
    faces = np.frombuffer(part.corners, dtype=np.int64).reshape(-1, 3)
    if len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < len(points):
        raise make_unreadable_error(
            f"a triangle of 3MF object {part.name[:60]!r} names vertex {int(faces.max())} of "
            f"{len(points)}"
        )
    properties = np.frombuffer(part.properties, dtype=np.int64).reshape(-1, 4).copy()
    is_default = properties[:, 0] == NONE
    properties[is_default] = (part.default[0], *(part.default[1],) * 3)
    materials, face_material = _list_materials(package, path, properties)
    colors = _list_colors(package.parts[path], properties)
    owner: IntArray = np.arange(len(points))
    new: IntArray = faces
    if colors is not None:
        _, packed = np.unique(colors.reshape(-1, 4), axis=0, return_inverse=True)
        first, owner, corners = split_vertices(faces.reshape(-1), packed.reshape(-1))
        new, colors = corners.reshape(-1, 3), colors.reshape(-1, 4)[first]
    names = [material.name for material in materials]
    return Piece(
        vertices=points[owner],
        faces=new,
        materials=materials,
        name=part.name,
        face_material=face_material,
        corner_uv=_list_coordinates(package.parts[path], properties),
        colors=None if colors is None else colors.astype(np.uint8),
        origin=FaceOrigin(
            objects=NameColumn(np.zeros(len(faces), dtype=np.int32), (part.name,)),
            materials=NameColumn(face_material.astype(np.int32), tuple(names)),
        ),
        announced={"faces": len(faces)},
    )


def _list_materials(
    package: _Package, path: str, properties: IntArray
) -> tuple[tuple[Material, ...], IntArray]:
    """Materials of an object, and (F,) the one of each face: of its first corner."""
    model = package.parts[path]
    # Of colours and coordinates all indices have one material.
    groups = properties[:, 0]
    own = np.where(np.isin(groups, list(model.bases)), properties[:, 1], 0)
    pairs, numbers = np.unique(np.stack([groups, own], axis=1), axis=0, return_inverse=True)
    found = [_get_material(package, path, int(group), int(index)) for group, index in pairs]
    return tuple(found), numbers.reshape(-1)


def _get_material(package: _Package, path: str, group: int, index: int) -> Material:
    model, key = package.parts[path], (path, group, index)
    if key in package.materials:
        return package.materials[key]
    material = package.plain
    if group in model.bases:
        bases = model.bases[group]
        if index >= len(bases):
            raise make_unreadable_error(f"a 3MF triangle names material {index} of {len(bases)}")
        name, color = bases[index]
        red, green, blue, alpha = (value / 255.0 for value in color)
        material = Material(
            name=name, base_color_factor=(red, green, blue, alpha), metallic_factor=0.0
        )
    elif group in model.texture_groups:
        material = _load_texture(package, model, model.texture_groups[group][0])
    elif group not in model.colors and group != NONE:
        raise make_unreadable_error(
            f"a 3MF triangle names property group {group}, which is not read"
        )
    package.materials[key] = material
    return material


def _load_texture(package: _Package, model: ModelPart, number: int) -> Material:
    path = model.textures.get(number)
    if path is None:
        raise make_unreadable_error(f"the 3MF names texture {number}, which is not there")
    if path not in package.images:
        image = open_image(_read_entry(package, path), path)
        used = [m.base_color_texture for m in package.images.values()]
        held = sum(texels.shape[0] * texels.shape[1] for texels in used if texels is not None)
        check_pixels([image], package.limits.max_texture_pixels - held)
        package.images[path] = Material(
            name=PurePosixPath(path).stem,
            metallic_factor=0.0,
            base_color_texture=decode_pixels(image, "RGBA", path),
        )
    return package.images[path]


def _list_colors(model: ModelPart, properties: IntArray) -> IntArray | None:
    """(F, 3, 4) colours of corners, white where a face has none; None without any."""
    return _look_up(model.colors, properties, [255, 255, 255, 255])


def _list_coordinates(model: ModelPart, properties: IntArray) -> FloatArray | None:
    """(F, 3, 2) float32 texture coordinates, v down; None without any."""
    found = _look_up(
        {group: rows for group, (_, rows) in model.texture_groups.items()}, properties, [0.0, 1.0]
    )
    if found is None:
        return None
    uv = found.astype(np.float32)
    uv[:, :, 1] = 1.0 - uv[:, :, 1]
    return uv


def _look_up(
    tables: Mapping[int, list[tuple[int, ...]]] | Mapping[int, list[tuple[float, float]]],
    properties: IntArray,
    default: list[int] | list[float],
) -> NDArray[Any] | None:
    """(F, 3, width) rows of property groups at each corner."""
    used = [group for group in np.unique(properties[:, 0]).tolist() if group in tables]
    if not used:
        return None
    result = np.tile(np.array(default), (len(properties), 3, 1))
    for group in used:
        rows = properties[:, 0] == group
        table = np.array(tables[group]).reshape(-1, len(default))
        indices = properties[rows, 1:]
        if int(indices.max()) >= len(table):
            raise make_unreadable_error(
                f"a 3MF triangle names entry {int(indices.max())} of {len(table)} in group {group}"
            )
        result[rows] = table[indices]
    return result
