"""The life of an asset: its states and the one table of moves between them.

Every other move raises IllegalMove, so that a stage which runs twice, or too late, is caught by
the catalogue and not by luck. Parking places keep a reason; `retry` is the way out of them.
"""

from __future__ import annotations

from enum import StrEnum

from segvigen_model.errors import SegvigenError


class AssetState(StrEnum):
    """Where an asset stands."""

    REGISTERED = "registered"  # source checked and copied
    ENCODED = "encoded"  # voxels and latents exist
    PROPOSED = "proposed"  # the proposal of the current round exists
    IN_REVIEW = "in_review"  # Label Studio has a task for the current round
    REFINING = "refining"  # the reviewer's clicks wait for the model
    ACCEPTED = "accepted"  # a label set exists
    SHARDED = "sharded"  # and is part of a shard version
    REJECTED = "rejected"  # parked: unusable, with the reason
    FAILED = "failed"  # parked: our fault, with attempts and the last error
    SKIPPED = "skipped"  # parked: the reviewer passed it over


class IllegalMove(SegvigenError):
    """A move that ALLOWED_MOVES does not have."""


_S = AssetState
PARKED = frozenset({_S.REJECTED, _S.FAILED, _S.SKIPPED})
DONE = frozenset({_S.ACCEPTED, _S.SHARDED})

ALLOWED_MOVES: dict[AssetState, frozenset[AssetState]] = {
    _S.REGISTERED: PARKED | {_S.ENCODED},
    _S.ENCODED: PARKED | {_S.PROPOSED},
    # accepted at once only by the gate, when it is sure
    _S.PROPOSED: PARKED | {_S.IN_REVIEW, _S.ACCEPTED},
    # back to proposed: Label Studio lost the task, or the same round must be shown again
    _S.IN_REVIEW: PARKED | {_S.ACCEPTED, _S.REFINING, _S.PROPOSED},
    # in_review: the next round's task exists; proposed: it waits to be pushed
    _S.REFINING: PARKED | {_S.IN_REVIEW, _S.PROPOSED},
    # a reviewer's later correction re-opens what was accepted
    _S.ACCEPTED: frozenset({_S.SHARDED, _S.REFINING, _S.REJECTED}),
    _S.SHARDED: frozenset({_S.REFINING, _S.REJECTED}),
    # out of parking: to where the asset stood (see Catalogue.retry), or from the start
    _S.REJECTED: frozenset({_S.REGISTERED, _S.PROPOSED}),
    _S.FAILED: frozenset({_S.REGISTERED, _S.ENCODED, _S.PROPOSED, _S.IN_REVIEW, _S.REFINING}),
    _S.SKIPPED: frozenset({_S.REGISTERED, _S.PROPOSED}),
}


def check_move(asset_id: str, old: AssetState, new: AssetState) -> None:
    """Raise IllegalMove unless the table has old -> new."""
    if new not in ALLOWED_MOVES[old]:
        allowed = ", ".join(sorted(ALLOWED_MOVES[old]))
        raise IllegalMove(f"asset {asset_id[:12]}: {old} -> {new} is not allowed; only {allowed}")
