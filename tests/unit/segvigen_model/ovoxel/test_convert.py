from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.coords import mesh_to_unit, unit_to_grid
from segvigen_model.errors import AssetRejected
from segvigen_model.ovoxel import mesh_to_ovoxel
from segvigen_model.ovoxel.convert import to_voxel_units
from segvigen_model.ovoxel.dual_grid import compute_dual_grid
from segvigen_model.ovoxel.voxel_set import find_voxels
from segvigen_model.types import AssetMesh, Material


def random_triangles(seed, count):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-1, 1, size=(count, 1, 3))
    return centre + rng.normal(size=(count, 3, 3)) * rng.choice(
        [0.02, 0.3, 1.0], size=(count, 1, 1)
    )


def soup(triangles):
    count = len(triangles)
    return AssetMesh(
        vertices=triangles.reshape(-1, 3),
        faces=np.arange(3 * count).reshape(-1, 3),
        face_material=np.zeros(count, dtype=np.int32),
        materials=(Material(),),
    )


def crossed_edges(triangle, grid):
    """Exact line-triangle intersections: (axis, lowest voxel) of each crossed grid edge."""
    found = set()
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        a, b, c = triangle[:, [u, v]]
        det = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if abs(det) < 1e-12:
            continue
        for i in range(1, grid):
            for j in range(1, grid):
                p = np.array([i, j], dtype=float) - a
                s = (p[0] * (c[1] - a[1]) - (c[0] - a[0]) * p[1]) / det
                t = ((b[0] - a[0]) * p[1] - p[0] * (b[1] - a[1])) / det
                if min(s, t, 1 - s - t) < 0:
                    continue
                depth = (
                    (1 - s - t) * triangle[0, axis] + s * triangle[1, axis] + t * triangle[2, axis]
                )
                cell = [0, 0, 0]
                cell[axis], cell[u], cell[v] = int(depth), i - 1, j - 1
                found.add((axis, tuple(cell)))
    return found


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 4))
def test_voxels_and_flags_are_exactly_the_crossed_edges(seed, count):
    grid = 9
    mesh = soup(random_triangles(seed, count))
    try:
        found = mesh_to_ovoxel(mesh, grid)
    except AssetRejected as err:
        assert err.reason == "degenerate"
        return
    unit = mesh_to_unit(mesh.vertices, found.frame).astype(np.float32)
    corners = to_voxel_units(unit, grid)[mesh.faces]
    edges = set().union(*(crossed_edges(corner, grid) for corner in corners))
    voxels, flags = set(), set()
    for axis, cell in edges:
        flags.add((axis, cell))
        for i in range(2):
            for j in range(2):
                near = list(cell)
                near[(axis + 1) % 3] += i
                near[(axis + 2) % 3] += j
                voxels.add(tuple(near))
    assert {tuple(row) for row in found.coords.tolist()} == voxels
    rows, axes = np.nonzero(found.intersected)
    assert {(a, tuple(found.coords[r].tolist())) for r, a in zip(rows, axes, strict=True)} == flags
    assert (np.lexsort(found.coords.T[::-1]) == np.arange(len(found.coords))).all()


