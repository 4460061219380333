"""Propose: K draws of the model become one partition with a confidence, the round 0 proposal."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from segvigen_model.proposal_io import proposal_from_bytes, proposal_to_bytes
from segvigen_model.types import Proposal
from tasks import keys
from tasks.assets import load_asset_mesh
from tasks.catalogue import AssetState, Catalogue, ProposalRow
from tasks.encode import encoding_for
from tasks.labels import check_partition
from tasks.review.colors import spread_slots
from tasks.settings import ModelSettings
from tasks.stage import Segmenter, StageResult, canonical, not_needed
from tasks.store import Store

log = logging.getLogger(__name__)

DIGEST_CHARS = 16


def propose_asset(
    asset_id: str,
    *,
    store: Store,
    catalogue: Catalogue,
    segmenter: Segmenter,
    model: ModelSettings,
    worker: str | None = None,
) -> StageResult:
    """Make the first proposal of one encoded asset and move it to proposed; idempotent."""
    begin = time.perf_counter()
    asset = catalogue.asset(asset_id)
    if asset.state is not AssetState.ENCODED:
        return not_needed("propose", catalogue, asset_id)
    how = model.model_dump(include={"num_draws", "num_steps", "granularity", "seed"})
    recipe = {"asset": asset_id, **segmenter.weights, **how}

    def make() -> Proposal:
        mesh = load_asset_mesh(store, asset)
        encoding = encoding_for(asset, mesh, store=store, catalogue=catalogue, segmenter=segmenter)
        proposal = segmenter.propose(mesh, encoding, **how)
        slots = spread_slots(mesh, proposal.face_labels, [-1] * proposal.num_parts)
        told = {**recipe, **proposal.provenance, "part_slots": slots}
        return replace(proposal, provenance=told)

    key = keys.proposal(asset_id, 0, digest_of(recipe))
    row = stored_proposal(key, make, store=store, asset_id=asset_id, round_=0)
    with catalogue.transaction():
        moved = catalogue.move(asset_id, AssetState.PROPOSED, worker=worker, round=0)
        catalogue.add_proposal(row)
    seconds = time.perf_counter() - begin
    log.info(
        "stage=propose asset=%s parts=%d confidence=%.3f seconds=%.2f",
        *(asset_id[:12], row.num_parts, row.confidence, seconds),
    )
    return StageResult(asset_id, "propose", moved.state, True, key, row.sha256, seconds)


def stored_proposal(
    key: str, make: Callable[[], Proposal], *, store: Store, asset_id: str, round_: int
) -> ProposalRow:
    """Read the proposal at `key`, or make, check and write it; return its catalogue row."""
    if store.exists(key):
        data = store.get(key)
    else:
        proposal = make()
        check_partition(proposal.face_labels, len(proposal.face_labels), proposal.num_parts)
        data = proposal_to_bytes(proposal)
        blob = store.put(key, data, "application/octet-stream", keep_existing=True)
        if blob.sha256 != hashlib.sha256(data).hexdigest():
            data = store.get(key)  # another worker was faster: its result counts
    proposal = proposal_from_bytes(data)
    return ProposalRow(
        asset_id=asset_id,
        round=round_,
        key=key,
        sha256=hashlib.sha256(data).hexdigest(),
        num_parts=proposal.num_parts,
        confidence=float(proposal.confidence),
        checkpoint=str(proposal.provenance.get("checkpoint", "")),
        provenance=proposal.provenance,
    )


def digest_of(recipe: Mapping[str, Any]) -> str:
    """Short hash of everything that a result depends on."""
    return hashlib.sha256(canonical(recipe).encode()).hexdigest()[:DIGEST_CHARS]
