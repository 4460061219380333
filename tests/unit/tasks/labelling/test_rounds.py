"""Rounds of merges, splits, clicks and names; labels are a replay of the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segvigen_model.partition.hierarchy import build_part_tree
from segvigen_model.serialization import proposal_from_bytes, proposal_to_bytes
from segvigen_model.types import PartTable, Proposal, RefinementState
from tasks.catalogue import AssetRow, ClickRow, EditCommandRow, ProposalRow
from tasks.errors import StageError
from tasks.labelling.edit_commands import parse_commands
from tasks.labelling.label_sets import accept_asset, load_label_set
from tasks.labelling.loading import load_proposal
from tasks.labelling.rounds import apply_exact_edits
from tasks.labelling.taxonomy import build_taxonomy
from tasks.stages.refine import refine_asset, replay_labels
from tasks.storage import keys

TAXONOMY = build_taxonomy([{"id": "leg", "name": "Leg"}])


def make_command_rows(
    lines: list[str], asset_id: str = "a", num_parts: int = 50
) -> list[EditCommandRow]:
    commands, problems = parse_commands(lines, num_parts, TAXONOMY)
    assert not problems
    return [
        EditCommandRow("u", "t", v.number, asset_id, 0, "r", str(v.kind), v.parts, v.text, v.count)
        for v in commands
    ]


def make_click_row(asset: AssetRow, number: int, face: int, kind: str, part: int = -1) -> ClickRow:
    where = ("sheet", 1.0, 1.0, "label", kind, part, face, 0.0, 0.0, 0.0)
    return ClickRow("u", "t", number, asset.asset_id, asset.round, f"r{number}", *where)


def review(pipeline: Any, verdict: str, lines: list[str], clicks: list[ClickRow] = []) -> AssetRow:  # noqa: B006
    """One round: the reviewer's answer as pull stores it, and what follows."""
    (asset,) = pipeline.catalogue.list_assets()
    pipeline.add_reviewed(asset, verdict, [])
    (row,) = pipeline.catalogue.reviews.list_annotations(asset.asset_id, asset.round)
    num_parts = pipeline.catalogue.get_proposal(asset.asset_id, asset.round).num_parts
    mine = {"unique_id": row.unique_id, "updated_at": row.updated_at, "round": asset.round}
    pipeline.catalogue.reviews.interpret(
        *(row.unique_id, row.updated_at),
        verdict=verdict,
        clicks=[replace(each, **mine) for each in clicks],
        commands=[replace(v, **mine) for v in make_command_rows(lines, asset.asset_id, num_parts)],
    )
    if verdict == "refine":
        pipeline.catalogue.move(asset.asset_id, "refining")
        run_refine(pipeline, asset)
    return pipeline.catalogue.get_asset(asset.asset_id)


def run_refine(pipeline: Any, asset: AssetRow) -> None:
    refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)


def propose_labels(pipeline: Any, face_labels: np.ndarray) -> AssetRow:
    """An asset whose first proposal is over-segmented in a known way."""
    asset = pipeline.add_proposed(num_boxes=3)
    old = pipeline.catalogue.get_latest_proposal(asset.asset_id)
    first = load_proposal(pipeline.store, old)
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
    key = keys.make_proposal_key(asset.asset_id, 0, "test")
    blob = pipeline.store.put(key, proposal_to_bytes(made), "application/octet-stream")
    row = ProposalRow(
        *(asset.asset_id, 0, key, blob.sha256, made.num_parts, 0.5, old.checkpoint),
        provenance=made.provenance,
    )
    pipeline.catalogue.add_proposal(row)
    return asset


SIX = np.repeat(np.arange(6), 6)  # three boxes, each of them two parts


def load_shown(pipeline: Any) -> Proposal:
    (asset,) = pipeline.catalogue.list_assets()
    row = pipeline.catalogue.get_proposal(asset.asset_id, asset.round)
    return proposal_from_bytes(pipeline.store.get(row.key))