def quadric_minimum(triangles, faces, coords, grid):
    """Dual vertices by dense algebra: all terms as rows of one least-squares problem."""
    from scipy.optimize import minimize

    corners = triangles
    edges = {}
    for face in faces:
        for k in range(3):
            key = tuple(sorted((int(face[k]), int(face[(k + 1) % 3]))))
            edges[key] = edges.get(key, 0) + 1
    boundary = {key for key, uses in edges.items() if uses == 1}
    points = {}
    for face, triangle in zip(faces, corners, strict=True):
        for k in range(3):
            points[int(face[k])] = triangle[k]
    result = []
    for cell in coords:
        hits, planes = [], []
        for triangle in corners:
            normal = np.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])
            normal = normal / np.linalg.norm(normal)
            for axis, low in crossed_edges(triangle, grid):
                u, v = (axis + 1) % 3, (axis + 2) % 3
                near = np.array(cell) - np.array(low)
                if near[axis] == 0 and near[u] in (0, 1) and near[v] in (0, 1):
                    point = np.zeros(3)
                    point[u], point[v] = low[u] + 1, low[v] + 1
                    point[axis] = (
                        normal @ triangle[0] - normal[u] * point[u] - normal[v] * point[v]
                    ) / normal[axis]
                    hits.append(point)
                    planes.append((normal, normal @ triangle[0]))
            if overlaps(triangle, np.array(cell)):
                planes.append((normal, normal @ triangle[0]))
        segments = [
            (points[a], points[b])
            for a, b in boundary
            if clips(points[a], points[b], np.array(cell))
        ]
        mean = np.mean(hits, axis=0)

        def cost(x, planes=planes, segments=segments, mean=mean, hits=hits):
            total = sum((n @ x - d) ** 2 for n, d in planes)
            for a, b in segments:
                direction = (b - a) / np.linalg.norm(b - a)
                off = (x - a) - ((x - a) @ direction) * direction
                total += 0.2 * off @ off
            return total + 0.01 * len(hits) * ((x - mean) ** 2).sum()

        bounds = [(c, c + 1) for c in cell]
        best = minimize(cost, np.clip(mean, cell, np.array(cell) + 1), bounds=bounds, tol=1e-14)
        result.append(best.x - cell)
    return np.array(result)


def overlaps(triangle, cell):
    """Triangle against closed unit box, by the thirteen separating axes."""
    box = triangle - (cell + 0.5)
    sides = np.roll(box, -1, axis=0) - box
    axes = [*np.eye(3), np.cross(sides[0], sides[1])]
    axes += [np.cross(a, b) for a in np.eye(3) for b in sides]
    for axis in axes:
        reach = np.abs(axis).sum() * 0.5
        values = box @ axis
        if values.min() > reach + 1e-12 or values.max() < -reach - 1e-12:
            return False
    return True


def clips(a, b, cell):
    """Whether a segment passes through the unit box at `cell`."""
    low, high = 0.0, 1.0
    for k in range(3):
        direction = b[k] - a[k]
        if abs(direction) < 1e-15:
            if not cell[k] <= a[k] <= cell[k] + 1:
                return False
            continue
        ends = sorted(((cell[k] - a[k]) / direction, (cell[k] + 1 - a[k]) / direction))
        low, high = max(low, ends[0]), min(high, ends[1])
    return low < high


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_dual_vertices_minimise_the_quadric(seed):
    """An independent dense minimiser, with its own overlap and clipping tests, finds the same."""
    grid = 5
    rng = np.random.default_rng(seed)
    vertices = rng.uniform(0.2, 4.8, size=(4, 3))
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    triangles = np.ascontiguousarray(vertices[faces])
    voxels = find_voxels(triangles, grid)
    dual, _ = compute_dual_grid(triangles, faces, voxels)
    expected = quadric_minimum(triangles, faces, voxels.coords.tolist(), grid)
    np.testing.assert_allclose(dual, expected, atol=2e-4)


def test_frame_leads_from_voxels_back_to_the_mesh(to_asset):
    mesh = to_asset(trimesh.creation.icosphere(subdivisions=3))
    moved = to_asset(
        trimesh.creation.icosphere(subdivisions=3).apply_scale(40).apply_translation([9, 8, 7])
    )
    first, second = mesh_to_ovoxel(mesh, 32), mesh_to_ovoxel(moved, 32)
    assert len(
        np.intersect1d(first.coords @ [1, 100, 10000], second.coords @ [1, 100, 10000])
    ) > 0.99 * len(first.coords)
    cells = unit_to_grid(mesh_to_unit(moved.triangles.mean(axis=1), second.frame), 32)
    active = {tuple(row) for row in second.coords.tolist()}
    near = {
        (x + i, y + j, z + k)
        for x, y, z in active
        for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)
    }  # fmt: skip
    assert all(tuple(cell) in near for cell in cells.tolist())


