"""Ledger of quality control: copies of assets, and the findings of comparisons.

A *copy* is an asset row of its own that only quality control knows to be one: it goes through
review like any other and is therefore as safe under kills, but it never enters a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from tasks.catalogue.database import Database
from tasks.catalogue.mapping import table_of
from tasks.catalogue.quality_rows import (
    CopyRole,
    CopyRow,
    FindingKind,
    FindingRow,
    GateRow,
    GoldLabelRow,
    WaitingRow,
)
from tasks.catalogue.rows import AnnotationRow, AssetRow, ClickRow, LabelSetRow, ProposalRow
from tasks.catalogue.states import AssetState


class QualityLedger:
    """Decisions, copies and findings."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # --- the gate

    def add_decision(self, decision: GateRow) -> None:
        """Record the gate's word; a new word on the same round replaces it."""
        reasons = list(decision.rejection_reasons)
        with self._db.begin():
            row = replace(decision, rejection_reasons=reasons, created_at=self._db.clock())
            self._db.upsert(row)
            event_detail = {
                "accepted": row.is_accepted,
                "audited": row.is_audited,
                "rejection_reasons": row.rejection_reasons,
            }
            self._db.add_event("gated", row.asset_id, event_detail)

    def get_decision(self, asset_id: str, round: int) -> GateRow | None:
        """The gate's word on one round, or None."""
        mine = (GateRow.asset_id == asset_id, GateRow.round == round)
        return self._db.load_first(sa.select(GateRow).where(*mine))

    def is_ungated(self, rules: str) -> sa.ColumnElement[bool]:
        """Condition for `Catalogue.claim`: the gate has not judged the round by these rules."""
        same = (
            GateRow.asset_id == AssetRow.asset_id,
            GateRow.round == AssetRow.round,
            GateRow.rules == rules,
        )
        return ~sa.exists(sa.select(GateRow.asset_id).where(*same))

    # --- copies

    def add_copy(self, copy: CopyRow) -> bool:
        """Record a copy; False when it is there already."""
        with self._db.begin():
            row = replace(copy, created_at=self._db.clock())
            if not self._db.insert(row):
                return False
            self._db.add_event("copy", row.asset_id, {"role": row.role, "of": row.of_asset})
        return True

    def get_copy(self, asset_id: str) -> CopyRow | None:
        """What an asset is a copy of, or None for one of the dataset."""
        return self._db.load_first(sa.select(CopyRow).where(CopyRow.asset_id == asset_id))

    def list_copies(self, role: CopyRole | None = None) -> list[CopyRow]:
        """All copies, or those of one role, oldest first."""
        query = sa.select(CopyRow).order_by(CopyRow.created_at, CopyRow.asset_id)
        if role is not None:
            query = query.where(CopyRow.role == str(role))
        return self._db.load(query)

    def list_copy_ids(self) -> frozenset[str]:
        """Ids of all copies: what no dataset may hold."""
        return frozenset(row["asset_id"] for row in self._db.mappings(sa.select(CopyRow.asset_id)))

    def get_double(self, asset_id: str) -> CopyRow | None:
        """The copy that another reviewer labels, or None."""
        is_double = (CopyRow.of_asset == asset_id, CopyRow.role == str(CopyRole.DOUBLE))
        return self._db.load_first(sa.select(CopyRow).where(*is_double))

    def list_open_doubles(self) -> list[CopyRow]:
        """Double annotations that are not compared yet, oldest first."""
        compared = sa.exists(
            sa.select(FindingRow.asset_id).where(
                FindingRow.asset_id == CopyRow.of_asset, FindingRow.kind == str(FindingKind.DOUBLE)
            )
        )
        query = sa.select(CopyRow).where(CopyRow.role == str(CopyRole.DOUBLE), ~compared)
        return self._db.load(query.order_by(CopyRow.created_at, CopyRow.asset_id))

    def is_held(self, asset_id: str) -> bool:
        """Must an accepted asset wait for its second reviewer?"""
        if self.get_double(asset_id) is None:
            return False
        return not self.list_findings(FindingKind.DOUBLE, asset_id)

    def count_held(self) -> int:
        """Assets in review that are accepted and only wait for their second reviewer."""
        later = aliased(AnnotationRow)
        is_accepted = (
            AnnotationRow.asset_id == AssetRow.asset_id,
            AnnotationRow.round == AssetRow.round,
            *_is_interpreted(AnnotationRow),
        )
        after = (
            later.asset_id == AnnotationRow.asset_id,
            later.round == AnnotationRow.round,
            *_is_interpreted(later),
        )
        is_last = ~sa.exists(
            sa.select(later.round).where(*after, later.updated_at > AnnotationRow.updated_at)
        )
        accepted = sa.select(AnnotationRow.round).where(
            *is_accepted, AnnotationRow.verdict == "accept", is_last
        )
        copied = sa.select(CopyRow.asset_id).where(
            CopyRow.of_asset == AssetRow.asset_id, CopyRow.role == str(CopyRole.DOUBLE)
        )
        compared = sa.select(FindingRow.asset_id).where(
            FindingRow.asset_id == AssetRow.asset_id, FindingRow.kind == str(FindingKind.DOUBLE)
        )
        query = sa.select(sa.func.count().label("number")).select_from(AssetRow)
        query = query.where(AssetRow.state == str(AssetState.IN_REVIEW), sa.exists(accepted))
        query = query.where(sa.exists(copied), ~sa.exists(compared))
        return int(self._db.mappings(query)[0]["number"])

    def count_dataset_assets(self) -> dict[AssetState, int]:
        """Number of assets in every state, copies left out."""
        # The copies are few: taking them off is cheaper than looking each asset up among them.
        number = sa.func.count().label("number")
        everything = sa.select(AssetRow.state, number).group_by(AssetRow.state)
        copies = sa.select(AssetRow.state, (-sa.func.count()).label("number"))
        copies = copies.join(CopyRow, CopyRow.asset_id == AssetRow.asset_id)
        both = everything.union_all(copies.group_by(AssetRow.state)).subquery()
        query = sa.select(both.c.state, sa.func.sum(both.c.number).label("number"))
        query = query.group_by(both.c.state)
        found = {row["state"]: int(row["number"]) for row in self._db.mappings(query)}
        return {state: found.get(state, 0) for state in AssetState}

    # --- known labels

    def add_gold(self, label_set: LabelSetRow) -> bool:
        """Take a label set as known to be right; False when it is marked already."""
        with self._db.begin():
            row = GoldLabelRow(label_set.label_id, label_set.asset_id, self._db.clock())
            if not self._db.insert(row):
                return False
            self._db.add_event("gold", label_set.asset_id, {"label_id": label_set.label_id})
        return True

    def list_gold(self) -> list[LabelSetRow]:
        """Label sets known to be right, by id."""
        is_gold = GoldLabelRow.label_id == LabelSetRow.label_id
        query = sa.select(LabelSetRow).join(GoldLabelRow, is_gold)
        return self._db.load(query.order_by(LabelSetRow.label_id))

    # --- findings

    def add_finding(self, finding: FindingRow) -> None:
        """Record a comparison; the same one again replaces it."""
        with self._db.begin():
            row = replace(finding, created_at=self._db.clock())
            self._db.upsert(row)
            event_detail = {
                "kind": row.kind,
                "iou": row.iou,
                "is_good": row.is_good,
                "note": row.note,
            }
            self._db.add_event("finding", row.asset_id, event_detail)

    def list_findings(
        self, kind: FindingKind | None = None, asset_id: str | None = None
    ) -> list[FindingRow]:
        """Comparisons, oldest first."""
        query = sa.select(FindingRow).order_by(
            FindingRow.created_at, FindingRow.asset_id, FindingRow.subject
        )
        if kind is not None:
            query = query.where(FindingRow.kind == str(kind))
        if asset_id is not None:
            query = query.where(FindingRow.asset_id == asset_id)
        return self._db.load(query)

    def list_last_findings(self, kind: FindingKind, limit: int) -> list[FindingRow]:
        """The newest comparisons of one kind, newest first."""
        query = sa.select(FindingRow).where(FindingRow.kind == str(kind)).limit(limit)
        query = query.order_by(
            FindingRow.created_at.desc(), FindingRow.asset_id, FindingRow.subject
        )
        return self._db.load(query)

    def list_uncompared(self, not_by: str) -> list[LabelSetRow]:
        """Label sets that were not compared yet, except those decided by `not_by`."""
        measured = sa.exists(
            sa.select(FindingRow.asset_id).where(FindingRow.subject == LabelSetRow.label_id)
        )
        seconds = (CopyRow.asset_id == LabelSetRow.asset_id, CopyRow.role == str(CopyRole.DOUBLE))
        is_second = sa.exists(sa.select(CopyRow.asset_id).where(*seconds))
        query = sa.select(LabelSetRow).where(
            ~measured, ~is_second, LabelSetRow.decided_by != not_by
        )
        return self._db.load(query.order_by(LabelSetRow.created_at))

    def list_contradicted(self) -> list[tuple[str, FindingKind]]:
        """Rejected assets that were known to be good, or audited, without a finding yet."""
        found: list[tuple[str, FindingKind]] = []
        known = (CopyRow.asset_id == AssetRow.asset_id, CopyRow.role == str(CopyRole.GOLD))
        audited = (GateRow.asset_id == AssetRow.asset_id, GateRow.is_audited.is_(True))
        reasons = {FindingKind.GOLD: sa.select(CopyRow.asset_id).where(*known)}
        reasons[FindingKind.AUDIT] = sa.select(GateRow.asset_id).where(*audited)
        for kind, reason in reasons.items():
            held = sa.select(FindingRow.asset_id).where(
                FindingRow.asset_id == AssetRow.asset_id, FindingRow.kind == str(kind)
            )
            query = sa.select(AssetRow.asset_id).where(AssetRow.state == str(AssetState.REJECTED))
            query = query.where(sa.exists(reason), ~sa.exists(held)).order_by(AssetRow.asset_id)
            found += [(row["asset_id"], kind) for row in self._db.mappings(query)]
        return found

    # --- the queue

    def list_waiting(self) -> list[WaitingRow]:
        """Proposed assets with their confidence."""
        query = sa.select(
            AssetRow.asset_id, AssetRow.round, AssetRow.priority, ProposalRow.confidence
        )
        query = query.join(
            ProposalRow,
            sa.and_(ProposalRow.asset_id == AssetRow.asset_id, ProposalRow.round == AssetRow.round),
        )
        query = query.where(AssetRow.state == str(AssetState.PROPOSED)).order_by(AssetRow.asset_id)
        return [WaitingRow(**row) for row in self._db.mappings(query)]

    def set_priorities(self, priorities: Mapping[str, float]) -> None:
        """Change the order in which assets are claimed."""
        if not priorities:
            return
        one = sa.update(AssetRow).where(AssetRow.asset_id == sa.bindparam("which"))
        one = one.values(priority=sa.bindparam("value"))
        rows = [{"which": name, "value": value} for name, value in priorities.items()]
        with self._db.begin() as connection:
            connection.execute(one, rows)
            self._db.add_event("ranked", None, {"assets": len(rows)})

    # --- people

    def list_annotations(self) -> list[AnnotationRow]:
        """The newest version of every interpreted answer, oldest first; without the raw JSON."""
        columns = [column for column in table_of(AnnotationRow).c if column.name != "raw"]
        query = sa.select(*columns).where(AnnotationRow.is_interpreted.is_(True))
        query = query.order_by(AnnotationRow.updated_at, AnnotationRow.unique_id)
        newest: dict[tuple[str, bool], AnnotationRow] = {}
        for row in self._db.mappings(query):
            newest[row["unique_id"], row["is_late"]] = AnnotationRow(**row, raw={})
        return list(newest.values())

    def count_clicks(self) -> dict[tuple[str, str], int]:
        """(unique_id, updated_at) of an answer -> number of clicks."""
        one = (ClickRow.unique_id, ClickRow.updated_at)
        query = sa.select(*one, sa.func.count().label("number")).group_by(*one)
        return {
            (row["unique_id"], row["updated_at"]): int(row["number"])
            for row in self._db.mappings(query)
        }


def _is_interpreted(annotations: type[AnnotationRow]) -> tuple[sa.ColumnElement[bool], ...]:
    """Conditions: an answer that was understood."""
    return annotations.is_interpreted.is_(True), annotations.verdict.is_not(None)
