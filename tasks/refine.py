"""Refine: the reviewer's clicks of one round become the next round's proposal."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import numpy as np

from segvigen_model.types import Click, ClickKind, Proposal
from tasks import keys
from tasks.assets import current_proposal, load_asset_mesh, load_proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue, ClickRow, ProposalRow
from tasks.encode import encoding_for
from tasks.propose import digest_of, stored_proposal
from tasks.settings import ModelSettings
from tasks.stage import Segmenter, StageError, StageResult, not_needed
from tasks.store import Store

log = logging.getLogger(__name__)


def refine_asset(
    asset_id: str,
    *,
    store: Store,
    catalogue: Catalogue,
    segmenter: Segmenter,
    model: ModelSettings,
    worker: str | None = None,
) -> StageResult:
    """Refine one asset in state refining; it is then proposed again, one round later."""
    begin = time.perf_counter()
    asset = catalogue.asset(asset_id)
    if asset.state is not AssetState.REFINING:
        return not_needed("refine", catalogue, asset_id)
    source = current_proposal(catalogue, asset)
    usable, num_given = _usable_clicks(catalogue, asset, source)

    def make() -> Proposal:
        mesh = load_asset_mesh(store, asset)
        encoding = encoding_for(asset, mesh, store=store, catalogue=catalogue, segmenter=segmenter)
        shown = load_proposal(store, source)
        aside = shown.provenance.get("not_object_part")
        clicks = [to_click(row) for row in usable]
        refined = segmenter.refine(
            mesh, encoding, shown.face_labels, clicks, seed=model.seed, not_object_part=aside
        )
        added = _lineage(source, len(usable), num_given, segmenter.bundle.sha256)
        return replace(refined, provenance={**added, **refined.provenance})

    round_ = asset.round + 1
    recipe = _recipe(source, usable, segmenter.bundle.sha256, model.seed)
    key = keys.proposal(asset_id, round_, digest_of(recipe))
    row = stored_proposal(key, make, store=store, asset_id=asset_id, round_=round_)
    with catalogue.transaction():
        moved = catalogue.move(asset_id, AssetState.PROPOSED, worker=worker, round=round_)
        catalogue.add_proposal(row)
    seconds = time.perf_counter() - begin
    log.info(
        "stage=refine asset=%s round=%d clicks=%d parts=%d seconds=%.2f",
        *(asset_id[:12], round_, len(usable), row.num_parts, seconds),
    )
    return StageResult(asset_id, "refine", moved.state, True, key, row.sha256, seconds)


def to_click(row: ClickRow) -> Click:
    """Turn a stored click into the model's."""
    return Click(
        face=row.face,
        xyz=np.array([row.x, row.y, row.z], np.float64),
        kind=ClickKind(row.kind),
        part=row.part,
        group=row.group,
        is_positive=row.is_positive,
    )


def _usable_clicks(
    catalogue: Catalogue, asset: AssetRow, source: ProposalRow
) -> tuple[list[ClickRow], int]:
    """Clicks of the present round that fit the proposal, and how many were given."""
    rows = catalogue.reviews.clicks(asset.asset_id, asset.round)
    usable = [row for row in rows if _is_usable(row, asset, source)]
    if not usable:
        raise StageError(
            f"none of {len(rows)} clicks of round {asset.round} can be used; ask the reviewer again"
        )
    return usable, len(rows)


def _is_usable(row: ClickRow, asset: AssetRow, source: ProposalRow) -> bool:
    if not 0 <= row.face < asset.num_faces:
        return False
    return row.kind != ClickKind.BELONGS or 0 <= row.part < source.num_parts


def _lineage(source: ProposalRow, num_used: int, num_given: int, checkpoint: str) -> dict[str, Any]:
    return {
        "parent": {"key": source.key, "sha256": source.sha256, "round": source.round},
        "num_clicks": num_used,
        "num_clicks_dropped": num_given - num_used,
        "num_draws": source.provenance.get("num_draws", 0),
        "checkpoint": checkpoint,
    }


def _recipe(
    source: ProposalRow, rows: list[ClickRow], checkpoint: str, seed: int
) -> dict[str, Any]:
    said = [
        [row.face, row.x, row.y, row.z, row.kind, row.part, row.group, row.is_positive]
        for row in rows
    ]
    return {"parent": source.sha256, "checkpoint": checkpoint, "seed": seed, "clicks": said}
