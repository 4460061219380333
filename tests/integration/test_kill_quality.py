"""kill -9 amid double annotations and gold tasks, on the real Label Studio: each exists once."""

from collections import Counter

import pytest

from flows.runtime.label_studio import open_review_project
from tasks.catalogue import AssetState, CopyRole, FindingKind
from tasks.review.scripted_reviewer import make_annotation

ADD_COPY = "tasks.catalogue.quality:QualityLedger.add_copy"
ADD_FINDING = "tasks.catalogue.quality:QualityLedger.add_finding"


@pytest.fixture
def workspace(review_pipeline, monkeypatch):
    monkeypatch.setenv("SEGVIGEN_QUALITY_DOUBLE_SHARE", "1")
    monkeypatch.setenv("SEGVIGEN_QUALITY_GOLD_SHARE", "1")
    return review_pipeline.open()


def _tasks(workspace) -> list:
    project = open_review_project(workspace)
    return list(
        project.client.list_tasks_updated_since(project.project_id, "1970-01-01T00:00:00.000000Z")
    )


@pytest.mark.slow
def test_copies_and_comparisons_survive_a_death(workspace, run_killed, run_whole):
    catalogue = workspace.catalogue
    for flow in ("ingest", "encode", "propose"):
        run_whole(flow)
    run_killed("push_review", ADD_COPY, 2, "after")
    assert len(catalogue.quality.list_copies()) == 1, "the second one's transaction was lost whole"
    run_whole("push_review")
    for flow in ("encode", "propose", "push_review"):  # the gold tasks, made in code
        run_whole(flow)
    roles = Counter(copy.role for copy in catalogue.quality.list_copies())
    assert roles == {CopyRole.DOUBLE: 3, CopyRole.GOLD: 3}
    assert catalogue.count_assets()[AssetState.IN_REVIEW] == 9
    assert len(_tasks(workspace)) == 9 and len({task.key for task in _tasks(workspace)}) == 9

    for task in _tasks(workspace):
        body = make_annotation("accept", [], "", (768, 512))
        open_review_project(workspace).client.create_annotation(task.task_id, body)
    run_killed("pull_review", ADD_FINDING, 1, "before")
    assert catalogue.quality.list_findings() == [] and catalogue.reviews.list_uninterpreted() == []
    held = catalogue.quality.count_dataset_assets()
    assert (held[AssetState.ACCEPTED], held[AssetState.IN_REVIEW]) == (1, 2)
    run_whole("pull_review")
    assert catalogue.quality.count_dataset_assets()[AssetState.ACCEPTED] == 3
    pairs = catalogue.quality.list_findings(FindingKind.DOUBLE)
    assert len(pairs) == 3 and all(pair.iou == pytest.approx(1) for pair in pairs)
    assert len(catalogue.quality.list_findings(FindingKind.GOLD)) == 3

    run_whole("build_shards")
    copies = catalogue.quality.list_copy_ids()
    sharded = {asset.asset_id for asset in catalogue.list_assets(AssetState.SHARDED)}
    assert len(sharded) == 3 and not sharded & copies
    events = len(catalogue.list_events())
    for flow in ("push_review", "pull_review", "build_shards"):
        run_whole(flow)
    assert len(catalogue.list_events()) == events
