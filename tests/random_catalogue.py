"""A catalogue of random rows: states, reasons, copies, label sets, proposals, raw objects."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

from tasks.catalogue import (
    DONE,
    AssetRow,
    AssetState,
    Catalogue,
    CopyRole,
    CopyRow,
    LabelSetRow,
    ProposalRow,
    RawRow,
    ShardMemberRow,
    ShardVersionRow,
)

NAMES = ("chair.glb", "table.obj", "Ünïcode.ply", "")


def make_id(number: int) -> str:
    """An id of the form of any asset's id."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def fill(catalogue: Catalogue, seed: int, count: int = 60) -> None:
    """Write random rows, by the catalogue's tables and not its rules: any mixture may occur."""
    rng = random.Random(seed)
    rows: list[AssetRow] = []
    for number in range(count):
        row = AssetRow(make_id(number), rng.choice(list(AssetState)), name=rng.choice(NAMES))
        about = {"created_at": float(rng.randrange(5)), "is_suspect": rng.random() < 0.2}
        about["reason"] = rng.choice([None, None, "", "no_faces", "too_large"])
        about["last_error"] = rng.choice([None, "", "StageError: x"])
        rows.append(replace(row, **about))
    labels, proposals = [], []
    for row in rows:
        keys = [f"p{rng.randrange(3)}" for _ in range(rng.randrange(4))]
        proposals += [
            ProposalRow(row.asset_id, number, key, f"s{number}", 3, 0.5, f"c{number}")
            for number, key in enumerate(keys)
        ]
        for number in range(rng.randrange(4) if row.state in DONE else rng.randrange(2)):
            name, key = f"{row.asset_id[:20]}-{rng.random()}", rng.choice([*keys, "lost"])
            made = LabelSetRow(name, row.asset_id, "k", f"l{number}", "q", key, 3, 1, 1, 1.0, "ann")
            labels.append(replace(made, created_at=float(rng.randrange(2))))
    raw = [RawRow(f"r/{number}", "e", 1, row.asset_id) for number, row in enumerate(rows)]
    members = [
        ShardMemberRow("parts", "v", row.asset_id, row.label_id, "tar")
        for row in {row.asset_id: row for row in labels}.values()
    ]
    with catalogue.transaction():
        for table in (rows, labels, proposals, raw, members):
            catalogue._db.insert_all(table)
        catalogue.labels.add_shards(ShardVersionRow("parts", "v", "m", "s", 1, 1), [])
        for row in rng.sample(rows, count // 5):
            role = rng.choice(list(CopyRole))
            catalogue.quality.add_copy(CopyRow(row.asset_id, role, make_id(0)))
