"""kill -9 amid second looks and known tasks, on the real Label Studio: all of it once, unmixed."""

from collections import Counter

import pytest

from flows.runtime.label_studio import desk_of
from tasks.catalogue import AssetState, CopyRole, FindingKind
from tasks.review.scripted_reviewer import annotation_for

ADD_COPY = "tasks.catalogue.quality:QualityLedger.add_copy"
ADD_FINDING = "tasks.catalogue.quality:QualityLedger.add_finding"


@pytest.fixture
def workspace(desk_world, monkeypatch):
    monkeypatch.setenv("SEGVIGEN_QUALITY_DOUBLE_SHARE", "1")
    monkeypatch.setenv("SEGVIGEN_QUALITY_KNOWN_SHARE", "1")
    return desk_world.open()


def _tasks(workspace) -> list:
    desk = desk_of(workspace)
    return list(desk.client.tasks_updated_since(desk.project_id, "1970-01-01T00:00:00.000000Z"))


@pytest.mark.slow
def test_copies_and_comparisons_survive_a_death(workspace, run_killed, run_whole):
    catalogue = workspace.catalogue
    for flow in ("ingest", "encode", "propose"):
        run_whole(flow)
    run_killed("push_review", ADD_COPY, 2, "after")
    assert len(catalogue.quality.copies()) == 1, "the second one's transaction was lost whole"
    run_whole("push_review")
    for flow in ("encode", "propose", "push_review"):  # the known tasks, made in code
        run_whole(flow)
    roles = Counter(copy.role for copy in catalogue.quality.copies())
    assert roles == {CopyRole.SECOND: 3, CopyRole.KNOWN: 3}
    assert catalogue.counts()[AssetState.IN_REVIEW] == 9
    assert len(_tasks(workspace)) == 9 and len({task.key for task in _tasks(workspace)}) == 9

    for task in _tasks(workspace):
        body = annotation_for("accept", [], "", (768, 512))
        desk_of(workspace).client.create_annotation(task.task_id, body)
    run_killed("pull_review", ADD_FINDING, 1, "before")
    assert catalogue.quality.findings() == [] and catalogue.reviews.uninterpreted() == []
    held = catalogue.quality.dataset_counts()
    assert (held[AssetState.ACCEPTED], held[AssetState.IN_REVIEW]) == (1, 2)
    run_whole("pull_review")
    assert catalogue.quality.dataset_counts()[AssetState.ACCEPTED] == 3
    pairs = catalogue.quality.findings(FindingKind.SECOND)
    assert len(pairs) == 3 and all(pair.iou == pytest.approx(1) for pair in pairs)
    assert len(catalogue.quality.findings(FindingKind.KNOWN)) == 3

    run_whole("build_shards")
    copies = catalogue.quality.copy_ids()
    sharded = {asset.asset_id for asset in catalogue.assets(AssetState.SHARDED)}
    assert len(sharded) == 3 and not sharded & copies
    events = len(catalogue.events())
    for flow in ("push_review", "pull_review", "build_shards"):
        run_whole(flow)
    assert len(catalogue.events()) == events
