"""Propose: K draws of the model become one partition with a confidence, the round 0 proposal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from segvigen_model.types import Proposal
from tasks.catalogue import AssetRow, AssetState
from tasks.labelling.loading import load_asset_mesh
from tasks.labelling.part_colors import spread_slots
from tasks.labelling.proposals import hash_recipe, load_or_make_proposal
from tasks.labelling.segmenter import Segmenter
from tasks.stages.encode import open_session
from tasks.stages.runner import StageResult, make_not_needed_result
from tasks.storage import keys
from tasks.workspace import Workspace

log = logging.getLogger(__name__)


def propose_asset(workspace: Workspace, asset_id: str, segmenter: Segmenter) -> StageResult:
    """Make the first proposal of one encoded asset and move it to proposed; idempotent.

    The asset is leased, if the workspace has a worker.
    """
    begin = time.perf_counter()
    store, catalogue = workspace.store, workspace.catalogue
    asset = catalogue.get_asset(asset_id)
    if asset.state is not AssetState.ENCODED:
        return make_not_needed_result("propose", catalogue, asset_id)
    key, make = plan_first_proposal(workspace, asset, segmenter)
    row = load_or_make_proposal(key, make, store=store, asset_id=asset_id, round_=0)
    with catalogue.transaction():
        moved = catalogue.move(asset_id, AssetState.PROPOSED, worker=workspace.worker, round=0)
        catalogue.add_proposal(row)
    seconds = time.perf_counter() - begin
    log.info(
        "stage=propose asset=%s parts=%d confidence=%.3f seconds=%.2f",
        *(asset_id[:12], row.num_parts, row.confidence, seconds),
    )
    return StageResult(asset_id, "propose", moved.state, True, key, row.sha256, seconds)


def plan_first_proposal(
    workspace: Workspace, asset: AssetRow, segmenter: Segmenter
) -> tuple[str, Callable[[], Proposal]]:
    """Key of an asset's first proposal by a model, and how to make it."""
    settings, asset_id = workspace.settings.model, asset.asset_id
    how = settings.model_dump(include={"num_draws", "num_steps", "granularity", "seed"})
    recipe = {"asset": asset_id, **segmenter.identity, **how}

    def make() -> Proposal:
        mesh = load_asset_mesh(workspace.store, asset)
        session = open_session(workspace, asset, mesh, segmenter)
        proposal = session.propose(**how)
        slots = spread_slots(mesh, proposal.face_labels, [-1] * proposal.num_parts)
        return replace(
            proposal,
            parts=replace(proposal.parts, color_slots=tuple(slots)),
            provenance={**recipe, **proposal.provenance},
        )

    return keys.make_proposal_key(asset_id, 0, hash_recipe(recipe)), make
