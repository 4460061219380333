"""Runs that overlap: what one decided meanwhile counts, and no answer is lost or undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.catalogue import AssetState, CopyRole, CopyRow
from tasks.labelling.label_sets import load_label_set
from tasks.labelling.loading import load_proposal
from tasks.quality.adjudication import adjudicate
from tasks.quality.copies import add_double_annotation
from tasks.review.pull import Reply, pull_annotations
from tasks.stages.refine import CHANGED, refine_asset, replay_labels


class Interrupted:
    """A store in whose first read of a kind something else happens."""

    def __init__(self, store: Any, suffix: str, meanwhile: Callable[[], Any]) -> None:
        self._store, self._suffix, self._meanwhile = store, suffix, meanwhile
        self.replies: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: str, sha256: str | None = None) -> bytes:
        if key.endswith(self._suffix) and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            self.replies = meanwhile()
        return self._store.get(key, sha256)


class Broken(Interrupted):
    """The same, and then the read fails for a reason of the asset's own."""

    def get(self, key: str) -> bytes:
        super().get(key)
        raise ValueError(f"{key} cannot be read")


def pull_overtaken(loop: Any, kind: type[Interrupted] = Interrupted) -> tuple[list[Reply], Any]:
    """A pull that reads an answer, and during that another one that does everything."""
    pipeline = loop.pipeline
    task = pipeline.catalogue.reviews.get_task(
        loop.asset_id, pipeline.catalogue.get_asset(loop.asset_id).round
    )
    slow = kind(pipeline.store, task.buffers_key, loop.pull)
    late = pull_annotations(replace(pipeline.workspace, store=slow), loop.project)
    return late, slow.replies


@pytest.mark.parametrize("kind", [Interrupted, Broken])
@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        ("refine", AssetState.REFINING),
        ("accept", AssetState.ACCEPTED),
        ("reject", AssetState.REJECTED),
    ],
)
def test_the_faster_of_two_pulls_counts(loop: Any, verdict: str, state: str, kind: type) -> None:
    catalogue = loop.pipeline.catalogue
    task = loop.push()
    loop.project.client.submit_annotation(task.task_id, verdict, ["merge 0 1"])
    late, (reply,) = pull_overtaken(loop, kind)
    assert (late, reply.state) == ([], state)
    assert catalogue.get_asset(loop.asset_id).state is state
    (row,) = catalogue.reviews.list_annotations(loop.asset_id)
    assert (row.verdict, row.problem, row.is_interpreted) == (verdict, None, True)
    assert [command.parts for command in catalogue.reviews.list_edit_commands(loop.asset_id)] == [
        (0, 1)
    ]
    assert len(catalogue.list_events(loop.asset_id, "interpreted")) == 1
    assert len(catalogue.labels.list_all()) == (state is AssetState.ACCEPTED)
    assert loop.pull() == []


def test_a_changed_mind_is_reopened_by_one_of_two_pulls(loop: Any) -> None:
    catalogue = loop.pipeline.catalogue
    task = loop.push()
    loop.project.client.submit_annotation(task.task_id, "reject", [])
    loop.pull()
    loop.project.client.update_annotation(task.task_id, "accept", [])
    assert pull_overtaken(loop) == ([], [])
    assert catalogue.get_asset(loop.asset_id).state is AssetState.PROPOSED
    loop.push()
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED


def test_an_answer_that_cannot_be_read_is_still_reported(loop: Any) -> None:
    task = loop.push()
    loop.project.client.submit_annotation(task.task_id, "accept", [])
    broken = Broken(loop.pipeline.store, "", lambda: None)
    (reply,) = pull_annotations(replace(loop.pipeline.workspace, store=broken), loop.project)
    assert reply.verdict is None and "cannot be read" in reply.note


def refine(loop: Any, store: Any = None) -> Any:
    pipeline = loop.pipeline
    workspace = replace(pipeline.workspace, store=store or pipeline.store)
    return refine_asset(workspace, loop.asset_id, pipeline.segmenter)


def refine_overtaken(loop: Any, meanwhile: Callable[[], Any]) -> Any:
    """A refinement during whose read of the proposal something else happens."""
    shown = loop.pipeline.catalogue.get_proposal(loop.asset_id, 0).key
    return refine(loop, Interrupted(loop.pipeline.store, shown, meanwhile))


def submit_refine(loop: Any) -> Callable[..., list[Reply]]:
    """An asset to refine with `merge 0 1`; gives what changes and pulls that answer."""
    task = loop.push()
    loop.project.client.submit_annotation(task.task_id, "refine", ["merge 0 1"])
    loop.pull()

    def change(verdict: str, lines: list[str]) -> list[Reply]:
        loop.project.client.update_annotation(task.task_id, verdict, lines)
        return loop.pull()

    return change


def load_labels(loop: Any, round_: int) -> list[int]:
    pipeline = loop.pipeline
    row = pipeline.catalogue.get_proposal(loop.asset_id, round_)
    return load_proposal(pipeline.store, row).face_labels[::6].tolist()


