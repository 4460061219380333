"""Rounds of merges, splits, clicks and names; labels are a replay of the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segvigen_model.partition.hierarchy import part_tree
from segvigen_model.serialization import proposal_from_bytes, proposal_to_bytes
from segvigen_model.types import PartTable, Proposal, RefinementState
from tasks.catalogue import AssetRow, ClickRow, ProposalRow, VerbRow
from tasks.errors import StageError
from tasks.labelling.edit_commands import parse_verbs
from tasks.labelling.label_sets import accept_asset, load_label_set
from tasks.labelling.loading import load_proposal
from tasks.labelling.rounds import edited_proposal
from tasks.labelling.taxonomy import taxonomy_of
from tasks.stages.refine import refine_asset, replay_labels
from tasks.storage import keys

TAXONOMY = taxonomy_of([{"id": "leg", "name": "Leg"}])


def verb_rows(lines: list[str], asset_id: str = "a", num_parts: int = 50) -> list[VerbRow]:
    verbs, problems = parse_verbs(lines, num_parts, TAXONOMY)
    assert not problems
    return [
        VerbRow("u", "t", v.number, asset_id, 0, "r", str(v.kind), v.parts, v.text, v.count)
        for v in verbs
    ]


def click(asset: AssetRow, number: int, face: int, kind: str, part: int = -1) -> ClickRow:
    where = ("sheet", 1.0, 1.0, "label", kind, part, face, 0.0, 0.0, 0.0)
    return ClickRow("u", "t", number, asset.asset_id, asset.round, f"r{number}", *where)


def answered(world: Any, verdict: str, lines: list[str], clicks: list[ClickRow] = []) -> AssetRow:  # noqa: B006
    """One round: the reviewer's answer as pull stores it, and what follows."""
    (asset,) = world.catalogue.assets()
    world.reviewed(asset, verdict, [])
    (row,) = world.catalogue.reviews.annotations(asset.asset_id, asset.round)
    num_parts = world.catalogue.proposal(asset.asset_id, asset.round).num_parts
    mine = {"unique_id": row.unique_id, "updated_at": row.updated_at, "round": asset.round}
    world.catalogue.reviews.interpret(
        *(row.unique_id, row.updated_at),
        verdict=verdict,
        clicks=[replace(each, **mine) for each in clicks],
        verbs=[replace(v, **mine) for v in verb_rows(lines, asset.asset_id, num_parts)],
    )
    if verdict == "refine":
        world.catalogue.move(asset.asset_id, "refining")
        refine(world, asset)
    return world.catalogue.asset(asset.asset_id)


def refine(world: Any, asset: AssetRow) -> None:
    refine_asset(world.workspace, asset.asset_id, world.segmenter)


def proposed_as(world: Any, face_labels: np.ndarray) -> AssetRow:
    """An asset whose first proposal is over-segmented in a known way."""
    asset = world.proposed(num_boxes=3)
    old = world.catalogue.latest_proposal(asset.asset_id)
    first = load_proposal(world.store, old)
    voxels = np.arange(len(first.voxel_labels)) % (face_labels.max() + 1)
    made = Proposal(
        face_labels.astype(np.int32),
        voxels.astype(np.int32),
        np.full(face_labels.max() + 1, 0.5, np.float32),
        0.5,
        checkpoint=old.checkpoint,
        num_draws=2,
        finer=np.zeros((0, len(face_labels)), np.int32),
        groups=np.zeros(face_labels.max() + 1, np.int32),
    )
    key = keys.proposal(asset.asset_id, 0, "test")
    blob = world.store.put(key, proposal_to_bytes(made), "application/octet-stream")
    row = ProposalRow(
        *(asset.asset_id, 0, key, blob.sha256, made.num_parts, 0.5, old.checkpoint),
        provenance=made.provenance,
    )
    world.catalogue.add_proposal(row)
    return asset


SIX = np.repeat(np.arange(6), 6)  # three boxes, each of them two parts


def shown(world: Any) -> Proposal:
    (asset,) = world.catalogue.assets()
    row = world.catalogue.proposal(asset.asset_id, asset.round)
    return proposal_from_bytes(world.store.get(row.key))


