"""Where the state of every asset lives: SQLAlchemy on SQLite or PostgreSQL."""

from __future__ import annotations

from tasks.catalogue.catalogue import Catalogue, LeaseLost
from tasks.catalogue.engine import CatalogueError
from tasks.catalogue.leases import make_worker_id
from tasks.catalogue.locks import LockLost
from tasks.catalogue.quality_rows import (
    CopyRole,
    CopyRow,
    FindingKind,
    FindingRow,
    GateRow,
    WaitingRow,
)
from tasks.catalogue.rows import (
    AnnotationRow,
    AssetRow,
    BlobRow,
    CheckpointRow,
    ClickRow,
    EditCommandRow,
    EventRow,
    LabelSetRow,
    LockRow,
    ProposalRow,
    RawRow,
    ReviewTaskRow,
    ShardMemberRow,
    ShardVersionRow,
)
from tasks.catalogue.schema import SchemaUpgrade, upgrade_catalogue
from tasks.catalogue.states import ALLOWED_MOVES, DONE, PARKED, AssetState, IllegalMove

__all__ = [
    "ALLOWED_MOVES",
    "DONE",
    "PARKED",
    "AnnotationRow",
    "AssetRow",
    "AssetState",
    "BlobRow",
    "Catalogue",
    "CatalogueError",
    "CheckpointRow",
    "ClickRow",
    "CopyRole",
    "CopyRow",
    "EditCommandRow",
    "EventRow",
    "FindingKind",
    "FindingRow",
    "GateRow",
    "IllegalMove",
    "LabelSetRow",
    "LeaseLost",
    "LockLost",
    "LockRow",
    "ProposalRow",
    "RawRow",
    "ReviewTaskRow",
    "SchemaUpgrade",
    "ShardMemberRow",
    "ShardVersionRow",
    "WaitingRow",
    "make_worker_id",
    "upgrade_catalogue",
]
