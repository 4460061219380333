"""The last round: announced before it is answered, parked with a hint, never for a third review."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.catalogue import AssetState
from tasks.quality.adjudication import adjudicate
from tasks.quality.copies import add_double_annotation
from tasks.review.label_config import LAST_ROUND
from tasks.stages.refine import refine_asset

MERGE = ["merge 0 1"]


def refine(loop: Any) -> None:
    pipeline = loop.pipeline
    done = refine_asset(pipeline.workspace, loop.asset_id, pipeline.segmenter)
    assert done.is_done


def get_parked(loop: Any) -> Any:
    """An asset whose reviewer refined the last of two rounds; its task."""
    first = loop.push(max_rounds=2)
    assert LAST_ROUND not in first.data["title"]
    loop.project.client.submit_annotation(first.task_id, "refine", MERGE)
    loop.pull(max_rounds=2)
    refine(loop)
    last = loop.push(max_rounds=2)
    assert last.data["title"].endswith(f"| {LAST_ROUND}")
    loop.project.client.submit_annotation(last.task_id, "refine", MERGE)
    (reply,) = loop.pull(max_rounds=2)
    assert reply.state is AssetState.REJECTED
    return last


def test_a_refused_refine_reports_the_hint(loop: Any) -> None:
    get_parked(loop)
    asset = loop.pipeline.catalogue.get_asset(loop.asset_id)
    assert asset.reason == "max_rounds"
    assert "change the answer to accept or reject" in asset.detail
    assert "SEGVIGEN_REVIEW_MAX_ROUNDS" in asset.detail
    (row,) = loop.pipeline.catalogue.reviews.list_annotations(loop.asset_id, 1)
    assert row.problem == asset.detail


@pytest.mark.parametrize(
    ("verdict", "max_rounds", "state", "reason"),
    [
        ("accept", 2, AssetState.ACCEPTED, None),
        ("reject", 2, AssetState.REJECTED, "reviewer_rejected"),
        ("refine", 3, AssetState.REFINING, None),
    ],
)
def test_a_changed_answer_reopens_it(
    loop: Any, verdict: str, max_rounds: int, state: AssetState, reason: str | None
) -> None:
    task = get_parked(loop)
    loop.project.client.update_annotation(
        task.task_id, verdict, ["merge 2 3"] if verdict == "refine" else []
    )
    assert loop.pull(max_rounds=max_rounds) == []
    assert loop.push(max_rounds=max_rounds).task_id == task.task_id
    (reply,) = loop.pull(max_rounds=max_rounds)
    assert reply.state is state
    asset = loop.pipeline.catalogue.get_asset(loop.asset_id)
    assert (asset.state, asset.reason) == (state, reason)


def test_another_refine_stays_refused(loop: Any) -> None:
    task = get_parked(loop)
    loop.project.client.update_annotation(task.task_id, "refine", ["merge 2 3"])
    (reply,) = loop.pull(max_rounds=2)
    assert reply.state is AssetState.REJECTED
    assert loop.pipeline.catalogue.get_asset(loop.asset_id).reason == "max_rounds"


def test_tried_again_with_more_rounds_the_title_is_right(loop: Any) -> None:
    get_parked(loop)
    loop.pipeline.catalogue.retry(loop.asset_id)
    task = loop.push(max_rounds=3)
    assert LAST_ROUND not in task.data["title"]
    loop.project.client.submit_annotation(task.task_id, "refine", MERGE)
    (reply,) = loop.pull(max_rounds=3)
    assert reply.state is AssetState.REFINING


def test_a_third_review_does_not_count(loop: Any) -> None:
    catalogue = loop.pipeline.catalogue
    (copy_id,) = add_double_annotation(loop.pipeline.workspace, catalogue.get_asset(loop.asset_id))
    first = loop.push(max_rounds=1)
    assert LAST_ROUND in first.data["title"]
    loop.project.client.submit_annotation(first.task_id, "accept", [])
    loop.pull(max_rounds=1)
    catalogue.move(copy_id, "rejected", reason="reviewer_rejected")
    (adjudicated,) = adjudicate(loop.pipeline.workspace)
    assert adjudicated.result == "third review"
    third = loop.push(max_rounds=1)
    assert "third review" in third.data["title"] and LAST_ROUND not in third.data["title"]
    loop.project.client.submit_annotation(third.task_id, "refine", MERGE)
    (reply,) = loop.pull(max_rounds=1)
    assert reply.state is AssetState.REFINING, "accepted once, it is not thrown away now"
    refine(loop)
    assert LAST_ROUND in loop.push(max_rounds=1).data["title"], "the count goes on after it"
