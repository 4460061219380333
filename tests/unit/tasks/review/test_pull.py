"""From review and back with a double of Label Studio: commands, replaced rounds, kills."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.catalogue import PARKED, AssetState
from tasks.labelling.label_sets import load_label_set
from tasks.review.pull import NO_CLICKS, OUTDATED
from tasks.review.push import ensure_tasks
from tasks.stages.refine import refine_asset


def test_merges_make_the_next_round_and_labels(loop: Any) -> None:
    first = loop.push()
    loop.project.client.submit_annotation(
        first.task_id, "refine", ["merge 0 1", "Merge part 2 + 3", "fuse 1"]
    )
    (reply,) = loop.pull()
    assert (reply.state, reply.num_commands, reply.num_clicks) == (AssetState.REFINING, 2, 0)
    assert "'fuse' is no verb" in reply.note
    catalogue = loop.pipeline.catalogue
    commands = catalogue.reviews.list_edit_commands(loop.asset_id, 0)
    assert [(v.kind, v.parts, v.result_id) for v in commands] == [
        ("merge", (0, 1), "v1"),
        ("merge", (2, 3), "v1"),
    ]
    refine_asset(loop.pipeline.workspace, loop.asset_id, loop.pipeline.segmenter)
    second = loop.push()
    assert second.data["num_parts"] == 4
    colors = [label["background"] for label in first.data["parts"]]
    again = [label["background"] for label in second.data["parts"]]
    assert again[:4] == [colors[0], colors[5], colors[2], colors[4]], "colours go with their part"
    loop.project.client.submit_annotation(second.task_id, "accept", ["name 0 left", "merge 1 3"])
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED
    held = load_label_set(loop.pipeline.store, catalogue.labels.get_latest(loop.asset_id))
    assert held.face_labels.tolist() == np.repeat([0, 0, 2, 2, 1, 1], 6).tolist()
    assert held.part_names == ("left", "part 1", "part 2")
    assert [review["verdict"] for review in held.provenance["reviews"]] == ["refine", "accept"]
    assert loop.pull() == []


def test_an_answer_without_any_usable_word_is_requested_again(loop: Any) -> None:
    task = loop.push()
    loop.project.client.submit_annotation(task.task_id, "refine", ["merge 1"])
    (reply,) = loop.pull()
    assert reply.note.startswith(NO_CLICKS)
    assert reply.state is AssetState.IN_REVIEW
    assert loop.project.client.held[0].annotations == ()


def test_a_category_is_read_from_the_taxonomy_file(loop: Any, tmp_path: Any) -> None:
    file = tmp_path / "t.toml"
    file.write_text('[[categories]]\nid = "leg"\n')
    task = loop.push()
    loop.project.client.submit_annotation(
        task.task_id, "accept", ["category 3 leg", "category 1 wing", "split 0"]
    )
    (reply,) = loop.pull(taxonomy=file)
    assert "'wing' is not in the taxonomy" in reply.note
    assert "1 splits came with accept" in reply.note
    held = load_label_set(
        loop.pipeline.store, loop.pipeline.catalogue.labels.get_latest(loop.asset_id)
    )
    assert held.part_categories == ("", "", "", "leg", "", "")


def test_a_preview_is_a_picture_and_carries_no_meaning(loop: Any) -> None:
    task = loop.push()
    mask = {"from_name": "preview", "type": "brushlabels", "value": {"format": "rle", "rle": [1]}}
    loop.project.client.submit_annotation(task.task_id, "accept", [], mask)
    (reply,) = loop.pull()
    assert (reply.state, reply.note) == (AssetState.ACCEPTED, "")


def test_killed_after_the_blobs_the_acceptance_is_taken_up(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = loop.push()
    loop.project.client.submit_annotation(task.task_id, "accept", ["merge 0 1"])
    catalogue = loop.pipeline.catalogue

    def killed(*_args: Any, **_rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalogue.reviews, "interpret", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.pull()
    assert len(list(loop.pipeline.store.list("labels"))) == 2, "written before the transaction"
    assert catalogue.labels.get_latest(loop.asset_id) is None
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED
    assert len(list(loop.pipeline.store.list("labels"))) == 2
    assert len(catalogue.labels.list_all()) == 1


def test_a_round_that_is_proposed_again_gets_a_task_of_its_own(loop: Any) -> None:
    old = loop.push()
    catalogue = loop.pipeline.catalogue
    loop.project.client.submit_annotation(old.task_id, "accept", ["merge 0 1"])
    catalogue.move(loop.asset_id, "refining")
    catalogue.move(loop.asset_id, "proposed")
    sha256 = loop.set_proposal(np.repeat(np.arange(4), 9))
    new = loop.push()
    assert new.task_id != old.task_id
    assert new.data["proposal_sha256"] == sha256
    assert new.data["sheet"] != old.data["sheet"]
    (reply,) = loop.pull()
    assert (reply.verdict, reply.note) == (None, OUTDATED)
    assert catalogue.get_asset(loop.asset_id).state is AssetState.IN_REVIEW
    loop.project.client.submit_annotation(new.task_id, "accept", [])
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED
    assert catalogue.labels.get_latest(loop.asset_id).num_parts == 4


def test_unanswered_tasks_of_an_older_proposal_leave_the_project(fake_project: Any) -> None:
    project = fake_project
    old = {"a:0": {"key": "a:0", "proposal_sha256": "1"}}
    new = {"a:0": {"key": "a:0", "proposal_sha256": "2"}}
    first = ensure_tasks(project, old)["a:0"]
    assert ensure_tasks(project, old)["a:0"] == first
    second = ensure_tasks(project, new)["a:0"]
    assert [task.task_id for task in project.client.held] == [second.task_id]
    project.client.submit_annotation(second.task_id, "accept", [])
    third = ensure_tasks(project, old)["a:0"]
    assert len(project.client.held) == 2, "an answered task stays"
    assert third.task_id != second.task_id


@pytest.mark.parametrize("verdict", ["reject", "skip"])
def test_what_is_tried_again_is_requested_again(loop: Any, verdict: str) -> None:
    catalogue, client = loop.pipeline.catalogue, loop.project.client
    old = loop.push()
    client.submit_annotation(old.task_id, verdict, ["merge 0 1"])
    (reply,) = loop.pull()
    assert reply.state in PARKED
    catalogue.retry(loop.asset_id)
    new = loop.push()
    assert [task.task_id for task in client.held] == [new.task_id] and new.num_annotations == 0
    assert loop.pull() == [] and catalogue.reviews.list_edit_commands(loop.asset_id) == []
    (kept,) = catalogue.reviews.list_annotations(loop.asset_id)
    assert kept.verdict == verdict and kept.raw["result"], "on record, and no part of the round"
    client.submit_annotation(new.task_id, "accept", [])
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED


def test_killed_between_project_and_record_it_is_requested_again_once(
    loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, client = loop.pipeline.catalogue, loop.project.client
    client.submit_annotation(loop.push().task_id, "reject", [])
    loop.pull()
    catalogue.retry(loop.asset_id)

    def killed(*_args: Any, **_rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalogue.reviews, "add_task", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.push()
    catalogue.release([loop.asset_id], "w")
    (made,) = client.held
    client.submit_annotation(made.task_id, "accept", [])
    assert loop.pull() == [], "the push is not recorded yet"
    assert loop.push().task_id == made.task_id, "the new answer keeps its task"
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED


def test_an_answer_that_was_changed_since_is_not_requested_again(loop: Any) -> None:
    catalogue, client = loop.pipeline.catalogue, loop.project.client
    task = loop.push()
    client.submit_annotation(task.task_id, "reject", [])
    loop.pull()
    catalogue.retry(loop.asset_id)
    client.update_annotation(task.task_id, "accept", [])
    assert loop.push().task_id == task.task_id
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED
