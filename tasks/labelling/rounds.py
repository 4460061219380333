"""What a reviewer's words do to a proposal, one round at a time: merges, splits, clicks, names.

Pure: everything comes in as values, so that a round can be computed again from the catalogue's log
and must give the same. Names, categories and colours follow their part through every change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segvigen_model.partition.edits import Edits, compact_ids, compute_merged_ids
from segvigen_model.partition.hierarchy import carry_groups, carry_levels
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import (
    AssetMesh,
    Click,
    FloatArray,
    IntArray,
    PartTable,
    Proposal,
    RefinementState,
)
from tasks.catalogue import EditCommandRow
from tasks.labelling.edit_commands import EditCommand, EditCommandKind
from tasks.labelling.part_colors import spread_slots
from tasks.labelling.segmenter import Session

PART_EDITS = "part_edits"  # labels_source of a round that needed no model
# Provenance that later rounds do not inherit; the last two are keys of version 0.1.0.
OF_ONE_ROUND = (
    *("third_review", "parent", "num_clicks", "num_clicks_dropped", "num_commands"),
    *("third_look", "num_verbs"),
)


@dataclass(frozen=True, slots=True)
class ReviewerInstructions:
    """All usable instructions for one round's proposal.

    Attributes:
        clicks: in the order made.
        commands: in the order written.
    """

    clicks: tuple[Click, ...] = ()
    commands: tuple[EditCommandRow, ...] = ()

    @property
    def needs_model(self) -> bool:
        """Merges, names and categories are exact; clicks and splits ask the model."""
        return bool(self.clicks) or any(
            command.kind == EditCommandKind.SPLIT for command in self.commands
        )

    @property
    def edits(self) -> Edits:
        """Merges and splits."""
        return collect_edits(self.commands)


def collect_edits(commands: Sequence[EditCommandRow | EditCommand]) -> Edits:
    """The merges and splits among commands, in the order written."""
    return Edits(
        tuple(command.parts for command in commands if command.kind == EditCommandKind.MERGE),
        tuple(
            (command.parts[0], command.count)
            for command in commands
            if command.kind == EditCommandKind.SPLIT
        ),
    )


def is_command_usable(command: EditCommandRow, num_parts: int) -> bool:
    """Does a stored command name only parts that the proposal has?"""
    return bool(command.parts) and all(0 <= part < num_parts for part in command.parts)


def make_next_proposal(
    shown: Proposal,
    instructions: ReviewerInstructions,
    mesh: AssetMesh,
    *,
    session: Session | None,
    seed: int,
) -> Proposal:
    """The next round's proposal: merges on the shown labels, then splits, then clicks.

    Args:
        shown: what the reviewer saw.
        instructions: of the reviewers.
        mesh: the asset.
        session: the asset, opened with the model; None only when no model is needed.
        seed: of the model's draws.
    """
    areas = measure_surface(mesh).areas
    if not instructions.needs_model:
        return apply_exact_edits(shown, instructions.commands, areas)
    if session is None:
        raise ValueError("clicks and splits need the asset opened with a model; give a session")
    refined = session.refine(shown, list(instructions.clicks), seed=seed, edits=instructions.edits)
    id_map = refined.refinement.id_map
    parts = _carry_parts(shown, instructions.commands, id_map, refined.num_parts)
    slots = spread_slots(mesh, refined.face_labels, parts.color_slots)
    changed = replace(refined, parts=replace(parts, color_slots=tuple(slots)))
    return _add_levels(changed, shown, instructions.edits, areas)


def apply_exact_edits(
    shown: Proposal, commands: Sequence[EditCommandRow], areas: FloatArray
) -> Proposal:
    """Carry out merges, names and categories, which need no model; other commands are left out.

    Args:
        shown: what the reviewer saw.
        commands: in the order written.
        areas: (F,) face areas.
    """
    merges = tuple(command.parts for command in commands if command.kind == EditCommandKind.MERGE)
    merged_into = compute_merged_ids(shown.num_parts, merges)
    table = np.array([merged_into[part] for part in range(shown.num_parts)], np.int64)
    face_labels, compacted = compact_ids(table[shown.face_labels])
    id_map = {old: compacted[at] for old, at in merged_into.items()}
    table = np.array([id_map[part] for part in range(shown.num_parts)], np.int32)
    confidence = _merge_confidence(shown, table)
    shares = np.bincount(face_labels, areas + 1e-30)
    before = shown.refinement
    background_part = before.background_part
    edited = replace(
        shown,
        face_labels=face_labels,
        voxel_labels=table[shown.voxel_labels],
        part_confidence=confidence,
        confidence=float(np.average(confidence, weights=shares)) if merges else shown.confidence,
        parts=_carry_parts(shown, commands, id_map, len(confidence)),
        refinement=RefinementState(
            anchor_faces=before.anchor_faces,
            background_part=id_map[background_part]
            if background_part is not None and merged_into[background_part] == background_part
            else None,
            id_map=dict(sorted(id_map.items())),
        ),
        provenance=_record_of_edits(shown, has_merges=bool(merges)),
    )
    return _add_levels(edited, shown, Edits(merges), areas)


def _record_of_edits(shown: Proposal, *, has_merges: bool) -> dict[str, Any]:
    """Provenance of a round without a model: that of the round before, but for its own facts."""
    kept = {key: value for key, value in shown.provenance.items() if key not in OF_ONE_ROUND}
    return {**kept, "labels_source": PART_EDITS} if has_merges else kept


def _merge_confidence(shown: Proposal, table: IntArray) -> FloatArray:
    """(P,) float32: a merged part is a person's word, the others stay as sure as they were."""
    members = np.bincount(table)
    confidence = np.ones(len(members), np.float32)
    is_alone = members[table] == 1
    confidence[table[is_alone]] = shown.part_confidence[is_alone]
    return confidence


