"""Reads that lie during ingest and later: no asset is blamed, and nothing false is registered."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import trimesh

from tasks.catalogue import AssetState
from tasks.ingest.ingest import ingest_object, scan_raw
from tasks.labelling.label_sets import accept_asset
from tasks.labelling.loading import load_asset_mesh
from tasks.quality.gate import gate_asset
from tasks.stages.runner import StageResult, run_stage_safely
from tasks.storage.errors import BlobDamaged
from tests.faults import Lies, lying_reads


def make_sphere(number: int) -> bytes:
    """320 faces as OBJ, whose first lines are a mesh too."""
    mesh = trimesh.creation.icosphere(2, radius=1 + number)
    return bytes(mesh.export(file_type="obj").encode())


def test_healthy_assets_are_never_rejected_by_short_changed_or_stale_reads(pipeline: Any) -> None:
    files = {f"s{number}.obj": make_sphere(number) for number in range(8)}
    for key, data in files.items():
        pipeline.raw.put(key, data)
    outcomes: list[str] = []
    with lying_reads(Lies(seed=3, short=0.15, flipped=0.15, stale=0.1)) as liar:
        for _ in range(20):
            for info in scan_raw(pipeline.workspace):
                try:
                    outcomes.append(ingest_object(pipeline.workspace, info).outcome)
                except BlobDamaged:
                    outcomes.append("stopped")
    assert min(liar.num_lies[kind] for kind in ("short", "flipped", "stale")) > 2
    assert set(outcomes) <= {"registered", "stopped", "gone"}, outcomes
    assets = {asset.asset_id: asset for asset in pipeline.catalogue.list_assets()}
    assert set(assets) == {hashlib.sha256(data).hexdigest() for data in files.values()}
    for asset in assets.values():
        assert (asset.state, asset.num_faces, asset.attempts) == (AssetState.REGISTERED, 320, 0)
        assert load_asset_mesh(pipeline.store, asset).num_faces == 320


def test_an_object_that_was_changed_since_the_listing_waits_for_the_next_scan(
    pipeline: Any, tmp_path: Path
) -> None:
    pipeline.raw.put("a.obj", make_sphere(0))
    (listed,) = scan_raw(pipeline.workspace)
    (tmp_path / "raw/a.obj").write_bytes(make_sphere(1)[:-5])
    result = ingest_object(pipeline.workspace, listed)
    assert (result.outcome, result.asset_id) == ("changed", "")
    assert "scan again" in result.note
    assert pipeline.catalogue.raw.list_all() == [] and pipeline.catalogue.list_assets() == []
    (tmp_path / "raw/a.obj").write_bytes(make_sphere(1))
    assert pipeline.ingest() == {"a.obj": "registered"}


def test_a_side_file_that_reads_short_stops_and_is_not_registered(pipeline: Any) -> None:
    pipeline.raw.put("a.obj", b"mtllib a.mtl\nusemtl m\n" + make_sphere(0))
    pipeline.raw.put("a.mtl", b"newmtl m\nKd 1 0 0\n")
    (listed,) = scan_raw(pipeline.workspace)

    def cut_side_file(name: str, data: bytes) -> bytes:
        return data[:9] if name.endswith(".mtl") else data

    with lying_reads(Lies()) as liar:
        liar.answer = cut_side_file  # type: ignore[method-assign]
        with pytest.raises(BlobDamaged, match=r"a\.mtl gave 9 of 18 bytes"):
            ingest_object(pipeline.workspace, listed)
    assert pipeline.catalogue.list_assets() == []
    assert pipeline.ingest() == {"a.obj": "registered"}


@pytest.mark.parametrize("kind", ["flipped", "another's", "lost"])
def test_a_damaged_proposal_stops_the_run_and_becomes_no_label(pipeline: Any, kind: str) -> None:
    asset, other = pipeline.add_proposed(2), pipeline.add_proposed(3)
    held, others = (
        Path(pipeline.store.get_uri(pipeline.catalogue.get_proposal(each.asset_id, 0).key)[7:])
        for each in (asset, other)
    )
    good = held.read_bytes()
    if kind == "lost":
        held.unlink()
    else:
        flipped = good[:700] + bytes([good[700] ^ 1]) + good[701:]
        held.write_bytes(flipped if kind == "flipped" else others.read_bytes())
    with pytest.raises(BlobDamaged):
        accept_asset(pipeline.workspace, asset.asset_id, "ann")
    workspace = pipeline.with_settings(worker="w")

    def gate() -> StageResult:
        gate_asset(workspace, asset.asset_id)
        accept_asset(workspace, asset.asset_id, "ann")
        raise AssertionError("was accepted")

    for _ in range(4):
        claimed = pipeline.catalogue.claim([AssetState.PROPOSED], 9, "w")
        assert asset.asset_id in {row.asset_id for row in claimed}
        with pytest.raises(BlobDamaged):
            run_stage_safely(workspace, "gate", asset.asset_id, gate)
        pipeline.catalogue.release([row.asset_id for row in claimed], "w")
    now = pipeline.catalogue.get_asset(asset.asset_id)
    assert (now.state, now.attempts) == (AssetState.PROPOSED, 0)
    assert pipeline.catalogue.labels.get_latest(asset.asset_id) is None
    held.write_bytes(good)
    assert accept_asset(pipeline.workspace, asset.asset_id, "ann").num_parts > 0
