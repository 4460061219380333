"""Counts and short lists by SQL say what plain Python says over all rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tasks.catalogue import AssetState, Catalogue
from tests.random_catalogue import NAMES, fill, make_id

SEEDS = range(6)


@pytest.fixture(params=SEEDS)
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Catalogue:
    made = Catalogue(f"sqlite:///{tmp_path}/c.db")
    fill(made, request.param)
    return made


def check_numbers_and_lists(catalogue: Catalogue) -> None:
    """Compare every number and list of the overview with Python's, on any database."""
    overview, rows = catalogue.overview, catalogue.list_assets()
    copies = catalogue.quality.list_copy_ids()
    own = [row for row in rows if row.asset_id not in copies]
    counts = Counter(row.state for row in own)
    assert copies and catalogue.quality.count_dataset_assets() == {
        state: counts[state] for state in AssetState
    }
    parked = [row for row in own if row.reason]
    failing = [row for row in rows if row.last_error and not row.reason]
    assert parked and overview.list_parked(1000) == parked
    assert overview.list_parked(2) == parked[:2] and overview.count_parked() == len(parked)
    assert failing and overview.list_failing(1000) == failing
    assert overview.list_failing(1) == failing[:1] and overview.count_failing() == len(failing)
    assert overview.count_raw() == len(catalogue.raw.list_all())
    assert overview.count_copies() == len(copies)
    labels = catalogue.labels.list_all()
    assert overview.count_label_sets() == sum(row.asset_id not in copies for row in labels)
    assert overview.list_dataset_assets(7) == sorted(own, key=lambda row: row.asset_id)[:7]
    for state in AssetState:
        assert overview.has_assets([state]) == any(row.state is state for row in rows)


def check_finding(catalogue: Catalogue) -> None:
    """Compare what is found by the beginning of an id, or by name, with Python's."""
    rows, overview = catalogue.list_assets(), catalogue.overview
    whole = make_id(3)
    for prefix in ("", "0", "a", "f", "9c", whole[:8], whole, whole + "0", "A", "_", "%", "ü"):
        expected = [row for row in rows if row.asset_id.startswith(prefix)]
        assert overview.find_by_prefix(prefix) == expected
        for state in ("registered", "rejected"):
            mine = [row for row in expected if row.state == state]
            assert overview.find_by_prefix(prefix, state=state) == mine
        assert len(overview.find_by_prefix(prefix, 2)) == min(2, len(expected))
    for name in (*NAMES, "no such", "chair", "\udcff"):
        expected = [row for row in rows if row.name == name]
        assert overview.find_by_name(name, 1000) == expected


def test_numbers_and_lists(catalogue: Catalogue) -> None:
    check_numbers_and_lists(catalogue)


def test_finding_by_id_and_name(catalogue: Catalogue) -> None:
    check_finding(catalogue)


def test_an_empty_catalogue(tmp_path: Path) -> None:
    overview = Catalogue(f"sqlite:///{tmp_path}/c.db").overview
    assert overview.count_raw() == overview.count_label_sets() == overview.count_parked() == 0
    assert not overview.has_assets(list(AssetState)) and overview.find_by_prefix("") == []