def test_an_answer_changed_while_refine_runs_is_the_one_that_is_refined(loop: Any) -> None:
    catalogue, change = loop.pipeline.catalogue, submit_refine(loop)
    result = refine_overtaken(loop, lambda: change("refine", ["merge 0 2"]))
    assert (result.is_done, result.note) == (False, CHANGED)
    asset = catalogue.get_asset(loop.asset_id)
    assert (asset.state, asset.round, asset.attempts) == (AssetState.REFINING, 0, 0)
    assert refine(loop).is_done
    assert [command.parts for command in catalogue.reviews.list_edit_commands(loop.asset_id)] == [
        (0, 2)
    ]
    assert load_labels(loop, 1) == [0, 1, 0, 3, 4, 2]
    task = loop.push()
    loop.project.client.submit_annotation(task.task_id, "accept", [])
    loop.pull()
    held = load_label_set(loop.pipeline.store, catalogue.labels.get_latest(loop.asset_id))
    replayed = replay_labels(loop.pipeline.workspace, loop.asset_id, loop.pipeline.segmenter)
    assert np.array_equal(replayed.face_labels, held.face_labels)


def test_an_answer_stored_and_not_yet_read_holds_the_refinement(loop: Any) -> None:
    catalogue, change = loop.pipeline.catalogue, submit_refine(loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue.reviews, "list_uninterpreted", lambda: [])  # killed before that
        change("refine", ["merge 0 2"])
    result = refine(loop)
    assert (result.is_done, result.note) == (False, CHANGED)
    assert catalogue.get_asset(loop.asset_id).attempts == 0
    loop.pull()
    assert refine(loop).is_done and load_labels(loop, 1) == [0, 1, 0, 3, 4, 2]


def test_an_acceptance_that_waits_for_a_double_annotation_is_not_refined_over(loop: Any) -> None:
    catalogue, change = loop.pipeline.catalogue, submit_refine(loop)
    catalogue.quality.add_copy(CopyRow("c" * 64, CopyRole.DOUBLE, loop.asset_id))
    result = refine_overtaken(loop, lambda: change("accept", []))
    assert (result.is_done, result.state) == (False, AssetState.IN_REVIEW)
    assert catalogue.get_asset(loop.asset_id).round == 0
    assert catalogue.get_proposal(loop.asset_id, 1) is None


def test_a_change_that_comes_after_the_refinement_stays_out_of_its_history(loop: Any) -> None:
    catalogue, change = loop.pipeline.catalogue, submit_refine(loop)
    name_of, reported = loop.project.client.get_user_name, []

    def slow_name(user: object) -> str:  # asked between reading the round and storing the answer
        reported.append(refine(loop))
        return name_of(user)

    loop.project.client.get_user_name = slow_name
    (late,) = change("refine", ["merge 0 2"])
    assert [result.is_done for result in reported] == [True]
    assert "late: the asset is in round 1" in late.note
    assert [
        command.parts for command in catalogue.reviews.list_edit_commands(loop.asset_id, 0)
    ] == [(0, 1)]
    rows = catalogue.reviews.list_annotations(loop.asset_id, 0)
    assert [row.is_late for row in rows] == [False, True]
    assert load_labels(loop, 1) == [0, 0, 2, 3, 4, 1]
    assert loop.pull() == []


def test_a_version_that_two_pulls_store_as_late_and_as_on_time_is_stored_once(loop: Any) -> None:
    catalogue, change = loop.pipeline.catalogue, submit_refine(loop)
    name_of = loop.project.client.get_user_name

    def slow_name(user: object) -> str:  # asked between reading the round and storing the answer
        loop.project.client.get_user_name = name_of
        assert refine(loop).is_done
        assert [reply.note for reply in loop.pull()] == ["late: the asset is in round 1"]
        return name_of(user)

    loop.project.client.get_user_name = slow_name
    assert change("refine", ["merge 0 2"]) == []
    rows = catalogue.reviews.list_annotations(loop.asset_id, 0)
    assert [row.is_late for row in rows] == [False, True]
    assert catalogue.reviews.list_uninterpreted() == [] == loop.pull()


def test_a_change_to_nothing_usable_returns_to_review(loop: Any) -> None:
    change = submit_refine(loop)
    (reply,) = change("refine", ["merge 1"])
    assert reply.state is AssetState.IN_REVIEW
    assert loop.pipeline.catalogue.get_asset(loop.asset_id).state is AssetState.IN_REVIEW
    (task,) = loop.project.client.held
    assert task.num_annotations == 0


def test_a_third_review_leaves_alone_what_its_reviewer_took_back(loop: Any) -> None:
    catalogue, store = loop.pipeline.catalogue, loop.pipeline.store
    (copy_id,) = add_double_annotation(loop.pipeline.workspace, catalogue.get_asset(loop.asset_id))
    task = loop.push()
    loop.project.client.submit_annotation(task.task_id, "accept", [])
    loop.pull()
    catalogue.move(copy_id, "rejected", reason="reviewer_rejected")

    def take_back() -> list[Reply]:
        loop.project.client.update_annotation(task.task_id, "refine", ["merge 0 1"])
        return loop.pull()

    slow = Interrupted(store, catalogue.get_proposal(loop.asset_id, 0).key, take_back)
    assert adjudicate(replace(loop.pipeline.workspace, store=slow)) == []
    asset = catalogue.get_asset(loop.asset_id)
    assert (asset.state, asset.round) == (AssetState.REFINING, 0)
    assert refine(loop).is_done and load_labels(loop, 1) == [0, 0, 2, 3, 4, 1]
