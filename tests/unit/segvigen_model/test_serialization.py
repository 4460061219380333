"""Encodings and proposals as bytes: round trips, byte stability, older formats, damage."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segvigen_model.serialization import (
    PROPOSAL_FORMAT,
    CorruptBlob,
    encoding_from_bytes,
    encoding_to_bytes,
    proposal_from_bytes,
    proposal_to_bytes,
)
from segvigen_model.types import PartTable, Proposal, RefinementState

FIXTURES = Path(__file__).parents[2] / "fixtures"
SHARES = st.floats(0, 1, width=32)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
IDS = st.integers(0, 40)


PARTS = {"names": ["a"], "categories": [""], "color_slots": [0]}


def two_parts() -> Proposal:
    labels = np.arange(2, dtype=np.int32)
    return Proposal(labels, np.zeros(1, np.int32), np.ones(2, np.float32), 1.0)


@st.composite
def proposals(draw) -> Proposal:
    num_parts = draw(st.integers(1, 6))

    def column(values):
        return tuple(draw(st.lists(values, min_size=num_parts, max_size=num_parts)))

    def labels(count):
        ids = st.integers(0, num_parts - 1)
        return draw(arrays.arrays(np.int32, count, elements=ids))

    levels = draw(st.none() | st.integers(0, 2))
    num_faces, parts = draw(st.integers(1, 9)), st.integers(0, num_parts - 1)
    return Proposal(
        labels(num_faces),
        labels(draw(st.integers(0, 9))),
        np.array(column(SHARES), np.float32),
        draw(SHARES),
        parts=PartTable(column(TEXTS), column(TEXTS), column(st.integers(-1, 300))),
        refinement=RefinementState(
            anchor_faces=tuple(draw(st.lists(st.integers(0, num_faces - 1), max_size=5))),
            background_part=draw(st.none() | parts),
            id_map=draw(st.dictionaries(IDS, parts, max_size=5)),
            pieces=draw(st.dictionaries(IDS, st.lists(parts, max_size=3).map(tuple), max_size=3)),
        ),
        checkpoint=draw(st.text("0123456789abcdef", max_size=64)),
        num_draws=draw(st.integers(0, 9)),
        fallbacks=tuple(draw(st.lists(TEXTS, max_size=2))),
        provenance=draw(st.dictionaries(TEXTS, st.integers() | TEXTS | st.none(), max_size=3)),
        finer=None if levels is None else np.zeros((levels, num_faces), np.int32),
        groups=None if levels is None else labels(num_parts),
    )


def check_equal(left: Proposal, right: Proposal) -> None:
    for field in fields(Proposal):
        one, two = getattr(left, field.name), getattr(right, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == two.dtype and np.array_equal(one, two), field.name
        else:
            assert one == two, field.name


@given(made=proposals())
def test_every_field_of_a_proposal_comes_back_and_bytes_are_stable(made):
    stored = proposal_to_bytes(made)
    back = proposal_from_bytes(stored)
    check_equal(back, made)
    assert proposal_to_bytes(back) == stored


def test_the_order_of_mappings_does_not_change_the_bytes():
    first = Proposal(np.zeros(2, np.int32), np.zeros(1, np.int32), np.ones(1, np.float32), 0.5)
    one = replace(
        first, refinement=RefinementState(id_map={1: 0, 0: 0}), provenance={"b": 1, "a": 2}
    )
    two = replace(
        first, refinement=RefinementState(id_map={0: 0, 1: 0}), provenance={"a": 2, "b": 1}
    )
    assert proposal_to_bytes(one) == proposal_to_bytes(two)


def test_a_proposal_of_a_model_comes_back(table, segmenter):
    made = segmenter.open(table[0]).propose(num_draws=1, num_steps=1)
    stored = proposal_to_bytes(made)
    assert proposal_to_bytes(proposal_from_bytes(stored)) == stored
    assert made.parts == PartTable.plain(made.num_parts)


def test_a_proposal_of_format_1_gives_its_state_as_typed_fields():
    """Written by commit a4d9af9; see the fixture's README."""
    old = proposal_from_bytes((FIXTURES / "a4d9af9" / "proposal-1.npz").read_bytes())
    runs = [(0, 12), (4, 2), (2, 4), (3, 6), (5, 12), (6, 2), (1, 4), (7, 2), (8, 2), (7, 2)]
    assert old.face_labels.tolist() == [part for part, count in runs for _ in range(count)]
    assert np.bincount(old.voxel_labels).tolist() == [132, 45, 45, 68, 19, 132, 22, 44, 21]
    assert old.parts == PartTable(
        names=("left box", *("",) * 8),
        categories=("", "", "", "box.side", *("",) * 5),
        color_slots=(0, 9, 2, 4, 8, 6, 5, 7, 1),
    )
    assert old.refinement == RefinementState(
        anchor_faces=(13, 25, 40),
        background_part=1,
        id_map={0: 0, 1: 0, 2: 2, 3: 3, 5: 5, 6: 6, 7: 7, 8: 8, 9: 4, 10: 1},
        pieces={7: (7, 8)},
    )
    assert old.checkpoint == "193208d1a5b1fe03315e7eb22fdf99e3f3bff49745b5f8b067883a6b93ef190c"
    assert (old.num_draws, old.fallbacks) == (2, ())
    assert old.finer.shape == (1, 48) and old.groups.tolist() == [0] * 9
    assert set(old.provenance) == {
        *("labels_source", "num_clicks", "num_draws", "parent", "seed", "fallbacks"),
        *("checkpoint", "mask_choice", "patch_network"),
    }, "what became a field is no longer in the record"
    check_equal(proposal_from_bytes(proposal_to_bytes(old)), old)


