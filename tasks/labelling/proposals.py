"""Stored proposals: read, or make, check and write one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from segvigen_model.serialization import proposal_from_bytes, proposal_to_bytes
from segvigen_model.types import Proposal
from tasks.catalogue import ProposalRow
from tasks.labelling.label_sets import check_partition
from tasks.storage.canonical import canonical_json
from tasks.storage.store import Store

DIGEST_CHARS = 16


def load_or_make_proposal(
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
        checkpoint=proposal.checkpoint,
        provenance=proposal.provenance,
    )


def hash_recipe(recipe: Mapping[str, Any]) -> str:
    """Short hash of everything that a result depends on."""
    return hashlib.sha256(canonical_json(recipe).encode()).hexdigest()[:DIGEST_CHARS]
