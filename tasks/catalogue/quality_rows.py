"""Tables of quality control: gate decisions, copies of assets, gold label sets, findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from tasks.catalogue.mapping import Row, Text16, Text64, enum_column


class CopyRole(StrEnum):
    """Why a copy exists."""

    DOUBLE = "double"  # another reviewer labels the same proposal
    GOLD = "gold"  # the right labels are known


class FindingKind(StrEnum):
    """What was compared with what."""

    GAIN = "gain"  # first proposal with the accepted labels: what a review brought
    AUDIT = "audit"  # the same, for a proposal that the gate was sure of
    GOLD = "gold"  # a reviewer's labels with known ones
    DOUBLE = "double"  # two reviewers' labels of one proposal


class GateRow(Row):
    """The gate's decision on one round; `rules` names the settings it judged by."""

    __tablename__ = "gate_decisions"

    asset_id: Mapped[Text64] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    rules: Mapped[Text16]
    is_accepted: Mapped[bool]
    is_audited: Mapped[bool]
    rejection_reasons: Mapped[Sequence[str]] = mapped_column(default=())
    created_at: Mapped[float] = mapped_column(default=0.0)


class CopyRow(Row):
    """A copy. `of_asset` is reviewed twice (DOUBLE), or lent its mesh to a gold task (GOLD).

    Attributes:
        truth_key: where the known labels are, only for GOLD.
    """

    __tablename__ = "review_copies"

    asset_id: Mapped[Text64] = mapped_column(primary_key=True)
    role: Mapped[CopyRole] = mapped_column(enum_column(CopyRole))
    of_asset: Mapped[Text64] = mapped_column(index=True)
    truth_key: Mapped[str | None] = mapped_column(default=None)
    created_at: Mapped[float] = mapped_column(default=0.0)


class GoldLabelRow(Row):
    """A label set that is known to be right."""

    __tablename__ = "gold_labels"

    label_id: Mapped[Text64] = mapped_column(primary_key=True)
    asset_id: Mapped[Text64]
    created_at: Mapped[float] = mapped_column(default=0.0)


class FindingRow(Row):
    """What one comparison showed.

    Attributes:
        subject: what was compared (a label set's id), so that each is compared once.
        reviewer, other: whose labels; `other` only for DOUBLE.
        is_good: above the thresholds in force.
        iou: one-to-one matched, 0..1; None when there was nothing to compare.
        boundary_f1: 0..1, or None.
        confidence: of the first proposal.
        note: for people.
    """

    __tablename__ = "quality_findings"
    # `unmeasured` asks for every label set whether it is a subject.
    __table_args__ = (sa.Index("quality_findings_by_subject", "subject"),)

    asset_id: Mapped[Text64] = mapped_column(primary_key=True)
    kind: Mapped[FindingKind] = mapped_column(enum_column(FindingKind), primary_key=True)
    subject: Mapped[Text64] = mapped_column(primary_key=True)
    reviewer: Mapped[str] = mapped_column(default="")
    other: Mapped[str] = mapped_column(default="")
    is_good: Mapped[bool] = mapped_column(default=True)
    iou: Mapped[float | None] = mapped_column(default=None)
    boundary_f1: Mapped[float | None] = mapped_column(default=None)
    confidence: Mapped[float | None] = mapped_column(default=None)
    note: Mapped[str] = mapped_column(default="")
    created_at: Mapped[float] = mapped_column(default=0.0)


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A proposed asset in the queue; confidence is that of its present proposal."""

    asset_id: str
    round: int
    priority: float
    confidence: float
