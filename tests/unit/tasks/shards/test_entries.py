"""The plan of a dataset by joins is what plain Python makes of all rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.catalogue import DONE, AssetState, Catalogue, CatalogueError, ShardMemberRow
from tasks.shards.build import _move_members
from tasks.shards.entries import collect_entries, collect_members
from tests.random_catalogue import fill


@pytest.fixture(params=range(6))
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Catalogue:
    made = Catalogue(f"sqlite:///{tmp_path}/c.db")
    fill(made, request.param)
    return made


def _plan(catalogue: Catalogue) -> tuple[dict[str, tuple[str, int, str]], list[str]]:
    """Asset id -> label set, round and proposal; and the ids of the lost, row by row."""
    copies = catalogue.quality.list_copy_ids()
    good, lost = {}, []
    for asset in catalogue.list_assets():
        if asset.state not in DONE or asset.asset_id in copies:
            continue
        labels = [r for r in catalogue.labels.list_all() if r.asset_id == asset.asset_id]
        proposals = {row.key: row for row in catalogue.list_proposals(asset.asset_id)}
        if not labels or labels[-1].proposal_key not in proposals:
            lost.append(asset.asset_id)
        else:
            chosen = proposals[labels[-1].proposal_key]
            good[asset.asset_id] = (labels[-1].label_id, chosen.round, chosen.sha256)
    return good, sorted(lost)


def check_plan(catalogue: Catalogue) -> None:
    """Compare entries and members with rows read one by one, on any database."""
    good, lost = _plan(catalogue)
    assert good and lost
    entries, left_out = collect_entries(catalogue)
    assert [entry.asset_id for entry in entries] == sorted(good)
    assert [name for name, _ in left_out] == lost
    for entry in entries:
        found = (entry.label_id, entry.round, entry.proposal_sha256)
        assert found == good[entry.asset_id]
        row, labels = catalogue.get_asset(entry.asset_id), catalogue.labels.get(entry.label_id)
        proposal = catalogue.get_proposal(entry.asset_id, entry.round)
        assert proposal is not None and labels == catalogue.labels.get_latest(entry.asset_id)
        assert entry.recipe == [row.asset_id, labels.label_id, labels.sha256, proposal.sha256]
        assert (entry.proposal_key, entry.checkpoint) == (proposal.key, proposal.checkpoint)
        assert (entry.licence, entry.num_parts) == (row.licence, labels.num_parts)
        assert (entry.num_clicks, entry.decided_by) == (labels.num_clicks, labels.decided_by)


def check_members(catalogue: Catalogue) -> None:
    """Compare a version's members with rows read one by one."""
    expected = {}
    for member in catalogue.labels.list_shard_members("parts", "v"):
        labels = catalogue.labels.get(member.label_id)
        proposals = {row.key: row for row in catalogue.list_proposals(member.asset_id)}
        if labels.proposal_key in proposals:
            expected[member.asset_id] = (member.label_id, proposals[labels.proposal_key].round)
    found = collect_members(catalogue, "parts", "v")
    assert expected and {e.asset_id: (e.label_id, e.round) for e in found} == expected
    assert [entry.asset_id for entry in found] == sorted(expected)
    assert collect_members(catalogue, "parts", "other") == []


def check_moves(catalogue: Catalogue) -> None:
    """Only accepted members whose label set still counts become sharded, each with its event."""
    members = catalogue.labels.list_shard_members("parts", "v")
    stale = members[:3]
    members = [ShardMemberRow("parts", "v", m.asset_id, "older", "tar") for m in stale] + members[
        3:
    ]
    before = {row.asset_id: row for row in catalogue.list_assets()}
    expected = set()
    for member in members:
        latest = catalogue.labels.get_latest(member.asset_id)
        is_accepted = before[member.asset_id].state is AssetState.ACCEPTED
        if is_accepted and latest is not None and latest.label_id == member.label_id:
            expected.add(member.asset_id)
    with catalogue.transaction():
        _move_members(catalogue, members, "parts/v")
    after = {row.asset_id: row for row in catalogue.list_assets()}
    assert expected == {name for name in after if after[name] != before[name]}
    assert {row.asset_id for row in catalogue.list_events(kind="moved")} == expected
    for name in expected:
        row = after[name]
        assert (row.state, row.reason, row.last_error) == (AssetState.SHARDED, None, None)
        assert row.lease_token == before[name].lease_token + 1 and not row.is_suspect


def test_the_plan(catalogue: Catalogue) -> None:
    check_plan(catalogue)


def test_the_members_of_a_version(catalogue: Catalogue) -> None:
    check_members(catalogue)


def test_the_moves_of_members(catalogue: Catalogue) -> None:
    check_moves(catalogue)


def test_an_unknown_label_set_is_named(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="unknown label set 'nothing'"):
        catalogue.labels.get("nothing")


def test_many_moves_and_one_leave_the_same_row_and_event(tmp_path: Path) -> None:
    one, many = (Catalogue(f"sqlite:///{tmp_path}/{name}.db", clock=lambda: 5.0) for name in "ab")
    for made in (one, many):
        fill(made, 1)
    (asset, *_) = one.list_assets(AssetState.ACCEPTED)
    moved = one.move(asset.asset_id, AssetState.SHARDED, detail="parts/v")
    ids = [asset.asset_id]
    number = many.move_all(ids, AssetState.ACCEPTED, AssetState.SHARDED, detail="parts/v")
    assert number == 1 and many.get_asset(asset.asset_id) == moved
    events = [made.list_events(asset.asset_id, "moved")[-1].detail for made in (one, many)]
    assert events[0] == events[1]
    assert many.move_all(ids, AssetState.ACCEPTED, AssetState.SHARDED) == 0
    assert many.move_all([], AssetState.ACCEPTED, AssetState.SHARDED) == 0
