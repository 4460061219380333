"""Small meshes, their sheets, a desk where people have answered, a double of Label Studio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import trimesh

from segvigen_model.geometry import surface_of
from segvigen_model.proposal_io import proposal_to_bytes
from segvigen_model.types import AssetMesh, IntArray, Material, Proposal
from tasks import keys
from tasks.assets import load_asset_mesh, load_proposal
from tasks.catalogue import AnnotationRow, AssetState, ProposalRow, ReviewTaskRow, VerbRow
from tasks.labels import accept_asset
from tasks.review import push as push_module
from tasks.review.agreement import settle
from tasks.review.label_studio import TaskRow
from tasks.review.pull import pull_annotations
from tasks.review.push import push_assets
from tasks.review.sheet import Sheet, render_sheet
from tasks.settings import QualitySettings

QUALITY = QualitySettings(double_share=1.0, known_share=0.0)
BOXES = 3


def mesh_of(boxes: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[AssetMesh, IntArray]:
    """One part per (extents, centre) box."""
    parts = []
    for extents, center in boxes:
        box = trimesh.creation.box(extents=extents)
        box.apply_translation(center)
        parts.append(box)
    labels = np.concatenate([np.full(len(p.faces), i) for i, p in enumerate(parts)])
    whole = trimesh.util.concatenate(parts)
    mesh = AssetMesh(
        vertices=np.asarray(whole.vertices, dtype=np.float64),
        faces=np.asarray(whole.faces, dtype=np.int64),
        face_material=np.zeros(len(whole.faces), dtype=np.int32),
        materials=(Material(base_color_factor=(1.0, 0.5, 0.0, 1.0)),),
    )
    return mesh, labels.astype(np.int32)


TABLE = (
    ((2.0, 0.2, 1.0), (10.0, 1.0, 0.0)),
    ((0.2, 0.9, 0.2), (9.2, 0.45, 0.3)),
    ((0.2, 0.9, 0.2), (10.8, 0.45, 0.3)),
)


@pytest.fixture(scope="session")
def make_mesh() -> Callable[..., tuple[AssetMesh, IntArray]]:
    return mesh_of


@pytest.fixture(scope="session")
def table() -> tuple[AssetMesh, IntArray]:
    return mesh_of(TABLE)


@pytest.fixture(scope="session")
def table_sheet(table) -> Sheet:
    return render_sheet(*table, width=384, meta={"asset_id": "a", "round": 0})


@dataclass
class Desk:
    """The catalogue after people answered, without any Label Studio."""

    world: object
    number: int = 0
    made: dict = field(default_factory=dict)

    @property
    def common(self):
        return {"store": self.world.store, "catalogue": self.world.catalogue}

    def asset(self, asset_id):
        return self.world.catalogue.asset(asset_id)

    def proposed(self, make_boxes, shown=None, confidence=0.9):
        """A row of boxes, one part each unless shown otherwise."""
        self.number += 1
        self.world.raw.put(f"{self.number}.glb", make_boxes(BOXES, float(self.number)))
        known = {row.asset_id for row in self.world.catalogue.assets()}
        self.world.ingest()
        (asset,) = [a for a in self.world.catalogue.assets() if a.asset_id not in known]
        self.world.catalogue.move(asset.asset_id, "encoded")
        labels = self.true_labels(asset) if shown is None else shown
        return self.propose(asset.asset_id, labels, 0, confidence)

    def true_labels(self, asset):
        surface = surface_of(load_asset_mesh(self.world.store, asset))
        return surface.components.astype(np.int32)

    def propose(self, asset_id, labels, round_, confidence=0.9):
        num_parts = int(labels.max()) + 1
        proposal = Proposal(
            labels.astype(np.int32),
            np.zeros(1, np.int32),
            np.ones(num_parts, np.float32),
            confidence,
            {"num_draws": 4, "checkpoint": "hand"},
        )
        key = keys.proposal(asset_id, round_, f"hand{confidence}")
        blob = self.world.store.put(key, proposal_to_bytes(proposal))
        row = ProposalRow(asset_id, round_, key, blob.sha256, num_parts, confidence, "hand")
        self.world.catalogue.add_proposal(row)
        return self.world.catalogue.move(asset_id, "proposed", round=round_)

    def answer(self, asset_id, verdict, reviewer, labels=None, merge=()):
        """What push, the person and pull do together; `labels`: refined to these first."""
        catalogue = self.world.catalogue
        if labels is not None:
            catalogue.move(asset_id, "in_review")
            catalogue.move(asset_id, "refining")
            self.propose(asset_id, labels, self.asset(asset_id).round + 1)
        asset = self.asset(asset_id)
        catalogue.reviews.add_task(ReviewTaskRow(asset_id, asset.round, 1, 7, "p", "s", "b"))
        catalogue.move(asset_id, "in_review")
        self.number += 1
        row = AnnotationRow(
            *(f"u{self.number}", f"2026-11-22T10:00:{self.number:02d}Z", 3, 7, asset_id),
            *(asset.round, reviewer, {"id": 3}, 12.5),
        )
        catalogue.reviews.record_annotation(row)
        key = (row.unique_id, row.updated_at)
        verbs = [VerbRow(*key, 0, asset_id, asset.round, "r", "merge", merge)] if merge else []
        catalogue.reviews.interpret(*key, verdict=verdict, verbs=verbs)
        if verdict == "reject":
            catalogue.move(asset_id, "rejected", reason="reviewer_rejected", detail="broken")
        elif verdict == "skip":
            catalogue.move(asset_id, "skipped", reason="reviewer_skipped")
        elif not catalogue.quality.is_held(asset_id):
            accept_asset(asset_id, **self.common, decided_by=reviewer)

    def settle(self, rules=QUALITY):
        return [(row.result, row.asset_id) for row in settle(**self.common, settings=rules)]

    def settled_twice(self, rules=QUALITY):
        """Settle, and see that doing it again does nothing."""
        told = self.settle(rules)
        events = len(self.world.catalogue.events())
        assert self.settle(rules) == []
        assert len(self.world.catalogue.events()) == events
        return told

    def finding(self, asset, kind):
        (found,) = self.world.catalogue.quality.findings(kind, asset.asset_id)
        return found


@pytest.fixture
def desk(world) -> Desk:
    return Desk(world)


STAMP = "2026-11-23T10:00:{:02d}.000000Z"


def said(verdict: str, lines: list[str]) -> list[dict[str, Any]]:
    """An annotation's result: a verdict and command lines."""
    verbs = {"id": "v1", "from_name": "verbs", "type": "textarea", "value": {"text": lines}}
    return [{"from_name": "verdict", "value": {"choices": [verdict]}}, verbs]


