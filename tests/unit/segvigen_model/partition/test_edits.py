"""Merges, splits and ids that stay."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.config import EditConfig
from segvigen_model.datasets.labelled_folder import choose_rows, load_object
from segvigen_model.evaluation.metrics import compute_miou_best
from segvigen_model.interactive.click_decoding import same_part_affinity
from segvigen_model.partition.edits import (
    Edits,
    Splitter,
    apply_edits,
    compact_ids,
    compute_merged_ids,
)
from segvigen_model.types import ClickKind, RefinementState


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_compacted_ids_are_dense_and_move_as_little_as_possible(ids):
    labels = np.array(ids)
    compacted, mapping = compact_ids(labels)
    count = len(set(ids))
    assert sorted(set(compacted.tolist())) == list(range(count))
    assert [mapping[old] for old in ids] == compacted.tolist()
    assert all(mapping[old] == old for old in ids if old < count)


def test_a_vacated_id_goes_to_the_newest():
    assert compact_ids(np.array([0, 2, 3, 5, 6]))[1] == {0: 0, 2: 2, 3: 3, 5: 4, 6: 1}


def test_groups_that_share_a_part_become_one():
    assert compute_merged_ids(6, [(1, 2), (4, 2), (0, 5)]) == {0: 0, 1: 4, 2: 4, 3: 3, 4: 4, 5: 0}
    with pytest.raises(ValueError, match=r"part 6; the partition has 0..5"):
        compute_merged_ids(6, [(1, 6)])


@pytest.fixture
def known(table, segmenter):
    mesh, parts = table
    geometry = segmenter.open(mesh).geometry
    together, areas = same_part_affinity(geometry.affinity), geometry.surface.areas
    return parts, Splitter(geometry.superfaces, together, areas, segmenter.config.edits)


def test_a_merge_joins_over_segmented_parts(known):
    parts, splitter = known
    over = parts + 5 * (np.arange(60) % 12 >= 6) * (parts > 0)  # every leg is two parts
    over = compact_ids(over)[0]
    wanted = tuple(tuple(np.unique(over[parts == leg]).tolist()) for leg in range(1, 5))
    edited = apply_edits(over, Edits(wanted), splitter)
    labels, mapping = compact_ids(edited.labels)
    assert (labels == parts).all()
    assert all(
        mapping[edited.merged_into[part]] == leg for leg in range(1, 5) for part in wanted[leg - 1]
    )


def test_a_split_follows_the_borders_of_parts(known):
    parts, splitter = known
    whole = np.zeros(60, np.int32)
    edited = apply_edits(whole, Edits(splits=((0, 5),)), splitter)
    assert edited.pieces == {0: (0, 1, 2, 3, 4)}
    pairs = set(zip(parts.tolist(), edited.labels.tolist(), strict=True))
    assert len(pairs) == 5, "each piece is one part"
    assert edited.labels[np.flatnonzero(parts == 0)[0]] == 0, "the largest piece keeps the id"


def test_a_split_without_a_number_finds_some_pieces(known):
    _, splitter = known
    edited = apply_edits(np.zeros(60, np.int32), Edits(splits=((0, None),)), splitter)
    assert 2 <= len(edited.pieces[0]) <= 6
    few = replace(splitter, config=EditConfig(max_auto_pieces=2))
    assert len(apply_edits(np.zeros(60, np.int32), Edits(splits=((0, None),)), few).pieces[0]) == 2


def test_a_split_comes_after_merges_and_touches_nothing_else(known):
    parts, splitter = known
    edited = apply_edits(parts, Edits(((0, 1),), ((1, 2),)), splitter)
    assert edited.merged_into[1] == 0
    assert set(edited.labels[parts < 2]) == {0, 5}
    assert (edited.labels[parts >= 2] == parts[parts >= 2]).all()


def test_what_cannot_be_split_is_reported(known, single_face, segmenter):
    parts, splitter = known
    alone = np.where(np.arange(60) == 3, 1, 0)
    assert apply_edits(alone, Edits(splits=((1, None),)), splitter).notes == (
        "split_found_no_border",
    )
    few = apply_edits(parts, Edits(splits=((1, 32),)), splitter)
    assert few.notes == ("split_into_fewer",)
    with pytest.raises(ValueError, match="split names part 9"):
        apply_edits(parts, Edits(splits=((9, None),)), splitter)


def test_refine_merges_splits_then_clicks(table, segmenter, click_at):
    mesh, parts = table
    session = segmenter.open(mesh)
    start = np.array([0, 1, 2, 3, 3])[parts].astype(np.int32)  # two legs are one part
    edits = Edits(merges=((2, 1),), splits=((3, 2),))
    proposal = session.refine(start, [], edits=edits)
    assert proposal.num_parts == 4
    moved = proposal.refinement.id_map
    assert moved[1] == moved[2] == 2
    assert moved[0] == 0
    assert len(proposal.refinement.pieces[3]) == 2
    assert len(set(zip(np.array([0, 1, 1, 3, 4])[parts], proposal.face_labels, strict=True))) == 4
    assert proposal.part_confidence[2] == 1.0
    late = click_at(mesh, 14, kind=ClickKind.BELONGS, part=2)  # one leg of the merged pair
    again = session.refine(start, [late], edits=edits)
    assert (again.face_labels == proposal.face_labels).all()
    with pytest.raises(ValueError, match="part 4"):  # a piece of the split was not shown
        session.refine(start, [replace(late, part=4)], edits=edits)


def test_what_is_no_object_may_be_merged_away(table, segmenter):
    mesh, parts = table
    session = segmenter.open(mesh)
    for merge, left in (((0, 4), None), ((4, 0), 0), ((1, 2), 2)):
        state = RefinementState(background_part=4)
        proposal = session.refine(parts.astype(np.int32), [], edits=Edits((merge,)), state=state)
        assert proposal.refinement.background_part == left, merge


SHARED = os.environ.get("SEGVIGEN_SHARED", Path(__file__).resolve().parents[5] / "shared")
PARTS = Path(SHARED) / "data" / "parts"


@pytest.mark.skipif(not PARTS.is_dir(), reason="the labelled parts of the shared folder are absent")
def test_merges_mend_an_over_segmented_real_object(segmenter):
    row = min(choose_rows(PARTS, "heldout", 10), key=lambda each: each.get("faces", 0))
    found = load_object(PARTS, row, "face_inst", "fused")
    truth, areas = np.unique(found.labels, return_inverse=True)[1], found.areas
    session = segmenter.open(found.mesh)
    shown = session.propose(num_draws=1, num_steps=1, granularity="fine").face_labels
    inside = np.zeros((shown.max() + 1, truth.max() + 1))
    np.add.at(inside, (shown, truth), areas)
    owner = inside.argmax(axis=1)  # a person joins what lies mostly in one true part
    groups = [np.flatnonzero(owner == part).tolist() for part in range(truth.max() + 1)]
    merges = tuple(tuple(group) for group in groups if len(group) > 1)
    assert merges, "the fine granularity cuts more than people do"
    made = session.refine(shown, [], edits=Edits(merges))
    assert made.num_parts == shown.max() + 1 - sum(len(group) - 1 for group in merges)

    before, after = (compute_miou_best(each, truth, areas) for each in (shown, made.face_labels))
    assert after > before + 0.05
