"""kill -9 between Label Studio and the catalogue: no duplicate task, no lost or doubled answer."""

from collections import Counter

import numpy as np
import pytest

from flows.runtime.label_studio import open_review_project
from tasks.catalogue import AssetState
from tasks.rendering.pixel_buffers import buffers_from_bytes
from tasks.review.scripted_reviewer import Spot, make_annotation
from tasks.storage import keys

IMPORT = "tasks.review.client:LabelStudioClient.import_tasks"
INTERPRET = "tasks.catalogue.reviews:ReviewLedger.interpret"


@pytest.fixture(scope="module")
def workspace(review_pipeline):
    return review_pipeline.open()


def _by_name(workspace) -> dict:
    return {asset.name.removesuffix(".glb"): asset for asset in workspace.catalogue.list_assets()}


def _tasks(workspace) -> list:
    """Every task of the project, whatever its key."""
    project = open_review_project(workspace)
    return list(
        project.client.list_tasks_updated_since(project.project_id, "1970-01-01T00:00:00.000000Z")
    )


def _give(workspace, asset, verdict: str, label: str | None = None) -> None:
    """Answer as the editor does, with a click in the middle of what is seen, if asked for."""
    shown = workspace.catalogue.get_proposal(asset.asset_id, asset.round)
    key = keys.make_review_buffers_key(asset.asset_id, asset.round, shown.sha256)
    buffers = buffers_from_bytes(workspace.store.get(key))
    rows, columns = np.nonzero(buffers.face >= 0)
    middle = len(rows) // 2
    spots = [Spot(int(columns[middle]), int(rows[middle]), label, 1)] if label else []
    (task,) = [
        t for t in _tasks(workspace) if t.key == keys.make_review_key(asset.asset_id, asset.round)
    ]
    response = make_annotation(verdict, spots, "", buffers.size)
    open_review_project(workspace).client.create_annotation(task.task_id, response)


@pytest.mark.slow
def test_push_and_pull_survive_their_death(workspace, run_killed, run_whole):
    for flow in ("ingest", "encode", "propose"):
        run_whole(flow)

    run_killed("push_review", IMPORT, 1, "after")
    assert workspace.catalogue.count_assets()[AssetState.PROPOSED] == 3, "imported, not recorded"
    assert len(_tasks(workspace)) == 2
    run_whole("push_review")
    assert workspace.catalogue.count_assets()[AssetState.IN_REVIEW] == 3
    assert set(Counter(task.key for task in _tasks(workspace)).values()) == {1}
    assert len(_tasks(workspace)) == 3

    assets = _by_name(workspace)
    _give(workspace, assets["chair"], "accept")
    _give(workspace, assets["lamp"], "refine", "new part")
    _give(workspace, assets["table"], "reject")
    run_killed("pull_review", INTERPRET, 2, "before")
    assert len(workspace.catalogue.reviews.list_uninterpreted()) == 2, (
        "stored raw before anything else"
    )
    run_whole("pull_review")
    states = {name: asset.state for name, asset in _by_name(workspace).items()}
    assert states == {
        "chair": AssetState.ACCEPTED,
        "lamp": AssetState.REFINING,
        "table": AssetState.REJECTED,
    }
    assert len(workspace.catalogue.reviews.list_clicks(assets["lamp"].asset_id)) == 1
    assert len(workspace.catalogue.labels.list_all()) == 1

    run_whole("refine")
    run_killed("push_review", IMPORT, 1, "before")
    run_whole("push_review")
    lamp = _by_name(workspace)["lamp"]
    assert (lamp.state, lamp.round) == (AssetState.IN_REVIEW, 1)
    assert len(_tasks(workspace)) == 4, "round 0 stays as history"
    assert not any(asset.lease_owner for asset in workspace.catalogue.list_assets())


@pytest.mark.slow
def test_the_whole_way_again_changes_nothing_and_then_ends(workspace, run_whole):
    before = [
        (asset.asset_id, asset.state, asset.round) for asset in workspace.catalogue.list_assets()
    ]
    report = run_whole("label_dataset")
    after = workspace.catalogue.list_assets()
    assert report["is_finished"] is False
    assert [asset.round for asset in after] == [round_ for _, _, round_ in before]
    assert len(_tasks(workspace)) == 4
    chair = _by_name(workspace)["chair"]
    assert chair.state is AssetState.SHARDED

    _give(workspace, _by_name(workspace)["lamp"], "accept")
    report = run_whole("label_dataset")
    assert report["is_finished"] is True
    assert report["counts"]["sharded"] == 2 and report["counts"]["rejected"] == 1
    versions = workspace.catalogue.labels.list_shard_versions()
    assert [version.num_samples for version in versions] == [1, 2]
    events = len(workspace.catalogue.list_events())
    run_whole("label_dataset")
    assert len(workspace.catalogue.list_events()) == events
