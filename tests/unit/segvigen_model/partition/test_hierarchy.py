"""Coarse and fine parts in one tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segvigen_model.interactive.click_decoding import same_part_affinity
from segvigen_model.partition.consensus import densify_labels
from segvigen_model.partition.hierarchy import (
    build_part_tree,
    carry_groups,
    carry_levels,
    group_into_coarse_parts,
    nest_labels,
    split_into_fine_parts,
)
from segvigen_model.serialization import proposal_from_bytes, proposal_to_bytes

labelings = hnp.arrays(np.int64, 40, elements=st.integers(0, 6))


def is_nested(finer, coarser) -> bool:
    return len(np.unique(np.stack([finer, coarser]), axis=1).T) == len(np.unique(finer))


@given(labels=labelings, finer=labelings, areas=hnp.arrays(float, 40, elements=st.floats(0, 1)))
@settings(max_examples=60, deadline=None)
def test_nesting_makes_dense_ids_inside_one_part_each(labels, finer, areas):
    labels = densify_labels(labels)[0]
    below = nest_labels(labels, finer, areas)
    assert np.unique(below).tolist() == list(range(below.max() + 1))
    assert is_nested(below, labels)


def test_fragments_go_to_the_largest_piece_of_their_part():
    labels = np.array([0, 0, 0, 1])
    below = nest_labels(labels, np.array([0, 1, 2, 1]), np.array([1.0, 2.0, 1e-6, 1.0]))
    assert below.tolist() == [0, 1, 1, 2]


@given(labels=labelings, first=labelings, second=labelings)
@settings(max_examples=60, deadline=None)
def test_a_tree_has_one_parent_per_node_and_loses_no_face(labels, first, second):
    labels, areas = densify_labels(labels)[0], np.ones(40)
    finer = carry_levels(labels, [first, second], areas)
    groups = carry_groups(first, labels, areas)
    tree = build_part_tree(labels, finer, groups)
    assert (tree.levels[tree.part_level] == labels).all()
    for number in range(1, len(tree.levels)):
        above, below = tree.levels[number - 1], tree.levels[number]
        assert is_nested(below, above)
        nodes = tree.parents[tree.offsets[number] + below]
        assert (nodes == tree.offsets[number - 1] + above).all()
    assert (tree.parents[: tree.offsets[1]] == -1).all()
    for part in range(labels.max() + 1):
        if len(tree.levels) > tree.part_level + 1:
            own = np.unique(tree.levels[tree.part_level + 1][labels == part])
            assert tree.find_children(part).tolist() == own.tolist()


def test_learned_borders_make_the_level_below_and_above(table, segmenter):
    mesh, parts = table
    geometry = segmenter.open(mesh).geometry
    superfaces, areas = geometry.superfaces, geometry.surface.areas
    together, merging = (
        same_part_affinity(geometry.affinity),
        segmenter.config.merging,
    )
    whole = np.zeros(60, np.int32)
    fine = split_into_fine_parts(whole, superfaces, together, areas, merging)
    assert is_nested(fine, np.unique(fine, return_inverse=True)[1])
    assert len(np.unique(fine)) >= 5
    halves = parts * 2 + (np.arange(60) % 2)  # triangles of one box, taken apart
    groups = group_into_coarse_parts(
        densify_labels(halves)[0], superfaces, together, areas, merging
    )
    assert len(groups) == 10
    assert groups.max() < 9, "halves of one box belong together"


def test_a_proposal_carries_its_levels(table, segmenter):
    mesh, _ = table
    proposal = segmenter.open(mesh).propose(num_draws=1, num_steps=1)
    again = proposal_from_bytes(proposal_to_bytes(proposal))
    assert again.finer is not None
    assert again.groups is not None
    assert (again.finer == proposal.finer).all()
    assert again.groups.shape == (proposal.num_parts,)
    for level in again.finer:
        assert is_nested(level, proposal.face_labels)
    tree = build_part_tree(again.face_labels, again.finer, again.groups)
    assert tree.find_children(0).size == pytest.approx(
        len(np.unique(tree.levels[-1][again.face_labels == 0])) if len(again.finer) else 0
    )
