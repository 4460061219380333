"""How the proposal of a round came about, as its catalogue row records it.

The one place that reads a row's provenance. Rows that version 0.1.0 wrote are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.catalogue import ProposalRow

THIRD_REVIEW = "third_review"  # provenance key of `ThirdReview`
EARLIER_THIRD_REVIEW = "third_look"  # the same in rows of version 0.1.0
PARENT = "parent"  # provenance key of the proposal that was refined


@dataclass(frozen=True, slots=True)
class ThirdReview:
    """Why a round shows accepted labels again: two reviewers disagree.

    Attributes:
        reviewers: the first and the second one.
        iou: of their labels; None where one of them rejected the asset.
        other_labels: key of the second reviewer's label set, or None.
        note: what they disagree about.
    """

    reviewers: tuple[str, ...]
    iou: float | None
    other_labels: str | None
    note: str

    def as_provenance(self) -> dict[str, Any]:
        """What the proposal's provenance records under `THIRD_REVIEW`."""
        return {
            "reviewers": list(self.reviewers),
            "iou": self.iou,
            "other_labels": self.other_labels,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Lineage:
    """How a proposal came about.

    Attributes:
        is_refined: from the round before, by clicks and edits.
        seed: of the model's draws.
        third_review: set where accepted labels are shown again.
    """

    is_refined: bool
    seed: int
    third_review: ThirdReview | None


def lineage_of(row: ProposalRow) -> Lineage:
    """How the proposal of a catalogue row came about."""
    record = row.provenance
    return Lineage(
        is_refined=record.get(PARENT) is not None,
        seed=int(record.get("seed", 0)),
        third_review=_third_review_of(record.get(THIRD_REVIEW, record.get(EARLIER_THIRD_REVIEW))),
    )


def parent_of(provenance: Mapping[str, Any]) -> tuple[str, str, int] | None:
    """Key, sha256 and round of the proposal that one was refined from; None for a first one.

    Args:
        provenance: of a proposal, out of its row or its blob.
    """
    parent = provenance.get(PARENT)
    if parent is None:
        return None
    return str(parent["key"]), str(parent["sha256"]), int(parent["round"])


def _third_review_of(about: Any) -> ThirdReview | None:
    if not isinstance(about, Mapping):
        return None
    return ThirdReview(
        reviewers=tuple(about.get("reviewers", ())),
        iou=about.get("iou"),
        other_labels=about.get("other_labels"),
        note=str(about.get("note", "")),
    )
