"""What datasets are made of, in one query each: assets, label sets and proposals joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from tasks.catalogue.database import Database
from tasks.catalogue.quality_rows import CopyRow
from tasks.catalogue.rows import AssetRow, LabelSetRow, ProposalRow, ShardMemberRow
from tasks.catalogue.states import DONE

# What one row of a plan holds; whole rows would take ten times the memory.
_COLUMNS = (
    AssetRow.asset_id,
    AssetRow.licence,
    LabelSetRow.label_id,
    LabelSetRow.sha256.label("labels_sha256"),
    LabelSetRow.num_parts,
    LabelSetRow.num_clicks,
    LabelSetRow.decided_by,
    ProposalRow.round,
    ProposalRow.key.label("proposal_key"),
    ProposalRow.sha256.label("proposal_sha256"),
    ProposalRow.checkpoint,
)
_ITS_PROPOSAL = sa.and_(
    ProposalRow.asset_id == AssetRow.asset_id, ProposalRow.key == LabelSetRow.proposal_key
)


class PlanLedger:
    """Rows of `_COLUMNS`, in no order."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def list_current(self) -> Sequence[sa.Row[Any]]:
        """Accepted and sharded assets, copies left out, with the label set that counts.

        Columns of a label set or proposal that is not there are None. A key that several rounds'
        proposals have comes once for each.
        """
        later = aliased(LabelSetRow)
        is_later = sa.or_(
            later.created_at > LabelSetRow.created_at,
            sa.and_(
                later.created_at == LabelSetRow.created_at, later.label_id > LabelSetRow.label_id
            ),
        )
        newer = sa.select(later.label_id).where(later.asset_id == LabelSetRow.asset_id, is_later)
        is_mine = LabelSetRow.asset_id == AssetRow.asset_id
        copies = sa.select(CopyRow.asset_id).where(CopyRow.asset_id == AssetRow.asset_id)
        query = sa.select(*_COLUMNS).select_from(AssetRow)
        query = query.outerjoin(LabelSetRow, sa.and_(is_mine, ~sa.exists(newer)))
        query = query.outerjoin(ProposalRow, _ITS_PROPOSAL)
        done = [str(state) for state in sorted(DONE)]
        return self._run(query.where(AssetRow.state.in_(done), ~sa.exists(copies)))

    def list_of_version(self, dataset: str, version: str) -> Sequence[sa.Row[Any]]:
        """Members of a recorded version whose rows are all there."""
        is_member = (
            ShardMemberRow.dataset == dataset,
            ShardMemberRow.version == version,
            LabelSetRow.asset_id == ShardMemberRow.asset_id,
        )
        query = sa.select(*_COLUMNS).select_from(ShardMemberRow)
        query = query.join(AssetRow, AssetRow.asset_id == ShardMemberRow.asset_id)
        query = query.join(LabelSetRow, LabelSetRow.label_id == ShardMemberRow.label_id)
        return self._run(query.join(ProposalRow, _ITS_PROPOSAL).where(*is_member))

    def _run(self, query: sa.Select[*tuple[Any, ...]]) -> Sequence[sa.Row[Any]]:
        with self._db.read() as connection:
            return connection.execute(query).all()
