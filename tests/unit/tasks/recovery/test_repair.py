"""Damage of every kind is found, repaired to the same bytes, or reported by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.catalogue import AssetState
from tasks.labelling.label_sets import load_label_set
from tasks.quality.gate import gate_asset
from tasks.recovery import repair as repair_module
from tasks.recovery.needs import BlobKind, list_needs
from tasks.recovery.repair import heal_asset, list_lost_labels, repair
from tasks.recovery.scrub import scrub
from tasks.stages.propose import propose_asset
from tasks.stages.refine import refine_asset
from tasks.stages.runner import StageResult, run_stage_safely

Damage = Callable[[str], None]
# Made again to the same bytes on the same machine by the same code.
SAME = [
    *(BlobKind.SOURCE, BlobKind.ASSET_INFO, BlobKind.MESH, BlobKind.ENCODING, BlobKind.PROPOSAL),
    *(BlobKind.LABEL_SET, BlobKind.PROVENANCE, BlobKind.REVIEW, BlobKind.SHARD),
]


def find_keys(world: Any, kind: BlobKind) -> list[str]:
    return [need.key for need in list_needs(world.workspace) if need.kind is kind]


def path_of(world: Any, key: str) -> Path:
    return world.folder / "store" / key


def mend_all(world: Any) -> Any:
    faults = scrub(world.workspace).faults
    return repair(world.workspace, faults, open_segmenter=lambda: world.segmenter)


def test_a_whole_store_has_no_faults_and_orphans_are_counted(world: Any) -> None:
    world.workspace.store.put("proposals/orphan.npz", b"12345")
    report = scrub(world.workspace)
    assert report.faults == ()
    assert report.num_needed == sum(report.checked.values())
    assert (report.num_orphans, report.orphan_bytes) == (1, 5)
    assert set(report.checked) == {str(kind) for kind in SAME}
    assert world.workspace.store.exists("proposals/orphan.npz"), "counted, not deleted"


def test_a_sample_is_a_share_or_a_number(world: Any) -> None:
    whole = scrub(world.workspace, [BlobKind.LABEL_SET])
    assert whole.checked == {"label_set": 20}
    assert whole.num_orphans is None
    half = scrub(world.workspace, [BlobKind.LABEL_SET], sample=0.5)
    three = scrub(world.workspace, [BlobKind.LABEL_SET], sample=3)
    assert (half.checked, three.checked) == ({"label_set": 10}, {"label_set": 3})


@pytest.mark.parametrize("kind", SAME)
def test_damage_is_found_and_repaired_to_the_same_bytes(
    world: Any, damage: Damage, kind: BlobKind
) -> None:
    first, *_, last = find_keys(world, kind)
    before = {key: path_of(world, key).read_bytes() for key in (first, last)}
    states = {row.asset_id: row.state for row in world.workspace.catalogue.list_assets()}
    damage(first)
    path_of(world, last).unlink()
    found = scrub(world.workspace).faults
    assert {each.need.key: each.fault for each in found} == {
        first: "other bytes than were written",
        last: "missing",
    }
    planned = repair(world.workspace, found, is_dry_run=True)
    assert [each.is_mended for each in planned] == [False, False]
    assert not path_of(world, last).exists(), "a dry run changes nothing"
    done = mend_all(world)
    assert all(each.is_mended for each in done), [each.as_dict() for each in done]
    assert {key: path_of(world, key).read_bytes() for key in before} == before
    assert scrub(world.workspace).faults == ()
    now = {row.asset_id: row.state for row in world.workspace.catalogue.list_assets()}
    assert now == states


def test_everything_of_one_asset_at_once(world: Any, damage: Damage) -> None:
    """All but its raw object, its rows and the shards."""
    asset = world.workspace.catalogue.list_assets()[0]
    needs = [each for each in list_needs(world.workspace) if each.asset_id == asset.asset_id]
    before = {each.key: path_of(world, each.key).read_bytes() for each in needs}
    for need in needs:
        damage(need.key)
    assert all(each.is_mended for each in mend_all(world))
    assert {key: path_of(world, key).read_bytes() for key in before} == before


def test_lost_labels_are_named_and_nothing_false_takes_their_place(
    world: Any, damage: Damage
) -> None:
    """Proposal, arrays, source and raw object are gone, in no shard: what is left is a name."""
    row = world.workspace.catalogue.labels.list_all()[-1]
    asset = world.workspace.catalogue.get_asset(row.asset_id)
    (raw,) = world.workspace.catalogue.raw.list_all(row.asset_id)
    (world.folder / "raw" / raw.key).unlink()
    about = world.workspace.store.get_json(f"assets/{row.asset_id}/asset.json")
    for key in (row.key, row.proposal_key, asset.source_key, about["mesh"]["key"]):
        damage(key)
    held = path_of(world, row.key).read_bytes()
    done = mend_all(world)
    assert list_lost_labels(world.workspace, done) == [asset.name]
    lost = {each.need.kind: each.action for each in done if not each.is_mended}
    assert lost[BlobKind.SOURCE] == "no raw object has its content any more; upload the file again"
    assert path_of(world, row.key).read_bytes() == held
    assert world.workspace.catalogue.get_asset(asset.asset_id).state in ("accepted", "sharded")


def test_a_label_set_is_taken_from_a_shard(
    world: Any, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = world.workspace.catalogue.labels.list_shard_members(
        "parts", world.workspace.catalogue.labels.list_shard_versions()[0].version
    )[-1]
    (row,) = world.workspace.catalogue.labels.list_all(member.asset_id)
    keys = (row.key, row.provenance_key)
    before = [path_of(world, key).read_bytes() for key in keys]
    for key in (*keys, row.proposal_key):
        damage(key)
    other = ("proposals/other", None)  # the proposal was made by another checkpoint
    monkeypatch.setattr("tasks.recovery.mending.plan_first_proposal", lambda *_: other)
    done = {each.need.key: each.action for each in mend_all(world)}
    assert [done[key] for key in keys] == ["taken from a shard's sample"] * 2
    assert [path_of(world, key).read_bytes() for key in keys] == before


def run_stage(world: Any, name: str, asset_id: str, action: Any, state: str) -> StageResult:
    """As a flow runs a stage, with this world's model for repairs."""
    from dataclasses import replace

    workspace = replace(world.workspace, worker="me")
    workspace.catalogue.claim((state,), 9, "me")
    heal = lambda ws, each: heal_asset(ws, each, lambda: world.segmenter)  # noqa: E731
    return run_stage_safely(workspace, name, asset_id, lambda: action(workspace), heal)


