from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segvigen_model.config import GRANULARITIES, FusionWeights, SegmenterConfig
from segvigen_model.evaluation.metrics import compute_miou_matched
from segvigen_model.interactive.affinity import embed_patches
from segvigen_model.partition.consensus import densify_labels, find_consensus, resolve_overlaps
from segvigen_model.surface.adjacency import build_superfaces
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.graph_cut import compute_energy, expand_labels
from segvigen_model.surface.region_merging import build_segment_tree
from segvigen_model.types import AssetMesh, Material

# The fixtures are frozen values, so examples may share them.
FROZEN = [HealthCheck.function_scoped_fixture]
CONFIG = SegmenterConfig()


def trusting(draws: float) -> SegmenterConfig:
    return SegmenterConfig(fusion=FusionWeights(draws=draws))


def atoms_of(surface):
    tree = build_segment_tree(surface, CONFIG.regions)
    return tree, build_superfaces(surface, tree, 512, CONFIG.patches, CONFIG.components)


def prepare_mesh(mesh):
    surface = measure_surface(mesh)
    tree, superfaces = atoms_of(surface)
    return (
        surface.areas,
        superfaces,
        embed_patches(surface, tree, superfaces, CONFIG).affinity_matrix,
    )


def assert_dense(labels, num_faces):
    assert labels.shape == (num_faces,)
    assert labels.dtype == np.int32
    assert np.unique(labels).tolist() == list(range(labels.max() + 1))


@settings(max_examples=15, deadline=None, suppress_health_check=FROZEN)
@given(seed=st.integers(0, 999), num_draws=st.integers(0, 4))
def test_any_draws_give_a_partition(seed, num_draws, table):
    mesh, _ = table
    areas, superfaces, pieces = prepare_mesh(mesh)
    draws = np.random.default_rng(seed).integers(0, 6, (num_draws, mesh.num_faces))
    counts = []
    for granularity in GRANULARITIES:
        found = find_consensus(draws, (superfaces, pieces), areas, granularity, CONFIG)
        assert_dense(found.labels, mesh.num_faces)
        assert found.part_confidence.shape == (found.count,)
        assert 0 <= found.confidence <= 1
        assert ("geometry_only" in found.notes) == (num_draws == 0)
        counts.append(found.count)
    assert counts == sorted(counts, reverse=True)


def test_separate_parts_are_found_by_geometry(table):
    mesh, parts = table
    areas, superfaces, pieces = prepare_mesh(mesh)
    labels = find_consensus(
        np.zeros((0, 60), int), (superfaces, pieces), areas, "medium", CONFIG
    ).labels
    assert compute_miou_matched(labels, parts, areas) > 0.99


def test_unknown_granularity_is_refused(table):
    areas, superfaces, pieces = prepare_mesh(table[0])
    with pytest.raises(ValueError, match="huge"):
        find_consensus(np.zeros((0, 60), int), (superfaces, pieces), areas, "huge", CONFIG)


@pytest.mark.parametrize("name", ["single_face", "two_boxes", "split_box", "big_sheet"])
def test_meshes_of_any_size_work(name, request):
    mesh = request.getfixturevalue(name)
    areas, superfaces, pieces = prepare_mesh(mesh)
    draws = np.zeros((2, mesh.num_faces), int)
    found = find_consensus(draws, (superfaces, pieces), areas, "medium", CONFIG)
    assert_dense(found.labels, mesh.num_faces)
    assert 0 < found.confidence <= 1


def test_draws_count_as_much_as_they_are_trusted(big_sheet):
    areas, superfaces, pieces = prepare_mesh(big_sheet)
    across = big_sheet.triangles.mean(axis=1)[:, 0]
    side = (across > np.median(across)).astype(int)
    draws = np.stack([side, 1 - side])
    alone = find_consensus(draws, (superfaces, pieces), areas, "medium", trusting(0.0))
    weighted = find_consensus(draws, (superfaces, pieces), areas, "medium", trusting(5.0))
    plain = find_consensus(draws[:0], (superfaces, pieces), areas, "medium", CONFIG)
    assert (alone.labels == plain.labels).all()
    assert compute_miou_matched(weighted.labels, side, areas) > 0.9
    assert compute_miou_matched(alone.labels, side, areas) < 0.7


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999))
def test_expansion_never_raises_the_energy_and_finds_two_label_optima(seed):
    rng = np.random.default_rng(seed)
    unaries = rng.random((7, 2)) * 2
    pairs = np.array([[i, j] for i in range(7) for j in range(i + 1, 7) if rng.random() < 0.5])
    pairs = pairs.reshape(-1, 2)
    weights = rng.random(len(pairs))
    start = rng.integers(0, 2, 7)
    found = expand_labels(unaries, pairs, weights, start, 3)
    every = [np.array(list(np.binary_repr(code, 7)), int) for code in range(128)]
    best = min(compute_energy(unaries, pairs, weights, labels) for labels in every)
    assert (
        compute_energy(unaries, pairs, weights, found)
        <= compute_energy(unaries, pairs, weights, start) + 1e-9
    )
    # From a constant start one expansion of the other label is the exact optimum.
    exact = expand_labels(unaries, pairs, weights, np.zeros(7, int), 1)
    assert compute_energy(unaries, pairs, weights, exact) == pytest.approx(best)


