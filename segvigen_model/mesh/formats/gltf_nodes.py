"""The scene graph of glTF: which primitives are drawn, and where.

Nodes are visited depth first, the LAST child first: the order in which trimesh's
`load(force="scene").to_geometry()` lists them, so labels made with either fit the other.
Instances of EXT_mesh_gpu_instancing follow each other in the order of the file. A node that is
reached twice is an error: a tree is what the standard asks for, and a circle would never end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.gltf_accessors import read_accessor
from segvigen_model.mesh.formats.gltf_source import (
    GltfSource,
    check_mapping,
    get_extension,
    get_item,
    parse_whole,
    read_count,
    read_list,
)
from segvigen_model.mesh.formats.limits import MeshLimits, make_unreadable_error
from segvigen_model.types import FloatArray

log = logging.getLogger(__name__)

TRIANGLES, STRIP, FAN = 4, 5, 6
NUM_MODES = 7
INSTANCING = "EXT_mesh_gpu_instancing"
IDENTITY = np.eye(4)
IDENTITY.flags.writeable = False


@dataclass(frozen=True, slots=True)
class DrawnPrimitive:
    """One primitive at one place of the scene.

    Attributes:
        primitive: its JSON.
        key: mesh, primitive.
        name: of the mesh, with the primitive's number where it has several; untrusted.
        mesh_name, node_name: of the mesh and of the node that draws it, "" where they have none.
        matrix: (4, 4) float64, mesh to scene.
        skin: number of the skin that places it, or None.
        weights: of its morph targets, empty = at rest.
    """

    primitive: Mapping[str, Any]
    key: tuple[int, int]
    name: str
    mesh_name: str
    node_name: str
    matrix: FloatArray
    skin: int | None = None
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class GltfScene:
    """What the default scene draws.

    Attributes:
        entries: primitives with triangles, in face order.
        num_skipped: primitives of points and lines, which have no faces.
        worlds: node -> (4, 4) transform to the scene, of the nodes that were visited.
    """

    entries: list[DrawnPrimitive]
    num_skipped: int
    worlds: dict[int, FloatArray]


def list_drawn_primitives(source: GltfSource, limits: MeshLimits) -> GltfScene:
    """Walk the default scene.

    Raises:
        AssetRejected: too_many_nodes, or unreadable for a graph that is no tree.
    """
    scene = GltfScene([], 0, {})
    num_skipped = 0
    stack: list[tuple[Any, FloatArray]] = [(root, IDENTITY) for root in find_roots(source)]
    while stack:
        index, parent = stack.pop()
        node, number = get_item(source, "nodes", index), parse_whole(index) or 0
        if number in scene.worlds:
            raise make_unreadable_error(f"glTF node {number} has two parents or contains itself")
        local = compute_local_matrix(node)
        matrix = local if parent is IDENTITY else parent if local is IDENTITY else parent @ local
        scene.worlds[number] = matrix
        children = read_list(node, "children", f"glTF node {number}")
        stack.extend((child, matrix) for child in children)
        if "mesh" in node:
            num_skipped += _draw_mesh(source, node, matrix, scene.entries, limits)
        if max(len(scene.entries), len(scene.worlds), len(stack)) > limits.max_nodes:
            raise _make_too_many_error(limits)
    return GltfScene(scene.entries, num_skipped, scene.worlds)


def _make_too_many_error(limits: MeshLimits) -> AssetRejected:
    return AssetRejected(
        "too_many_nodes",
        f"the scene draws more than {limits.max_nodes} pieces; join its meshes",
    )


def find_roots(source: GltfSource) -> list[Any]:
    """Nodes at the top of the default scene."""
    nodes = read_list(source.header, "nodes", "glTF")
    if source.header.get("scenes"):
        scene = get_item(source, "scenes", source.header.get("scene", 0))
        return read_list(scene, "nodes", "glTF scene")
    # Without a scene every node that is nobody's child is one.
    held = set(map_parents(source))
    return [index for index in range(len(nodes)) if index not in held]


def map_parents(source: GltfSource) -> dict[int, int]:
    """Child -> parent of all nodes, also outside the default scene."""
    parents: dict[int, int] = {}
    for number, node in enumerate(read_list(source.header, "nodes", "glTF")):
        children = check_mapping(node).get("children")
        for child in children if isinstance(children, list) else []:
            index = parse_whole(child)
            if index is not None:
                parents[index] = number
    return parents


def compute_local_matrix(node: Mapping[str, Any]) -> FloatArray:
    """(4, 4) transform of a node relative to its parent; IDENTITY itself where it has none."""
    is_moved = any(key in node for key in ("matrix", "rotation", "scale", "translation"))
    if not is_moved:
        return IDENTITY
    matrix: FloatArray
    try:
        if "matrix" in node:
            matrix = np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
        else:
            matrix = np.eye(4)
            if "rotation" in node:
                turn = np.array(node["rotation"], dtype=np.float64).reshape(1, 4)
                matrix[:3, :3] = compute_rotations(turn)[0]
            if "scale" in node:
                matrix[:3, :3] *= np.array(node["scale"], dtype=np.float64).reshape(3)
            if "translation" in node:
                matrix[:3, 3] = np.array(node["translation"], dtype=np.float64).reshape(3)
    except (TypeError, ValueError, OverflowError) as err:
        raise make_unreadable_error(f"a glTF node's transform does not parse: {err}") from err
    if not np.isfinite(matrix).all():
        raise make_unreadable_error("a glTF node's transform is not finite")
    return matrix


def compute_rotations(quaternions: FloatArray) -> FloatArray:
    """(N, 3, 3) rotations of (N, 4) quaternions x, y, z, w, of any length."""
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    x, y, z, w = (quaternions / np.maximum(length, 1e-12)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _draw_mesh(
    source: GltfSource,
    node: Mapping[str, Any],
    matrix: FloatArray,
    entries: list[DrawnPrimitive],
    limits: MeshLimits,
) -> int:
    """Append what a node draws, and give the number of primitives without triangles."""
    mesh, index = get_item(source, "meshes", node["mesh"]), parse_whole(node["mesh"]) or 0
    primitives = read_list(mesh, "primitives", f"glTF mesh {index}")
    mesh_name, node_name = str(mesh.get("name") or ""), str(node.get("name") or "")
    name = mesh_name or f"mesh_{index}"
    skin = None if node.get("skin") is None else read_count(node, "skin")
    weights = _read_weights(node, mesh)
    places = _list_instances(source, node, matrix, limits)
    if len(places) * len(primitives) > limits.max_nodes:
        raise _make_too_many_error(limits)
    num_skipped = 0
    for number, primitive in enumerate(primitives):
        if not isinstance(primitive, dict):
            raise make_unreadable_error(f"glTF mesh {index} has a primitive that is no object")
        mode = parse_whole(primitive.get("mode", TRIANGLES))
        if mode is None or not 0 <= mode < NUM_MODES:
            raise make_unreadable_error(
                f"glTF mesh {index} has a primitive of mode {str(primitive['mode'])[:20]}"
            )
        if mode < TRIANGLES:
            log.info("primitive without triangles left out geometry=%r", name[:80])
            num_skipped += 1
            continue
        label = name if len(primitives) == 1 else f"{name}_{number}"
        key = (index, number)
        entries.extend(
            DrawnPrimitive(primitive, key, label, mesh_name, node_name, place, skin, weights)
            for place in places
        )
    return num_skipped


def _read_weights(node: Mapping[str, Any], mesh: Mapping[str, Any]) -> tuple[float, ...]:
    values = node.get("weights", mesh.get("weights"))
    if values is None:
        return ()
    try:
        weights = np.array(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError) as err:
        raise make_unreadable_error(f"glTF weights of morph targets do not parse: {err}") from err
    if not np.isfinite(weights).all():
        raise make_unreadable_error("glTF weights of morph targets are not finite")
    return tuple(weights.tolist()) if weights.any() else ()


def _list_instances(
    source: GltfSource, node: Mapping[str, Any], matrix: FloatArray, limits: MeshLimits
) -> list[FloatArray]:
    """(4, 4) places of a node's mesh: one, or those of its instances."""
    extension = get_extension(node, INSTANCING)
    if extension is None:
        return [matrix]
    attributes = check_mapping(extension.get("attributes"))
    counts = {
        read_count(get_item(source, "accessors", accessor), "count")
        for accessor in attributes.values()
    }
    if len(counts) != 1:
        raise make_unreadable_error(f"glTF instances have counts {sorted(counts)}, not one")
    count = counts.pop()
    if count > limits.max_nodes:
        raise _make_too_many_error(limits)
    local = np.tile(np.eye(4), (count, 1, 1))
    local[:, :3, :3] = compute_rotations(_read_instance(source, attributes, "ROTATION", 4, 3))
    local[:, :3, :3] *= _read_instance(source, attributes, "SCALE", 3, None)[:, None, :]
    local[:, :3, 3] = _read_instance(source, attributes, "TRANSLATION", 3, 0)
    if not np.isfinite(local).all():
        raise make_unreadable_error("a glTF instance's transform is not finite")
    return list(matrix @ local)


def _read_instance(
    source: GltfSource, attributes: Mapping[str, Any], name: str, width: int, default: int | None
) -> FloatArray:
    """(N, width) values; without them zeros with a one in column `default`, or ones for None."""
    if name in attributes:
        values: NDArray[Any] = read_accessor(source, attributes[name])
        if values.shape[1] != width:
            raise make_unreadable_error(
                f"glTF instances have {values.shape[1]} columns of {name}, not {width}"
            )
        return values.astype(np.float64)
    plain = np.ones((1, width)) if default is None else np.eye(1, width, default)
    return plain * 0 if name == "TRANSLATION" else plain
