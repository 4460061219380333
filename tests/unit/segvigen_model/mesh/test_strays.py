"""A face far away from everything else decides neither the frame nor the parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from segvigen_model import Click, Segmenter
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.mesh.strays import STRAY_REPAIR, FramedFaces, find_stray_faces, fit_mesh_frame
from segvigen_model.types import AssetMesh, ClickKind


def add_triangle(mesh: AssetMesh, at: float, size: float = 0.01) -> AssetMesh:
    """The mesh and one more face at (at, 0, 0), as its first."""
    corners = np.array([[at, 0, 0], [at + size, 0, 0], [at, size, 0]])
    return replace(
        mesh,
        vertices=np.concatenate([corners, mesh.vertices]),
        faces=np.concatenate([[[0, 1, 2]], mesh.faces + 3]),
        face_material=np.concatenate([mesh.face_material[:1], mesh.face_material]),
        corner_uv=None,
        vertex_normals=None,
        vertex_colors=None,
        face_geometry=None,
    )


@pytest.fixture(scope="module")
def chair() -> AssetMesh:
    mesh = make_asset("chair", 1, textured=False).mesh
    return replace(mesh, corner_uv=None, vertex_normals=None, face_geometry=None)


@pytest.fixture(scope="module")
def default() -> Segmenter:
    return Segmenter.from_checkpoint("default")


@pytest.mark.parametrize("distance", [-3.0, 5.0, 20.0, 1e4])
def test_a_stray_is_out_of_the_frame(chair, distance):
    mesh = add_triangle(chair, distance)
    assert np.flatnonzero(find_stray_faces(mesh.triangles)).tolist() == [0]
    frame, wanted = fit_mesh_frame(mesh), fit_mesh_frame(chair)
    np.testing.assert_array_equal(frame.center, wanted.center)
    assert frame.scale == wanted.scale


@pytest.mark.parametrize("distance", [5.0, 20.0])
def test_a_stray_changes_no_part_and_follows_its_neighbour(chair, default, distance):
    alone = default.open(chair).propose(num_draws=1, num_steps=1)
    mesh = add_triangle(chair, distance)
    session = default.open(mesh)
    found = session.propose(num_draws=1, num_steps=1)
    assert found.face_labels[1:].tolist() == alone.face_labels.tolist()
    assert 0 <= found.face_labels[0] < found.num_parts == alone.num_parts
    assert "stray_faces_follow_the_nearest" in found.fallbacks
    assert session.view_faces(64).max() < mesh.num_faces
    click = Click(5, mesh.triangles[5].mean(axis=0), ClickKind.NEW_PART)
    on_stray = Click(0, mesh.triangles[0].mean(axis=0), ClickKind.NEW_PART)
    for each in (click, on_stray):
        assert session.click([each]).shape == (mesh.num_faces,)
    refined = session.refine(found, [click])
    assert refined.face_labels.shape == (mesh.num_faces,)
    assert 5 in refined.refinement.anchor_faces
    again = session.refine(refined, [on_stray])
    assert set(np.unique(again.face_labels)) == set(range(again.num_parts))


def test_the_loader_records_strays_and_keeps_the_faces():
    boxes = trimesh.creation.box()
    far = trimesh.Trimesh([[30, 0, 0], [30.01, 0, 0], [30, 0.01, 0]], [[0, 1, 2]], process=False)
    data = trimesh.util.concatenate([boxes, far]).export(file_type="ply")
    mesh = mesh_from_bytes(data, "ply")
    assert mesh.num_faces == 13 and dict(mesh.repairs)[STRAY_REPAIR] == 1
    assert STRAY_REPAIR not in dict(mesh_from_bytes(boxes.export(file_type="ply"), "ply").repairs)


def test_objects_with_gaps_are_whole(chair):
    pair = trimesh.util.concatenate([
        trimesh.creation.box(), trimesh.creation.box().apply_translation((9, 0, 0))
    ])  # fmt: skip
    assert not find_stray_faces(pair.triangles).any(), "as large as the other"
    lamp = trimesh.util.concatenate([
        trimesh.creation.box(), trimesh.creation.box((0.001, 8, 0.001)).apply_translation((0, 4, 0))
    ])  # fmt: skip
    assert not find_stray_faces(lamp.triangles).any(), "a long thin cable leaves no gap"
    assert not find_stray_faces(chair.triangles).any()
    assert not find_stray_faces(np.zeros((3, 3, 3))).any()


@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 999),
    spread=st.sampled_from([0.0, 1.0, 1e6]),
)
def test_never_all_faces_and_never_much_area(count, seed, spread):
    rng = np.random.default_rng(seed)
    triangles = rng.normal(size=(count, 1, 3)) * spread + rng.normal(size=(count, 3, 3))
    is_stray = find_stray_faces(triangles)
    sides = triangles[:, 1:] - triangles[:, :1]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    assert not is_stray.all() and areas[is_stray].sum() <= 0.006 * areas.sum()


def test_the_way_out_and_back(chair):
    mesh = add_triangle(chair, 50.0)
    framed = FramedFaces(mesh)
    assert framed.mesh.num_faces == chair.num_faces
    values = np.arange(framed.mesh.num_faces)
    assert framed.select(framed.spread(values)).tolist() == values.tolist()
    assert framed.to_framed(framed.to_whole(values)).tolist() == values.tolist()
    assert framed.to_whole(np.array([-1, 0])).tolist() == [-1, 1]
    whole = FramedFaces(chair)
    assert whole.mesh is chair and whole.spread(values) is values
