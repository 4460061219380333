"""What decides is typed: provenance is read in one place, for rows of any version."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from tasks.catalogue import ProposalRow
from tasks.labelling.lineage import ThirdReview, lineage_of

ROOT = Path(__file__).parents[4]
ROOMS = ("segvigen_model", "tasks", "flows", "deployments")
READER = ROOT / "tasks" / "labelling" / "lineage.py"
ABOUT = {"reviewers": ["ann", "bob"], "iou": 0.5, "other_labels": "k", "note": "n"}


def row_of(**provenance: Any) -> ProposalRow:
    return ProposalRow("a", 1, "key", "sha", 2, 0.5, "checkpoint", provenance=provenance)


def test_a_first_proposal_was_not_refined() -> None:
    lineage = lineage_of(row_of(seed=3, num_draws=4))
    assert (lineage.is_refined, lineage.seed, lineage.third_review) == (False, 3, None)


def test_a_refined_proposal_names_its_parent() -> None:
    assert lineage_of(row_of(parent={"key": "k", "round": 0})).is_refined
    assert lineage_of(row_of(parent={"key": "k", "round": 0})).seed == 0


@pytest.mark.parametrize("key", ["third_review", "third_look"])
def test_a_third_review_is_found_under_both_names(key: str) -> None:
    found = lineage_of(row_of(**{key: ABOUT}))
    assert found.third_review == ThirdReview(("ann", "bob"), 0.5, "k", "n")
    assert found.third_review.as_provenance() == ABOUT
    assert not found.is_refined


def read_keys(tree: ast.AST) -> list[ast.AST]:
    """Places where something is taken out of an attribute `provenance`."""

    def is_provenance(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "provenance"

    return [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.Subscript) and is_provenance(node.value))
        or (
            isinstance(node, ast.Attribute)
            and node.attr in ("get", "pop")
            and is_provenance(node.value)
        )
        or (isinstance(node, ast.Compare) and any(is_provenance(c) for c in node.comparators))
    ]


def test_the_search_finds_what_it_looks_for() -> None:
    for code in ("a.provenance['k']", "a.b.provenance.get('k', 0)", "'k' in row.provenance"):
        assert len(read_keys(ast.parse(code))) == 1, code
    assert read_keys(ast.parse("f(provenance={**a.provenance, 'k': 1})")) == []


def test_nothing_else_takes_a_value_out_of_provenance() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path != READER]
    assert len(files) > 200
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        for node in read_keys(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []
