"""A mesh cut into its parts as GLB: one node per part, with its name, part id and colour.

Two looks. *Source*: the asset's own materials, textures and texture coordinates, and every part's
colour as a material variant (KHR_materials_variants: "source", "parts"). *Painted*: plain part
colours only, small, the same in every viewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from segvigen_model.mesh.formats.glb_blob import (
    GlbBlob,
    add_positions,
    build_material,
    choose_origin,
    describe_node,
    pack_glb,
)
from segvigen_model.mesh.formats.glb_writer import build_primitive
from segvigen_model.types import AssetMesh, ByteArray, FloatArray, IntArray

VARIANTS = "KHR_materials_variants"
VARIANT_NAMES = ("source", "parts")


def parts_to_glb(
    mesh: AssetMesh,
    face_labels: IntArray,
    colors: ByteArray,
    names: Sequence[str] = (),
    *,
    is_painted: bool = True,
) -> bytes:
    """Write a mesh as GLB with one node per part.

    A node is called as its part, or `part 0`, `part 1`, ...; its `extras` hold `part` (id), `name`
    and `color` ("#rrggbb").

    Args:
        mesh: what to write.
        face_labels: (F,) int part ids 0..P-1, each with a face.
        colors: (P, 3) uint8, sRGB.
        names: P names, "" = none; untrusted text. Empty = none at all.
        is_painted: plain part colours, without the asset's materials; False keeps those.

    Returns:
        The file's bytes. Faces of a part keep their order; with materials, those of a part's first
        material come first.

    Raises:
        ValueError: the labels are not dense, or there is not one colour (and name) per part.
    """
    ids = np.unique(face_labels)
    if not np.array_equal(ids, np.arange(len(colors))):
        raise ValueError(
            f"{len(colors)} colours for part ids {ids.tolist()}; give dense ids from 0 and one "
            "colour per part"
        )
    if len(names) not in (0, len(colors)):
        raise ValueError(f"{len(names)} names for {len(colors)} parts; give one each, or none")
    blob = GlbBlob()
    painted = [_describe_color(part, color) for part, color in enumerate(colors)]
    materials = [] if is_painted else [build_material(blob, each) for each in mesh.materials]
    meshes, nodes = [], []
    for part, rows in enumerate(_group_faces(face_labels, len(colors))):
        origin = choose_origin(mesh.triangles[rows].reshape(-1, 3))
        if is_painted:
            primitives = [_build_painted(blob, mesh, rows, origin) | {"material": part}]
        else:
            primitives = _build_sourced(blob, mesh, rows, origin)
            for primitive in primitives:
                primitive["extensions"] = _choose_material(primitive, len(materials) + part)
        name = names[part] if names and names[part] else f"part {part}"
        about = {"part": part, "name": names[part] if names else "", "color": to_hex(colors[part])}
        meshes.append({"name": name, "primitives": primitives})
        nodes.append(describe_node(name, part, origin) | {"extras": about})
    header: dict[str, Any] = {
        "materials": materials + painted,
        "meshes": meshes,
        "nodes": nodes,
        "scenes": [{"nodes": [*range(len(nodes))][::-1]}],  # readers take the last child first
    }
    if not is_painted:
        header["extensionsUsed"] = [VARIANTS]
        header["extensions"] = {VARIANTS: {"variants": [{"name": name} for name in VARIANT_NAMES]}}
    return pack_glb(header, blob)


def to_hex(color: ByteArray) -> str:
    """Return a (3,) uint8 colour as "#rrggbb"."""
    return "#" + bytes(color[:3].astype(np.uint8)).hex()


def _group_faces(face_labels: IntArray, count: int) -> list[IntArray]:
    """The faces of each part, ascending."""
    order = np.argsort(face_labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(face_labels, minlength=count))[:-1])


def _build_painted(
    blob: GlbBlob, mesh: AssetMesh, rows: IntArray, origin: FloatArray
) -> dict[str, Any]:
    corners = mesh.triangles[rows].reshape(-1, 3)
    return {"attributes": {"POSITION": add_positions(blob, corners - origin)}}


def _build_sourced(
    blob: GlbBlob, mesh: AssetMesh, rows: IntArray, origin: FloatArray
) -> list[dict[str, Any]]:
    """One primitive for each material, in the order in which the faces have them."""
    material = mesh.face_material[rows]
    _, first = np.unique(material, return_index=True)
    return [
        build_primitive(blob, mesh, rows[material == material[start]], origin)
        for start in np.sort(first)
    ]


def _choose_material(primitive: dict[str, Any], painted: int) -> dict[str, Any]:
    own = primitive["material"]
    mappings = [{"material": own, "variants": [0]}, {"material": painted, "variants": [1]}]
    return {VARIANTS: {"mappings": mappings}}


def _describe_color(part: int, color: ByteArray) -> dict[str, Any]:
    """A material of one sRGB colour; glTF's factors are linear."""
    value = color[:3].astype(np.float64)
    linear = np.where(value <= 10, value / 3294.6, ((value / 255 + 0.055) / 1.055) ** 2.4)
    return {
        "name": f"part {part}",
        "pbrMetallicRoughness": {
            "baseColorFactor": [*linear.tolist(), 1.0],
            "metallicFactor": 0.0,
        },
        "doubleSided": True,
    }
