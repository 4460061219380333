"""Parts in the source's own terms: a label for each polygon, and the names that faces came with.

Labels are of triangles. Who goes back to the source file wants them per polygon, and wants to know
which object, group and material a part was there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segvigen_model.types import AssetMesh, FloatArray, IntArray, NameColumn


@dataclass(frozen=True, slots=True)
class PolygonLabels:
    """Labels of the source's polygons.

    Attributes:
        labels: (Q,) int32 label of each polygon in the source's order: that of most of its area.
            -1 = a polygon without a triangle (`AssetMesh.repairs`).
        num_split: polygons whose triangles have different labels.
    """

    labels: IntArray
    num_split: int


@dataclass(frozen=True, slots=True)
class SourceNames:
    """Names that most of each part's area has in the source; "" = none.

    Attributes:
        objects, groups, materials: P names each; untrusted text.
    """

    objects: tuple[str, ...]
    groups: tuple[str, ...]
    materials: tuple[str, ...]


def label_polygons(mesh: AssetMesh, face_labels: IntArray) -> PolygonLabels:
    """Give each polygon of the source the label of most of its area.

    Args:
        mesh: the asset.
        face_labels: (F,) int, >= 0.

    Returns:
        As many labels as the source announces polygons; of two labels with equal areas the lower.
    """
    polygons = mesh.face_polygons
    count = max(mesh.announced.get("polygons", 0), int(polygons.max(initial=-1)) + 1)
    largest, num_labels = _find_largest(polygons, face_labels, _measure_faces(mesh), count)
    return PolygonLabels(largest, int((num_labels > 1).sum()))


def find_source_names(mesh: AssetMesh, face_labels: IntArray, num_parts: int) -> SourceNames:
    """Find the object, group and material that most of each part's area has in the source.

    Args:
        mesh: the asset.
        face_labels: (F,) int part ids.
        num_parts: P.
    """
    areas = _measure_faces(mesh)

    def find_names(column: NameColumn | None) -> tuple[str, ...]:
        if column is None:
            return ("",) * num_parts
        # No name is the last name, so that it wins where it has most of the area.
        number = np.where(column.indices < 0, len(column.names), column.indices)
        largest, _ = _find_largest(face_labels, number, areas, num_parts)
        names = (*column.names, "")
        return tuple(names[place] for place in largest.tolist())

    origin = mesh.origin
    return SourceNames(*map(find_names, (origin.objects, origin.groups, origin.materials)))


def _measure_faces(mesh: AssetMesh) -> FloatArray:
    """(F,) areas; a face without one counts a little, so that it is never without a say."""
    sides = mesh.triangles[:, 1:] - mesh.triangles[:, :1]
    areas: FloatArray = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    return areas + np.finfo(np.float64).tiny


def _find_largest(
    groups: IntArray, values: IntArray, weights: FloatArray, num_groups: int
) -> tuple[IntArray, IntArray]:
    """(G,) int32 the value with most weight in each group, -1 = empty group; (G,) its values."""
    base = int(values.max(initial=0)) + 1
    keys, inverse = np.unique(groups.astype(np.int64) * base + values, return_inverse=True)
    total = np.bincount(inverse.ravel(), weights=weights, minlength=len(keys))
    group, value = keys // base, (keys % base).astype(np.int32)
    order = np.lexsort((-value, total, group))  # the last of a group is the heaviest, lowest value
    largest: IntArray = np.full(num_groups, -1, dtype=np.int32)
    largest[group[order]] = value[order]
    return largest, np.bincount(group, minlength=num_groups)