def test_merges_and_names_need_no_model(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proposed_as(world, SIX)
    for name in ("open", "encode"):
        monkeypatch.setattr(world.segmenter, name, lambda *a, **k: pytest.fail("asked the model"))
    asset = answered(world, "refine", ["merge 0 1", "merge 3 2", "name 4 lid", "category 5 leg"])
    assert (asset.state, asset.round) == ("proposed", 1)
    made = shown(world)
    assert made.face_labels.tolist() == np.array([0, 0, 3, 3, 2, 1])[SIX].tolist()
    assert made.num_parts == 4
    assert made.part_confidence.tolist() == [1.0, 0.5, 0.5, 1.0]
    assert made.parts.names == ("", "", "lid", "")
    assert made.parts.categories == ("", "leg", "", "")
    assert made.parts.color_slots == (0, 5, 4, 3), "every part keeps its colour"
    assert made.checkpoint == world.segmenter.checkpoint
    assert made.num_draws == 2
    assert made.provenance["labels_source"] == "part_edits"
    assert made.provenance["num_verbs"] == 4
    before = load_proposal(world.store, world.catalogue.proposal(asset.asset_id, 0))
    moved = np.array([0, 0, 3, 3, 2, 1])[before.voxel_labels]
    assert (made.voxel_labels == moved).all()


def test_a_merged_part_keeps_its_children_as_the_finer_level(world: Any) -> None:
    proposed_as(world, SIX)
    answered(world, "refine", ["merge 0 1"])
    made = shown(world)
    tree = part_tree(made.face_labels, made.finer, made.groups)
    assert len(np.unique(np.stack([tree.levels[-1], SIX]), axis=1).T) == 6, "the six as they were"
    assert tree.children(0).tolist() == [0, 1]
    assert [len(tree.children(part)) for part in range(made.num_parts)] == [2, 1, 1, 1, 1]


def test_labels_are_a_replay_of_the_log(world: Any) -> None:
    proposed_as(world, np.minimum(SIX, 3))
    asset = answered(world, "refine", ["split 3 into 2", "merge 0 1", "name 3 right box"])
    new = click(asset, 0, 14, "new_part")
    asset = answered(world, "refine", ["name 0 left box"], [new])
    assert asset.round == 2
    other = click(asset, 0, 15, "belongs", int(shown(world).face_labels[0]))
    asset = answered(world, "refine", [], [other])
    last = shown(world)
    asset = answered(world, "accept", ["name 1 box", "merge 0 1", "name 0 left box"])
    row = accept_asset(world.workspace, asset.asset_id, "ann")
    held = load_label_set(world.store, row)
    again = replay_labels(world.workspace, asset.asset_id, world.segmenter)
    assert np.array_equal(again.face_labels, held.face_labels)
    assert row.num_parts == again.num_parts == last.num_parts - 1
    assert np.array_equal(held.proposal_parts[last.face_labels], held.face_labels)
    names = [name or f"part {k}" for k, name in enumerate(again.parts.names)]
    assert list(held.part_names) == names
    assert "left box" in names
    tree = part_tree(again.face_labels, again.finer, again.groups)
    assert np.array_equal(tree.levels, held.tree.levels)
    assert np.array_equal(tree.parents, held.tree.parents)
    kinds = [(verb["round"], verb["kind"]) for verb in held.provenance["verbs"]]
    assert kinds == [
        (0, "split"),
        (0, "merge"),
        (0, "name"),
        (1, "name"),
        (3, "name"),
        (3, "merge"),
        (3, "name"),
    ]


def test_the_log_alone_decides(world: Any) -> None:
    """The replay must notice a changed log: it is not a copy of the stored labels."""
    proposed_as(world, SIX)
    answered(world, "refine", ["merge 0 1"])
    asset = answered(world, "accept", [])
    accept_asset(world.workspace, asset.asset_id, "ann")
    (row,) = world.catalogue.reviews.annotations(asset.asset_id, 0)
    other = replace(
        verb_rows(["merge 4 5"], asset.asset_id)[0],
        unique_id=row.unique_id,
        updated_at=row.updated_at,
    )
    world.catalogue.reviews.interpret(
        row.unique_id, row.updated_at, verdict="refine", verbs=[other]
    )
    again = replay_labels(world.workspace, asset.asset_id, world.segmenter)
    assert again.face_labels.tolist() == np.minimum(SIX, 4).tolist()


def test_only_what_was_accepted_is_replayed(world: Any) -> None:
    asset = proposed_as(world, SIX)
    with pytest.raises(StageError, match="no label set to replay"):
        replay_labels(world.workspace, asset.asset_id, world.segmenter)


def test_a_split_that_came_with_accept_changes_nothing(world: Any) -> None:
    proposed_as(world, SIX)
    asset = answered(world, "accept", ["split 0", "name 0 left"])
    row = accept_asset(world.workspace, asset.asset_id, "ann")
    held = load_label_set(world.store, row)
    assert held.face_labels.tolist() == SIX.tolist()
    assert held.part_names[:2] == ("left", "part 1")


def test_verbs_that_fit_no_part_are_not_usable(world: Any) -> None:
    asset = proposed_as(world, SIX)
    world.reviewed(asset, "refine", [])
    (row,) = world.catalogue.reviews.annotations(asset.asset_id)
    bad = replace(
        verb_rows(["merge 1 9"], asset.asset_id)[0],
        unique_id=row.unique_id,
        updated_at=row.updated_at,
    )
    world.catalogue.reviews.interpret(row.unique_id, row.updated_at, verdict="refine", verbs=[bad])
    world.catalogue.move(asset.asset_id, "refining")
    with pytest.raises(StageError, match="none of 0 clicks and 1 verbs of round 0"):
        refine(world, asset)


def test_what_a_part_was_merged_into_speaks_for_it() -> None:
    first = Proposal(
        np.arange(4, dtype=np.int32),
        np.zeros(1, np.int32),
        np.ones(4, np.float32),
        1.0,
        parts=replace(PartTable.plain(4), names=("", "a", "b", "c")),
        refinement=RefinementState(anchor_faces=(1, 2), background_part=3),
    )
    areas = np.ones(4)
    made = edited_proposal(first, verb_rows(["merge 1 2", "merge 0 3"]), areas)
    assert made.parts.names == ("c", "a")
    assert made.refinement.background_part is None
    assert made.refinement.anchor_faces == (1, 2), "they stay settled"
    made = edited_proposal(first, verb_rows(["merge 1 2", "name 1 d", "name 2 e"]), areas)
    assert made.parts.names == ("", "d", "c")
    assert made.refinement.background_part == 2
