"""Refine: a reviewer's instructions for one round become the next round's proposal.

Merges, names and categories alone need no model and no encoding. Labels are a replay of the log:
`replay_labels` makes the accepted ones again from the first proposal and the log of instructions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from segvigen_model.config import ALGORITHM_VERSION
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import Click, ClickKind, Proposal
from tasks.catalogue import AssetRow, AssetState, Catalogue, ClickRow, ProposalRow
from tasks.errors import StageError
from tasks.labelling.label_history import list_accepting_commands
from tasks.labelling.lineage import PARENT, lineage_of
from tasks.labelling.loading import get_current_proposal, load_asset_mesh, load_proposal
from tasks.labelling.proposals import hash_recipe, load_or_make_proposal
from tasks.labelling.rounds import (
    ReviewerInstructions,
    apply_exact_edits,
    is_command_usable,
    make_next_proposal,
)
from tasks.labelling.segmenter import Segmenter
from tasks.stages.encode import open_session
from tasks.stages.runner import StageResult, make_not_needed_result
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
    store, catalogue = workspace.store, workspace.catalogue
    asset = catalogue.get_asset(asset_id)
    annotation_versions = _list_annotation_versions(catalogue, asset)
    if asset.state is not AssetState.REFINING:
        return make_not_needed_result("refine", catalogue, asset_id)
    if not all(is_interpreted for *_, is_interpreted in annotation_versions):
        return StageResult(asset_id, "refine", asset.state, False, note=CHANGED)
    instructions, key, make = plan_next_proposal(workspace, asset, segmenter)
    round_ = asset.round + 1
    row = load_or_make_proposal(key, make, store=store, asset_id=asset_id, round_=round_)
    result = _record_round(workspace, row, asset, annotation_versions)
    if not result.is_done:
        return result
    seconds = time.perf_counter() - begin
    counts = (len(instructions.clicks), len(instructions.commands), row.num_parts)
    log.info(
        "stage=refine asset=%s round=%d clicks=%d commands=%d parts=%d seconds=%.2f",
        *(asset_id[:12], round_, *counts, seconds),
    )
    return replace(result, seconds=seconds)


def plan_next_proposal(
    workspace: Workspace, asset: AssetRow, segmenter: Segmenter
) -> tuple[ReviewerInstructions, str, Callable[[], Proposal]]:
    """What the reviewers said of an asset's round, the next proposal's key, and how to make it."""
    store, catalogue, seed = workspace.store, workspace.catalogue, workspace.settings.model.seed
    source = get_current_proposal(catalogue, asset)
    instructions, num_given = _collect_instructions(catalogue, asset, source)

    def make() -> Proposal:
        shown = load_proposal(store, source)
        mesh = load_asset_mesh(store, asset)
        session = None
        if instructions.needs_model:
            session = open_session(workspace, asset, mesh, segmenter)
        made = make_next_proposal(shown, instructions, mesh, session=session, seed=seed)
        record = {**_provenance(source, instructions, num_given), "num_draws": made.num_draws}
        record = {**record, **made.provenance, "seed": seed}
        checkpoint = made.checkpoint or source.checkpoint
        return replace(made, checkpoint=checkpoint, provenance=record)

    maker = segmenter.identity if instructions.needs_model else _without_model(source)
    recipe = hash_recipe(_build_recipe(source, instructions, maker, seed))
    return instructions, keys.make_proposal_key(asset.asset_id, asset.round + 1, recipe), make


def make_click(row: ClickRow) -> Click:
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
    asset = catalogue.get_asset(asset_id)
    held = catalogue.labels.get_latest(asset_id)
    rows = [row for row in catalogue.list_proposals(asset_id) if row.round <= asset.round]
    if held is None or not rows:
        raise StageError(f"asset {asset_id[:12]} has no label set to replay; review it first")
    mesh = load_asset_mesh(store, asset)
    session = open_session(workspace, asset, mesh, segmenter)
    proposal = load_proposal(store, rows[0])
    for before, after in pairwise(rows):
        lineage = lineage_of(after)
        if not lineage.is_refined:  # shown again as accepted, for a third review
            then = replace(asset, round=before.round)
            commands = list_accepting_commands(catalogue, then, proposal.num_parts)
            if commands:
                proposal = apply_exact_edits(proposal, commands, measure_surface(mesh).areas)
            continue
        instructions, _ = _collect_instructions(
            catalogue, replace(asset, round=before.round), before
        )
        proposal = make_next_proposal(
            proposal,
            instructions,
            mesh,
            session=session,
            seed=lineage.seed,
        )
    commands = list_accepting_commands(catalogue, asset, proposal.num_parts)
    return (
        apply_exact_edits(proposal, commands, measure_surface(mesh).areas) if commands else proposal
    )


def _record_round(
    workspace: Workspace,
    row: ProposalRow,
    asset: AssetRow,
    annotation_versions: list[tuple[str, str, bool]],
) -> StageResult:
    """Record the next round, unless its asset or its annotations have changed."""
    catalogue, asset_id = workspace.catalogue, asset.asset_id
    with catalogue.transaction():
        now = catalogue.lock_asset(asset_id)
        if (now.state, now.round) != (asset.state, asset.round):
            return make_not_needed_result("refine", catalogue, asset_id)
        made = (row.key, row.sha256)
        if _list_annotation_versions(catalogue, asset) != annotation_versions:
            return StageResult(asset_id, "refine", now.state, False, *made, note=CHANGED)
        worker = workspace.worker
        moved = catalogue.move(asset_id, AssetState.PROPOSED, worker=worker, round=row.round)
        catalogue.add_proposal(row)
    return StageResult(asset_id, "refine", moved.state, True, *made)


def _list_annotation_versions(catalogue: Catalogue, asset: AssetRow) -> list[tuple[str, str, bool]]:
    """The versions of the present round's answers, and whether each is interpreted."""
    annotations = catalogue.reviews.list_annotations(asset.asset_id, asset.round)
    return [
        (row.unique_id, row.updated_at, row.is_interpreted)
        for row in annotations
        if not row.is_late
    ]