@dataclass
class FakeClient:
    """As much of Label Studio as push and pull use; ids are never reused."""

    url: str = "http://desk.test"
    held: list[TaskRow] = field(default_factory=list)
    clock: int = 0

    def find_tasks(self, _project: int, wanted: list[str]) -> list[TaskRow]:
        return [task for task in self.held if task.key in wanted]

    def answered_tasks(self, project: int, wanted: list[str]) -> list[TaskRow]:
        return [task for task in self.find_tasks(project, wanted) if task.annotations]

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

    def change(self, task_id: int, verdict: str, lines: list[str]) -> None:
        """Update the task's one answer."""
        self.clock += 1
        for number, task in enumerate(self.held):
            if task.task_id == task_id:
                (old,) = task.annotations
                new = {**old, "updated_at": self.now(), "result": said(verdict, lines)}
                self.held[number] = replace(task, updated_at=self.now(), annotations=(new,))

    def answer(self, task_id: int, verdict: str, lines: list[str], *more: dict) -> None:
        """Submit: a verdict, command lines, other results."""
        self.clock += 1
        made = {"id": self.clock, "created_at": self.now(), "updated_at": self.now()}
        made["was_cancelled"] = verdict == "skip"
        annotation = {
            **made,
            "completed_by": 1,
            "lead_time": 5.0,
            "result": [*said(verdict, lines), *more],
        }
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

    def push(self, **review: Any) -> TaskRow:
        world = self.world
        rules = {"sheet_pixels": 384, **review}
        world.catalogue.claim([AssetState.PROPOSED], 9, "w")
        (result,) = push_assets(
            [self.asset_id],
            store=world.store,
            catalogue=world.catalogue,
            desk=self.desk,
            settings=world.settings.review.model_copy(update=rules),
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
def fake_desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def loop(world: Any, monkeypatch: pytest.MonkeyPatch) -> Loop:
    # The page needs the bundle that set-up builds; what it holds is test_viewer's business.
    monkeypatch.setattr(push_module, "render_viewer", lambda *a, **k: b"<html></html>")
    asset = world.proposed(num_boxes=3)
    made = Loop(world, FakeDesk(), asset.asset_id)
    made.proposes(np.repeat(np.arange(6), 6))
    return made
