"""From the desk and back with a double of Label Studio: verbs, replaced rounds, kills."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from segvigen_model.proposal_io import proposal_to_bytes
from segvigen_model.types import Proposal
from tasks import keys
from tasks.assets import load_proposal
from tasks.catalogue import AssetState, ProposalRow
from tasks.labels import load_label_set
from tasks.refine import refine_asset
from tasks.review import push as push_module
from tasks.review.label_studio import TaskRow
from tasks.review.pull import NO_CLICKS, OUTDATED, pull_annotations
from tasks.review.push import ensure_tasks, push_assets

STAMP = "2026-11-23T10:00:{:02d}.000000Z"


@dataclass
class FakeClient:
    """As much of Label Studio as push and pull use; ids are never reused."""

    url: str = "http://desk.test"
    held: list[TaskRow] = field(default_factory=list)
    clock: int = 0

    def find_tasks(self, _project: int, wanted: list[str]) -> list[TaskRow]:
        return [task for task in self.held if task.key in wanted]

    def import_tasks(self, _project: int, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            self.clock += 1
            data = task["data"]
            self.held.append(TaskRow(self.clock, data["key"], 0, self.now(), data))

    def delete_task(self, task_id: int) -> None:
        self.held = [task for task in self.held if task.task_id != task_id]

    def delete_annotation(self, annotation_id: int) -> None:
        for number, task in enumerate(self.held):
            kept = tuple(a for a in task.annotations if a["id"] != annotation_id)
            self.held[number] = replace(task, annotations=kept, num_answers=len(kept))

    def tasks_updated_since(self, _project: int, since: str) -> list[TaskRow]:
        return [task for task in self.held if task.updated_at > since]

    def user_name(self, _user: object) -> str:
        return "ann@local.test"

    def now(self) -> str:
        return STAMP.format(self.clock)

    def answer(self, task_id: int, verdict: str, lines: list[str], *more: dict) -> None:
        """Submit: a verdict, command lines, other results."""
        self.clock += 1
        verbs = {"id": "v1", "from_name": "verbs", "type": "textarea", "value": {"text": lines}}
        said = {"from_name": "verdict", "value": {"choices": [verdict]}}
        made = {"id": self.clock, "created_at": self.now(), "updated_at": self.now()}
        annotation = {**made, "completed_by": 1, "lead_time": 5.0, "result": [said, verbs, *more]}
        for number, task in enumerate(self.held):
            if task.task_id == task_id:
                self.held[number] = replace(
                    task,
                    num_answers=task.num_answers + 1,
                    updated_at=self.now(),
                    annotations=(*task.annotations, annotation),
                )


@dataclass
class FakeDesk:
    client: FakeClient = field(default_factory=FakeClient)
    project_id: int = 1


@dataclass
class Loop:
    """Push and pull of one asset whose first proposal is known."""

    world: Any
    desk: FakeDesk
    asset_id: str

    def push(self) -> TaskRow:
        world = self.world
        world.catalogue.claim([AssetState.PROPOSED], 9, "w")
        (result,) = push_assets(
            [self.asset_id],
            store=world.store,
            catalogue=world.catalogue,
            desk=self.desk,
            settings=world.settings.review.model_copy(update={"sheet_pixels": 384}),
            worker="w",
        )
        assert result.state is AssetState.IN_REVIEW, result.note
        return self.desk.client.held[-1]

    def pull(self, **review: Any) -> list[Any]:
        world = self.world
        settings = world.settings.review.model_copy(update=review)
        return pull_annotations(
            store=world.store, catalogue=world.catalogue, desk=self.desk, settings=settings
        )

    def proposes(self, labels: np.ndarray, round_: int = 0) -> str:
        """Make this the proposal of a round; its hash."""
        world, num_parts = self.world, int(labels.max()) + 1
        old = world.catalogue.proposal(self.asset_id, 0)
        voxels = load_proposal(world.store, old).voxel_labels
        made = Proposal(
            labels.astype(np.int32),
            voxels % num_parts,
            np.full(num_parts, 0.5, np.float32),
            0.5,
            {"checkpoint": old.checkpoint},
        )
        key = keys.proposal(self.asset_id, round_, f"test{num_parts}")
        blob = world.store.put(key, proposal_to_bytes(made))
        row = ProposalRow(self.asset_id, round_, key, blob.sha256, num_parts, 0.5, old.checkpoint)
        world.catalogue.add_proposal(row)
        return str(blob.sha256)


@pytest.fixture
def loop(world: Any, monkeypatch: pytest.MonkeyPatch) -> Loop:
    # The page needs the bundle that set-up builds; what it holds is test_viewer's business.
    monkeypatch.setattr(push_module, "render_viewer", lambda *a, **k: b"<html></html>")
    asset = world.proposed(num_boxes=3)
    made = Loop(world, FakeDesk(), asset.asset_id)
    made.proposes(np.repeat(np.arange(6), 6))
    return made


def test_merges_make_the_next_round_and_labels(loop: Loop) -> None:
    first = loop.push()
    loop.desk.client.answer(first.task_id, "refine", ["merge 0 1", "Merge part 2 + 3", "fuse 1"])
    (reply,) = loop.pull()
    assert (reply.state, reply.num_verbs, reply.num_clicks) == (AssetState.REFINING, 2, 0)
    assert "'fuse' is no verb" in reply.note
    catalogue = loop.world.catalogue
    verbs = catalogue.reviews.verbs(loop.asset_id, 0)
    assert [(v.kind, v.parts, v.result_id) for v in verbs] == [
        ("merge", (0, 1), "v1"),
        ("merge", (2, 3), "v1"),
    ]
    refine_asset(
        loop.asset_id,
        store=loop.world.store,
        catalogue=catalogue,
        segmenter=loop.world.segmenter,
        model=loop.world.settings.model,
    )
    second = loop.push()
    assert second.data["num_parts"] == 4
    colors = [label["background"] for label in first.data["parts"]]
    again = [label["background"] for label in second.data["parts"]]
    assert again[:4] == [colors[0], colors[5], colors[2], colors[4]], "colours go with their part"
    loop.desk.client.answer(second.task_id, "accept", ["name 0 left", "merge 1 3"])
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED
    held = load_label_set(loop.world.store, catalogue.labels.latest(loop.asset_id))
    assert held.face_labels.tolist() == np.repeat([0, 0, 2, 2, 1, 1], 6).tolist()
    assert held.part_names == ("left", "part 1", "part 2")
    assert [review["verdict"] for review in held.provenance["reviews"]] == ["refine", "accept"]
    assert loop.pull() == []


def test_an_answer_without_any_usable_word_is_asked_again(loop: Loop) -> None:
    task = loop.push()
    loop.desk.client.answer(task.task_id, "refine", ["merge 1"])
    (reply,) = loop.pull()
    assert reply.note.startswith(NO_CLICKS)
    assert reply.state is AssetState.IN_REVIEW
    assert loop.desk.client.held[0].annotations == ()


def test_a_category_is_read_from_the_taxonomy_file(loop: Loop, tmp_path: Any) -> None:
    file = tmp_path / "t.toml"
    file.write_text('[[categories]]\nid = "leg"\n')
    task = loop.push()
    loop.desk.client.answer(
        task.task_id, "accept", ["category 3 leg", "category 1 wing", "split 0"]
    )
    (reply,) = loop.pull(taxonomy=file)
    assert "'wing' is not in the taxonomy" in reply.note
    assert "1 splits came with accept" in reply.note
    held = load_label_set(loop.world.store, loop.world.catalogue.labels.latest(loop.asset_id))
    assert held.part_categories == ("", "", "", "leg", "", "")


def test_a_preview_is_a_picture_and_says_nothing(loop: Loop) -> None:
    task = loop.push()
    mask = {"from_name": "preview", "type": "brushlabels", "value": {"format": "rle", "rle": [1]}}
    loop.desk.client.answer(task.task_id, "accept", [], mask)
    (reply,) = loop.pull()
    assert (reply.state, reply.note) == (AssetState.ACCEPTED, "")


def test_killed_after_the_blobs_the_acceptance_is_taken_up(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = loop.push()
    loop.desk.client.answer(task.task_id, "accept", ["merge 0 1"])
    catalogue = loop.world.catalogue

    def killed(*_args: Any, **_rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalogue.reviews, "interpret", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.pull()
    assert len(list(loop.world.store.list("labels"))) == 2, "written before the transaction"
    assert catalogue.labels.latest(loop.asset_id) is None
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED
    assert len(list(loop.world.store.list("labels"))) == 2
    assert len(catalogue.labels.all()) == 1


def test_a_round_that_is_proposed_again_gets_a_task_of_its_own(loop: Loop) -> None:
    old = loop.push()
    catalogue = loop.world.catalogue
    loop.desk.client.answer(old.task_id, "accept", ["merge 0 1"])
    catalogue.move(loop.asset_id, "refining")
    catalogue.move(loop.asset_id, "proposed")
    sha256 = loop.proposes(np.repeat(np.arange(4), 9))
    new = loop.push()
    assert new.task_id != old.task_id
    assert new.data["proposal_sha256"] == sha256
    assert new.data["sheet"] != old.data["sheet"]
    (reply,) = loop.pull()
    assert (reply.verdict, reply.note) == (None, OUTDATED)
    assert catalogue.asset(loop.asset_id).state is AssetState.IN_REVIEW
    loop.desk.client.answer(new.task_id, "accept", [])
    (reply,) = loop.pull()
    assert reply.state is AssetState.ACCEPTED
    assert catalogue.labels.latest(loop.asset_id).num_parts == 4


def test_unanswered_tasks_of_an_older_proposal_leave_the_desk() -> None:
    desk = FakeDesk()
    old = {"a:0": {"key": "a:0", "proposal_sha256": "1"}}
    new = {"a:0": {"key": "a:0", "proposal_sha256": "2"}}
    first = ensure_tasks(desk, old)["a:0"]
    assert ensure_tasks(desk, old)["a:0"] == first
    second = ensure_tasks(desk, new)["a:0"]
    assert [task.task_id for task in desk.client.held] == [second.task_id]
    desk.client.answer(second.task_id, "accept", [])
    third = ensure_tasks(desk, old)["a:0"]
    assert len(desk.client.held) == 2, "an answered task stays"
    assert third.task_id != second.task_id