def changed(data: bytes, **members: object) -> bytes:
    """A stored proposal with other members; None leaves one out."""
    with np.load(io.BytesIO(data)) as stored:
        arrays_ = {name: stored[name] for name in stored.files}
    arrays_ |= {name: np.array(value) for name, value in members.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: a for name, a in arrays_.items() if a.dtype != object})
    return buffer.getvalue()


def test_a_first_proposal_of_format_1_has_plain_parts_and_nothing_settled():
    made = Proposal(
        np.arange(2, dtype=np.int32), np.zeros(1, np.int32), np.ones(2, np.float32), 1.0
    )
    old = changed(
        proposal_to_bytes(made),
        format="segvigen-proposal/1",
        provenance=json.dumps({"num_draws": 4, "checkpoint": "c", "fallbacks": ["geometry_only"]}),
        **dict.fromkeys(("parts", "refinement", "checkpoint", "num_draws", "fallbacks")),
    )
    read = proposal_from_bytes(old)
    assert (read.parts, read.refinement) == (PartTable.plain(2), RefinementState())
    assert (read.num_draws, read.checkpoint, read.fallbacks) == (4, "c", ("geometry_only",))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"format": "segvigen-proposal/9"}, "segvigen-proposal/9"),
        ({"parts": "{}"}, "names"),
        (
            {"parts": json.dumps({"names": ["a"], "categories": [""], "color_slots": [0]})},
            "1 part names for 2 parts",
        ),
        ({"parts": json.dumps({**PARTS, "names": []})}, "0 names"),
        ({"refinement": "[]"}, "not a proposal"),
        ({"refinement": json.dumps({"id_map": {"a": 1}})}, "not a proposal"),
        ({"fallbacks": "{"}, "'fallbacks' of a proposal is no JSON"),
        ({"provenance": '{"a": NaN}'}, "NaN is no JSON number"),
        ({"part_confidence": np.array([0.5, np.nan], np.float32)}, "not finite"),
        ({"confidence": np.inf}, "not finite"),
        ({"face_labels": np.array([0, 2])}, "has 0..2, not 0..1"),
        ({"face_labels": np.zeros((2, 1), int)}, r"is int64\(2, 1\)"),
        ({"finer": np.zeros((1, 3), int)}, "'finer' of a proposal"),
        ({"refinement": json.dumps({"anchor_faces": [2]})}, "none of 2 faces"),
        ({"refinement": json.dumps({"background_part": 2})}, "none of 2 parts"),
        ({"checkpoint": None}, "checkpoint"),
    ],
)
def test_broken_members_of_a_proposal_are_refused(members, message):
    made = Proposal(
        np.arange(2, dtype=np.int32), np.zeros(1, np.int32), np.ones(2, np.float32), 1.0
    )
    with pytest.raises(CorruptBlob, match=message):
        proposal_from_bytes(changed(proposal_to_bytes(made), **members))


def test_a_part_table_must_fit_its_proposal():
    made = Proposal(
        np.arange(2, dtype=np.int32), np.zeros(1, np.int32), np.ones(2, np.float32), 1.0
    )
    with pytest.raises(ValueError, match="part table of 2 parts for 3 parts"):
        replace(made, part_confidence=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="1 names, 0 categories, 1 colour slots"):
        PartTable(("a",), (), (0,))


def test_a_stored_proposal_names_its_format_and_holds_no_pickle():
    made = two_parts()
    with zipfile.ZipFile(io.BytesIO(proposal_to_bytes(made))) as archive:
        assert all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in archive.infolist())
    with np.load(io.BytesIO(proposal_to_bytes(made)), allow_pickle=False) as stored:
        assert str(stored["format"]) == PROPOSAL_FORMAT == "segvigen-proposal/2"


def test_encoding_bytes_round_trip_and_are_stable(table, segmenter):
    encoding = segmenter.encode(table[0])
    for condition in (None, np.ones((4, 8), np.float32)):
        stored = encoding_to_bytes(replace(encoding, condition=condition))
        back = encoding_from_bytes(stored)
        assert encoding_to_bytes(back) == stored
        assert np.array_equal(back.coords, encoding.coords)
        assert back.frame.scale == encoding.frame.scale
        assert (back.condition is None) == (condition is None)


@pytest.mark.parametrize("cut", [0, 7, 100, -20])
def test_damaged_bytes_are_refused(cut, table, segmenter):
    mesh, _ = table
    encoding = segmenter.encode(mesh)
    with pytest.raises(CorruptBlob):
        encoding_from_bytes(encoding_to_bytes(encoding)[:cut])
    proposal = segmenter.open(mesh, encoding).propose(num_draws=1, num_steps=1)
    with pytest.raises(CorruptBlob):
        proposal_from_bytes(proposal_to_bytes(proposal)[:cut])
