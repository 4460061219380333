"""Encode, propose, gate, refine, accept: idempotent, killable, and honest about failures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segvigen_model.config import ALGORITHM_VERSION, MergingConfig, SegmenterConfig
from segvigen_model.errors import AssetRejected, MissingExtra
from segvigen_model.segmenter import Segmenter
from segvigen_model.serialization import encoding_from_bytes, proposal_from_bytes
from segvigen_model.session import Session
from segvigen_model.types import Proposal
from tasks.catalogue import AssetRow, AssetState, ClickRow, LeaseLost
from tasks.errors import StageError
from tasks.labelling.label_sets import BadLabels, accept_asset, check_partition, load_label_set
from tasks.labelling.loading import load_asset_mesh
from tasks.quality.gate import gate_asset
from tasks.settings import GateSettings
from tasks.stages.encode import encode_asset
from tasks.stages.propose import propose_asset
from tasks.stages.refine import refine_asset
from tasks.stages.runner import make_not_needed_result, run_stage_safely

OPEN_GATE = GateSettings(
    accept_confidence=0, audit_share=0, min_draws=1, min_parts=1, min_part_area=0, max_part_area=1
)


def make_click_row(asset: AssetRow, face: int, kind: str = "new_part", part: int = -1) -> ClickRow:
    return ClickRow(
        unique_id="u",
        updated_at="t",
        number=face,
        asset_id=asset.asset_id,
        round=asset.round,
        result_id=f"r{face}",
        source="sheet",
        view="front",
        pixel_x=10.0,
        pixel_y=20.5,
        label="new part",
        kind=kind,
        part=part,
        face=face,
        x=-0.5,
        y=0.0,
        z=0.0,
    )


def start_refining(pipeline: Any, clicks: list[int] | None = None) -> AssetRow:
    asset = pipeline.add_proposed()
    pipeline.add_reviewed(
        asset, "refine", [make_click_row(asset, face) for face in (clicks or [0])]
    )
    return pipeline.catalogue.move(asset.asset_id, "refining")


def test_proposed_assets_have_their_blobs_and_rows(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    assert (asset.state, asset.round) == ("proposed", 0)
    encoding = encoding_from_bytes(pipeline.store.get(asset.encoding_key))
    assert encoding.checkpoint == pipeline.segmenter.model.sha256
    row = pipeline.catalogue.get_latest_proposal(asset.asset_id)
    proposal = proposal_from_bytes(pipeline.store.get(row.key))
    assert (row.round, row.num_parts) == (0, proposal.num_parts)
    assert row.provenance["num_draws"] == 2
    assert row.checkpoint == pipeline.segmenter.model.sha256
    check_partition(proposal.face_labels, asset.num_faces, proposal.num_parts)


def test_stages_do_nothing_elsewhere(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    events = len(pipeline.catalogue.list_events())
    results = [
        encode_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter),
        propose_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter),
        refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter),
    ]
    assert [result.is_done for result in results] == [False] * 3
    assert {result.note for result in results} == {"asset is proposed"}
    assert len(pipeline.catalogue.list_events()) == events


def test_killed_after_the_blob_the_next_run_does_not_compute_again(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.raw.put("a.glb", read_all_bytes(pipeline))
    pipeline.ingest()
    (asset,) = pipeline.catalogue.list_assets()

    def killed(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    for stage in (encode_asset, propose_asset):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline.catalogue, "move", killed)
            with pytest.raises(KeyboardInterrupt):
                stage(pipeline.workspace, asset.asset_id, pipeline.segmenter)
        before = pipeline.catalogue.get_asset(asset.asset_id).state
        with monkeypatch.context() as patch:
            for name in ("encode", "open"):
                patch.setattr(
                    pipeline.segmenter, name, lambda *a, **k: pytest.fail("computed again")
                )
            result = stage(pipeline.workspace, asset.asset_id, pipeline.segmenter)
        assert result.is_done
        assert result.state is not before


def read_all_bytes(pipeline: Any) -> bytes:
    import trimesh

    return bytes(trimesh.Scene(trimesh.creation.box()).export(file_type="glb"))


def test_another_checkpoint_encodes_anew(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from segvigen_model.model.bundle import build_model

    pipeline.raw.put("a.glb", read_all_bytes(pipeline))
    pipeline.ingest()
    (asset,) = pipeline.catalogue.list_assets()
    encode_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    other = Segmenter(build_model("tiny", seed=1))
    propose_asset(pipeline.workspace, asset.asset_id, other)
    moved = pipeline.catalogue.get_asset(asset.asset_id)
    encoding = encoding_from_bytes(pipeline.store.get(moved.encoding_key))
    assert encoding.checkpoint == other.model.sha256
    assert len(list(pipeline.store.list("encodings"))) == 2


def test_another_patch_network_proposes_anew_on_the_same_encoding(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.raw.put("a.glb", read_all_bytes(pipeline))
    pipeline.ingest()
    (asset,) = pipeline.catalogue.list_assets()
    encode_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    with monkeypatch.context() as patch:  # killed after the blob
        patch.setattr(pipeline.catalogue, "move", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            propose_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    tuned = {**pipeline.segmenter.weights, "patch_network": "tuned"}
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.segmenter, "weights", tuned)
        propose_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    assert len(list(pipeline.store.list("proposals"))) == 2, (
        "the other network's blob was not taken"
    )
    assert len(list(pipeline.store.list("encodings"))) == 1
    assert (
        tuned.items() <= pipeline.catalogue.get_latest_proposal(asset.asset_id).provenance.items()
    )


def test_another_configuration_proposes_anew(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.raw.put("a.glb", read_all_bytes(pipeline))
    pipeline.ingest()
    (asset,) = pipeline.catalogue.list_assets()
    encode_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    with monkeypatch.context() as patch:  # killed after the blob
        patch.setattr(pipeline.catalogue, "move", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            propose_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    model = pipeline.segmenter.model
    config = SegmenterConfig(merging=MergingConfig(component_reserve=0.0))
    sizes = replace(model.config, segmenter=config)
    other = Segmenter(replace(model, config=sizes))
    propose_asset(pipeline.workspace, asset.asset_id, other)
    assert len(list(pipeline.store.list("proposals"))) == 2, "the other's blob was not taken"
    reported = pipeline.catalogue.get_latest_proposal(asset.asset_id).provenance
    assert reported["config"] == config.summary and reported["algorithm"] == ALGORITHM_VERSION


def test_attempt_records_what_goes_wrong(pipeline: Any) -> None:
    asset = pipeline.add_proposed()

    def run(action: Any, max_attempts: int = 3) -> Any:
        pipeline.catalogue.claim([AssetState.PROPOSED], 1, "w")
        workspace = pipeline.with_settings("w", work={"max_attempts": max_attempts})
        return run_stage_safely(workspace, "test", asset.asset_id, action)

    def broken() -> Any:
        raise ValueError("a bug")

    result = run(broken)
    assert (result.is_done, result.state, result.note) == (False, "proposed", "ValueError: a bug")
    row = pipeline.catalogue.get_asset(asset.asset_id)
    assert (row.attempts, row.lease_owner, row.is_started) == (1, None, False)

    def lost() -> Any:
        raise LeaseLost("gone")

    assert run(lost).state == "proposed"
    assert pipeline.catalogue.get_asset(asset.asset_id).attempts == 1

    def offline() -> Any:
        raise ConnectionResetError("store is down")

    with pytest.raises(ConnectionResetError):
        run(offline)
    row = pipeline.catalogue.get_asset(asset.asset_id)
    assert (row.attempts, row.lease_owner) == (1, None)

    def not_installed() -> Any:
        raise MissingExtra("spconv", "pip install it")

    with pytest.raises(MissingExtra):
        run(not_installed)

    def unusable() -> Any:
        raise AssetRejected("no_voxels", "nothing inside; scale it")

    assert run(unusable).state == "rejected"
    assert pipeline.catalogue.get_asset(asset.asset_id).reason == "no_voxels"


def test_attempt_parks_after_the_last_try(pipeline: Any) -> None:
    asset = pipeline.add_proposed()

    def broken() -> Any:
        raise ValueError("a bug")

    for state in ("proposed", "failed"):
        pipeline.catalogue.claim([AssetState.PROPOSED], 1, "w")
        workspace = pipeline.with_settings("w", work={"max_attempts": 2})
        result = run_stage_safely(workspace, "test", asset.asset_id, broken)
        assert result.state == state


def test_attempt_passes_results_through(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    pipeline.catalogue.claim([AssetState.PROPOSED], 1, "w")
    result = run_stage_safely(
        pipeline.with_settings("w"),
        "test",
        asset.asset_id,
        lambda: make_not_needed_result("test", pipeline.catalogue, asset.asset_id),
    )
    assert result.note == "asset is proposed"


def test_clicks_make_the_next_round(pipeline: Any) -> None:
    asset = start_refining(pipeline, [0])
    source = pipeline.catalogue.get_latest_proposal(asset.asset_id)
    result = refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    moved = pipeline.catalogue.get_asset(asset.asset_id)
    assert (result.is_done, moved.state, moved.round) == (True, "proposed", 1)
    row = pipeline.catalogue.get_latest_proposal(asset.asset_id)
    proposal = proposal_from_bytes(pipeline.store.get(row.key))
    assert (row.round, row.key) == (1, result.key)
    assert row.provenance["parent"]["sha256"] == source.sha256
    assert row.provenance["num_clicks"] == 1
    check_partition(proposal.face_labels, asset.num_faces, proposal.num_parts)
    clicked = proposal.face_labels[0]
    assert 0 < (proposal.face_labels == clicked).sum() < asset.num_faces
    decision = gate_asset(pipeline.with_settings(gate=OPEN_GATE), asset.asset_id)
    assert decision.rejection_reasons == ("refined round",)


def test_unusable_clicks_are_dropped_and_counted(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    bad = [
        make_click_row(asset, 10**6),
        replace(make_click_row(asset, 1), kind="belongs", part=99),
        make_click_row(asset, 2),
    ]
    pipeline.add_reviewed(asset, "refine", bad)
    pipeline.catalogue.move(asset.asset_id, "refining")
    refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    row = pipeline.catalogue.get_latest_proposal(asset.asset_id)
    assert (row.provenance["num_clicks"], row.provenance["num_clicks_dropped"]) == (1, 2)


def test_refining_without_clicks_reports_it(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    pipeline.add_reviewed(asset, "refine", [])
    pipeline.catalogue.move(asset.asset_id, "refining")
    with pytest.raises(StageError, match="none of 0 clicks"):
        refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)


def test_a_killed_refinement_is_taken_up(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = start_refining(pipeline)

    def killed(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.catalogue, "add_proposal", killed)
        with pytest.raises(KeyboardInterrupt):
            refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    held = pipeline.catalogue.get_asset(asset.asset_id)
    assert (held.state, held.round) == ("refining", 0)
    refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    assert pipeline.catalogue.get_asset(asset.asset_id).round == 1
    assert len(list(pipeline.store.list("proposals"))) == 2


def test_accepting_writes_labels_with_their_whole_history(pipeline: Any) -> None:
    asset = start_refining(pipeline)
    refine_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    asset = pipeline.catalogue.get_asset(asset.asset_id)
    pipeline.add_reviewed(asset, "accept", [])
    row = accept_asset(pipeline.workspace, asset.asset_id, "ann@local.test")
    assert pipeline.catalogue.get_asset(asset.asset_id).state is AssetState.ACCEPTED
    assert (row.num_rounds, row.num_clicks, row.seconds) == (2, 1, 25.0)
    labels = load_label_set(pipeline.store, row)
    proposal = proposal_from_bytes(pipeline.store.get(row.proposal_key))
    assert np.array_equal(labels.face_labels, proposal.face_labels)
    reported = labels.provenance
    assert reported["asset_id"] == asset.asset_id
    assert (
        reported["proposal"]["sha256"]
        == pipeline.catalogue.get_latest_proposal(asset.asset_id).sha256
    )
    assert reported["checkpoint"] == pipeline.segmenter.model.sha256
    assert [review["verdict"] for review in reported["reviews"]] == ["refine", "accept"]
    (clicked,) = reported["clicks"]
    assert clicked["reviewer"] == "ann@local.test"
    assert (clicked["view"], clicked["pixel"], clicked["face"]) == ("front", [10.0, 20.5], 0)
    assert clicked["xyz"] == [-0.5, 0.0, 0.0]
    assert clicked["label_studio"]["result_id"] == "r0"
    json.dumps(dict(reported))


def test_accepting_twice_is_once(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    pipeline.add_reviewed(asset, "accept", [])
    first = accept_asset(pipeline.workspace, asset.asset_id, "ann")
    again = accept_asset(pipeline.workspace, asset.asset_id, "ann")
    assert again.label_id == first.label_id
    assert len(pipeline.catalogue.labels.list_all()) == 1
    assert len(list(pipeline.store.list("labels"))) == 2


def test_labels_that_do_not_fit_the_mesh_are_refused(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    pipeline.catalogue.update(asset.asset_id, num_faces=asset.num_faces + 1)
    with pytest.raises(StageError, match="its labels would not fit"):
        accept_asset(pipeline.workspace, asset.asset_id, "gate")
    assert list(pipeline.store.list("labels")) == []


@pytest.mark.parametrize(
    ("labels", "num_faces", "num_parts", "message"),
    [
        ([0, -1], 2, 1, "1 of 2 faces have no part"),
        ([0, 2], 2, 2, "ids up to 2"),
        ([0, 0], 2, 2, "1 ids"),
        ([0, 1], 3, 2, "do not fit"),
        ([0.0, 1.0], 2, 2, "do not fit"),
        ([], 0, 0, "do not fit|without faces"),
    ],
)
def test_partitions_are_checked(
    labels: list[float], num_faces: int, num_parts: int, message: str
) -> None:
    with pytest.raises(BadLabels, match=message):
        check_partition(np.array(labels), num_faces, num_parts)


def test_a_broken_proposal_is_never_stored(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.raw.put("a.glb", read_all_bytes(pipeline))
    pipeline.ingest()
    (asset,) = pipeline.catalogue.list_assets()
    encode_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    num_faces = load_asset_mesh(pipeline.store, asset).num_faces

    def holes(*args: Any, **kwargs: Any) -> Proposal:
        labels = np.full(num_faces, -1, np.int32)
        return Proposal(labels, labels, np.ones(1, np.float32), 1.0)

    monkeypatch.setattr(Session, "propose", holes)
    with pytest.raises(BadLabels):
        propose_asset(pipeline.workspace, asset.asset_id, pipeline.segmenter)
    assert list(pipeline.store.list("proposals")) == []


def test_a_fault_after_the_lease_is_lost_counts_for_nobody(pipeline: Any) -> None:
    asset = pipeline.add_proposed()
    pipeline.catalogue.claim([AssetState.PROPOSED], 1, "slow")

    def overtaken() -> Any:
        pipeline.catalogue.release([asset.asset_id], "slow")
        pipeline.catalogue.claim([AssetState.PROPOSED], 1, "fast")
        raise ValueError("too late")

    result = run_stage_safely(pipeline.with_settings("slow"), "test", asset.asset_id, overtaken)
    assert "too late" in result.note
    row = pipeline.catalogue.get_asset(asset.asset_id)
    assert (row.attempts, row.lease_owner, row.state) == (0, "fast", "proposed")
