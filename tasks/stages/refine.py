"""Refine: what the reviewer said of one round becomes the next round's proposal.

Merges, names and categories alone need no model and no encoding. Labels are a replay of the log:
`replay_labels` makes the accepted ones again from the first proposal and what was said since.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from segvigen_model.config import ALGORITHM_VERSION
from segvigen_model.surface.geometry import surface_of
from segvigen_model.types import Click, ClickKind, Proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue, ClickRow, ProposalRow
from tasks.errors import StageError
from tasks.labelling.label_sets import accepting_verbs
from tasks.labelling.lineage import PARENT, lineage_of
from tasks.labelling.loading import current_proposal, load_asset_mesh, load_proposal
from tasks.labelling.proposals import digest_of, stored_proposal
from tasks.labelling.rounds import Said, edited_proposal, is_verb_usable, next_proposal
from tasks.labelling.segmenter import Segmenter
from tasks.stages.encode import open_session
from tasks.stages.runner import StageResult, not_needed
from tasks.storage import keys
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

CHANGED = "an answer was changed meanwhile; refined with the next run"


def refine_asset(workspace: Workspace, asset_id: str, segmenter: Segmenter) -> StageResult:
    """Refine one asset in state refining; it is then proposed again, one round later.

    An answer that is changed meanwhile leaves the asset where it is, for the next run. The asset is
    leased, if the workspace has a worker.
    """
    begin = time.perf_counter()
    store, catalogue, seed = workspace.store, workspace.catalogue, workspace.settings.model.seed
    asset = catalogue.asset(asset_id)
    heard = _heard(catalogue, asset)
    if asset.state is not AssetState.REFINING:
        return not_needed("refine", catalogue, asset_id)
    if not all(is_interpreted for *_, is_interpreted in heard):
        return StageResult(asset_id, "refine", asset.state, False, note=CHANGED)
    source = current_proposal(catalogue, asset)
    said, num_given = _usable(catalogue, asset, source)

    def make() -> Proposal:
        shown = load_proposal(store, source)
        mesh = load_asset_mesh(store, asset)
        session = None
        if said.needs_model:
            session = open_session(workspace, asset, mesh, segmenter)
        made = next_proposal(shown, said, mesh, session=session, seed=seed)
        return replace(
            made,
            checkpoint=made.checkpoint or source.checkpoint,
            provenance={
                **_provenance(source, said, num_given),
                "num_draws": made.num_draws,
                **made.provenance,
                "seed": seed,
            },
        )

    round_ = asset.round + 1
    maker = segmenter.identity if said.needs_model else _without_model(source)
    key = keys.proposal(asset_id, round_, digest_of(_recipe(source, said, maker, seed)))
    row = stored_proposal(key, make, store=store, asset_id=asset_id, round_=round_)
    result = _record(workspace, row, asset, heard)
    if not result.is_done:
        return result
    seconds = time.perf_counter() - begin
    log.info(
        "stage=refine asset=%s round=%d clicks=%d verbs=%d parts=%d seconds=%.2f",
        *(asset_id[:12], round_, len(said.clicks), len(said.verbs), row.num_parts, seconds),
    )
    return replace(result, seconds=seconds)


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


def replay_labels(workspace: Workspace, asset_id: str, segmenter: Segmenter) -> Proposal:
    """Make an asset's accepted labels again from its first proposal and the log.

    Args:
        workspace: first proposal, mesh and encoding; its catalogue has the log.
        asset_id: with a label set.
        segmenter: the model that made the rounds; another one gives other labels.

    Returns:
        The final partition, with names, categories and levels.
    """
    store, catalogue = workspace.store, workspace.catalogue
    asset = catalogue.asset(asset_id)
    held = catalogue.labels.latest(asset_id)
    rows = [row for row in catalogue.proposals(asset_id) if row.round <= asset.round]
    if held is None or not rows:
        raise StageError(f"asset {asset_id[:12]} has no label set to replay; review it first")
    mesh = load_asset_mesh(store, asset)
    session = open_session(workspace, asset, mesh, segmenter)
    proposal = load_proposal(store, rows[0])
    for before, after in pairwise(rows):
        lineage = lineage_of(after)
        if not lineage.is_refined:  # shown again as accepted, for a third look
            then = replace(asset, round=before.round)
            verbs = accepting_verbs(catalogue, then, proposal.num_parts)
            if verbs:
                proposal = edited_proposal(proposal, verbs, surface_of(mesh).areas)
            continue
        said, _ = _usable(catalogue, replace(asset, round=before.round), before)
        proposal = next_proposal(
            proposal,
            said,
            mesh,
            session=session,
            seed=lineage.seed,
        )
    verbs = accepting_verbs(catalogue, asset, proposal.num_parts)
    return edited_proposal(proposal, verbs, surface_of(mesh).areas) if verbs else proposal


def _record(
    workspace: Workspace, row: ProposalRow, asset: AssetRow, heard: list[tuple[str, str, bool]]
) -> StageResult:
    """Make the next round count, unless its asset or what was said of it has changed."""
    catalogue, asset_id = workspace.catalogue, asset.asset_id
    with catalogue.transaction():
        now = catalogue.locked(asset_id)
        if (now.state, now.round) != (asset.state, asset.round):
            return not_needed("refine", catalogue, asset_id)
        made = (row.key, row.sha256)
        if _heard(catalogue, asset) != heard:
            return StageResult(asset_id, "refine", now.state, False, *made, note=CHANGED)
        worker = workspace.worker
        moved = catalogue.move(asset_id, AssetState.PROPOSED, worker=worker, round=row.round)
        catalogue.add_proposal(row)
    return StageResult(asset_id, "refine", moved.state, True, *made)


def _heard(catalogue: Catalogue, asset: AssetRow) -> list[tuple[str, str, bool]]:
    """The versions of the present round's answers, and whether each is interpreted."""
    answers = catalogue.reviews.annotations(asset.asset_id, asset.round)
    return [
        (row.unique_id, row.updated_at, row.is_interpreted) for row in answers if not row.is_late
    ]


