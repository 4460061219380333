"""The scene of an FBX file: objects, their properties and connections, and where models stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segvigen_model.mesh.formats.fbx_tree import FbxNode
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.types import FloatArray

CENTIMETRE = 0.01
# Order of rotations -> axes, the first applied first.
ORDERS = ("XYZ", "XZY", "YZX", "YXZ", "ZXY", "ZYX", "XYZ")
SCALE_NOT_INHERITED = 2


@dataclass(frozen=True, slots=True)
class FbxObject:
    """One object.

    Attributes:
        kind: its node's name, e.g. "Model".
        subkind: e.g. "Mesh".
        properties: name -> values.
    """

    number: int
    kind: str
    name: str
    subkind: str
    node: FbxNode
    properties: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class FbxScene:
    """Objects and who belongs to whom.

    Attributes:
        objects: by number, in the order of the file.
        children: number -> (child, property or ""), in the order of the file.
        parents: model -> model.
        to_gltf: (4, 4) from the file's axes and unit to metres, Y up.
    """

    objects: dict[int, FbxObject]
    children: dict[int, list[tuple[int, str]]]
    parents: dict[int, int]
    to_gltf: FloatArray
    worlds: dict[int, FloatArray] = field(default_factory=dict)

    def list_children(self, number: int, kind: str) -> list[tuple[FbxObject, str]]:
        """Objects of a kind that belong to an object, and by which property."""
        found = [(self.objects.get(child), by) for child, by in self.children.get(number, [])]
        return [(child, by) for child, by in found if child is not None and child.kind == kind]

    def place_model(self, number: int) -> FloatArray:
        """(4, 4) from a model's frame to glTF's, without its geometric transform."""
        chain, seen = [number], {number}
        while chain[-1] not in self.worlds and chain[-1] in self.parents:
            parent = self.parents[chain[-1]]
            if parent in seen:
                raise make_unreadable_error(f"FBX model {parent} contains itself")
            seen.add(parent)
            chain.append(parent)
        for model in reversed(chain):
            if model not in self.worlds:
                self.worlds[model] = self._compute_world(model)
        return self.worlds[number]

    def _compute_world(self, number: int) -> FloatArray:
        local = compute_local_matrix(self.objects[number].properties)
        parent = self.parents.get(number)
        if parent is None:
            return self.to_gltf @ local
        if _read_number(self.objects[number].properties, "InheritType", 1) == SCALE_NOT_INHERITED:
            scale = _read_vector(self.objects[parent].properties, "Lcl Scaling", 1.0)
            local[:3, :3] = np.diag(1.0 / np.where(scale == 0, 1.0, scale)) @ local[:3, :3]
        return self.worlds[parent] @ local


def read_scene(root: FbxNode) -> FbxScene:
    """Collect objects and connections.

    Raises:
        AssetRejected: unreadable.
    """
    templates = _read_templates(root)
    objects: dict[int, FbxObject] = {}
    for group in root.list_all("Objects"):
        for node in group.children:
            found = _read_object(node, templates)
            if found is not None:
                objects[found.number] = found
    children: dict[int, list[tuple[int, str]]] = {}
    parents: dict[int, int] = {}
    for group in root.list_all("Connections"):
        for node in group.children:
            if len(node.values) < 3 or not all(isinstance(v, int) for v in node.values[1:3]):
                continue
            child, parent = node.values[1:3]
            children.setdefault(parent, []).append((child, node.read_text(3)))
            if _is_model(objects, child) and _is_model(objects, parent):
                parents[child] = parent
    return FbxScene(objects, children, parents, _read_frame(root))


def _is_model(objects: Mapping[int, FbxObject], number: int) -> bool:
    return number in objects and objects[number].kind == "Model"


def _read_object(
    node: FbxNode, templates: Mapping[str, Mapping[str, Sequence[Any]]]
) -> FbxObject | None:
    if not node.values or not isinstance(node.values[0], int):
        return None
    text = node.read_text(1)
    name = text.split("\x00\x01")[0] if "\x00\x01" in text else text.rpartition("::")[2]
    properties = dict(templates.get(node.name, {})) | read_properties(node)
    return FbxObject(node.values[0], node.name, name, node.read_text(2), node, properties)


def _read_templates(root: FbxNode) -> dict[str, Mapping[str, Sequence[Any]]]:
    """Kind -> properties that its objects have where they do not say otherwise."""
    found: dict[str, Mapping[str, Sequence[Any]]] = {}
    for group in root.list_all("Definitions"):
        for kind in group.list_all("ObjectType"):
            template = kind.find("PropertyTemplate")
            if template is not None:
                found.setdefault(kind.read_text(), read_properties(template))
    return found


def read_properties(node: FbxNode) -> dict[str, Sequence[Any]]:
    """Name -> values of a node's Properties70."""
    group = node.find("Properties70")
    if group is None:
        return {}
    return {entry.read_text(): entry.values[4:] for entry in group.list_all("P")}


