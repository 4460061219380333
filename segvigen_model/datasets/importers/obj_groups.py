"""OBJ files as pieces: every face with its object or group and its material, no textures.

The general reader (`mesh/formats/obj.py`) keeps names as they are and refuses a file whose textures
are missing. Labels need names without numbers, and no textures.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.types import AssetMesh, Material

_NUMBERS = re.compile(r"[._ -]?\d+")
Color = tuple[float, float, float, float]


def read_obj_groups(obj: str, mtl: str = "") -> AssetMesh:
    """Read a mesh whose geometries are (group name without numbers, material) pairs.

    Args:
        obj: the file.
        mtl: its material library; only diffuse colours are read.

    Returns:
        The mesh in the file's face order, polygons cut into fans. Geometry names are
        "group|material", as in the shared pack.

    Raises:
        AssetRejected: no faces, or a face that names an absent vertex.
    """
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    pieces: list[int] = []
    materials: list[int] = []
    names: dict[str, int] = {}
    used: dict[str, int] = {}
    group, material = "", ""
    try:
        for line in obj.splitlines():
            key, _, rest = line.strip().partition(" ")
            if key == "v":
                vertices.append([float(value) for value in rest.split()[:3]])
            elif key in ("o", "g"):
                group = strip_numbers(rest)
            elif key == "usemtl":
                material = rest.strip()
            elif key == "f":
                ids = [_parse_vertex(corner, len(vertices)) for corner in rest.split()]
                for second, third in itertools.pairwise(ids[1:]):
                    faces.append((ids[0], second, third))
                    pieces.append(names.setdefault(f"{group}|{material}", len(names)))
                    materials.append(used.setdefault(material, len(used)))
    except (ValueError, IndexError) as err:
        raise AssetRejected("unreadable_mesh", f"OBJ does not parse: {err}") from err
    points = np.array(vertices, np.float64).reshape(-1, 3)
    corners = np.array(faces, np.int64).reshape(-1, 3)
    if not len(corners):
        raise AssetRejected("empty_mesh", "the OBJ has no faces")
    if corners.max() >= len(points):
        raise AssetRejected(
            "unreadable_mesh", f"a face names vertex {corners.max() + 1}, of {len(points)}"
        )
    colors = read_colors(mtl)
    return AssetMesh(
        vertices=points,
        faces=corners,
        face_material=np.array(materials, np.int32),
        materials=tuple(
            Material(name, colors.get(name, (0.8, 0.8, 0.8, 1.0)), metallic_factor=0.0)
            for name in used
        ),
        face_geometry=np.array(pieces, np.int32),
        geometry_names=tuple(names),
    )


def strip_numbers(name: str) -> str:
    """A group's name without numbers: copies of one part ("leg.001", "leg.002") are one part."""
    return _NUMBERS.sub("", name.strip()) or name.strip()


def read_colors(mtl: str) -> Mapping[str, Color]:
    """Diffuse colours of a material library by name."""
    colors: dict[str, Color] = {}
    name = ""
    for line in mtl.splitlines():
        key, _, rest = line.strip().partition(" ")
        if key == "newmtl":
            name = rest.strip()
        elif key == "Kd" and len(rest.split()) >= 3:
            red, green, blue = (float(value) for value in rest.split()[:3])
            colors[name] = (red, green, blue, 1.0)
    return colors


def _parse_vertex(corner: str, count: int) -> int:
    """0-based vertex of "v/vt/vn"; negative numbers count from the last vertex."""
    number = int(corner.split("/")[0])
    return number - 1 if number > 0 else count + number