def test_a_damaged_proposal_is_no_dead_end(small_world: Any, damage: Damage) -> None:
    """At a4d9af9: three tries, failed, retry, failed again."""
    world = small_world
    asset = world.add_proposed(1)
    row = world.workspace.catalogue.get_proposal(asset.asset_id, 0)
    damage(row.key)

    def gate(workspace: Any) -> StageResult:
        gate_asset(workspace, asset.asset_id)
        return StageResult(asset.asset_id, "gate", AssetState.PROPOSED, True)

    healed = run_stage(world, "gate", asset.asset_id, gate, "proposed")
    assert "made again, the same bytes" in healed.note
    assert world.workspace.catalogue.get_asset(asset.asset_id).attempts == 0
    assert run_stage(world, "gate", asset.asset_id, gate, "proposed").is_done


def test_a_proposal_of_another_checkpoint_is_proposed_anew(
    small_world: Any, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = small_world
    asset = world.add_proposed(1)
    row = world.workspace.catalogue.get_proposal(asset.asset_id, 0)
    damage(row.key)
    monkeypatch.setattr(
        "tasks.recovery.mending.plan_first_proposal", lambda *_: ("proposals/other", None)
    )
    note = heal_asset(world.workspace, asset.asset_id, lambda: world.segmenter)
    assert note.startswith("proposal back to encoded: the proposal of round 0 is lost")
    assert world.workspace.catalogue.get_asset(asset.asset_id).state is AssetState.ENCODED
    moves = [e.detail["to"] for e in world.workspace.catalogue.list_events(asset.asset_id, "moved")]
    assert moves == ["encoded", "proposed", "failed", "encoded"]
    monkeypatch.undo()
    assert propose_asset(world.workspace, asset.asset_id, world.segmenter).is_done
    assert scrub(world.workspace).faults == ()


def test_a_later_round_is_refined_again_from_the_stored_annotations(
    small_world: Any, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.recovery_world import make_click

    world = small_world
    asset = world.add_proposed(1)
    world.review(asset, "refine", [make_click(asset)])
    world.workspace.catalogue.move(asset.asset_id, "refining")
    refine_asset(world.workspace, asset.asset_id, world.segmenter)
    row = world.workspace.catalogue.get_proposal(asset.asset_id, 1)
    before = path_of(world, row.key).read_bytes()
    damage(row.key)
    monkeypatch.setattr(
        "tasks.recovery.mending.plan_next_proposal", lambda *_: (None, "proposals/other", None)
    )
    heal_asset(world.workspace, asset.asset_id, lambda: world.segmenter)
    now = world.workspace.catalogue.get_asset(asset.asset_id)
    assert (now.state, now.round) == (AssetState.REFINING, 0)
    assert len(world.workspace.catalogue.reviews.list_clicks(asset.asset_id)) == 1
    monkeypatch.undo()
    refine_asset(world.workspace, asset.asset_id, world.segmenter)
    assert path_of(world, row.key).read_bytes() == before


def test_what_cannot_be_made_again_parks_the_asset_with_the_blobs_name(
    small_world: Any, damage: Damage
) -> None:
    world = small_world
    asset = world.add_proposed(1)
    for file in (world.folder / "raw").iterdir():
        file.unlink()
    damage(asset.source_key)
    note = heal_asset(world.workspace, asset.asset_id, lambda: world.segmenter)
    assert note.startswith(f"parked: {asset.source_key}: no raw object has its content any more")
    parked = world.workspace.catalogue.get_asset(asset.asset_id)
    assert (parked.state, parked.reason) == (AssetState.FAILED, "blob_lost")


def test_an_infrastructure_error_that_is_no_damage_is_still_raised(small_world: Any) -> None:
    from tasks.storage.store import BlobDamaged

    world = small_world
    asset = world.add_proposed(1)

    def lie(_: Any) -> StageResult:
        raise BlobDamaged("read differently every time")

    with pytest.raises(BlobDamaged):
        run_stage(world, "gate", asset.asset_id, lie, "proposed")
    assert world.workspace.catalogue.get_asset(asset.asset_id).lease_owner is None


def test_a_build_leaves_an_asset_with_a_damaged_blob_out_until_it_is_repaired(
    world: Any, damage: Damage
) -> None:
    labels = world.workspace.catalogue.labels.list_all()[-1]  # in no version yet
    damage(labels.proposal_key)
    made = world.build()
    assert [asset_id for asset_id, _ in made.failed] == [labels.asset_id]
    assert made.num_samples == 19
    heal_asset(world.workspace, labels.asset_id, lambda: world.segmenter)
    assert world.build().num_samples == 20
    assert load_label_set(world.workspace.store, labels).decided_by == "ann@local.test"


def test_every_kind_has_a_plan() -> None:
    assert set(repair_module.PLANS) == set(BlobKind)


def test_a_store_that_lies_now_and_then_has_no_faults(small_world: Any) -> None:
    from tests.faults import Lies, lying_reads

    world = small_world
    asset = world.add_proposed(1)
    with lying_reads(Lies(seed=3, short=0.05, flipped=0.05, stale=0.05)):
        for _ in range(5):
            assert heal_asset(world.workspace, asset.asset_id, lambda: world.segmenter) == ""
    assert world.workspace.catalogue.get_asset(asset.asset_id).state is AssetState.PROPOSED