def _carry_parts(
    shown: Proposal, commands: Sequence[EditCommandRow], id_map: Mapping[int, int], num_parts: int
) -> PartTable:
    """Names, categories and colour slots of the new parts; slot -1 = not chosen yet."""
    merged_into = compute_merged_ids(
        shown.num_parts, [v.parts for v in commands if v.kind == EditCommandKind.MERGE]
    )
    # What a part was merged into speaks for it, so it is written last.
    order = sorted(range(shown.num_parts), key=lambda part: (merged_into[part] == part, -part))
    names, categories, slots = [""] * num_parts, [""] * num_parts, [-1] * num_parts
    for part in (part for part in order if part in id_map):
        now = id_map[part]
        names[now] = shown.parts.names[part] or names[now]
        categories[now] = shown.parts.categories[part] or categories[now]
        if shown.parts.color_slots[part] >= 0:
            slots[now] = shown.parts.color_slots[part]
    columns = {EditCommandKind.NAME: names, EditCommandKind.CATEGORY: categories}
    for command in sorted(commands, key=lambda each: merged_into[each.parts[0]] == each.parts[0]):
        if command.kind in columns and command.parts[0] in id_map:
            columns[EditCommandKind(command.kind)][id_map[command.parts[0]]] = command.text
    return PartTable(tuple(names), tuple(categories), tuple(slots))


def _add_levels(new: Proposal, shown: Proposal, edits: Edits, areas: FloatArray) -> Proposal:
    """Carry the levels on; parts that were merged stay as the next finer level."""
    finer = [] if shown.finer is None else list(shown.finer)
    if edits.merges:
        finer.insert(0, shown.face_labels)
    groups = None
    if shown.groups is not None:
        groups = carry_groups(shown.groups[shown.face_labels], new.face_labels, areas)
    return replace(new, finer=carry_levels(new.face_labels, finer, areas), groups=groups)
