"""Layers of an FBX geometry: normals, colours, texture coordinates and materials of its corners."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.fbx_tree import FbxNode
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.types import FloatArray, IntArray

BY_CORNER = "ByPolygonVertex"
BY_POLYGON = "ByPolygon"
BY_VERTEX = ("ByVertex", "ByVertice")


def read_layer(
    geometry: FbxNode, layer: str, values: str, width: int, corners: IntArray, owners: IntArray
) -> FloatArray | None:
    """Read the first layer of a kind.

    Args:
        geometry: its node.
        layer: e.g. "LayerElementNormal".
        values: e.g. "Normals"; "NormalsIndex" or "NormalIndex" may number them.
        width: numbers of a value.
        corners: (C,) vertex of each corner.
        owners: (C,) polygon of each corner.

    Returns:
        (C, width) float64, NaN where a corner has none; None without such a layer.
    """
    node = geometry.find(layer)
    held = None if node is None else node.find(values)
    if node is None or held is None:
        return None
    table = held.read_array(np.float64)
    if len(table) % width:
        raise AssetRejected(
            "truncated",
            f"FBX {values} has {len(table)} numbers, not a multiple of {width}; fetch it again",
        )
    table = table.reshape(-1, width)
    rows = _list_rows(node, values, corners, owners)
    if rows is None:
        return None
    is_given = rows >= 0
    if is_given.any() and int(rows.max()) >= len(table):
        raise make_unreadable_error(
            f"FBX {values} has {len(table)} rows, row {rows.max()} is named"
        )
    result = np.full((len(corners), width), np.nan)
    result[is_given] = table[rows[is_given]]
    return result


def _list_rows(node: FbxNode, values: str, corners: IntArray, owners: IntArray) -> IntArray | None:
    """(C,) row of each corner; negative = none."""
    mapping = _read_word(node, "MappingInformationType")
    rows: NDArray[Any]
    if mapping == BY_CORNER:
        rows = np.arange(len(corners))
    elif mapping in BY_VERTEX:
        rows = corners
    elif mapping == BY_POLYGON:
        rows = owners
    elif mapping == "AllSame":
        rows = np.zeros(len(corners), dtype=np.int64)
    else:
        return None
    index = node.find(f"{values}Index") or node.find(f"{values.removesuffix('s')}Index")
    if _read_word(node, "ReferenceInformationType") == "Direct" or index is None:
        return rows
    table = index.read_array(np.int64)
    if len(rows) and int(rows.max()) >= len(table):
        raise AssetRejected(
            "truncated",
            f"FBX {index.name} has {len(table)} entries, {int(rows.max()) + 1} are needed; fetch "
            "it again",
        )
    found: IntArray = table[rows]
    return found


def read_polygon_materials(geometry: FbxNode, num_polygons: int) -> IntArray | None:
    """(P,) number of each polygon's material among its model's; None = all have the first."""
    node = geometry.find("LayerElementMaterial")
    held = None if node is None else node.find("Materials")
    if node is None or held is None:
        return None
    table = held.read_array(np.int64)
    if _read_word(node, "MappingInformationType") == BY_POLYGON:
        if len(table) != num_polygons:
            raise AssetRejected(
                "truncated",
                f"FBX Materials has {len(table)} entries for {num_polygons} polygons; fetch it "
                "again",
            )
        return table
    return np.full(num_polygons, int(table[0]) if len(table) else 0, dtype=np.int64)


def _read_word(node: FbxNode, name: str) -> str:
    found = node.find(name)
    return "" if found is None else found.read_text()
