"""Gate and queue over more assets than one chunk holds, and a desk that is full."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows import label_dataset as loop
from flows import push_review as flow
from flows.runtime.chunks import run_stage
from flows.runtime.report import Outcome
from tasks.catalogue import AssetRow, AssetState, ProposalRow
from tasks.quality.gate import GateDecision
from tasks.workspace import open_workspace

NUM_ASSETS = 7


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("SEGVIGEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    overrides = {
        "store": {"root_url": f"file://{tmp_path}/store", "raw_url": f"file://{tmp_path}/raw"},
        "catalogue": {"url": f"sqlite:///{tmp_path}/c.db"},
        "work": {"chunk_size": 3},
        "quality": {"max_open_tasks": 4, "exploration_share": 0},
    }
    made = open_workspace(None, overrides, "t")
    for number in range(NUM_ASSETS):
        name = f"{number:064x}"
        made.catalogue.register(AssetRow(name, AssetState.REGISTERED))
        made.catalogue.move(name, "encoded")
        confidence = 0.1 + 0.1 * number
        made.catalogue.add_proposal(ProposalRow(name, 0, name, "s", 2, confidence, "c"))
        made.catalogue.move(name, "proposed")
    return made


@pytest.fixture
def gated(monkeypatch):
    """A gate that looks at nothing, but raises the priority as the real one does."""
    seen = []

    def judge(workspace, asset_id):
        from tasks.catalogue import GateRow

        seen.append(asset_id)
        catalogue = workspace.catalogue
        catalogue.update(asset_id, priority=0.9)
        row = GateRow(asset_id, 0, flow.hash_gate_rules(workspace.settings.gate), False, False)
        catalogue.quality.add_decision(row)
        return GateDecision(asset_id, False, False)

    monkeypatch.setattr(flow, "gate_asset", judge)
    return seen


def run_without_prefect(monkeypatch):
    from flows.runtime import chunks

    monkeypatch.setattr(chunks, "make_io_task", lambda *_names: lambda work: work)


def test_every_asset_is_gated_once_although_it_stays_where_it_is(workspace, gated, monkeypatch):
    run_without_prefect(monkeypatch)
    report = run_stage(workspace, flow.GATE)
    assert len(gated) == len(set(gated)) == NUM_ASSETS == report.total
    assert run_stage(workspace, flow.GATE).total == 0 and len(gated) == NUM_ASSETS


def test_the_least_sure_come_to_review_and_the_rest_waits(workspace, gated, monkeypatch):
    run_without_prefect(monkeypatch)
    pushed = []

    def push(_workspace, asset_ids):
        for asset_id in asset_ids:
            workspace.catalogue.move(asset_id, "in_review")
        pushed.extend(asset_ids)
        return [Outcome(asset_id, "in_review") for asset_id in asset_ids]

    monkeypatch.setattr(flow, "PUSH", replace(flow.PUSH, work=push))
    monkeypatch.setattr(flow, "open_workspace", lambda *_: workspace)
    flow.push_review.fn()
    assert [int(name, 16) for name in pushed] == [0, 1, 2, 3]
    assert not loop.has_work(workspace) and not loop.is_finished(workspace)
    flow.push_review.fn()
    assert len(pushed) == 4, "the project is full"
    workspace.catalogue.move(pushed[0], "rejected", reason="reviewer_rejected")
    assert loop.has_work(workspace)
    flow.push_review.fn()
    assert [int(name, 16) for name in pushed[4:]] == [4]
