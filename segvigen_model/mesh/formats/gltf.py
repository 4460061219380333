"""glTF 2.0 scenes to pieces: nodes, transforms, triangles, strips and fans, colours.

Nodes are visited depth first, the LAST child first: the order in which trimesh's
`load(force="scene").to_geometry()` lists them, so labels made with either fit the other.
Counts are summed from the JSON alone before any array is made. single shells and morph targets
stay in their bind pose; lines and points are left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.gltf_materials import GltfMaterial, read_materials
from segvigen_model.mesh.formats.gltf_source import (
    GltfSource,
    get_item,
    open_glb,
    parse_header,
    read_accessor,
    read_count,
)
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.pieces import Piece, place_piece
from segvigen_model.types import ByteArray, FloatArray, IntArray

log = logging.getLogger(__name__)

TRIANGLES, STRIP, FAN = 4, 5, 6
# Extensions that may be *required*: those we read, and those that change crops only.
KNOWN_EXTENSIONS = frozenset({
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "EXT_texture_webp",
    "MSFT_texture_dds",
    "KHR_lights_punctual",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class DrawnPrimitive:
    """One primitive at one place of the scene."""

    primitive: Mapping[str, Any]
    key: tuple[int, int]  # mesh, primitive
    name: str
    matrix: FloatArray


def read_gltf(
    data: bytes, suffix: str, side_files: Mapping[str, bytes], limits: MeshLimits
) -> list[Piece]:
    """Read a .glb or .gltf file into placed pieces.

    Args:
        data: the whole file.
        suffix: "glb" or "gltf".
        side_files: buffers and images of a .gltf, by the name written in it.
        limits: checked on announced counts, before memory is taken.
    """
    if suffix == "glb":
        source = open_glb(data)
    else:
        source = GltfSource(parse_header(data), None, side_files, is_binary=False)
    check_extensions(source)
    entries = _list_drawn_primitives(source, limits)
    _check_announced(source, entries, limits)
    used = [_get_material_index(entry.primitive) for entry in entries]
    materials = read_materials(source, used, limits.max_texture_pixels)
    pieces: dict[tuple[int, int], Piece] = {}
    for entry in entries:
        if entry.key not in pieces:
            pieces[entry.key] = _read_primitive(source, entry, materials)
    return [place_piece(pieces[entry.key], entry.matrix) for entry in entries]


def check_extensions(source: GltfSource) -> None:
    """Refuse a file that needs an extension which is not read."""
    required = source.header.get("extensionsRequired", [])
    names = [str(name) for name in required] if isinstance(required, list) else []
    unknown = [n for n in names if n not in KNOWN_EXTENSIONS and "KHR_materials" not in n]
    if unknown:
        raise AssetRejected(
            "unsupported_extension",
            f"the file needs {unknown[0][:60]!r}; export it again without that extension "
            "(no Draco, meshopt or KTX2)",
        )


def _list_drawn_primitives(source: GltfSource, limits: MeshLimits) -> list[DrawnPrimitive]:
    entries: list[DrawnPrimitive] = []
    stack: list[tuple[Any, FloatArray]] = [(root, np.eye(4)) for root in find_roots(source)]
    seen: set[int] = set()
    while stack:
        index, parent = stack.pop()
        node = get_item(source, "nodes", index)
        if index in seen:
            raise make_unreadable_error(f"glTF node {index} has two parents or contains itself")
        seen.add(index)
        matrix = parent @ compute_local_matrix(node)
        children = node.get("children", [])
        if not isinstance(children, list):
            raise make_unreadable_error(f"glTF node {index} has no list of children")
        stack.extend((child, matrix) for child in children)
        if "mesh" in node:
            entries.extend(_list_primitives(source, node["mesh"], matrix))
        if len(entries) > limits.max_nodes or len(seen) > limits.max_nodes:
            raise AssetRejected(
                "too_many_nodes",
                f"the scene draws more than {limits.max_nodes} pieces; join its meshes",
            )
    return entries


def find_roots(source: GltfSource) -> list[Any]:
    """Nodes at the top of the default scene."""
    header = source.header
    nodes = header.get("nodes", [])
    if not isinstance(nodes, list):
        raise make_unreadable_error("glTF nodes is no list")
    if header.get("scenes"):
        roots = get_item(source, "scenes", header.get("scene", 0)).get("nodes", [])
        if not isinstance(roots, list):
            raise make_unreadable_error("glTF scene has no list of nodes")
        return roots
    # Without a scene every node that is nobody's child is one.
    lists = [n.get("children") for n in nodes if isinstance(n, dict)]
    held = {child for kids in lists if isinstance(kids, list) for child in kids if _is_int(child)}
    return [index for index in range(len(nodes)) if index not in held]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def compute_local_matrix(node: Mapping[str, Any]) -> FloatArray:
    """(4, 4) transform of a node relative to its parent."""
    matrix: FloatArray
    try:
        if "matrix" in node:
            matrix = np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
        else:
            matrix = np.eye(4)
            turn = _compute_rotation(np.array(node.get("rotation", (0, 0, 0, 1)), dtype=np.float64))
            scale = np.array(node.get("scale", (1, 1, 1)), dtype=np.float64).reshape(3)
            matrix[:3, :3] = turn * scale
            matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as err:
        raise make_unreadable_error(f"a glTF node's transform does not parse: {err}") from err
    if not np.isfinite(matrix).all():
        raise make_unreadable_error("a glTF node's transform is not finite")
    return matrix


def _compute_rotation(quaternion: FloatArray) -> FloatArray:
    x, y, z, w = quaternion / max(float(np.linalg.norm(quaternion)), 1e-12)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _list_primitives(source: GltfSource, index: Any, matrix: FloatArray) -> list[DrawnPrimitive]:
    mesh = get_item(source, "meshes", index)
    primitives = mesh.get("primitives", [])
    if not isinstance(primitives, list) or not all(isinstance(p, dict) for p in primitives):
        raise make_unreadable_error(f"glTF mesh {index} has no list of primitives")
    name = str(mesh.get("name") or f"mesh_{index}")
    found = []
    for number, primitive in enumerate(primitives):
        if primitive.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN):
            log.info("primitive without triangles left out geometry=%r", name[:80])
            continue
        label = name if len(primitives) == 1 else f"{name}_{number}"
        found.append(DrawnPrimitive(primitive, (index, number), label, matrix))
    return found


def _get_material_index(primitive: Mapping[str, Any]) -> int:
    return read_count(primitive, "material") if "material" in primitive else -1


def _get_attributes(primitive: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or "POSITION" not in attributes:
        raise make_unreadable_error("a glTF primitive has no POSITION")
    return attributes


def _check_announced(source: GltfSource, entries: list[DrawnPrimitive], limits: MeshLimits) -> None:
    num_faces = num_vertices = 0
    for entry in entries:
        positions = get_item(source, "accessors", _get_attributes(entry.primitive)["POSITION"])
        vertices = read_count(positions, "count")
        corners = vertices
        if "indices" in entry.primitive:
            corners = read_count(get_item(source, "accessors", entry.primitive["indices"]), "count")
        is_list = entry.primitive.get("mode", TRIANGLES) == TRIANGLES
        num_faces += corners // 3 if is_list else max(corners - 2, 0)
        num_vertices += vertices
    check_counts(num_faces, num_vertices, limits)


def _read_primitive(
    source: GltfSource, entry: DrawnPrimitive, materials: Mapping[int, GltfMaterial]
) -> Piece:
    attributes = _get_attributes(entry.primitive)
    gltf_material = materials[_get_material_index(entry.primitive)]
    vertices = _read_attribute(source, attributes, "POSITION", (3,))
    assert vertices is not None  # _attributes requested it
    count = len(vertices)
    normals = _read_attribute(source, attributes, "NORMAL", (3,), count)
    return Piece(
        vertices=vertices.astype(np.float64),
        faces=read_faces(source, entry.primitive, count),
        materials=(gltf_material.material,),
        name=entry.name,
        uv=_transform_uv(
            _read_attribute(source, attributes, f"TEXCOORD_{gltf_material.uv_set}", (2,), count),
            gltf_material,
        ),
        colors=_convert_colors(_read_attribute(source, attributes, "COLOR_0", (3, 4), count)),
        normals=None if normals is None else normals.astype(np.float32),
    )


def _read_attribute(
    source: GltfSource,
    attributes: Mapping[str, Any],
    name: str,
    widths: tuple[int, ...],
    count: int | None = None,
) -> NDArray[Any] | None:
    if name not in attributes:
        return None
    announced = read_count(get_item(source, "accessors", attributes[name]), "count")
    if count is not None and announced != count:
        raise make_unreadable_error(
            f"glTF {name} has {announced} rows, its primitive {count} vertices"
        )
    values = read_accessor(source, attributes[name])
    if values.shape[1] not in widths:
        raise make_unreadable_error(f"glTF {name} has {values.shape[1]} columns, not {widths}")
    return values


def read_faces(source: GltfSource, primitive: Mapping[str, Any], num_vertices: int) -> IntArray:
    """(F, 3) int64 triangles of a primitive."""
    if "indices" in primitive:
        corners = read_accessor(source, primitive["indices"])
        if corners.shape[1] != 1 or corners.dtype.kind != "u":
            raise make_unreadable_error("glTF indices are not whole numbers")
        flat = corners.ravel().astype(np.int64)
    else:
        flat = np.arange(num_vertices, dtype=np.int64)
    mode = primitive.get("mode", TRIANGLES)
    if mode == TRIANGLES:
        if len(flat) % 3:
            raise make_unreadable_error(
                f"glTF triangles have {len(flat)} corners, not a multiple of 3"
            )
        return flat.reshape(-1, 3)
    if len(flat) < 3:
        return np.zeros((0, 3), dtype=np.int64)
    if mode == FAN:
        hub = np.broadcast_to(flat[0], len(flat) - 2)
        return np.stack([hub, flat[1:-1], flat[2:]], axis=1)
    strip = np.stack([flat[:-2], flat[1:-1], flat[2:]], axis=1)
    strip[1::2] = strip[1::2, ::-1]  # every other triangle of a strip is turned
    return strip


def _transform_uv(uv: NDArray[Any] | None, material: GltfMaterial) -> FloatArray | None:
    if uv is None or material.uv_transform is None:
        return None if uv is None else uv.astype(np.float32)
    moved = uv.astype(np.float64) @ material.uv_transform[:2, :2].T + material.uv_transform[:2, 2]
    return moved.astype(np.float32)


def _convert_colors(colors: NDArray[Any] | None) -> ByteArray | None:
    if colors is None:
        return None
    if colors.dtype.kind in "iu":  # the standard wants them normalised; some writers forget
        values = colors.astype(np.float64) / np.iinfo(colors.dtype).max
    else:
        values = np.nan_to_num(colors.astype(np.float64), nan=1.0)
    full = np.ones((len(values), 4))
    full[:, : values.shape[1]] = values
    return np.rint(np.clip(full, 0.0, 1.0) * 255.0).astype(np.uint8)