def test_unused_vertices_do_not_count(to_asset, sphere):
    far = AssetMesh(
        vertices=np.concatenate([sphere.vertices, [[1e6, 0, 0]]]),
        faces=sphere.faces, face_material=sphere.face_material, materials=sphere.materials,
    )  # fmt: skip
    np.testing.assert_array_equal(mesh_to_ovoxel(far, 16).coords, mesh_to_ovoxel(sphere, 16).coords)


def test_face_order_changes_nothing_but_rounding(sphere):
    order = np.random.default_rng(0).permutation(sphere.num_faces)
    turned = AssetMesh(sphere.vertices, sphere.faces[order], sphere.face_material, sphere.materials)
    first, second = mesh_to_ovoxel(sphere, 24), mesh_to_ovoxel(turned, 24)
    np.testing.assert_array_equal(first.coords, second.coords)
    np.testing.assert_array_equal(first.intersected, second.intersected)
    assert np.abs(first.dual.astype(int) - second.dual).max() <= 1


@pytest.mark.parametrize("grid", [1, 2, 7, 65])
def test_any_grid(sphere, grid):
    if grid == 1:
        with pytest.raises(AssetRejected, match="grid"):
            mesh_to_ovoxel(sphere, grid)
        return
    found = mesh_to_ovoxel(sphere, grid)
    assert found.coords.min() >= 0 and found.coords.max() < grid
    assert found.coords.dtype == np.int32 and found.dual.dtype == np.uint8


@pytest.mark.parametrize("grid", [0, -4, 1025])
def test_grids_out_of_range(sphere, grid):
    with pytest.raises(ValueError, match=r"1\.\.1024"):
        mesh_to_ovoxel(sphere, grid)


def test_degenerate_and_sliver_triangles_do_no_harm(to_asset):
    box = trimesh.creation.box()
    extra = np.array([[0, 0, 0], [0, 0, 0], [0.3, 0.3, 0.3], [0.5, 0.5, 0.5], [0.1, 0.2, 0.5]])
    vertices = np.concatenate([box.vertices, extra, [[0.5, 0.5, 0.5 - 1e-9]]])
    faces = np.concatenate([box.faces, [[8, 8, 8], [8, 9, 10], [8, 10, 11], [11, 12, 13]]])
    found = mesh_to_ovoxel(to_asset(trimesh.Trimesh(vertices, faces, process=False)), 16)
    clean = mesh_to_ovoxel(to_asset(box), 16)
    assert {tuple(c) for c in clean.coords.tolist()} <= {tuple(c) for c in found.coords.tolist()}
    assert (found.base_color == 255).all() and (found.metallic == 0).all()


def test_only_degenerate_triangles_are_refused(to_asset):
    line = trimesh.Trimesh([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 1, 2]], process=False)
    try:
        found = mesh_to_ovoxel(to_asset(line), 16)
    except AssetRejected as err:
        assert err.reason == "degenerate"
    else:
        assert (found.base_color == 255).all()
    speck = trimesh.Trimesh(np.eye(3) * [1, 1e-9, 1e-9], [[0, 1, 2]], process=False)
    with pytest.raises(AssetRejected) as caught:
        mesh_to_ovoxel(to_asset(speck), 16)
    assert caught.value.reason == "degenerate"


def test_hopelessly_dense_meshes_are_refused():
    triangles = np.tile(np.array([[[0, 0, 0], [64, 1, 64], [1, 64, 60]]], dtype=float), (500, 1, 1))
    with pytest.raises(AssetRejected) as caught:
        find_voxels(triangles, 64, max_crossings=100_000)
    assert caught.value.reason == "too_dense"
