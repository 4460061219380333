"""What a reviewer's words do to a proposal, one round at a time: merges, splits, clicks, names.

Pure: everything comes in as values, so that a round can be computed again from the catalogue's log
and must give the same. Names, categories and colours follow their part through every change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segvigen_model.partition.edits import Edits, merged_ids, settle_ids
from segvigen_model.partition.hierarchy import carried_groups, carried_levels
from segvigen_model.surface.geometry import surface_of
from segvigen_model.types import (
    AssetMesh,
    Click,
    FloatArray,
    IntArray,
    PartTable,
    Proposal,
    RefinementState,
)
from tasks.catalogue import VerbRow
from tasks.labelling.edit_commands import Verb, VerbKind
from tasks.labelling.part_colors import spread_slots
from tasks.labelling.segmenter import Session

PART_EDITS = "part_edits"  # labels_source of a round that needed no model
# Provenance that later rounds do not inherit.
OF_ONE_ROUND = ("third_look", "parent", "num_clicks", "num_clicks_dropped", "num_verbs")


@dataclass(frozen=True, slots=True)
class Said:
    """Everything usable that was said of one round's proposal.

    Attributes:
        clicks: in the order made.
        verbs: in the order written.
    """

    clicks: tuple[Click, ...] = ()
    verbs: tuple[VerbRow, ...] = ()

    @property
    def needs_model(self) -> bool:
        """Merges, names and categories are exact; clicks and splits ask the model."""
        return bool(self.clicks) or any(verb.kind == VerbKind.SPLIT for verb in self.verbs)

    @property
    def edits(self) -> Edits:
        """Merges and splits."""
        return edits_of(self.verbs)


def edits_of(verbs: Sequence[VerbRow | Verb]) -> Edits:
    """The merges and splits among verbs, in the order written."""
    return Edits(
        tuple(verb.parts for verb in verbs if verb.kind == VerbKind.MERGE),
        tuple((verb.parts[0], verb.count) for verb in verbs if verb.kind == VerbKind.SPLIT),
    )


def is_verb_usable(verb: VerbRow, num_parts: int) -> bool:
    """Does a stored verb name only parts that the proposal has?"""
    return bool(verb.parts) and all(0 <= part < num_parts for part in verb.parts)


def next_proposal(
    shown: Proposal,
    said: Said,
    mesh: AssetMesh,
    *,
    session: Session | None,
    seed: int,
) -> Proposal:
    """The next round's proposal: merges on the shown labels, then splits, then clicks.

    Args:
        shown: what the reviewer saw.
        said: what they said of it.
        mesh: the asset.
        session: the asset, opened with the model; None only when no model is needed.
        seed: of the model's draws.
    """
    areas = surface_of(mesh).areas
    if not said.needs_model:
        return edited_proposal(shown, said.verbs, areas)
    if session is None:
        raise ValueError("clicks and splits need the asset opened with a model; give a session")
    refined = session.refine(shown, list(said.clicks), seed=seed, edits=said.edits)
    id_map = refined.refinement.id_map
    parts = _carry_parts(shown, said.verbs, id_map, refined.num_parts)
    slots = spread_slots(mesh, refined.face_labels, parts.color_slots)
    changed = replace(refined, parts=replace(parts, color_slots=tuple(slots)))
    return _with_levels(changed, shown, said.edits, areas)


def edited_proposal(shown: Proposal, verbs: Sequence[VerbRow], areas: FloatArray) -> Proposal:
    """Carry out merges, names and categories, which need no model; other verbs are left out.

    Args:
        shown: what the reviewer saw.
        verbs: in the order written.
        areas: (F,) face areas.
    """
    merges = tuple(verb.parts for verb in verbs if verb.kind == VerbKind.MERGE)
    home = merged_ids(shown.num_parts, merges)
    table = np.array([home[part] for part in range(shown.num_parts)], np.int64)
    face_labels, settled = settle_ids(table[shown.face_labels])
    id_map = {old: settled[at] for old, at in home.items()}
    table = np.array([id_map[part] for part in range(shown.num_parts)], np.int32)
    confidence = _joined_confidence(shown, table)
    shares = np.bincount(face_labels, areas + 1e-30)
    before = shown.refinement
    aside = before.background_part
    edited = replace(
        shown,
        face_labels=face_labels,
        voxel_labels=table[shown.voxel_labels],
        part_confidence=confidence,
        confidence=float(np.average(confidence, weights=shares)) if merges else shown.confidence,
        parts=_carry_parts(shown, verbs, id_map, len(confidence)),
        refinement=RefinementState(
            anchor_faces=before.anchor_faces,
            background_part=id_map[aside] if aside is not None and home[aside] == aside else None,
            id_map=dict(sorted(id_map.items())),
        ),
        provenance=_record_of_edits(shown, has_merges=bool(merges)),
    )
    return _with_levels(edited, shown, Edits(merges), areas)


def _record_of_edits(shown: Proposal, *, has_merges: bool) -> dict[str, Any]:
    """Provenance of a round without a model: that of the round before, but for its own facts."""
    kept = {key: value for key, value in shown.provenance.items() if key not in OF_ONE_ROUND}
    return {**kept, "labels_source": PART_EDITS} if has_merges else kept


def _joined_confidence(shown: Proposal, table: IntArray) -> FloatArray:
    """(P,) float32: a merged part is a person's word, the others stay as sure as they were."""
    members = np.bincount(table)
    confidence = np.ones(len(members), np.float32)
    is_alone = members[table] == 1
    confidence[table[is_alone]] = shown.part_confidence[is_alone]
    return confidence


def _carry_parts(
    shown: Proposal, verbs: Sequence[VerbRow], id_map: Mapping[int, int], num_parts: int
) -> PartTable:
    """Names, categories and colour slots of the new parts; slot -1 = not chosen yet."""
    home = merged_ids(shown.num_parts, [v.parts for v in verbs if v.kind == VerbKind.MERGE])
    # What a part was merged into speaks for it, so it is written last.
    order = sorted(range(shown.num_parts), key=lambda part: (home[part] == part, -part))
    names, categories, slots = [""] * num_parts, [""] * num_parts, [-1] * num_parts
    for part in (part for part in order if part in id_map):
        now = id_map[part]
        names[now] = shown.parts.names[part] or names[now]
        categories[now] = shown.parts.categories[part] or categories[now]
        if shown.parts.color_slots[part] >= 0:
            slots[now] = shown.parts.color_slots[part]
    columns = {VerbKind.NAME: names, VerbKind.CATEGORY: categories}
    for verb in sorted(verbs, key=lambda each: home[each.parts[0]] == each.parts[0]):
        if verb.kind in columns and verb.parts[0] in id_map:
            columns[VerbKind(verb.kind)][id_map[verb.parts[0]]] = verb.text
    return PartTable(tuple(names), tuple(categories), tuple(slots))


def _with_levels(new: Proposal, shown: Proposal, edits: Edits, areas: FloatArray) -> Proposal:
    """Carry the levels on; parts that were merged stay as the next finer level."""
    finer = [] if shown.finer is None else list(shown.finer)
    if edits.merges:
        finer.insert(0, shown.face_labels)
    groups = None
    if shown.groups is not None:
        groups = carried_groups(shown.groups[shown.face_labels], new.face_labels, areas)
    return replace(new, finer=carried_levels(new.face_labels, finer, areas), groups=groups)
