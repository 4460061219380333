"""Where the state of every asset lives: SQLAlchemy on SQLite or PostgreSQL."""

from __future__ import annotations

from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.engine import CatalogueError
from tasks.catalogue.leases import KILLED_WORKER
from tasks.catalogue.locks import LockLost
from tasks.catalogue.moves import LeaseLost
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
    QuarantineRow,
    RawRow,
    ReviewTaskRow,
    ShardMemberRow,
    ShardVersionRow,
)
from tasks.catalogue.schema import SchemaUpgrade, upgrade_catalogue
from tasks.catalogue.states import ALLOWED_MOVES, DONE, PARKED, AssetState, IllegalMove
from tasks.catalogue.workers import make_worker_id

__all__ = [
    "ALLOWED_MOVES",
    "DONE",
    "KILLED_WORKER",
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
    "QuarantineRow",
    "RawRow",
    "ReviewTaskRow",
    "SchemaUpgrade",
    "ShardMemberRow",
    "ShardVersionRow",
    "WaitingRow",
    "make_worker_id",
    "upgrade_catalogue",
]
