"""glTF 2.0 scenes to pieces: triangles, strips and fans, colours, each at its place.

The scene graph is walked in `gltf_nodes.py`, skins and morph targets are posed in `gltf_deform.py`.
Counts are summed from the JSON alone before any array is made. Vertices that several primitives
share are read once, and each primitive keeps those that it uses. Lines and points are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.corners import name_all_faces
from segvigen_model.mesh.formats.gltf_accessors import read_accessor, read_view_bytes
from segvigen_model.mesh.formats.gltf_compressed import DRACO, MESHOPT_NAMES, decode_draco
from segvigen_model.mesh.formats.gltf_deform import (
    apply_morph_targets,
    list_joint_matrices,
    pose_vertices,
    read_rows,
)
from segvigen_model.mesh.formats.gltf_materials import GltfMaterial, read_materials
from segvigen_model.mesh.formats.gltf_nodes import (
    FAN,
    INSTANCING,
    TRIANGLES,
    DrawnPrimitive,
    GltfScene,
    list_drawn_primitives,
)
from segvigen_model.mesh.formats.gltf_source import (
    GltfSource,
    get_extension,
    get_item,
    is_required,
    open_glb,
    parse_header,
    parse_whole,
    read_count,
)
from segvigen_model.mesh.formats.limits import MeshLimits, check_counts, make_unreadable_error
from segvigen_model.mesh.formats.pieces import Piece, place_piece
from segvigen_model.types import ByteArray, FaceOrigin, FloatArray, IntArray, Material

# Extensions that may be *required*: those we read, and those that change no surface.
KNOWN_EXTENSIONS = frozenset({
    DRACO,
    *MESHOPT_NAMES,
    INSTANCING,
    "KHR_mesh_quantization",
    "KHR_texture_basisu",
    "KHR_texture_transform",
    "EXT_texture_webp",
    "MSFT_texture_dds",
    "KHR_lights_punctual",
    "KHR_animation_pointer",
    "KHR_node_visibility",
    "KHR_xmp_json_ld",
    "EXT_lights_image_based",
    "EXT_mesh_features",
    "EXT_structural_metadata",
    "EXT_instance_features",
    "CESIUM_primitive_outline",
    "MSFT_lod",
})  # fmt: skip
SKIPPED = "primitives_without_faces"  # points and lines


@dataclass(frozen=True, slots=True)
class _Reader:
    """One file being read, with what is made once for all its primitives."""

    source: GltfSource
    scene: GltfScene
    materials: Mapping[int, GltfMaterial]
    num_users: Mapping[int, int]  # POSITION accessor -> primitives
    pieces: dict[tuple[Any, ...], tuple[Piece, FloatArray | None]] = field(default_factory=dict)
    skins: dict[int, FloatArray] = field(default_factory=dict)


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
    scene = list_drawn_primitives(source, limits)
    num_faces, num_users = _check_announced(source, scene.entries, limits)
    used = [_get_material_index(entry.primitive) for entry in scene.entries]
    materials = read_materials(source, used, limits.max_texture_pixels)
    reader = _Reader(source, scene, materials, num_users)
    pieces = [_read_entry(reader, entry) for entry in scene.entries]
    found = sum(len(piece.faces) for piece in pieces)
    if found != num_faces:
        raise make_unreadable_error(f"the glTF announces {num_faces} triangles and gives {found}")
    reported = Piece(
        np.zeros((0, 3)),
        np.zeros((0, 3), dtype=np.int64),
        (Material(),),
        repairs=((SKIPPED, scene.num_skipped),),
        announced={"faces": num_faces},
    )
    return [*pieces, reported]


def check_extensions(source: GltfSource) -> None:
    """Refuse a file that needs an extension which is not read."""
    required = source.header.get("extensionsRequired", [])
    names = [str(name) for name in required] if isinstance(required, list) else []
    unknown = [n for n in names if n not in KNOWN_EXTENSIONS and "KHR_materials" not in n]
    if unknown:
        raise AssetRejected(
            "unsupported_extension",
            f"the file needs {unknown[0][:60]!r}; export it again without that extension",
        )


def _get_material_index(primitive: Mapping[str, Any]) -> int:
    return read_count(primitive, "material") if "material" in primitive else -1


def _get_attributes(primitive: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or "POSITION" not in attributes:
        raise make_unreadable_error("a glTF primitive has no POSITION")
    return attributes


def _check_announced(
    source: GltfSource, entries: list[DrawnPrimitive], limits: MeshLimits
) -> tuple[int, Counter[int]]:
    """Announced triangles, and how many primitives use each POSITION accessor."""
    num_faces = num_vertices = 0
    users: dict[int, set[tuple[int, int]]] = {}
    held: dict[int, int] = {}
    for entry in entries:
        number = parse_whole(_get_attributes(entry.primitive)["POSITION"])
        vertices = read_count(get_item(source, "accessors", number), "count")
        assert number is not None  # get_item found it
        corners = vertices
        if "indices" in entry.primitive:
            corners = read_count(get_item(source, "accessors", entry.primitive["indices"]), "count")
        is_list = parse_whole(entry.primitive.get("mode", TRIANGLES)) == TRIANGLES
        num_faces += corners // 3 if is_list else max(corners - 2, 0)
        users.setdefault(number, set()).add(entry.key)
        held[number] = vertices
        # Of shared vertices a primitive keeps those that it uses, at most one for each corner.
        num_vertices += vertices if len(users[number]) == 1 else min(vertices, corners)
    check_counts(num_faces, max(num_vertices, sum(held.values())), limits)
    return num_faces, Counter({number: len(keys) for number, keys in users.items()})


def _read_entry(reader: _Reader, entry: DrawnPrimitive) -> Piece:
    key = (entry.key, entry.skin, entry.weights)
    if key not in reader.pieces:
        reader.pieces[key] = _read_primitive(reader, entry)
    piece, placement = reader.pieces[key]
    objects = name_all_faces(entry.node_name, len(piece.faces))
    if objects is not None:
        own = piece.origin
        named = FaceOrigin(own.polygons, objects, own.groups, own.materials)
        piece = replace(piece, origin=named)
    return place_piece(piece, entry.matrix if placement is None else placement)


def _read_primitive(reader: _Reader, entry: DrawnPrimitive) -> tuple[Piece, FloatArray | None]:
    """A primitive, and its placement where the node's own does not count."""
    source = _decompress_primitive(reader.source, entry.primitive)
    attributes = _get_attributes(entry.primitive)
    found = read_rows(source, attributes, "POSITION", (3,))
    assert found is not None  # _get_attributes requested it
    count = len(found)
    vertices = apply_morph_targets(
        source, entry.primitive, entry.weights, found.astype(np.float64), "POSITION"
    )
    normals = read_rows(source, attributes, "NORMAL", (3,), count)
    if normals is not None and entry.weights:
        normals = apply_morph_targets(
            source, entry.primitive, entry.weights, normals.astype(np.float64), "NORMAL"
        )
    placement = None
    if entry.skin is not None:
        if entry.skin not in reader.skins:
            reader.skins[entry.skin] = list_joint_matrices(source, reader.scene, entry.skin)
        vertices, placement = pose_vertices(source, attributes, vertices, reader.skins[entry.skin])
        if placement is None:
            placement, normals = np.eye(4), None  # posed normals follow from the posed faces
    material = reader.materials[_get_material_index(entry.primitive)]
    uv = read_rows(source, attributes, f"TEXCOORD_{material.uv_set}", (2,), count)
    faces = read_faces(source, entry.primitive, count)
    piece = Piece(
        vertices=vertices,
        faces=faces,
        materials=(material.material,),
        name=entry.name,
        origin=FaceOrigin(
            groups=name_all_faces(entry.mesh_name, len(faces)),
            materials=name_all_faces(material.material.name, len(faces)),
        ),
        uv=_transform_uv(uv, material),
        colors=_convert_colors(read_rows(source, attributes, "COLOR_0", (3, 4), count)),
        normals=None if normals is None else normals.astype(np.float32),
    )
    is_shared = reader.num_users[parse_whole(attributes["POSITION"]) or 0] > 1
    return (_keep_used(piece) if is_shared else piece), placement