def _read_frame(root: FbxNode) -> FloatArray:
    """(4, 4) to metres with Y up, by what the file says of its axes and unit."""
    settings = root.find("GlobalSettings")
    known = {} if settings is None else read_properties(settings)
    matrix = np.eye(4)
    rows = (("CoordAxis", 0), ("UpAxis", 1), ("FrontAxis", 2))
    axes = [int(_read_number(known, name, default)) for name, default in rows]
    if sorted(axes) == [0, 1, 2]:
        matrix[:3, :3] = 0.0
        for row, (name, _) in enumerate(rows):
            sign = _read_number(known, f"{name}Sign", 1)
            matrix[row, axes[row]] = -1.0 if sign < 0 else 1.0
    unit = _read_number(known, "UnitScaleFactor", 1.0) * CENTIMETRE
    if not np.isfinite(unit) or unit <= 0:
        raise make_unreadable_error(f"FBX unit is {unit} metres")
    matrix[:3] *= unit
    return matrix


def _read_number(properties: Mapping[str, Sequence[Any]], name: str, default: float) -> float:
    values = properties.get(name, ())
    is_number = len(values) > 0 and isinstance(values[0], int | float)
    return float(values[0]) if is_number and np.isfinite(values[0]) else default


def _read_vector(
    properties: Mapping[str, Sequence[Any]], name: str, default: float = 0.0
) -> FloatArray:
    values = list(properties.get(name, ()))[:3]
    if len(values) < 3 or not all(isinstance(value, int | float) for value in values):
        return np.full(3, default)
    return np.array(values, dtype=np.float64)


def _move(vector: FloatArray) -> FloatArray:
    matrix = np.eye(4)
    matrix[:3, 3] = vector
    return matrix


def _turn(degrees: FloatArray, order: str = "XYZ") -> FloatArray:
    """(4, 4) of three angles; the first axis of the order is applied first."""
    matrix = np.eye(4)
    for axis in order:
        number = "XYZ".index(axis)
        cos, sin = np.cos(np.radians(degrees[number])), np.sin(np.radians(degrees[number]))
        one, two = (number + 1) % 3, (number + 2) % 3
        step = np.eye(4)
        step[one, one], step[one, two], step[two, one], step[two, two] = cos, -sin, sin, cos
        matrix = step @ matrix
    return matrix


def _stretch(vector: FloatArray) -> FloatArray:
    return np.diag([*vector, 1.0])


def compute_local_matrix(properties: Mapping[str, Sequence[Any]]) -> FloatArray:
    """(4, 4) of a model relative to its parent, with pivots and offsets."""
    order = int(_read_number(properties, "RotationOrder", 0))
    turn = _turn(
        _read_vector(properties, "Lcl Rotation"), ORDERS[order] if 0 <= order < 7 else "XYZ"
    )
    before = _turn(_read_vector(properties, "PreRotation"))
    after = _turn(_read_vector(properties, "PostRotation"))
    pivot = _read_vector(properties, "RotationPivot")
    scale_pivot = _read_vector(properties, "ScalingPivot")
    matrix = (
        _move(
            _read_vector(properties, "Lcl Translation")
            + _read_vector(properties, "RotationOffset")
            + pivot
        )
        @ before
        @ turn
        @ after.T
        @ _move(_read_vector(properties, "ScalingOffset") + scale_pivot - pivot)
        @ _stretch(_read_vector(properties, "Lcl Scaling", 1.0))
        @ _move(-scale_pivot)
    )
    return _check_finite(matrix)


def compute_geometric_matrix(properties: Mapping[str, Sequence[Any]]) -> FloatArray:
    """(4, 4) of a model's geometry alone, which its children do not inherit."""
    return _check_finite(
        _move(_read_vector(properties, "GeometricTranslation"))
        @ _turn(_read_vector(properties, "GeometricRotation"))
        @ _stretch(_read_vector(properties, "GeometricScaling", 1.0))
    )


def _check_finite(matrix: FloatArray) -> FloatArray:
    if not np.isfinite(matrix).all():
        raise make_unreadable_error("an FBX model's transform is not finite")
    return matrix
