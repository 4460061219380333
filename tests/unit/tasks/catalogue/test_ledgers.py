"""The other tables: raw objects, reviews, results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.catalogue import (
    AnnotationRow,
    Catalogue,
    CheckpointRow,
    ClickRow,
    EditCommandRow,
    LabelSetRow,
    ProposalRow,
    RawRow,
    ReviewTaskRow,
    ShardMemberRow,
    ShardVersionRow,
)

A = "a" * 64


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(f"sqlite:///{tmp_path}/c.db")


def answer(updated_at: str = "2026-01-01T00:00:00Z", unique_id: str = "u1") -> AnnotationRow:
    return AnnotationRow(unique_id, updated_at, 5, 6, A, 0, "ann", {"result": [{"x": 1.5}]})


def click(updated_at: str, number: int) -> ClickRow:
    return ClickRow(
        *("u1", updated_at, number, A, 0, f"r{number}", "sheet", 1.5, 2.5, "part 1"),
        *("belongs", 1, 42, 0.1, 0.2, 0.3),
    )


def test_raw_objects_and_cursors(catalogue: Catalogue) -> None:
    catalogue.raw.record(RawRow("a.glb", "e1", 5, asset_id=A))
    catalogue.raw.record(RawRow("b.glb", "e2", 0, reason="empty_file", detail="0 bytes"))
    catalogue.raw.record(RawRow("a.glb", "e3", 6, asset_id=A))
    assert catalogue.raw.list_etags() == {"a.glb": "e3", "b.glb": "e2"}
    assert [row.key for row in catalogue.raw.list_all(A)] == ["a.glb"]
    row = catalogue.raw.get("b.glb")
    assert row is not None
    assert row.reason == "empty_file"
    assert catalogue.raw.get("c.glb") is None
    assert catalogue.raw.get_cursor("pull") is None
    catalogue.raw.set_cursor("pull", "t1")
    catalogue.raw.set_cursor("pull", "t2")
    assert catalogue.raw.get_cursor("pull") == "t2"


def test_review_tasks_are_keyed_by_asset_and_round(catalogue: Catalogue) -> None:
    catalogue.reviews.add_task(ReviewTaskRow(A, 0, 1, 10, "p", "s", "b"))
    catalogue.reviews.add_task(ReviewTaskRow(A, 0, 1, 11, "p", "s", "b"))
    catalogue.reviews.add_task(ReviewTaskRow(A, 1, 1, 11, "p", "s", "b"))
    task = catalogue.reviews.get_task(A, 0)
    assert task is not None
    assert task.task_id == 11
    assert [t.round for t in catalogue.reviews.list_tasks(A)] == [0, 1]
    assert catalogue.reviews.get_task(A, 2) is None


def test_an_answer_is_stored_once_per_version(catalogue: Catalogue) -> None:
    assert catalogue.reviews.record_annotation(answer())
    assert not catalogue.reviews.record_annotation(answer())
    assert [a.unique_id for a in catalogue.reviews.list_uninterpreted()] == ["u1"]
    first = answer().updated_at
    catalogue.reviews.interpret("u1", first, verdict="refine", clicks=[click(first, 0)])
    catalogue.reviews.interpret(
        "u1", first, verdict="refine", note="n", clicks=[click(first, 0), click(first, 1)]
    )
    assert catalogue.reviews.list_uninterpreted() == []
    assert [c.number for c in catalogue.reviews.list_clicks(A, 0)] == [0, 1]
    stored = catalogue.reviews.get_annotation("u1", first)
    assert stored is not None
    assert (stored.verdict, stored.note, stored.raw) == (
        "refine",
        "n",
        {"result": [{"x": 1.5}]},
    )


def test_only_the_newest_version_of_an_answer_counts(catalogue: Catalogue) -> None:
    old, new = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    for at, clicks in ((old, [click(old, 0), click(old, 1)]), (new, [click(new, 0)])):
        catalogue.reviews.record_annotation(answer(at))
        catalogue.reviews.interpret("u1", at, verdict="refine", clicks=clicks)
    assert [a.updated_at for a in catalogue.reviews.list_annotations(A)] == [new]
    assert [c.updated_at for c in catalogue.reviews.list_clicks(A)] == [new]
    assert catalogue.reviews.list_annotations(A, 1) == []


def test_proposals_by_round(catalogue: Catalogue) -> None:
    assert catalogue.get_latest_proposal(A) is None
    catalogue.add_proposal(ProposalRow(A, 1, "k1", "s", 3, 0.5, "c", {"seed": 1}))
    catalogue.add_proposal(ProposalRow(A, 0, "k0", "s", 3, 0.5, "c"))
    latest = catalogue.get_latest_proposal(A)
    assert latest is not None
    assert (latest.key, latest.provenance) == ("k1", {"seed": 1})
    catalogue.add_proposal(ProposalRow(A, 1, "k2", "s", 3, 0.5, "c"))
    assert [p.key for p in catalogue.list_proposals(A)] == ["k0", "k2"]


def test_results(catalogue: Catalogue) -> None:
    label = LabelSetRow("l1", A, "k", "s", "p", "q", 3, 2, 1, 9.5, "ann")
    assert catalogue.labels.add(label)
    assert not catalogue.labels.add(label)
    latest = catalogue.labels.get_latest(A)
    assert latest is not None
    assert latest.label_id == "l1"
    version = ShardVersionRow("parts", "v1", "m", "s", 1, 100)
    member = ShardMemberRow("parts", "v1", A, "l1", "t")
    assert catalogue.labels.add_shards(version, [member])
    assert not catalogue.labels.add_shards(version, [member])
    assert catalogue.labels.list_shard_members("parts", "v1") == [member]
    assert [v.version for v in catalogue.labels.list_shard_versions("parts")] == ["v1"]
    catalogue.labels.set_checkpoint(CheckpointRow("current", "a", "1"))
    catalogue.labels.set_checkpoint(CheckpointRow("current", "b", "2", {"iou": 0.5}))
    row = catalogue.labels.get_checkpoint()
    assert row is not None
    assert (row.location, row.detail) == ("b", {"iou": 0.5})
    kinds = [event.kind for event in catalogue.list_events()]
    assert kinds == ["label_set", "shards", "checkpoint", "checkpoint"]


def verb(updated_at: str, number: int, parts: tuple[int, ...] = (1, 2)) -> EditCommandRow:
    return EditCommandRow("u1", updated_at, number, A, 0, "r", "merge", parts)


def test_edit_commands_come_and_go_with_their_answer(catalogue: Catalogue) -> None:
    old, new = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    for at, commands in ((old, [verb(old, 0)]), (new, [verb(new, 1, (4, 3)), verb(new, 0)])):
        catalogue.reviews.record_annotation(answer(at))
        for _ in range(2):  # again after a kill
            catalogue.reviews.interpret("u1", at, verdict="refine", commands=commands)
    assert catalogue.reviews.list_edit_commands(A) == [verb(new, 0), verb(new, 1, (4, 3))]
    assert catalogue.reviews.list_edit_commands(A, 1) == []
    assert catalogue.list_events(A, "interpreted")[-1].detail["commands"] == 2


def test_late_versions_stand_beside_the_history_of_their_round(catalogue: Catalogue) -> None:
    reviews = catalogue.reviews
    on_time, changed, later = (f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3))
    for at in (on_time, changed):
        reviews.record_annotation(answer(at))
        reviews.interpret("u1", at, verdict="refine", clicks=[click(at, 0)], commands=[verb(at, 0)])
    reviews.record_annotation(replace(answer(later), is_late=True))
    reviews.interpret("u1", later, verdict="accept")
    rows = [(row.updated_at, row.is_late) for row in reviews.list_annotations(A, 0)]
    assert rows == [(changed, False), (later, True)]
    assert [row.updated_at for row in reviews.list_clicks(A)] == [changed]
    assert [row.updated_at for row in catalogue.quality.list_annotations()] == [changed, later]
    assert not reviews.record_annotation(answer(later)), "one version is stored once"
    assert catalogue.reviews.get_annotation("u1", later).is_late


@pytest.mark.parametrize("only", [None, "2026-01-02T00:00:00Z"])
def test_what_is_background_part_loses_its_clicks_and_keeps_its_rows(
    catalogue: Catalogue, only: str | None
) -> None:
    first, second = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    for at in (first, second):
        catalogue.reviews.record_annotation(answer(at))
        catalogue.reviews.interpret("u1", at, verdict="refine", clicks=[click(at, 0)])
    catalogue.reviews.mark_late(A, "u1", only)
    marks = [catalogue.reviews.get_annotation("u1", at).is_late for at in (first, second)]
    assert marks == [only is None, True]
    assert [c.updated_at for c in catalogue.reviews.list_clicks(A)] == ([first] if only else [])
    catalogue.reviews.mark_late(A, "u1", only)
    assert len(catalogue.list_events(A, "marked_late")) == 1, "again is no change"


def test_what_an_object_lacks_is_known_until_it_is_seen_again(tmp_path: Path) -> None:
    raw = Catalogue(f"sqlite:///{tmp_path}/c.db").raw
    raw.record(RawRow("a.gltf", "e1", 5, reason="missing_side_file"), ["a.bin"])
    raw.record(RawRow("b.obj", "e1", 5, asset_id=A), ["b.mtl"])
    assert raw.list_awaited() == {"a.gltf": ["a.bin"], "b.obj": ["b.mtl"]}
    assert {row.key for row in raw.list_all() if row.reason} == {"a.gltf"}
    raw.record(RawRow("a.gltf", "e1", 5, asset_id=A))
    assert raw.list_awaited() == {"b.obj": ["b.mtl"]}
    assert not [row for row in raw.list_all() if row.reason]
