"""Ledger of quality control: who else looks at an asset, and what comparing the answers showed.

A *copy* is an asset row of its own that only quality control knows to be one: it goes through
review like any other and is therefore as safe under kills, but it never enters a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from tasks.catalogue.database import CREATE_LOCK, Database, values
from tasks.catalogue.quality_tables import findings as F
from tasks.catalogue.quality_tables import gate_decisions as D
from tasks.catalogue.quality_tables import gold_labels as G
from tasks.catalogue.quality_tables import metadata
from tasks.catalogue.quality_tables import review_copies as C
from tasks.catalogue.rows import AnnotationRow, LabelSetRow
from tasks.catalogue.states import AssetState
from tasks.catalogue.tables import assets as A
from tasks.catalogue.tables import clicks as K
from tasks.catalogue.tables import label_sets as L
from tasks.catalogue.tables import proposals as P
from tasks.catalogue.tables import review_annotations as N


class CopyRole(StrEnum):
    """Why a copy exists."""

    SECOND = "second"  # another reviewer labels the same proposal
    KNOWN = "known"  # the right labels are known


class FindingKind(StrEnum):
    """What was compared with what."""

    GAIN = "gain"  # first proposal with the accepted labels: what a review brought
    AUDIT = "audit"  # the same, for a proposal that the gate was sure of
    KNOWN = "known"  # a reviewer's labels with known ones
    SECOND = "second"  # two reviewers' labels of one proposal


@dataclass(frozen=True, slots=True)
class GateRow:
    """The gate's word on one round; `rules` names the settings it judged by."""

    asset_id: str
    round: int
    rules: str
    is_accepted: bool
    is_audited: bool
    doubts: Sequence[str] = ()
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class CopyRow:
    """A copy. `of_asset` is reviewed twice (SECOND), or made the desk get a known one (KNOWN).

    Attributes:
        truth_key: where the known labels are, only for KNOWN.
    """

    asset_id: str
    role: CopyRole
    of_asset: str
    truth_key: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class FindingRow:
    """What one comparison showed.

    Attributes:
        subject: what was compared (a label set's id), so that each is compared once.
        reviewer, other: whose labels; `other` only for SECOND.
        is_good: above the thresholds in force.
        iou: one-to-one matched, 0..1; None when there was nothing to compare.
        boundary_f1: 0..1, or None.
        confidence: of the first proposal.
        note: for people.
    """

    asset_id: str
    kind: FindingKind
    subject: str
    reviewer: str = ""
    other: str = ""
    is_good: bool = True
    iou: float | None = None
    boundary_f1: float | None = None
    confidence: float | None = None
    note: str = ""
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A proposed asset in the queue; confidence is that of its present proposal."""

    asset_id: str
    round: int
    priority: float
    confidence: float


class QualityLedger:
    """Decisions, copies and findings."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._create_missing()

    # --- the gate

    def add_decision(self, decision: GateRow) -> None:
        """Record the gate's word; a new word on the same round replaces it."""
        row = replace(decision, doubts=list(decision.doubts), created_at=self._db.clock())
        with self._db.begin():
            self._db.upsert(D, values(row))
            told = {"accepted": row.is_accepted, "audited": row.is_audited, "doubts": row.doubts}
            self._db.event("gated", row.asset_id, told)

    def decision(self, asset_id: str, round: int) -> GateRow | None:
        """The gate's word on one round, or None."""
        found = self._db.rows(sa.select(D).where(D.c.asset_id == asset_id, D.c.round == round))
        return GateRow(**found[0]) if found else None

    def is_ungated(self, rules: str) -> sa.ColumnElement[bool]:
        """Condition for `Catalogue.claim`: the gate has not judged the round by these rules."""
        same = (D.c.asset_id == A.c.asset_id, D.c.round == A.c.round, D.c.rules == rules)
        return ~sa.exists(sa.select(D.c.asset_id).where(*same))

    # --- copies

    def add_copy(self, copy: CopyRow) -> bool:
        """Record a copy; False when it is there already."""
        row = replace(copy, created_at=self._db.clock())
        with self._db.begin():
            if not self._db.insert(C, values(row)):
                return False
            self._db.event("copy", row.asset_id, {"role": row.role, "of": row.of_asset})
        return True

    def copy(self, asset_id: str) -> CopyRow | None:
        """What an asset is a copy of, or None for one of the dataset."""
        found = self._db.rows(sa.select(C).where(C.c.asset_id == asset_id))
        return _copy(found[0]) if found else None

    def copies(self, role: CopyRole | None = None) -> list[CopyRow]:
        """All copies, or those of one role, oldest first."""
        query = sa.select(C).order_by(C.c.created_at, C.c.asset_id)
        if role is not None:
            query = query.where(C.c.role == str(role))
        return [_copy(row) for row in self._db.rows(query)]

    def copy_ids(self) -> frozenset[str]:
        """Ids of all copies: what no dataset may hold."""
        return frozenset(row["asset_id"] for row in self._db.rows(sa.select(C.c.asset_id)))

    def second_of(self, asset_id: str) -> CopyRow | None:
        """The copy that another reviewer labels, or None."""
        mine = (C.c.of_asset == asset_id, C.c.role == str(CopyRole.SECOND))
        found = self._db.rows(sa.select(C).where(*mine))
        return _copy(found[0]) if found else None

    def open_seconds(self) -> list[CopyRow]:
        """Second looks that are not settled yet, oldest first."""
        settled = sa.exists(
            sa.select(F.c.asset_id).where(
                F.c.asset_id == C.c.of_asset, F.c.kind == str(FindingKind.SECOND)
            )
        )
        query = sa.select(C).where(C.c.role == str(CopyRole.SECOND), ~settled)
        return [_copy(row) for row in self._db.rows(query.order_by(C.c.created_at, C.c.asset_id))]

    def is_held(self, asset_id: str) -> bool:
        """Must an accepted asset wait for its second reviewer?"""
        if self.second_of(asset_id) is None:
            return False
        return not self.findings(FindingKind.SECOND, asset_id)

    def num_held(self) -> int:
        """Assets in review that are accepted and only wait for their second reviewer."""
        later = N.alias()
        said = (N.c.asset_id == A.c.asset_id, N.c.round == A.c.round, *_says(N))
        after = (later.c.asset_id == N.c.asset_id, later.c.round == N.c.round, *_says(later))
        is_last = ~sa.exists(
            sa.select(later.c.round).where(*after, later.c.updated_at > N.c.updated_at)
        )
        accepted = sa.select(N.c.round).where(*said, N.c.verdict == "accept", is_last)
        copied = sa.select(C.c.asset_id).where(
            C.c.of_asset == A.c.asset_id, C.c.role == str(CopyRole.SECOND)
        )
        compared = sa.select(F.c.asset_id).where(
            F.c.asset_id == A.c.asset_id, F.c.kind == str(FindingKind.SECOND)
        )
        query = sa.select(sa.func.count().label("number")).select_from(A)
        query = query.where(A.c.state == str(AssetState.IN_REVIEW), sa.exists(accepted))
        query = query.where(sa.exists(copied), ~sa.exists(compared))
        return int(self._db.rows(query)[0]["number"])

    def dataset_counts(self) -> dict[AssetState, int]:
        """Number of assets in every state, copies left out."""
        query = sa.select(A.c.state, sa.func.count().label("number")).group_by(A.c.state)
        query = query.where(~sa.exists(sa.select(C.c.asset_id).where(C.c.asset_id == A.c.asset_id)))
        found = {row["state"]: int(row["number"]) for row in self._db.rows(query)}
        return {state: found.get(state, 0) for state in AssetState}

    # --- known labels

    def add_gold(self, label_set: LabelSetRow) -> bool:
        """Take a label set as known to be right; False when it is marked already."""
        row = {"label_id": label_set.label_id, "asset_id": label_set.asset_id}
        with self._db.begin():
            if not self._db.insert(G, {**row, "created_at": self._db.clock()}):
                return False
            self._db.event("gold", label_set.asset_id, {"label_id": label_set.label_id})
        return True

    def gold(self) -> list[LabelSetRow]:
        """Label sets known to be right, by id."""
        query = sa.select(L).join(G, G.c.label_id == L.c.label_id).order_by(L.c.label_id)
        return [LabelSetRow(**row) for row in self._db.rows(query)]

    # --- findings

    def add_finding(self, finding: FindingRow) -> None:
        """Record a comparison; the same one again replaces it."""
        row = replace(finding, created_at=self._db.clock())
        with self._db.begin():
            self._db.upsert(F, values(row))
            told = {"kind": row.kind, "iou": row.iou, "is_good": row.is_good, "note": row.note}
            self._db.event("finding", row.asset_id, told)

    def findings(
        self, kind: FindingKind | None = None, asset_id: str | None = None
    ) -> list[FindingRow]:
        """Comparisons, oldest first."""
        query = sa.select(F).order_by(F.c.created_at, F.c.asset_id, F.c.subject)
        if kind is not None:
            query = query.where(F.c.kind == str(kind))
        if asset_id is not None:
            query = query.where(F.c.asset_id == asset_id)
        return [_finding(row) for row in self._db.rows(query)]

    def last_findings(self, kind: FindingKind, limit: int) -> list[FindingRow]:
        """The newest comparisons of one kind, newest first."""
        query = sa.select(F).where(F.c.kind == str(kind)).limit(limit)
        query = query.order_by(F.c.created_at.desc(), F.c.asset_id, F.c.subject)
        return [_finding(row) for row in self._db.rows(query)]

    def unmeasured(self, not_by: str) -> list[LabelSetRow]:
        """Label sets that were not compared yet, except those decided by `not_by`."""
        measured = sa.exists(sa.select(F.c.asset_id).where(F.c.subject == L.c.label_id))
        seconds = (C.c.asset_id == L.c.asset_id, C.c.role == str(CopyRole.SECOND))
        is_second = sa.exists(sa.select(C.c.asset_id).where(*seconds))
        query = sa.select(L).where(~measured, ~is_second, L.c.decided_by != not_by)
        return [LabelSetRow(**row) for row in self._db.rows(query.order_by(L.c.created_at))]

    def refused(self) -> list[tuple[str, FindingKind]]:
        """Rejected assets that were known to be good, or audited, without a finding yet."""
        found: list[tuple[str, FindingKind]] = []
        known = (C.c.asset_id == A.c.asset_id, C.c.role == str(CopyRole.KNOWN))
        audited = (D.c.asset_id == A.c.asset_id, D.c.is_audited.is_(True))
        reasons = {FindingKind.KNOWN: sa.select(C.c.asset_id).where(*known)}
        reasons[FindingKind.AUDIT] = sa.select(D.c.asset_id).where(*audited)
        for kind, reason in reasons.items():
            held = sa.select(F.c.asset_id).where(
                F.c.asset_id == A.c.asset_id, F.c.kind == str(kind)
            )
            query = sa.select(A.c.asset_id).where(A.c.state == str(AssetState.REJECTED))
            query = query.where(sa.exists(reason), ~sa.exists(held)).order_by(A.c.asset_id)
            found += [(row["asset_id"], kind) for row in self._db.rows(query)]
        return found

    # --- the queue

    def waiting(self) -> list[WaitingRow]:
        """Proposed assets with their confidence."""
        query = sa.select(A.c.asset_id, A.c.round, A.c.priority, P.c.confidence)
        query = query.join(P, sa.and_(P.c.asset_id == A.c.asset_id, P.c.round == A.c.round))
        query = query.where(A.c.state == str(AssetState.PROPOSED)).order_by(A.c.asset_id)
        return [WaitingRow(**row) for row in self._db.rows(query)]

    def set_priorities(self, priorities: Mapping[str, float]) -> None:
        """Change the order in which assets are claimed."""
        if not priorities:
            return
        one = sa.update(A).where(A.c.asset_id == sa.bindparam("which"))
        one = one.values(priority=sa.bindparam("value"))
        rows = [{"which": name, "value": value} for name, value in priorities.items()]
        with self._db.begin() as connection:
            connection.execute(one, rows)
            self._db.event("ranked", None, {"assets": len(rows)})

    # --- people

    def answers(self) -> list[AnnotationRow]:
        """The newest version of every interpreted answer, oldest first; without the raw JSON."""
        columns = [column for column in N.c if column.name != "raw"]
        query = sa.select(*columns).where(N.c.is_interpreted.is_(True))
        newest: dict[str, AnnotationRow] = {}
        for row in self._db.rows(query.order_by(N.c.updated_at, N.c.unique_id)):
            newest[row["unique_id"]] = AnnotationRow(**row, raw={})
        return list(newest.values())

    def click_counts(self) -> dict[tuple[str, str], int]:
        """(unique_id, updated_at) of an answer -> number of clicks."""
        one = (K.c.unique_id, K.c.updated_at)
        query = sa.select(*one, sa.func.count().label("number")).group_by(*one)
        return {
            (row["unique_id"], row["updated_at"]): int(row["number"])
            for row in self._db.rows(query)
        }

    def _create_missing(self) -> None:
        with self._db.read() as connection:
            if sa.inspect(connection).has_table(F.name):
                return
        with self._db.begin() as connection:
            if not self._db.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATE_LOCK)))
            metadata.create_all(connection)


def _says(answers: sa.FromClause) -> tuple[sa.ColumnElement[bool], ...]:
    """Conditions: an answer that was understood."""
    return answers.c.is_interpreted.is_(True), answers.c.verdict.is_not(None)


def _copy(row: Mapping[str, Any]) -> CopyRow:
    return CopyRow(**{**row, "role": CopyRole(row["role"])})


def _finding(row: Mapping[str, Any]) -> FindingRow:
    return FindingRow(**{**row, "kind": FindingKind(row["kind"])})