def _decompress_primitive(source: GltfSource, primitive: Mapping[str, Any]) -> GltfSource:
    """The file with a Draco primitive's values in the place of its empty accessors."""
    extension = get_extension(primitive, DRACO)
    if extension is None:
        return source
    positions = get_item(source, "accessors", _get_attributes(primitive)["POSITION"])
    if "bufferView" in positions and not is_required(source, DRACO):
        return source  # the file holds the same values plain
    faces, values = decode_draco(read_view_bytes(source, extension.get("bufferView"))[0], extension)
    found: dict[int, NDArray[Any]] = {}
    if "indices" in primitive:
        found[parse_whole(primitive["indices"]) or 0] = faces.reshape(-1, 1).astype(np.uint32)
    attributes = _get_attributes(primitive)
    for name, rows in values.items():
        found[parse_whole(attributes.get(name)) or 0] = _normalize_draco(
            get_item(source, "accessors", attributes.get(name)), rows
        )
    for number, rows in found.items():
        announced = read_count(get_item(source, "accessors", number), "count")
        if announced != len(rows):
            raise AssetRejected(
                "truncated",
                f"Draco data gives {len(rows)} rows where accessor {number} announces "
                f"{announced}; fetch the file again",
            )
    return replace(source, accessors=found)


def _normalize_draco(accessor: Mapping[str, Any], rows: NDArray[Any]) -> NDArray[Any]:
    if accessor.get("normalized") and rows.dtype.kind in "iu":
        scaled = rows.astype(np.float32) / np.float32(np.iinfo(rows.dtype).max)
        rows = np.maximum(scaled, np.float32(-1.0))
    return rows


def _keep_used(piece: Piece) -> Piece:
    """Leave out vertices that the piece has no face on; the others keep their order."""
    used, inverse = np.unique(piece.faces, return_inverse=True)
    if not len(used) or used[0] < 0 or used[-1] >= len(piece.vertices):
        return piece  # the joiner names the broken index
    return replace(
        piece,
        vertices=piece.vertices[used],
        faces=inverse.reshape(-1, 3),
        uv=None if piece.uv is None else piece.uv[used],
        colors=None if piece.colors is None else piece.colors[used],
        normals=None if piece.normals is None else piece.normals[used],
    )


def read_faces(source: GltfSource, primitive: Mapping[str, Any], num_vertices: int) -> IntArray:
    """(F, 3) int64 triangles of a primitive."""
    if "indices" in primitive:
        corners = read_accessor(source, primitive["indices"])
        if corners.shape[1] != 1 or corners.dtype.kind != "u":
            raise make_unreadable_error("glTF indices are not whole numbers")
        flat = corners.ravel().astype(np.int64)
    else:
        flat = np.arange(num_vertices, dtype=np.int64)
    mode = parse_whole(primitive.get("mode", TRIANGLES))
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