def _usable(catalogue: Catalogue, asset: AssetRow, source: ProposalRow) -> tuple[Said, int]:
    """What was said of the present round and fits the proposal, and how many clicks there were."""
    rows = catalogue.reviews.clicks(asset.asset_id, asset.round)
    clicks = [to_click(row) for row in rows if _is_usable(row, asset, source)]
    given = catalogue.reviews.verbs(asset.asset_id, asset.round)
    verbs = [verb for verb in given if is_verb_usable(verb, source.num_parts)]
    if not clicks and not verbs:
        raise StageError(
            f"none of {len(rows)} clicks and {len(given)} verbs of round {asset.round} can be "
            "used; ask the reviewer again"
        )
    return Said(tuple(clicks), tuple(verbs)), len(rows)


def _is_usable(row: ClickRow, asset: AssetRow, source: ProposalRow) -> bool:
    if not 0 <= row.face < asset.num_faces:
        return False
    return row.kind != ClickKind.BELONGS or 0 <= row.part < source.num_parts


def _provenance(source: ProposalRow, said: Said, num_given: int) -> dict[str, Any]:
    return {
        PARENT: {"key": source.key, "sha256": source.sha256, "round": source.round},
        "num_clicks": len(said.clicks),
        "num_clicks_dropped": num_given - len(said.clicks),
        "num_verbs": len(said.verbs),
        "checkpoint": source.checkpoint,
    }


def _without_model(source: ProposalRow) -> dict[str, str | int]:
    """What a round depends on that needs no model, besides its source and what was said."""
    return {"checkpoint": source.checkpoint, "algorithm": ALGORITHM_VERSION}


def _recipe(
    source: ProposalRow, said: Said, maker: Mapping[str, str | int], seed: int
) -> dict[str, Any]:
    clicks = [
        [
            *(click.face, *(float(value) for value in click.xyz), str(click.kind)),
            *(click.part, click.group, click.is_positive),
        ]
        for click in said.clicks
    ]
    verbs = [[verb.kind, list(verb.parts), verb.text, verb.count] for verb in said.verbs]
    added = {"verbs": verbs} if verbs else {}
    made_of = {"parent": source.sha256, **maker, "seed": seed, "clicks": clicks}
    return {**made_of, **added}
