"""Training data of patches: looks at what clicks mean, labelled like the whole."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.config import PatchConfig, SegmenterConfig
from segvigen_model.datasets.fuse import fused_skin
from segvigen_model.datasets.procedural import make_asset
from segvigen_model.surface.geometry import surface_of
from segvigen_model.training import patch_data
from segvigen_model.training.patch_data import (
    LOOK_COUNTS,
    LOOK_SHARES,
    ExampleOptions,
    look_examples,
    make_example,
)

NUM_LOOKS = 6


@pytest.fixture(scope="module")
def skin():
    made = make_asset("chair", 2)
    mesh, labels = fused_skin(made.mesh, made.face_labels, grid=64)
    return surface_of(mesh), np.unique(labels, return_inverse=True)[1].reshape(-1)


def looks(skin, seed=0):
    return list(look_examples(*skin, NUM_LOOKS, np.random.default_rng(seed), SegmenterConfig()))


def test_looks_show_a_share_of_the_surface_with_its_parts(skin):
    surface, labels = skin
    assert surface.num_faces > LOOK_COUNTS[1] / LOOK_SHARES[0]
    found = looks(skin)
    assert len(found) == NUM_LOOKS
    for example in found:
        assert LOOK_COUNTS[0] - 10 <= example.facts.count < LOOK_COUNTS[1] + 10
        assert example.shares.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        assert (example.facts.areas @ example.shares > 0).all(), "no label without surface"
        assert np.abs(example.facts.centers).max() <= 0.5, "a look is as large as an object"
    assert {example.shares.shape[1] for example in found} != {labels.max() + 1}


def test_the_same_seed_looks_at_the_same_places(skin):
    first, again, other = looks(skin), looks(skin), looks(skin, 1)
    for left, right in zip(first, again, strict=True):
        assert (left.facts.scalars == right.facts.scalars).all()
        assert (left.shares == right.shares).all()
    assert [e.facts.count for e in first] != [e.facts.count for e in other]


def test_a_coarse_mesh_is_not_looked_at():
    made = make_asset("chair", 2)
    surface, labels = surface_of(made.mesh), made.face_labels
    assert surface.num_faces < LOOK_COUNTS[0] / LOOK_SHARES[1]
    assert looks((surface, labels)) == []


def test_looks_follow_their_object_in_a_shard(tmp_path):
    plain, looked = tmp_path / "a.npz", tmp_path / "b.npz"
    patch_data.make_file(plain, range(3), ExampleOptions(counts=(60, 80)))
    patch_data.make_file(looked, range(3), ExampleOptions(counts=(60, 80), looks=2))
    alone, together = (list(patch_data.read_file(path)) for path in (plain, looked))
    assert len(alone) < len(together) <= 3 * len(alone)
    wholes = {example.facts.scalars.tobytes() for example in alone}
    assert wholes < {example.facts.scalars.tobytes() for example in together}


def test_examples_are_cut_as_the_segmenter_is_configured(skin):
    plain, other = (
        make_example(*skin, 60, SegmenterConfig(patches=PatchConfig(normal_weight=weight)))
        for weight in (0.05, 2.0)
    )
    assert not np.array_equal(plain.facts.centers, other.facts.centers)
