"""Training data of patches: looks at what clicks mean, labelled like the whole."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.config import PatchConfig, SegmenterConfig
from segvigen_model.datasets.fuse import fuse_mesh
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.training import patch_data
from segvigen_model.training.patch_data import (
    CROP_COUNTS,
    CROP_SHARES,
    ExampleOptions,
    make_crop_examples,
    make_example,
)

NUM_CROPS = 6


@pytest.fixture(scope="module")
def shell():
    made = make_asset("chair", 2)
    mesh, labels = fuse_mesh(made.mesh, made.face_labels, grid=64)
    return measure_surface(mesh), np.unique(labels, return_inverse=True)[1].reshape(-1)


def make_crops(shell, seed=0):
    return list(
        make_crop_examples(*shell, NUM_CROPS, np.random.default_rng(seed), SegmenterConfig())
    )


def test_crops_show_a_share_of_the_surface_with_its_parts(shell):
    surface, labels = shell
    assert surface.num_faces > CROP_COUNTS[1] / CROP_SHARES[0]
    found = make_crops(shell)
    assert len(found) == NUM_CROPS
    for example in found:
        assert CROP_COUNTS[0] - 10 <= example.features.count < CROP_COUNTS[1] + 10
        assert example.shares.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        assert (example.features.areas @ example.shares > 0).all(), "no label without surface"
        assert np.abs(example.features.centers).max() <= 0.5, "a look is as large as an object"
    assert {example.shares.shape[1] for example in found} != {labels.max() + 1}


def test_the_same_seed_crops_the_same_places(shell):
    first, again, other = make_crops(shell), make_crops(shell), make_crops(shell, 1)
    for left, right in zip(first, again, strict=True):
        assert (left.features.scalars == right.features.scalars).all()
        assert (left.shares == right.shares).all()
    assert [e.features.count for e in first] != [e.features.count for e in other]


def test_a_coarse_mesh_is_not_looked_at():
    made = make_asset("chair", 2)
    surface, labels = measure_surface(made.mesh), made.face_labels
    assert surface.num_faces < CROP_COUNTS[0] / CROP_SHARES[1]
    assert make_crops((surface, labels)) == []


def test_crops_follow_their_object_in_a_shard(tmp_path):
    plain, looked = tmp_path / "a.npz", tmp_path / "b.npz"
    patch_data.make_file(plain, range(3), ExampleOptions(counts=(60, 80)))
    patch_data.make_file(looked, range(3), ExampleOptions(counts=(60, 80), num_crops=2))
    alone, combined = (list(patch_data.read_file(path)) for path in (plain, looked))
    assert len(alone) < len(combined) <= 3 * len(alone)
    wholes = {example.features.scalars.tobytes() for example in alone}
    assert wholes < {example.features.scalars.tobytes() for example in combined}


def test_shards_of_version_0_1_are_read(tmp_path):
    patch_data.make_file(tmp_path / "new.npz", range(3), ExampleOptions(counts=(60, 80)))
    with np.load(tmp_path / "new.npz") as stored:
        arrays = {k.replace("|geodesic_distances", "|ways"): stored[k] for k in stored.files}
    assert "0|ways" in arrays
    np.savez(tmp_path / "old.npz", **arrays)
    new, old = (list(patch_data.read_file(tmp_path / name)) for name in ("new.npz", "old.npz"))
    assert len(new) == len(old) > 0
    for left, right in zip(new, old, strict=True):
        distances = (left.features.geodesic_distances, right.features.geodesic_distances)
        assert np.array_equal(*distances)


def test_the_option_of_version_0_1_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(patch_data, "OBJECTS_PER_FILE", 2)
    counts = []
    for option in (["--crops", "2"], ["--looks", "2"], []):
        out = tmp_path / "".join(["shards", *option])
        few = ["--files", "0", "1", "--patches", "60", "80"]
        patch_data.main(["--out", str(out), *few, *option])
        counts.append(len(list(patch_data.read_file(out / "train-00000.npz"))))
    assert counts[0] == counts[1] > counts[2]


def test_examples_are_cut_as_the_segmenter_is_configured(shell):
    plain, other = (
        make_example(*shell, 60, SegmenterConfig(patches=PatchConfig(normal_weight=weight)))
        for weight in (0.05, 2.0)
    )
    assert not np.array_equal(plain.features.centers, other.features.centers)
