"""A mesh as a single shell, as a scan or a generated mesh has it: no component gives parts
away.

The surface is rasterised by dense point samples, closed, filled and extracted again with surface
nets. Labels come from the nearest sample of the original surface.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from segvigen_model.types import AssetMesh, BoolArray, FloatArray, IntArray, Material

PAD = 3  # empty voxels round the volume
LEVEL = 0.4  # of the smoothed occupancy
SMOOTHING = 0.7  # voxels


def sample_surface(
    triangles: FloatArray, count: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Draw points uniformly by area.

    Args:
        triangles: (F, 3, 3) float64.
        count: how many.
        rng: source of chance.

    Returns:
        (count, 3) float64 points and (count,) int64 faces.
    """
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(cross, axis=1)
    total = np.cumsum(area)
    faces = np.searchsorted(total, rng.random(count) * total[-1], side="right")
    faces = np.minimum(faces, len(triangles) - 1)
    u, v = rng.random((2, count, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    tri = triangles[faces]
    return tri[:, 0] + u * (tri[:, 1] - tri[:, 0]) + v * (tri[:, 2] - tri[:, 0]), faces


def fuse_mesh(
    mesh: AssetMesh, face_labels: IntArray, *, grid: int = 96, seed: int = 0
) -> tuple[AssetMesh, IntArray]:
    """Replace a mesh by a single shell, uniformly grey.

    Args:
        mesh: any mesh, mesh frame.
        face_labels: (F,) int.
        grid: voxels along the longest side.
        seed: of the surface samples.

    Returns:
        The single shell in the same frame and its (F',) labels; ids are those of the input.
    """
    points, faces = sample_surface(mesh.triangles, 14 * grid * grid, np.random.default_rng(seed))
    low = points.min(0)
    step = float(np.ptp(points, axis=0).max()) / grid
    cells = np.floor((points - low) / step).astype(int) + PAD
    volume = np.zeros(cells.max(0) + PAD + 1, bool)
    volume[tuple(cells.T)] = True
    volume = ndimage.binary_fill_holes(ndimage.binary_closing(volume))
    field = ndimage.gaussian_filter(volume.astype(np.float32), SMOOTHING)
    vertices, triangles = extract_surface_nets(field, LEVEL)
    vertices = (vertices - PAD + 0.5) * step + low
    nearest = cKDTree(points).query(vertices[triangles].mean(1))[1]
    grey = Material("shell", (0.7, 0.7, 0.7, 1.0), metallic_factor=0.0)
    shell = AssetMesh(
        vertices=vertices,
        faces=triangles,
        face_material=np.zeros(len(triangles), np.int32),
        materials=(grey,),
        face_geometry=np.zeros(len(triangles), np.int32),
        geometry_names=("geom_000",),
    )
    return shell, np.asarray(face_labels)[faces[nearest]].astype(np.int32)


def extract_surface_nets(field: FloatArray, level: float) -> tuple[FloatArray, IntArray]:
    """Extract the iso-surface of a scalar field, one vertex per crossed cell.

    Args:
        field: (X, Y, Z) float, below `level` at every border.
        level: iso value; the inside is above it.

    Returns:
        (V, 3) float64 vertices in array indices, (F, 3) int64 triangles, outward winding.
    """
    inside: BoolArray = np.asarray(field > level, bool)
    shape = np.array(field.shape) - 1
    corners = np.stack(np.meshgrid(*([[0, 1]] * 3), indexing="ij"), -1).reshape(-1, 3)
    count = np.zeros(tuple(shape), np.int64)
    for corner in corners:
        count += inside[tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))]
    active = (count > 0) & (count < 8)
    index = np.full(active.shape, -1)
    index[active] = np.arange(active.sum())
    cells = np.argwhere(active)
    vertices, weights = np.zeros((len(cells), 3)), np.zeros((len(cells), 1))
    quads = []
    for axis in range(3):
        low, high = find_edge_crossings(field, inside, level, axis)
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for du, dv in ((0, 0), (1, 0), (0, 1), (1, 1)):
            rows = index[tuple(shift_cells(low[:, :3].astype(np.int64), {u: du, v: dv}).T)]
            np.add.at(vertices, rows, low[:, 3:6])
            np.add.at(weights, rows, 1.0)
        quads.append(build_quads(low[:, :3].astype(np.int64), high, index, u, v))
    corners4 = np.concatenate(quads)
    triangles = np.concatenate([corners4[:, [0, 1, 2]], corners4[:, [0, 2, 3]]])
    return vertices / weights, triangles


def find_edge_crossings(
    field: FloatArray, inside: BoolArray, level: float, axis: int
) -> tuple[FloatArray, BoolArray]:
    """Grid edges along `axis` that cross the level.

    Returns:
        (E, 6) cell index and crossing point, and (E,) bool: the lower end is inside.
    """
    first = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
    second = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
    where = np.argwhere(inside[first] != inside[second])
    a, b = field[first][tuple(where.T)], field[second][tuple(where.T)]
    points = where.astype(float)
    points[:, axis] += (level - a) / (b - a)
    return np.concatenate([where, points], axis=1), inside[first][tuple(where.T)]


def shift_cells(cell: IntArray, steps: dict[int, int]) -> IntArray:
    """(E, 3) cells moved back by some steps along some axes."""
    back = np.array([steps.get(axis, 0) for axis in range(3)])
    moved: IntArray = cell - back
    return moved


def build_quads(
    cell: IntArray, starts_inside: BoolArray, index: IntArray, u: int, v: int
) -> IntArray:
    """(E, 4) vertices round each crossed edge, outward winding."""
    ring = []
    for du, dv in ((1, 1), (0, 1), (0, 0), (1, 0)):
        ring.append(index[tuple(shift_cells(cell, {u: du, v: dv}).T)])
    quads = np.stack(ring, axis=1)
    return np.where(starts_inside[:, None], quads, quads[:, ::-1])
