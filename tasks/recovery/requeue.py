"""Back to the stage that makes a lost proposal; never a state without what it stands for.

An asset with an accepted label set stays where it is: its labels are whole.
"""

from __future__ import annotations

from tasks.catalogue import ALLOWED_MOVES, DONE, AssetRow, AssetState, Catalogue
from tasks.labelling.lineage import lineage_of

REASON = "blob_lost"  # of the moment in `failed` that the move goes through
_OPEN = frozenset({AssetState.PROPOSED, AssetState.IN_REVIEW, AssetState.REFINING})


def requeue_proposal(catalogue: Catalogue, asset: AssetRow, round_: int) -> str:
    """Let the proposal of a round be made anew; returns what was done, "" if nothing can be.

    The reviewers' annotations stay. Round 0 is proposed again; a later round is refined again
    from the annotations of the round before.

    Args:
        catalogue: gets the moves.
        asset: whose proposal is lost.
        round_: of the proposal.
    """
    with catalogue.transaction():
        now = catalogue.lock_asset(asset.asset_id)
        if now.state in DONE or now.round != round_:
            return ""
        if now.state not in _OPEN and now.state is not AssetState.FAILED:
            return ""
        target = AssetState.ENCODED if round_ == 0 else AssetState.REFINING
        row = catalogue.get_proposal(asset.asset_id, round_)
        if round_ > 0 and (row is None or not lineage_of(row).is_refined):
            return ""  # a third review: only adjudication makes it
        detail = f"the proposal of round {round_} is lost"
        if now.state is not AssetState.FAILED:
            catalogue.move(asset.asset_id, AssetState.FAILED, reason=REASON, detail=detail)
        assert target in ALLOWED_MOVES[AssetState.FAILED]
        catalogue.move(
            asset.asset_id, target, reason=REASON, detail=detail, round=max(0, round_ - 1)
        )
    return f"back to {target}: {detail}, made anew by the next run"
