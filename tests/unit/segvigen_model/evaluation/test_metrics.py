"""Scores do not depend on numbering, place or size; known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segvigen_model.datasets.procedural import make_asset
from segvigen_model.evaluation.metrics import (
    compute_boundary_f1,
    compute_iou_table,
    compute_mask_iou,
    compute_miou_best,
    compute_miou_matched,
)
from segvigen_model.surface.geometry import measure_surface

labelings = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40)


def columns(pairs):
    rows = np.array(pairs)
    areas = np.random.default_rng(len(pairs)).uniform(0.1, 1, len(pairs))
    return rows[:, 0], rows[:, 1], areas


@settings(max_examples=40, deadline=None)
@given(labelings, st.permutations(range(5)))
def test_renumbering_changes_nothing(pairs, order):
    predicted, truth, areas = columns(pairs)
    renamed = np.array(order)[predicted]
    assert np.isclose(
        compute_miou_best(predicted, truth, areas), compute_miou_best(renamed, truth, areas)
    )
    assert np.isclose(
        compute_miou_matched(predicted, truth, areas), compute_miou_matched(renamed, truth, areas)
    )


@settings(max_examples=40, deadline=None)
@given(labelings)
def test_matched_never_beats_best_and_truth_scores_one(pairs):
    predicted, truth, areas = columns(pairs)
    assert (
        compute_miou_matched(predicted, truth, areas)
        <= compute_miou_best(predicted, truth, areas) + 1e-9
    )
    assert np.isclose(compute_miou_matched(truth, truth, areas), 1.0)
    assert (
        (compute_iou_table(predicted, truth, areas) >= 0)
        & (compute_iou_table(predicted, truth, areas) <= 1)
    ).all()


def test_known_values():
    areas = np.array([1.0, 1, 2, 4])
    truth, predicted = np.array([0, 0, 1, 1]), np.array([7, 7, 7, 3])
    table = compute_iou_table(predicted, truth, areas)  # predicted in ascending order: 3, 7
    assert np.allclose(table, [[0, 0.5], [4 / 6, 2 / 8]])
    assert np.isclose(compute_miou_best(predicted, truth, areas), (0.5 + 4 / 6) / 2)
    one = np.zeros(4, int)
    assert np.isclose(compute_miou_best(one, truth, areas), 0.5)
    assert np.isclose(
        compute_miou_matched(one, truth, areas), 0.375
    )  # 6/8 matched, the other part 0
    assert compute_mask_iou(one > 0, one > 0, areas) == 1.0
    assert np.isclose(compute_mask_iou(truth == 1, predicted == 3, areas), 4 / 6)


def test_parts_without_area_do_not_count():
    areas = np.array([1.0, 1, 0])
    assert compute_miou_best(np.array([0, 0, 0]), np.array([0, 0, 1]), areas) == 1.0


def test_rigid_motion_changes_no_border_score():
    made = make_asset("chair", 3)
    coarse = made.face_labels // 2
    surface = measure_surface(made.mesh)
    score = compute_boundary_f1(coarse, made.face_labels, surface)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    vertices = (made.mesh.vertices @ turn.T) + [3, -2, 5]
    moved = measure_surface(replace(made.mesh, vertices=vertices))
    # the tolerance follows the bounding box, which a turn changes a little
    assert abs(compute_boundary_f1(coarse, made.face_labels, moved) - score) < 0.1
    assert compute_boundary_f1(made.face_labels, made.face_labels, surface) == 1.0


def test_no_border_at_all():
    surface = measure_surface(make_asset("mug", 0).mesh)
    flat = np.zeros(surface.num_faces, int)
    assert compute_boundary_f1(flat, flat, surface) == 1.0
