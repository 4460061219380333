"""Rows are values: frozen, equal by content, complete without a session."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path

import pytest

from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    CopyRole,
    CopyRow,
    EditCommandRow,
    FindingKind,
    FindingRow,
    GateRow,
    ProposalRow,
)
from tasks.catalogue.mapping import Row, table_of, to_column_values

A = "a" * 64


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(f"sqlite:///{tmp_path}/c.db")


def rows(catalogue: Catalogue) -> list[Row]:
    """One row as it is built, and one as it is read."""
    catalogue.register(AssetRow(A, AssetState.REGISTERED, name="chair"))
    return [AssetRow(A, AssetState.REGISTERED, name="chair"), catalogue.get_asset(A)]


def test_no_value_of_a_row_can_be_changed(catalogue: Catalogue) -> None:
    for row in rows(catalogue):
        for field in fields(row):
            with pytest.raises(FrozenInstanceError):
                setattr(row, field.name, getattr(row, field.name))
            with pytest.raises(FrozenInstanceError):
                delattr(row, field.name)
        with pytest.raises(FrozenInstanceError):
            row.colour = "red"  # type: ignore[attr-defined]


def test_rows_are_compared_copied_and_hashed_by_their_values(catalogue: Catalogue) -> None:
    built, read = rows(catalogue)
    assert built != read and replace(built, **asdict(read)) == read
    assert replace(read, round=2) != read and replace(read, round=2).round == 2
    for same in (copy.copy(read), copy.deepcopy(read), pickle.loads(pickle.dumps(read))):
        assert same == read and hash(same) == hash(read)
        with pytest.raises(FrozenInstanceError):
            same.round = 3
    assert {built, read, replace(read)} == {built, read}


def test_a_row_that_was_read_stays_as_it_was(catalogue: Catalogue) -> None:
    before = rows(catalogue)[1]
    with catalogue.transaction():
        locked = catalogue.lock_asset(A)
        moved = catalogue.move(A, "encoded", encoding_key="k")
        assert (locked.state, locked.encoding_key) == (AssetState.REGISTERED, None)
        assert moved == catalogue.get_asset(A) and moved.encoding_key == "k"
    assert before.state is AssetState.REGISTERED
    assert catalogue.get_asset(A) == moved


def test_what_moves_return_is_what_is_stored(catalogue: Catalogue) -> None:
    rows(catalogue)
    (claimed,) = catalogue.claim(["registered"], 1, "w")
    assert claimed == catalogue.get_asset(A)
    assert catalogue.record_failure(A, "boom", worker="w") == catalogue.get_asset(A)
    assert catalogue.move(A, "rejected", reason="r", detail="d") == catalogue.get_asset(A)


def test_types_come_back_as_they_were_given(catalogue: Catalogue) -> None:
    catalogue.add_proposal(ProposalRow(A, 0, "k", "s", 2, 0.5, "c", {"seed": [1, None]}))
    assert catalogue.list_proposals(A)[0].provenance == {"seed": [1, None]}
    catalogue.reviews.record_annotation(AnnotationRow("u", "t", 1, 2, A, 0, "ann", {"id": 1}))
    edit = EditCommandRow("u", "t", 0, A, 0, "r", "merge", (2, 1))
    catalogue.reviews.interpret("u", "t", verdict=None, commands=[edit])
    assert catalogue.reviews.list_edit_commands(A) == [edit]
    quality = catalogue.quality
    quality.add_copy(CopyRow("b" * 64, CopyRole.DOUBLE, A))
    quality.add_finding(FindingRow(A, FindingKind.GAIN, "l"))
    quality.add_decision(GateRow(A, 0, "r", False, True, ("why",)))
    assert quality.list_copies()[0].role is CopyRole.DOUBLE
    assert quality.list_findings()[0].kind is FindingKind.GAIN
    assert quality.get_decision(A, 0).rejection_reasons == ["why"]
    assert catalogue.count_assets()[AssetState.REGISTERED] == 0


def test_every_column_is_a_field_and_every_field_a_column() -> None:
    for mapper in Row.registry.mappers:
        kind = mapper.class_
        columns = [column.name for column in table_of(kind).columns]
        assert len(columns) == len(fields(kind)), kind
    row = GateRow(A, 0, "r", True, False, ["x"])
    assert to_column_values(row)["rejection_reasons"] == ["x"]
