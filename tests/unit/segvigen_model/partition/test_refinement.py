from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segvigen_model.config import SegmenterConfig
from segvigen_model.partition.refinement import (
    NO_TARGET,
    ClickConstraint,
    ClickRegions,
    refine_labels,
    resolve_clicks,
)
from segvigen_model.session import Session
from segvigen_model.surface.adjacency import build_superfaces
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.surface.region_merging import SegmentTree, build_segment_tree
from segvigen_model.types import Click, ClickKind

FLAT = np.zeros(3)
CONFIG = SegmenterConfig()
MIN_PIECE_SHARE = CONFIG.edits.min_piece_share


def find_unmet(labels, constraints, id_map):
    """Constraints that do not hold in a refined partition."""
    wants = [w for w in constraints if w.target != NO_TARGET]
    avoids = [w for w in constraints if w.avoid != NO_TARGET]
    missed = [w for w in wants if id_map.get(w.target) != int(labels[w.face])]
    return missed + [w for w in avoids if id_map.get(w.avoid) == int(labels[w.face])]


def make_wrong(face: int, **what) -> Click:
    return Click(face=face, xyz=FLAT, **what)


def test_the_later_click_on_a_face_counts():
    constraints, _ = resolve_clicks(
        [make_wrong(3, part=0), make_wrong(4, part=0), make_wrong(3, part=1)], 2, None
    )
    assert [(constraint.face, constraint.target) for constraint in constraints] == [(4, 0), (3, 1)]


def test_new_groups_and_background_part_get_the_next_ids():
    clicks = [
        make_wrong(1, kind=ClickKind.NEW_PART, group=7),
        make_wrong(2, kind=ClickKind.NEW_PART, group=4),
        make_wrong(3, kind=ClickKind.NEW_PART, group=7),
        make_wrong(4, kind=ClickKind.NOT_OBJECT),
        make_wrong(5, part=1, is_positive=False),
    ]
    constraints, aside = resolve_clicks(clicks, 2, None)
    assert [constraint.target for constraint in constraints] == [3, 2, 3, 4, NO_TARGET]
    assert aside == 4
    assert constraints[-1].avoid == 1
    assert resolve_clicks(clicks, 2, 1)[1] == 1


@pytest.mark.parametrize("part", [-1, 2])
def test_a_part_that_was_not_shown_is_refused(part):
    with pytest.raises(ValueError, match=f"part {part}"):
        resolve_clicks([make_wrong(0, part=part)], 2, None)


@st.composite
def draw_click_lists(draw):
    kinds = st.sampled_from(["belongs", "not_belongs", "new", "not_object"])
    faces = st.integers(0, 59)
    return [
        (draw(kinds), draw(faces), draw(st.integers(0, 3)), draw(st.integers(0, 1)))
        for _ in range(draw(st.integers(1, 14)))
    ]


def make_click(kind: str, face: int, part: int, group: int, mesh) -> Click:
    xyz = mesh.triangles[face].mean(axis=0)
    if kind == "new":
        return Click(face, xyz, ClickKind.NEW_PART, group=group)
    if kind == "not_object":
        return Click(face, xyz, ClickKind.NOT_OBJECT)
    return Click(face, xyz, part=part, is_positive=kind == "belongs")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(clicks_said=draw_click_lists(), seed=st.integers(0, 99))
def test_every_click_holds_and_the_result_is_a_partition(clicks_said, seed, table, segmenter):
    mesh, _ = table
    session = kept_session(segmenter, mesh)
    start = np.random.default_rng(seed).permutation(np.arange(60) % 4).astype(np.int32)
    clicks = [make_click(*each, mesh) for each in clicks_said]
    proposal = session.refine(start, clicks)
    labels = proposal.face_labels
    assert np.unique(labels).tolist() == list(range(proposal.num_parts))
    mapping = proposal.refinement.id_map
    constraints, aside = resolve_clicks(clicks, 4, None)
    assert find_unmet(labels, constraints, mapping) == []
    if any(constraint.target == aside and aside is not None for constraint in constraints):
        assert proposal.refinement.background_part == mapping[aside]
    untouched = set(range(4)) - {int(start[constraint.face]) for constraint in constraints}
    for part in untouched:  # nothing leaves a part in which nobody clicked
        assert (labels[start == part] == mapping[part]).all()


_KEPT: dict[bytes, Session] = {}


def kept_session(segmenter, mesh):
    """Open once per geometry: hypothesis calls the test many times."""
    key = mesh.vertices.tobytes()
    if key not in _KEPT:
        _KEPT[key] = segmenter.open(mesh)
    return _KEPT[key]


