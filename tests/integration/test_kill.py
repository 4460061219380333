"""kill -9 in the middle of each stage that needs no desk, then the stage again: nothing lost.

One world walks through its life; each step first runs in a process of its own that is killed at
the worst moment (between a blob and the catalogue's word of it), then for good.
"""

import pytest

from tasks.catalogue import AssetState
from tasks.labelling.label_sets import accept_asset


def _states(workspace) -> set[AssetState]:
    return {asset.state for asset in workspace.catalogue.list_assets()}


def _no_lease_is_left(workspace) -> bool:
    return not any(asset.lease_owner for asset in workspace.catalogue.list_assets())


def _keys(pipeline, folder: str) -> list[str]:
    root = pipeline.folder / "store" / folder
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.slow
def test_every_stage_survives_its_death(
    pipeline, run_killed, run_whole, to_review, record_annotation
):
    workspace = pipeline.open()

    run_killed("ingest", "tasks.storage.store:Store.put", 2, "after")
    assert len(workspace.catalogue.raw.list_all()) < 3
    run_whole("ingest")
    assert len(workspace.catalogue.list_assets()) == 3 and _states(workspace) == {
        AssetState.REGISTERED
    }

    run_killed("encode", "tasks.storage.store:Store.put", 2, "after")
    counts = workspace.catalogue.count_assets()
    assert counts[AssetState.ENCODED] == 1, "the first one is finished, the second is not"
    run_whole("encode")
    assert _states(workspace) == {AssetState.ENCODED} and len(_keys(pipeline, "encodings")) == 3

    run_killed("propose", "tasks.catalogue:Catalogue.add_proposal", 2, "before")
    assert workspace.catalogue.count_assets()[AssetState.PROPOSED] == 1
    run_whole("propose")
    assert _states(workspace) == {AssetState.PROPOSED} and len(_keys(pipeline, "proposals")) == 3
    assert _no_lease_is_left(workspace)

    for asset in to_review(workspace):
        record_annotation(workspace, asset, "refine", clicked_faces=(0, asset.num_faces - 1))
        workspace.catalogue.move(asset.asset_id, AssetState.REFINING)
    run_killed("refine", "tasks.storage.store:Store.put", 2, "after")
    assert workspace.catalogue.count_assets()[AssetState.REFINING] == 2
    run_whole("refine")
    assert {(asset.state, asset.round) for asset in workspace.catalogue.list_assets()} == {
        (AssetState.PROPOSED, 1)
    }
    assert len(_keys(pipeline, "proposals")) == 6, "one proposal a round"

    for asset in to_review(workspace):
        record_annotation(workspace, asset, "accept")
        accept_asset(workspace, asset.asset_id, "someone")
    run_killed("build_shards", "tasks.storage.store:Store.put_file", 1, "after")
    assert not workspace.catalogue.labels.list_shard_versions()
    first = run_whole("build_shards")
    assert _states(workspace) == {AssetState.SHARDED} and first["num_samples"] == 3
    assert _no_lease_is_left(workspace)
    assert all(asset.attempts == 0 for asset in workspace.catalogue.list_assets())


@pytest.mark.slow
def test_running_again_changes_nothing(pipeline, run_whole):
    workspace = pipeline.open()
    files = {path: path.stat().st_mtime_ns for path in pipeline.folder.joinpath("store").rglob("*")}
    events = len(workspace.catalogue.list_events())
    for flow in ("ingest", "encode", "propose", "refine", "build_shards"):
        run_whole(flow)
    assert {
        path: path.stat().st_mtime_ns for path in pipeline.folder.joinpath("store").rglob("*")
    } == files
    reported = [
        (event.kind, event.asset_id) for event in workspace.catalogue.list_events()[events:]
    ]
    assert reported == []
