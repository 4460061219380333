"""Values of a USD mesh for its points, faces or corners, brought to corners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import make_unreadable_error
from segvigen_model.mesh.formats.usd_library import import_usd
from segvigen_model.types import ByteArray, FloatArray, IntArray

# Texture coordinates where no material says which: the usual names, then any of their type.
UV_NAMES = ("st", "UVMap", "st0", "st_0", "uv", "map1")
UV_TYPES = ("texCoord2f[]", "texCoord2h[]", "texCoord2d[]")


@dataclass(frozen=True, slots=True)
class Corners:
    """The corners of a mesh.

    Attributes:
        points: (C,) point of each corner.
        faces: (C,) polygon of each corner.
        num_points, num_faces: how many there are.
    """

    points: IntArray
    faces: IntArray
    num_points: int
    num_faces: int


def read_array(value: Any, width: int, what: str) -> NDArray[Any]:
    """A value as (N, width), or (N,) for a width of 1.

    Raises:
        AssetRejected: unreadable, where it is of another type.
    """
    shape = (0,) if width == 1 else (0, width)
    if value is None:
        return np.zeros(shape)
    try:
        found = np.asarray(value)
    except (TypeError, ValueError) as err:
        raise make_unreadable_error(f"USD {what} is no list of numbers") from err
    if found.size == 0:
        return np.zeros(shape)
    if found.dtype.kind not in "fiu" or found.shape[1:] != shape[1:] or found.ndim != len(shape):
        raise make_unreadable_error(f"USD {what} is no list of {width} numbers each")
    return found


def read_primvar(prim: Any, name: str, width: int, corners: Corners, time: Any) -> Any:
    """A primvar for each corner.

    Args:
        prim: the mesh.
        name: without "primvars:".
        width: numbers of a value.
        corners: of the mesh.
        time: of the values.

    Returns:
        (C, width) float64, or None where the mesh has none.

    Raises:
        AssetRejected: truncated or unreadable.
    """
    primvar = import_usd("UsdGeom").PrimvarsAPI(prim).FindPrimvarWithInheritance(name)
    if not primvar or not primvar.HasValue():
        return None
    values = read_array(primvar.Get(time), width, name).astype(np.float64)
    if primvar.IsIndexed():
        rows = read_array(primvar.GetIndices(time), 1, f"{name}:indices").astype(np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(values):
            raise make_unreadable_error(
                f"USD {name} has {len(values)} rows, row {rows.max()} is named"
            )
        values = values[rows]
    return spread_values(values, str(primvar.GetInterpolation()), corners, name)


def spread_values(values: FloatArray, interpolation: str, corners: Corners, what: str) -> Any:
    """Values of a mesh, its faces, points or corners -> (C, ...) of corners; None for no values.

    Raises:
        AssetRejected: truncated or unreadable, where there are not as many as announced.
    """
    if not len(values):
        return None
    rows: dict[str, tuple[int, IntArray]] = {
        "constant": (1, np.zeros(len(corners.points), dtype=np.int64)),
        "uniform": (corners.num_faces, corners.faces),
        "vertex": (corners.num_points, corners.points),
        "varying": (corners.num_points, corners.points),
        "faceVarying": (len(corners.points), np.arange(len(corners.points))),
    }
    if interpolation not in rows:
        raise make_unreadable_error(f"USD {what} is given by {interpolation[:40]!r}")
    count, numbers = rows[interpolation]
    text = f"USD {what} has {len(values)} values, {count} are announced ({interpolation})"
    if len(values) < count:
        raise AssetRejected("truncated", f"{text}; fetch the file again")
    if len(values) > count:
        raise make_unreadable_error(text)
    return values[numbers]


def read_uv(prim: Any, name: str, corners: Corners, time: Any) -> FloatArray | None:
    """Texture coordinates of corners, v down as in glTF.

    Args:
        prim: the mesh.
        name: what the material asks for, "" = nothing.
        corners: of the mesh.
        time: of the values.
    """
    api = import_usd("UsdGeom").PrimvarsAPI(prim)
    others = [
        primvar.GetPrimvarName()
        for primvar in api.GetPrimvarsWithValues()
        if str(primvar.GetTypeName()) in UV_TYPES
    ]
    for each in dict.fromkeys((name, *UV_NAMES, *others)):
        primvar = api.FindPrimvarWithInheritance(each) if each else None
        if not primvar or str(primvar.GetTypeName()) not in (*UV_TYPES, "float2[]", "double2[]"):
            continue
        found = read_primvar(prim, each, 2, corners, time)
        if found is not None:
            found[:, 1] = 1.0 - found[:, 1]
            uv: FloatArray = np.nan_to_num(found).astype(np.float32)
            return uv
    return None


def read_colors(prim: Any, corners: Corners, time: Any) -> ByteArray | None:
    """(C, 4) uint8 of `displayColor` and `displayOpacity`; None without colours."""
    colors = read_primvar(prim, "displayColor", 3, corners, time)
    if colors is None:
        return None
    opacity = read_primvar(prim, "displayOpacity", 1, corners, time)
    alpha = np.ones(len(colors)) if opacity is None else opacity
    values = np.nan_to_num(np.column_stack([colors, alpha]), nan=1.0)
    packed: ByteArray = np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)
    return packed


def read_normals(prim: Any, corners: Corners, time: Any) -> FloatArray | None:
    """(C, 3) normals; the primvar counts before the attribute."""
    found = read_primvar(prim, "normals", 3, corners, time)
    if found is None:
        mesh = import_usd("UsdGeom").Mesh(prim)
        values = read_array(mesh.GetNormalsAttr().Get(time), 3, "normals").astype(np.float64)
        found = spread_values(values, str(mesh.GetNormalsInterpolation()), corners, "normals")
    return None if found is None else np.nan_to_num(found)