def _collect_instructions(
    catalogue: Catalogue, asset: AssetRow, source: ProposalRow
) -> tuple[ReviewerInstructions, int]:
    """Instructions for the current round that fit the proposal, and the number of clicks given."""
    rows = catalogue.reviews.list_clicks(asset.asset_id, asset.round)
    clicks = [make_click(row) for row in rows if _is_usable(row, asset, source)]
    given = catalogue.reviews.list_edit_commands(asset.asset_id, asset.round)
    commands = [command for command in given if is_command_usable(command, source.num_parts)]
    if not clicks and not commands:
        raise StageError(
            f"none of {len(rows)} clicks and {len(given)} verbs of round {asset.round} can be "
            "used; ask the reviewer again"
        )
    return ReviewerInstructions(tuple(clicks), tuple(commands)), len(rows)


def _is_usable(row: ClickRow, asset: AssetRow, source: ProposalRow) -> bool:
    if not 0 <= row.face < asset.num_faces:
        return False
    return row.kind != ClickKind.BELONGS or 0 <= row.part < source.num_parts


def _provenance(
    source: ProposalRow, message: ReviewerInstructions, num_given: int
) -> dict[str, Any]:
    return {
        PARENT: {"key": source.key, "sha256": source.sha256, "round": source.round},
        "num_clicks": len(message.clicks),
        "num_clicks_dropped": num_given - len(message.clicks),
        "num_commands": len(message.commands),
        "checkpoint": source.checkpoint,
    }


def _without_model(source: ProposalRow) -> dict[str, str | int]:
    """What a round without the model depends on, besides its source and its instructions."""
    return {"checkpoint": source.checkpoint, "algorithm": ALGORITHM_VERSION}


def _build_recipe(
    source: ProposalRow,
    instructions: ReviewerInstructions,
    maker: Mapping[str, str | int],
    seed: int,
) -> dict[str, Any]:
    clicks = [
        [
            *(click.face, *(float(value) for value in click.xyz), str(click.kind)),
            *(click.part, click.group, click.is_positive),
        ]
        for click in instructions.clicks
    ]
    commands = [
        [command.kind, list(command.parts), command.text, command.count]
        for command in instructions.commands
    ]
    # This key stays: the keys of stored proposals are hashed from it.
    added = {"verbs": commands} if commands else {}
    made_of = {"parent": source.sha256, **maker, "seed": seed, "clicks": clicks}
    return {**made_of, **added}
