"""The simulated person: what it does, in which order, and that its counts are honest."""

from __future__ import annotations

import numpy as np
import pytest

from segvigen_model.datasets.procedural import make_asset
from segvigen_model.evaluation.simulated_review import (
    PersonRules,
    choose_actions,
    compute_part_ious,
    merge_labels,
    simulate_review,
)
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import ClickKind, Proposal, RefinementState

RULES = PersonRules()


@pytest.fixture(scope="module")
def table():
    made = make_asset("table", 3)
    return measure_surface(made.mesh), made.face_labels


def oracle(truth):
    """A model that gives the clicked point's whole true part to whoever asks for it."""

    def refine(labels, clicks, anchors):
        changed = labels.copy()
        top = int(labels.max())
        for click in clicks:
            target = click.part if click.kind is ClickKind.BELONGS else top + 1 + click.group
            if click.is_positive:
                changed[truth == truth[click.face]] = target
        dense = np.unique(changed, return_inverse=True)[1].astype(np.int32)
        faces = sorted({*anchors, *(click.face for click in clicks)})
        confidence = np.ones(dense.max() + 1, np.float32)
        return Proposal(dense, dense, confidence, 1.0, refinement=RefinementState(tuple(faces)))

    return refine


def test_a_right_proposal_costs_nothing(table):
    surface, truth = table
    cost = simulate_review(truth, truth, surface, oracle(truth))
    assert (cost.rounds, cost.kinds) == (0, {})
    assert all(part.reached == {0.8: (0, 0), 0.9: (0, 0)} for part in cost.parts.values())


def test_everything_in_one_part_is_requested_part_by_part(table):
    surface, truth = table
    cost = simulate_review(np.zeros_like(truth), truth, surface, oracle(truth))
    num_parts = len(np.unique(truth))
    assert min(compute_part_ious(cost.labels, truth, surface.areas).values()) > 0.99
    assert cost.kinds["new_part"] == num_parts - 1
    assert cost.rounds == -(-(num_parts - 1) // 3), "three new parts a round"
    assert sum(part.actions for part in cost.parts.values()) == sum(cost.kinds.values())


def test_pieces_of_one_part_are_merged_without_the_model(table):
    surface, truth = table
    rows = np.flatnonzero(truth == 0)
    shown = truth.copy()
    shown[rows[: len(rows) // 2]] = truth.max() + 1
    (action,) = choose_actions(shown, truth, surface, RULES, set())
    assert action.click is None and set(action.merge) == {0, truth.max() + 1}

    def never(*_):
        raise AssertionError("a merge needs no model")

    cost = simulate_review(shown, truth, surface, never)
    assert (cost.kinds, cost.rounds, cost.parts[0].actions) == ({"merge": 1}, 1, 1)
    assert cost.parts[0].iou == pytest.approx(1.0)


def test_a_click_stands_on_the_wrong_region_and_names_its_owner(table):
    surface, truth = table
    shown = truth.copy()
    rows = np.flatnonzero(truth == 1)
    shown[rows[: len(rows) // 3]] = 0
    actions = choose_actions(shown, truth, surface, RULES, set())
    assert actions
    for action in actions:
        click = action.click
        assert truth[click.face] != shown[click.face] or click.kind is ClickKind.NEW_PART
        assert click.kind is ClickKind.BELONGS and click.part == truth[click.face]


def test_a_part_that_was_requested_is_refused_in_its_neighbour(table):
    surface, truth = table
    shown = np.where(truth == 1, 0, truth)
    shown = np.unique(shown, return_inverse=True)[1]
    kinds = [
        (action.part, action.click.kind, action.click.is_positive)
        for action in choose_actions(shown, truth, surface, PersonRules(good_iou=1.1), set())
        if action.click is not None
    ]
    assert (1, ClickKind.NEW_PART, True) in kinds


def test_given_up_parts_and_limits_end_the_review(table):
    surface, truth = table

    def stubborn(labels, clicks, anchors):
        return Proposal(labels, labels, np.ones(labels.max() + 1, np.float32), 1.0)

    rules = PersonRules(actions_per_round=2, max_rounds=50, max_actions=3)
    cost = simulate_review(np.zeros_like(truth), truth, surface, stubborn, rules)
    assert max(part.actions for part in cost.parts.values()) == 3
    assert cost.rounds < 50
    few = PersonRules(max_rounds=2)
    assert simulate_review(np.zeros_like(truth), truth, surface, stubborn, few).rounds == 2


def test_merging_keeps_ids_dense_and_chains():
    labels = np.array([0, 1, 2, 3, 4])
    new, names = merge_labels(labels, [(1, 3), (3, 4)])
    assert new.tolist() == [0, 1, 2, 1, 1] and names.tolist() == [0, 1, 2, 1, 1]


def test_a_part_without_partner_counts_zero(table):
    surface, truth = table
    ious = compute_part_ious(np.zeros_like(truth), truth, surface.areas)
    assert sorted(ious.values())[:-1] == [0.0] * (len(ious) - 1)


def test_a_small_new_part_is_recognised_as_the_one_that_was_requested(table):
    surface, truth = table
    shown = np.zeros_like(truth)
    rows = np.flatnonzero(truth == 1)
    shown[rows[surface.areas[rows].argmax()]] = 1
    rules = PersonRules(actions_per_round=50)
    (action,) = [a for a in choose_actions(shown, truth, surface, rules, set()) if a.part == 1]
    assert (action.click.kind, action.click.part) == (ClickKind.BELONGS, 1)
