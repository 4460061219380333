"""Vertices of glTF as the file shows them at rest: morph targets and skins.

Morph targets count with the weights that the file gives; without any they change nothing.
The transform of a skinned node does not count. Its mesh stands where the joints put it: each
vertex is moved by the joints' transforms times their inverse bind matrices, mixed by its weights.
Joints in their bind pose all give one matrix, or none but the identity, so the raw positions come
out exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.mesh.formats.gltf_accessors import read_accessor
from segvigen_model.mesh.formats.gltf_nodes import (
    IDENTITY,
    GltfScene,
    compute_local_matrix,
    map_parents,
)
from segvigen_model.mesh.formats.gltf_source import (
    GltfSource,
    get_item,
    parse_whole,
    read_count,
    read_list,
)
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.types import FloatArray, IntArray

MAX_SETS = 8  # JOINTS_n that are looked for: 32 joints of a vertex
# Joints in their bind pose give one matrix up to the rounding of float32 files.
TOLERANCE = 1e-5


def read_rows(
    source: GltfSource,
    attributes: Mapping[str, Any],
    name: str,
    widths: tuple[int, ...],
    count: int | None = None,
) -> NDArray[Any] | None:
    """Read one attribute of a primitive, or None where it is absent; its count is checked first.

    Args:
        source: the file.
        attributes: name -> accessor.
        name: e.g. "POSITION".
        widths: columns that it may have.
        count: rows that it must have, or None for any.
    """
    if name not in attributes:
        return None
    announced = read_count(get_item(source, "accessors", attributes[name]), "count")
    if count is not None and announced == 0:
        return None  # some writers list attributes that they leave empty
    if count is not None and announced != count:
        raise make_unreadable_error(
            f"glTF {name} has {announced} rows, its primitive {count} vertices"
        )
    values = read_accessor(source, attributes[name])
    if values.shape[1] not in widths:
        raise make_unreadable_error(f"glTF {name} has {values.shape[1]} columns, not {widths}")
    return values


def apply_morph_targets(
    source: GltfSource,
    primitive: Mapping[str, Any],
    weights: tuple[float, ...],
    values: FloatArray,
    name: str,
) -> FloatArray:
    """Add the weighted targets of an attribute.

    Args:
        source: the file.
        primitive: whose targets.
        weights: of the targets, empty = at rest.
        values: (V, 3) float64.
        name: "POSITION" or "NORMAL".

    Returns:
        (V, 3) float64.
    """
    if not weights:
        return values
    targets = read_list(primitive, "targets", "a glTF primitive")
    for weight, target in zip(weights, targets, strict=False):
        if not isinstance(target, dict):
            raise make_unreadable_error("a glTF morph target is no object")
        if weight:
            shift = read_rows(source, target, name, (3,), len(values))
            values = values if shift is None else values + weight * shift.astype(np.float64)
    return values


def list_joint_matrices(source: GltfSource, scene: GltfScene, skin: int) -> FloatArray:
    """(J, 4, 4) transform of each joint of a skin times its inverse bind matrix."""
    entry = get_item(source, "skins", skin)
    joints = read_list(entry, "joints", f"glTF skin {skin}")
    parents: dict[int, int] = {}
    if not all(parse_whole(joint) in scene.worlds for joint in joints):
        parents = map_parents(source)
    places = [_find_world(source, scene, joint, parents) for joint in joints]
    worlds = np.stack(places) if places else np.zeros((0, 4, 4))
    if entry.get("inverseBindMatrices") is None:
        return worlds
    number = entry["inverseBindMatrices"]
    count = read_count(get_item(source, "accessors", number), "count")
    if count < len(joints):
        raise make_unreadable_error(
            f"glTF skin {skin} has {count} inverse bind matrices for {len(joints)} joints"
        )
    inverse = read_accessor(source, number)[: len(joints)]
    if inverse.shape[1] != 16:
        raise make_unreadable_error(f"glTF skin {skin} has inverse bind matrices that are no MAT4")
    moved: FloatArray = worlds @ inverse.astype(np.float64).reshape(-1, 4, 4).transpose(0, 2, 1)
    return moved


def _find_world(
    source: GltfSource, scene: GltfScene, joint: Any, parents: Mapping[int, int]
) -> FloatArray:
    number = parse_whole(joint)
    node = get_item(source, "nodes", joint)
    assert number is not None  # get_item found it
    if number in scene.worlds:
        return scene.worlds[number]
    matrix, seen = compute_local_matrix(node), {number}
    while number in parents:  # a joint outside the scene
        number = parents[number]
        if number in seen:
            raise make_unreadable_error(f"glTF node {number} contains itself")
        seen.add(number)
        matrix = compute_local_matrix(get_item(source, "nodes", number)) @ matrix
    return matrix


def pose_vertices(
    source: GltfSource, attributes: Mapping[str, Any], vertices: FloatArray, matrices: FloatArray
) -> tuple[FloatArray, FloatArray | None]:
    """Move vertices as their joints do.

    Args:
        source: the file.
        attributes: of the primitive, with JOINTS_n and WEIGHTS_n.
        vertices: (V, 3) float64, mesh frame.
        matrices: (J, 4, 4) of the skin's joints.

    Returns:
        (V, 3) float64 and the (4, 4) placement still to be made, or None where there is no single
        one and the vertices are in the scene's frame already.
    """
    sets = _read_influences(source, attributes, len(vertices), len(matrices))
    if sets is None:
        return vertices, IDENTITY
    joints, weights = sets
    used = matrices[np.unique(joints[weights > 0])]
    scale = max(float(np.abs(used).max()), 1.0) if np.isfinite(used).all() else 0.0
    if scale and float(np.abs(used - used[0]).max()) <= TOLERANCE * scale:
        is_plain = float(np.abs(used[0] - np.eye(4)).max()) <= TOLERANCE
        return vertices, IDENTITY if is_plain else used[0]
    posed = np.zeros_like(vertices)
    for column in range(joints.shape[1]):
        turn = matrices[joints[:, column]]
        moved = np.einsum("vij,vj->vi", turn[:, :3, :3], vertices) + turn[:, :3, 3]
        posed += weights[:, column, None] * moved
    return posed, None


def _read_influences(
    source: GltfSource, attributes: Mapping[str, Any], count: int, num_joints: int
) -> tuple[IntArray, FloatArray] | None:
    """(V, K) joints and their weights, which sum to 1; None where the primitive has none."""
    joints, weights = [], []
    for number in range(MAX_SETS):
        joint = read_rows(source, attributes, f"JOINTS_{number}", (4,), count)
        weight = read_rows(source, attributes, f"WEIGHTS_{number}", (4,), count)
        if joint is None or weight is None:
            break
        if joint.dtype.kind != "u":
            raise make_unreadable_error("glTF joints are not whole numbers >= 0")
        joints.append(joint.astype(np.int64))
        scale = 1.0 if weight.dtype.kind == "f" else float(np.iinfo(weight.dtype).max)
        weights.append(np.nan_to_num(weight.astype(np.float64) / scale, posinf=0.0, neginf=0.0))
    if not joints or not count:
        return None
    rows, shares = np.hstack(joints), np.maximum(np.hstack(weights), 0.0)
    total = shares.sum(axis=1, keepdims=True)
    shares[total[:, 0] <= 0, 0] = 1.0  # a vertex without weights follows its first joint
    shares /= np.where(total > 0, total, 1.0)
    if int(rows[shares > 0].max()) >= num_joints:
        raise make_unreadable_error(
            f"a glTF vertex names joint {int(rows[shares > 0].max())} of {num_joints}"
        )
    return np.where(shares > 0, rows, 0), shares
