"""The training data engine: held-out stays out, samples are sound, shards round-trip."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from segvigen_model.datasets import augment, voxel_samples
from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.procedural import CATEGORIES, make_asset
from segvigen_model.surface.geometry import measure_surface

GRID = 24


def test_held_out_rows_are_never_trained_on():
    table = voxel_samples.load_holdout()
    assert not set(voxel_samples.list_procedural_categories(split="train")) & set(
        table["procedural_categories"]
    )
    assert set(table["procedural_categories"]) <= set(CATEGORIES)
    for source in table["sources"]:
        assert voxel_samples.is_held_out({"source_repo": f"{source} (a fork)", "category": "robot"})
    kept = {"source_repo": "a/b", "category": "animal", "id": "x"}
    assert not voxel_samples.is_held_out(kept)
    assert voxel_samples.is_held_out({**kept, "category": table["pack_categories"][0]})


def test_validation_is_a_small_fixed_share():
    rows = [{"id": f"object-{i}"} for i in range(2000)]
    share = np.mean([voxel_samples.is_validation(row) for row in rows])
    assert 0.01 < share < 0.06


def test_voxel_labels_follow_the_nearest_face():
    made = make_asset("table", 1)
    sample = voxel_samples.voxelise(made.mesh, made.face_labels, GRID)
    assert sample.coords.max() < GRID and sample.labels.max() < len(made.part_names)
    low, high = made.mesh.vertices.min(0), made.mesh.vertices.max(0)
    points = ((sample.coords + sample.dual / 255) / GRID - 0.5) * (high - low).max()
    points += (low + high) / 2
    centers, faces = made.mesh.triangles.mean(1), made.face_labels
    near = faces[cKDTree(centers).query(points)[1]]
    assert (near == sample.labels).mean() > 0.5  # centres of long triangles are only a hint


def test_samples_repeat_by_seed_and_differ_by_index():
    one = voxel_samples.make_sample(3, 0, GRID, None, "train")
    two = voxel_samples.make_sample(3, 0, GRID, None, "train")
    other = voxel_samples.make_sample(4, 0, GRID, None, "train")
    assert one is not None and two is not None and other is not None
    assert np.array_equal(one.coords, two.coords)
    assert np.array_equal(one.attributes, two.attributes)
    assert one.coords.shape != other.coords.shape or not np.array_equal(one.coords, other.coords)


def test_shards_round_trip_and_are_not_made_twice(tmp_path):
    voxel_samples.build_shards(tmp_path, grid=GRID, count=3, parts=None, seed=0, split="train")
    (path,) = voxel_samples.list_shards(tmp_path, "train")
    stamp = path.stat().st_mtime_ns
    loaded = voxel_samples.load_shard(path)
    fresh = list(voxel_samples.make_samples(range(3), 0, GRID, None, "train"))
    assert len(loaded) == len(fresh)
    for a, b in zip(loaded, fresh, strict=True):
        for name in ("coords", "dual", "flags", "attributes", "labels"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
    voxel_samples.build_shards(tmp_path, grid=GRID, count=3, parts=None, seed=0, split="train")
    assert path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("seed", range(4))
def test_augmentation_keeps_labels_on_their_faces(seed):
    made = make_asset("car", seed)
    mesh, labels = augment.augment_mesh(
        made.mesh, made.face_labels, np.random.default_rng(seed), fuse_grid=32
    )
    assert len(labels) == mesh.num_faces
    assert set(np.unique(labels)) <= set(np.unique(made.face_labels))
    assert mesh.face_material.max() < len(mesh.materials)


def test_mirrored_meshes_still_face_outwards():
    mesh = augment.pose_mesh(make_asset("bottle", 0).mesh, np.diag([-1.0, 1, 1]))
    a, b, c = np.moveaxis(mesh.triangles, 1, 0)
    assert (a * np.cross(b, c)).sum() > 0


def test_fused_shell_is_closed_labelled_and_in_place():
    made = make_asset("hammer", 2)
    shell, labels = fuse_mesh(made.mesh, made.face_labels, grid=48)
    surface = measure_surface(shell)
    assert len(labels) == shell.num_faces
    assert np.unique(surface.components).size == 1
    edges, counts = np.unique(
        np.sort(shell.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0, return_counts=True
    )
    assert (counts % 2 == 0).all() and len(edges)
    gap = np.abs(shell.vertices.min(0) - made.mesh.vertices.min(0)).max()
    assert gap < 3 * np.ptp(made.mesh.vertices, axis=0).max() / 48
    assert len(np.unique(labels)) == len(made.part_names)
