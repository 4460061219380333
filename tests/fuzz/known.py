"""A random mesh whose every face and colour is known, and the comparison with what was read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Flat outlines in eighths of a unit; all coordinates are exact as float32 and as short decimals.
OUTLINES = {
    "triangle": [(0, 0), (8, 0), (0, 8)],
    "quad": [(0, 0), (8, 0), (8, 8), (0, 8)],
    "pentagon": [(0, 0), (8, 0), (12, 6), (4, 12), (-4, 6)],
    "arrow": [(0, 0), (8, 8), (0, 4), (-8, 8)],
    "notch": [(0, 0), (16, 0), (16, 16), (8, 4), (0, 16)],
}


@dataclass(frozen=True)
class Known:
    """What a file holds.

    Attributes:
        points: (V, 3) float64; no two are equal.
        polygons: corners of each.
        colors: (V, 4) uint8 of vertices or None.
        face_colors: (P, 4) uint8 or None; never both.
        uv: (V, 2) float64, v up, or None.
    """

    points: np.ndarray
    polygons: list[list[int]]
    colors: np.ndarray | None = None
    face_colors: np.ndarray | None = None
    uv: np.ndarray | None = None


def make_known(rng: np.random.Generator, *, is_triangles: bool = False) -> Known:
    """Some flat polygons side by side, some of which share corners."""
    points: list[list[float]] = []
    polygons: list[list[int]] = []
    for number in range(int(rng.integers(2, 9))):
        outline = OUTLINES["triangle" if is_triangles else str(rng.choice(list(OUTLINES)))]
        first = len(points)
        shift = rng.integers(-40, 40, size=3) / 8
        points += [[x / 8 + shift[0], y / 8 + shift[1], number + shift[2] / 64] for x, y in outline]
        polygons.append(list(range(first, len(points))))
    for _ in range(int(rng.integers(0, 4))):
        polygons.append(rng.choice(len(points), size=3, replace=False).tolist())
    order = rng.permutation(len(polygons))
    count = len(points)
    colors = face_colors = None
    if (kind := rng.integers(3)) == 1:
        colors = rng.integers(0, 256, size=(count, 4), dtype=np.uint8)
        colors[0, :3] = 255  # so that ranges are clear
    elif kind == 2:
        face_colors = rng.integers(0, 256, size=(len(polygons), 4), dtype=np.uint8)
        face_colors[0, :3] = 255
    uv = rng.integers(0, 9, size=(count, 2)) / 8 if rng.random() < 0.4 else None
    return Known(np.array(points), [polygons[i] for i in order], colors, face_colors, uv)


def area_vector(points: np.ndarray) -> np.ndarray:
    spokes = points[1:] - points[0]
    return np.cross(spokes[:-1], spokes[1:]).sum(axis=0) / 2


def find_difference(mesh, known: Known, *, keeps: set[str], scale: float = 1.0) -> str:
    """Why a mesh that was read is not the known one; "" when it is.

    Args:
        mesh: an AssetMesh.
        known: what the file holds.
        keeps: of "order", "colors", "face_colors" and "uv", what the format keeps.
        scale: of the read coordinates.
    """
    if mesh.num_faces != sum(len(row) - 2 for row in known.polygons):
        return f"{mesh.num_faces} triangles of {len(known.polygons)} polygons"
    places = {tuple(np.rint(point * 4096).astype(int)): i for i, point in enumerate(known.points)}
    read = np.rint(mesh.triangles * (4096 / scale)).astype(int).reshape(-1, 3)
    try:
        corners = np.array([places[tuple(point)] for point in read]).reshape(-1, 3)
    except KeyError as err:
        return f"no vertex is at {err}"
    owners = _find_owners(corners, mesh.face_polygons, known, "order" in keeps)
    if owners is None:
        return "triangles are none of the polygons"
    for number, row in enumerate(known.polygons):
        mine = known.points[corners[owners == number]]
        if len(mine) != len(row) - 2:
            return f"polygon {number} has {len(mine)} triangles"
        total = sum(np.linalg.norm(area_vector(each)) for each in mine)
        if not np.isclose(total, np.linalg.norm(area_vector(known.points[row]))):
            return f"polygon {number} has area {total}"
    return _find_attribute_difference(mesh, known, corners, owners, keeps)


def _find_owners(corners, face_polygons, known, is_ordered):
    """Which polygon each triangle is of; None when one is of none."""
    rows = [set(row) for row in known.polygons]
    if is_ordered:
        fits = [set(each) <= rows[p] for each, p in zip(corners, face_polygons, strict=True)]
        return face_polygons if all(fits) else None
    left = dict(enumerate(rows))
    owners = []
    for each in corners:
        owner = next((number for number, row in left.items() if set(each) == row), None)
        if owner is None:
            return None
        owners.append(owner)
        del left[owner]
    return np.array(owners)


def _find_attribute_difference(mesh, known, corners, owners, keeps):
    if known.colors is not None and "colors" in keeps:
        if mesh.vertex_colors is None:
            return "no colours"
        if (mesh.vertex_colors[mesh.faces] != known.colors[corners]).any():
            return "other colours of vertices"
    if known.face_colors is not None and "face_colors" in keeps:
        if mesh.vertex_colors is None:
            return "no colours"
        if (mesh.vertex_colors[mesh.faces] != known.face_colors[owners][:, None]).any():
            return "other colours of faces"
    if known.uv is not None and "uv" in keeps:
        if mesh.corner_uv is None:
            return "no texture coordinates"
        if not np.allclose(mesh.corner_uv, known.uv[corners] * [1, -1] + [0, 1], atol=1e-6):
            return "other texture coordinates"
    return ""