def test_one_click_moves_a_whole_leg(table, segmenter, click_at):
    mesh, parts = table
    start = np.minimum(parts, 1).astype(np.int32)  # all four legs are one part
    click = click_at(mesh, 50, kind=ClickKind.NEW_PART)
    proposal = segmenter.open(mesh).refine(start, [click])
    assert proposal.num_parts == 3
    assert ((proposal.face_labels == 2) == (parts == 4)).all()


def test_clicks_join_what_was_split_and_ids_close_up(table, segmenter, click_at):
    mesh, parts = table
    start = np.where(np.arange(60) == 30, 5, parts).astype(np.int32)
    click = click_at(mesh, 30, part=2)
    proposal = segmenter.open(mesh).refine(start, [click])
    assert (proposal.face_labels == parts).all()
    assert 5 not in proposal.refinement.id_map


def test_faces_fixed_in_earlier_rounds_keep_their_part(table, segmenter, click_at):
    mesh, parts = table
    start = np.minimum(parts, 1).astype(np.int32)
    session = segmenter.open(mesh)
    first = session.refine(start, [click_at(mesh, 50, kind=ClickKind.NEW_PART)])
    assert first.refinement.anchor_faces == (50,)
    neighbour = click_at(mesh, 53, part=0)
    second = session.refine(first, [neighbour])
    bare = session.refine(first.face_labels, [neighbour], state=first.refinement)
    assert np.array_equal(bare.face_labels, second.face_labels)
    assert bare.refinement == second.refinement
    assert second.face_labels[50] == 2
    assert second.face_labels[53] == 0
    assert second.refinement.anchor_faces == (50, 53)


def test_negative_click_on_the_only_part_makes_another(single_face, segmenter, click_at):
    click = click_at(single_face, 0, part=0, is_positive=False)
    proposal = segmenter.open(single_face).refine(np.zeros(1, np.int32), [click])
    assert proposal.face_labels.tolist() == [0]
    assert proposal.refinement.id_map == {1: 0}
    assert "negative_click_made_part" in proposal.fallbacks


def test_scripted_reviewer_mends_a_wrong_partition(table, segmenter, click_at):
    mesh, parts = table
    session = segmenter.open(mesh)
    areas = session.geometry.surface.areas
    labels = np.array([0, 0, 1, 1, 1])[parts].astype(np.int32)
    for part in range(1, 5):  # name each leg whose label is not its own
        rivals = np.unique(parts[labels == labels[parts == part][0]])
        if len(rivals) > 1:
            face = int(np.flatnonzero(parts == part)[3])
            click = click_at(mesh, face, kind=ClickKind.NEW_PART)
            labels = session.refine(labels, [click]).face_labels
    for part in range(5):
        own = np.bincount(labels[parts == part], areas[parts == part]).argmax()
        union = areas[(labels == own) | (parts == part)].sum()
        assert areas[(labels == own) & (parts == part)].sum() / union > 0.9


def refine_almost_all(surface, tree, constraint):
    """Refine a sheet of one part by a click that means all but the last face."""
    probability = np.full(surface.num_faces, 0.9)
    probability[-1] = 0.1
    superfaces = build_superfaces(surface, tree, 512, CONFIG.patches, CONFIG.components)
    regions = ClickRegions(surface, tree, superfaces, CONFIG.edits)
    start = np.zeros(surface.num_faces, np.int32)
    proposal = refine_labels(start, [constraint], lambda _: probability, regions)
    assert find_unmet(proposal.labels, [constraint], proposal.id_map) == []
    return np.bincount(proposal.labels, surface.areas) / surface.areas.sum()


@pytest.mark.parametrize(
    "constraint", [ClickConstraint(0, 1, NO_TARGET, True), ClickConstraint(0, NO_TARGET, 0, False)]
)
def test_a_click_that_splits_a_part_leaves_no_fragment_of_it(constraint, sheet_of):
    surface = measure_surface(sheet_of(20))
    shares = refine_almost_all(surface, build_segment_tree(surface, CONFIG.regions), constraint)
    assert len(shares) == 2
    assert shares.min() >= MIN_PIECE_SHARE


def test_a_fragment_is_left_where_nothing_else_is_proposed(sheet_of):
    surface = measure_surface(sheet_of(20))
    undivided = SegmentTree(np.zeros((1, surface.num_faces), np.int64))
    shares = refine_almost_all(surface, undivided, ClickConstraint(0, 1, NO_TARGET, True))
    assert len(shares) == 2
    assert shares.min() < MIN_PIECE_SHARE
    assert shares[1] > 0.9