def test_merges_and_names_need_no_model(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    propose_labels(pipeline, SIX)
    for name in ("open", "encode"):
        monkeypatch.setattr(
            pipeline.segmenter, name, lambda *a, **k: pytest.fail("asked the model")
        )
    asset = review(pipeline, "refine", ["merge 0 1", "merge 3 2", "name 4 lid", "category 5 leg"])
    assert (asset.state, asset.round) == ("proposed", 1)
    made = load_shown(pipeline)
    assert made.face_labels.tolist() == np.array([0, 0, 3, 3, 2, 1])[SIX].tolist()
    assert made.num_parts == 4
    assert made.part_confidence.tolist() == [1.0, 0.5, 0.5, 1.0]
    assert made.parts.names == ("", "", "lid", "")
    assert made.parts.categories == ("", "leg", "", "")
    assert made.parts.color_slots == (0, 5, 4, 3), "every part keeps its colour"
    assert made.checkpoint == pipeline.segmenter.checkpoint
    assert made.num_draws == 2
    assert made.provenance["labels_source"] == "part_edits"
    assert made.provenance["num_commands"] == 4
    before = load_proposal(pipeline.store, pipeline.catalogue.get_proposal(asset.asset_id, 0))
    moved = np.array([0, 0, 3, 3, 2, 1])[before.voxel_labels]
    assert (made.voxel_labels == moved).all()


@pytest.mark.parametrize("commands", [["merge 0 1"], ["name 4 lid"]])
def test_what_is_of_one_round_is_not_inherited(pipeline: Any, commands: list[str]) -> None:
    propose_labels(pipeline, SIX)
    shown = load_shown(pipeline)
    own = {"parent", "num_clicks", "num_commands", "third_review"}
    earlier = {"num_verbs": 3, "third_look": {"reviewers": ["ann", "bob"]}}  # of version 0.1.0
    shown = replace(shown, provenance={**shown.provenance, **dict.fromkeys(own, 1), **earlier})
    made = apply_exact_edits(shown, make_command_rows(commands), np.ones(len(SIX)))
    assert set(made.provenance) & (own | set(earlier)) == set()


def test_a_merged_part_keeps_its_children_as_the_finer_level(pipeline: Any) -> None:
    propose_labels(pipeline, SIX)
    review(pipeline, "refine", ["merge 0 1"])
    made = load_shown(pipeline)
    tree = build_part_tree(made.face_labels, made.finer, made.groups)
    assert len(np.unique(np.stack([tree.levels[-1], SIX]), axis=1).T) == 6, "the six as they were"
    assert tree.find_children(0).tolist() == [0, 1]
    assert [len(tree.find_children(part)) for part in range(made.num_parts)] == [2, 1, 1, 1, 1]


def test_labels_are_a_replay_of_the_log(pipeline: Any) -> None:
    propose_labels(pipeline, np.minimum(SIX, 3))
    asset = review(pipeline, "refine", ["split 3 into 2", "merge 0 1", "name 3 right box"])
    new = make_click_row(asset, 0, 14, "new_part")
    asset = review(pipeline, "refine", ["name 0 left box"], [new])
    assert asset.round == 2
    other = make_click_row(asset, 0, 15, "belongs", int(load_shown(pipeline).face_labels[0]))
    asset = review(pipeline, "refine", [], [other])
    last = load_shown(pipeline)
    asset = review(pipeline, "accept", ["name 1 box", "merge 0 1", "name 0 left box"])
    row = accept_asset(pipeline.workspace, asset.asset_id, "ann")
    held = load_label_set(pipeline.store, row)
    again = replay_labels(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    assert np.array_equal(again.face_labels, held.face_labels)
    assert row.num_parts == again.num_parts == last.num_parts - 1
    assert np.array_equal(held.proposal_parts[last.face_labels], held.face_labels)
    names = [name or f"part {k}" for k, name in enumerate(again.parts.names)]
    assert list(held.part_names) == names
    assert "left box" in names
    tree = build_part_tree(again.face_labels, again.finer, again.groups)
    assert np.array_equal(tree.levels, held.tree.levels)
    assert np.array_equal(tree.parents, held.tree.parents)
    kinds = [(command["round"], command["kind"]) for command in held.provenance["verbs"]]
    assert kinds == [
        (0, "split"),
        (0, "merge"),
        (0, "name"),
        (1, "name"),
        (3, "name"),
        (3, "merge"),
        (3, "name"),
    ]


def test_the_log_alone_decides(pipeline: Any) -> None:
    """The replay must notice a changed log: it is not a copy of the stored labels."""
    propose_labels(pipeline, SIX)
    review(pipeline, "refine", ["merge 0 1"])
    asset = review(pipeline, "accept", [])
    accept_asset(pipeline.workspace, asset.asset_id, "ann")
    (row,) = pipeline.catalogue.reviews.list_annotations(asset.asset_id, 0)
    other = replace(
        make_command_rows(["merge 4 5"], asset.asset_id)[0],
        unique_id=row.unique_id,
        updated_at=row.updated_at,
    )
    pipeline.catalogue.reviews.interpret(
        row.unique_id, row.updated_at, verdict="refine", commands=[other]
    )
    again = replay_labels(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    assert again.face_labels.tolist() == np.minimum(SIX, 4).tolist()


def test_only_what_was_accepted_is_replayed(pipeline: Any) -> None:
    asset = propose_labels(pipeline, SIX)
    with pytest.raises(StageError, match="no label set to replay"):
        replay_labels(pipeline.workspace, asset.asset_id, pipeline.segmenter)


def test_a_split_that_came_with_accept_changes_nothing(pipeline: Any) -> None:
    propose_labels(pipeline, SIX)
    asset = review(pipeline, "accept", ["split 0", "name 0 left"])
    row = accept_asset(pipeline.workspace, asset.asset_id, "ann")
    held = load_label_set(pipeline.store, row)
    assert held.face_labels.tolist() == SIX.tolist()
    assert held.part_names[:2] == ("left", "part 1")


def test_edit_commands_that_fit_no_part_are_not_usable(pipeline: Any) -> None:
    asset = propose_labels(pipeline, SIX)
    pipeline.add_reviewed(asset, "refine", [])
    (row,) = pipeline.catalogue.reviews.list_annotations(asset.asset_id)
    bad = replace(
        make_command_rows(["merge 1 9"], asset.asset_id)[0],
        unique_id=row.unique_id,
        updated_at=row.updated_at,
    )
    pipeline.catalogue.reviews.interpret(
        row.unique_id, row.updated_at, verdict="refine", commands=[bad]
    )
    pipeline.catalogue.move(asset.asset_id, "refining")
    with pytest.raises(StageError, match="none of 0 clicks and 1 verbs of round 0"):
        run_refine(pipeline, asset)


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
    made = apply_exact_edits(first, make_command_rows(["merge 1 2", "merge 0 3"]), areas)
    assert made.parts.names == ("c", "a")
    assert made.refinement.background_part is None
    assert made.refinement.anchor_faces == (1, 2), "they stay settled"
    made = apply_exact_edits(first, make_command_rows(["merge 1 2", "name 1 d", "name 2 e"]), areas)
    assert made.parts.names == ("", "d", "c")
    assert made.refinement.background_part == 2
