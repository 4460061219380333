"""How fast the catalogue claims and moves: `python -m pytest tests/bench/bench_catalogue.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.catalogue import (
    AssetRow,
    AssetState,
    Catalogue,
    FindingKind,
    FindingRow,
    LabelSetRow,
    make_worker_id,
)

NUM_ASSETS = 400
NUM_MEASURED = 4000


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue(f"sqlite:///{tmp_path}/c.db")
    with catalogue.transaction():
        for number in range(NUM_ASSETS):
            catalogue.register(AssetRow(f"{number:064x}", AssetState.REGISTERED))
    return catalogue


def test_claim_in_batches_of_20(benchmark: Any, catalogue: Catalogue) -> None:
    """One round claims everything and gives it back."""
    worker = make_worker_id()

    def claim_all() -> None:
        held: list[str] = []
        while rows := catalogue.claim(["registered"], 20, worker):
            held += [row.asset_id for row in rows]
        catalogue.release(held, worker)
        assert len(held) == NUM_ASSETS

    benchmark.pedantic(claim_all, rounds=3)


def test_move_one_by_one(benchmark: Any, catalogue: Catalogue) -> None:
    """One round is one move with its event, in a transaction of its own."""
    numbers = iter(range(NUM_ASSETS))
    benchmark.pedantic(
        lambda: catalogue.move(f"{next(numbers):064x}", AssetState.ENCODED), rounds=NUM_ASSETS
    )


def test_open_an_existing_catalogue(benchmark: Any, tmp_path: Path) -> None:
    """One round reads the schema revision."""
    Catalogue(url := f"sqlite:///{tmp_path}/c.db")
    benchmark.pedantic(lambda: Catalogue(url), rounds=50)


def test_crop_for_unmeasured_label_sets(benchmark: Any, catalogue: Catalogue) -> None:
    """One round asks for every label set whether a finding names it."""
    with catalogue.transaction():
        for number in range(NUM_MEASURED):
            name, asset_id = f"l{number}", f"{number:064x}"
            catalogue.labels.add(
                LabelSetRow(name, asset_id, "k", "s", "p", "q", 3, 0, 1, 1.0, "ann")
            )
            catalogue.quality.add_finding(FindingRow(asset_id, FindingKind.GAIN, name, "ann"))
    benchmark.pedantic(lambda: catalogue.quality.list_uncompared("gate"), rounds=5)
    assert catalogue.quality.list_uncompared("gate") == []