@settings(max_examples=10, deadline=None, suppress_health_check=FROZEN)
@given(seed=st.integers(0, 999), noise=st.sampled_from([0.1, 0.4, 1.0]))
def test_overlapping_masks_become_exclusive(seed, noise, table):
    mesh, parts = table
    areas, superfaces, _ = prepare_mesh(mesh)
    rng = np.random.default_rng(seed)
    truth = np.eye(5)[parts].T
    masks = np.clip(truth + rng.normal(0, noise, truth.shape), 0, 1)
    means = np.stack([superfaces.average_faces(mask, areas) for mask in masks], axis=1)
    labels = resolve_overlaps(means, superfaces, CONFIG.guided)
    assert labels.shape == (60,)
    assert set(labels.tolist()) <= set(range(5))
    if noise == 0.1:
        assert compute_miou_matched(labels, parts, areas) > 0.99


def test_densify_keeps_order():
    labels, mapping = densify_labels(np.array([7, 2, 7, 9]))
    assert labels.tolist() == [1, 0, 1, 2]
    assert mapping == {2: 0, 7: 1, 9: 2}


def add_fragments(mesh: AssetMesh, places: list[tuple[float, float, float]]) -> AssetMesh:
    """A mesh and copies of its first twelve faces, a fiftieth as large, at some places."""
    box = mesh.vertices[mesh.faces[:12]].reshape(-1, 3)
    small = [np.array(place) + 0.02 * (box - box.mean(axis=0)) for place in places]
    vertices = np.concatenate([mesh.vertices, *small])
    fresh = np.arange(36 * len(places)).reshape(-1, 3) + len(mesh.vertices)
    return replace(
        mesh,
        vertices=vertices,
        faces=np.concatenate([mesh.faces, fresh]),
        face_material=np.zeros(len(mesh.faces) + len(fresh), np.int32),
    )


def test_fragments_that_touch_nothing_go_to_what_is_nearest(two_boxes):
    """A bubble inside each box and two beside one another outside, as single shells of scans have
    them."""
    places = [(0.4, 0.5, 0.5), (1.75, 0.4, 0.5), (2.2, 0.5, 0.5), (2.3, 0.5, 0.5)]
    mesh = add_fragments(two_boxes, places)
    surface = measure_surface(mesh)
    tree, superfaces = atoms_of(surface)
    affinity_matrix = embed_patches(surface, tree, superfaces, CONFIG).affinity_matrix
    for granularity in GRANULARITIES:
        none = np.zeros((0, 72), int)
        found = find_consensus(
            none, (superfaces, affinity_matrix), surface.areas, granularity, CONFIG
        )
        fragments = found.labels[24:].reshape(4, 12)
        assert (fragments == fragments[:, :1]).all()
        assert fragments[0, 0] in found.labels[:12]
        assert set(fragments[1:, 0]) <= set(found.labels[12:24])


def test_a_mesh_of_only_fragments_keeps_them():
    fragment = np.array([[0.0, 0, 0], [0.01, 0, 0], [0, 0.01, 0]])
    places = np.stack(np.meshgrid(*[np.arange(8.0)] * 3), axis=-1).reshape(-1, 3)[:400]
    vertices = (places[:, None] + fragment).reshape(-1, 3)
    faces = np.arange(1200).reshape(-1, 3)
    mesh = AssetMesh(vertices, faces, np.zeros(400, np.int32), (Material("one"),))
    surface = measure_surface(mesh)
    _, superfaces = atoms_of(surface)
    assert superfaces.count == 400 and len(superfaces.pairs) == 0
