"""The model of allowed moves takes a true journal whole and catches every forged one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    LabelSetRow,
    ProposalRow,
    ReviewTaskRow,
    ShardMemberRow,
    ShardVersionRow,
)
from tests.chaos.history import check_history

CHAIR, LAMP, TABLE, STOOL, BED = (letter * 64 for letter in "cdefb")


@dataclass
class Line:
    """One event that may be forged."""

    event_id: int
    asset_id: str | None
    kind: str
    worker: str | None
    detail: dict[str, Any]


def _propose(catalogue: Catalogue, name: str, round_: int, worker: str) -> None:
    with catalogue.transaction():
        catalogue.move(name, AssetState.PROPOSED, worker=worker, round=round_)
        catalogue.add_proposal(ProposalRow(name, round_, f"p{round_}", "0" * 64, 2, 0.9, "tiny"))


def _show(catalogue: Catalogue, name: str, worker: str) -> None:
    round_ = catalogue.get_asset(name).round
    catalogue.claim([AssetState.PROPOSED], 9, worker, where=AssetRow.asset_id == name)
    catalogue.start(name, worker)
    with catalogue.transaction():
        catalogue.reviews.add_task(ReviewTaskRow(name, round_, 1, 7, "p", "s", "b"))
        catalogue.move(name, AssetState.IN_REVIEW, worker=worker)


def _say(catalogue: Catalogue, name: str, verdict: str) -> None:
    round_ = catalogue.get_asset(name).round
    key = (f"1-{name[0]}{round_}", "2026-01-01T00:00:00Z")
    catalogue.reviews.record_annotation(AnnotationRow(*key, 1, 7, name, round_, "me", {}))
    with catalogue.transaction():
        catalogue.reviews.interpret(*key, verdict=verdict)
        if verdict == "refine":
            catalogue.move(name, AssetState.REFINING)
        elif verdict == "accept":
            _accept(catalogue, name, "me")
        else:
            catalogue.move(name, AssetState.REJECTED, reason="reviewer_rejected")


def _accept(catalogue: Catalogue, name: str, by: str, worker: str | None = None) -> None:
    with catalogue.transaction():
        catalogue.labels.add(LabelSetRow(name[:8], name, "k", "0" * 64, "j", "p", 2, 0, 1, 1.0, by))
        catalogue.move(name, AssetState.ACCEPTED, worker=worker)


class Clock:
    """The database's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


def _die_over(catalogue: Catalogue, clock: Clock, name: str, worker: str) -> None:
    """A worker begins and is not heard of again; the next claim finds that out."""
    catalogue.claim([AssetState.PROPOSED], 9, worker, where=AssetRow.asset_id == name)
    catalogue.start(name, worker)
    clock.now += 10_000.0
    catalogue.claim([AssetState.SHARDED], 1, "nobody")


def _live(catalogue: Catalogue, clock: Clock) -> None:
    """A chair refined once and accepted, a lamp for the gate, a bad table, a stool thrown away.

    Workers die over the stool, one of them only by its looks, and twice over a deadly bed.
    """
    for name in (CHAIR, LAMP, TABLE, STOOL, BED):
        catalogue.register(AssetRow(name, AssetState.REGISTERED, name=name[0], source_key="s"))
    for state, worker in ((AssetState.ENCODED, "w1"), (AssetState.PROPOSED, "w2")):
        catalogue.claim(["registered", "encoded"], 9, worker)
        for name in (CHAIR, LAMP, STOOL, BED):
            catalogue.start(name, worker)
            if state is AssetState.ENCODED:
                catalogue.move(name, state, worker=worker)
            else:
                _propose(catalogue, name, 0, worker)
        catalogue.release([CHAIR, LAMP, TABLE, STOOL, BED], worker)
    for number in range(3):
        catalogue.claim([AssetState.REGISTERED], 1, f"t{number}")
        catalogue.start(TABLE, f"t{number}")
        catalogue.record_failure(TABLE, "no", worker=f"t{number}")
    catalogue.claim([AssetState.PROPOSED], 1, "w3", where=AssetRow.asset_id == LAMP)
    catalogue.start(LAMP, "w3")
    _accept(catalogue, LAMP, "gate", "w3")
    for number in range(2):
        _die_over(catalogue, clock, BED, f"d{number}")
    _die_over(catalogue, clock, STOOL, "d3")
    catalogue.renew([STOOL], "d3")  # it lives
    catalogue.release([STOOL], "d3")
    _show(catalogue, STOOL, "w4")
    _say(catalogue, STOOL, "reject")
    _show(catalogue, CHAIR, "w5")
    _say(catalogue, CHAIR, "refine")
    catalogue.claim([AssetState.REFINING], 1, "w6")
    catalogue.start(CHAIR, "w6")
    catalogue.end(CHAIR, "w6")
    catalogue.start(CHAIR, "w6")
    _propose(catalogue, CHAIR, 1, "w6")
    _show(catalogue, CHAIR, "w7")
    _say(catalogue, CHAIR, "accept")
    members = [ShardMemberRow("parts", "v1", name, name[:8], "tar") for name in (CHAIR, LAMP)]
    with catalogue.transaction():
        catalogue.labels.add_shards(ShardVersionRow("parts", "v1", "m", "0" * 64, 2, 9), members)
        for name in (CHAIR, LAMP):
            catalogue.move(name, AssetState.SHARDED, detail="parts/v1")


@pytest.fixture(scope="module")
def true_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Line], list[AssetRow]]:
    """A journal as the catalogue writes it, and the rows that it leads to."""
    clock = Clock()
    catalogue = Catalogue(f"sqlite:///{tmp_path_factory.mktemp('history')}/c.db", clock)
    _live(catalogue, clock)
    lines = [
        Line(row.event_id, row.asset_id, row.kind, row.worker, dict(row.detail))
        for row in catalogue.list_events()
    ]
    return lines, catalogue.list_assets()


def test_a_true_journal_is_taken_whole(true_run):
    assert check_history(*true_run) == []
    states = {(row.asset_id[0], str(row.state)) for row in true_run[1]}
    assert states == {
        ("c", "sharded"),
        ("d", "sharded"),
        ("e", "failed"),
        ("f", "rejected"),
        ("b", "failed"),
    }


def _find(lines: list[Line], kind: str, name: str | None = None, **detail: Any) -> int:
    """Place of the first event that fits."""
    return next(
        number
        for number, line in enumerate(lines)
        if (line.kind, line.asset_id) == (kind, name)
        and all(line.detail.get(key) == value for key, value in detail.items())
    )


def _drop(kind: str, name: str | None = CHAIR, **detail: Any) -> Callable[[list[Line]], None]:
    return lambda lines: lines.pop(_find(lines, kind, name, **detail)) and None


def _change(
    kind: str, change: dict[str, Any], name: str | None = CHAIR, **detail: Any
) -> Callable[[list[Line]], None]:
    return lambda lines: lines[_find(lines, kind, name, **detail)].detail.update(change)


def _repeat(kind: str, name: str | None = CHAIR, **detail: Any) -> Callable[[list[Line]], None]:
    def repeat(lines: list[Line]) -> None:
        place = _find(lines, kind, name, **detail)
        lines.insert(place + 1, copy.deepcopy(lines[place]))
        for number, line in enumerate(lines, 1):
            line.event_id = number

    return repeat


def _by(
    kind: str, worker: str | None, name: str = CHAIR, **detail: Any
) -> Callable[[list[Line]], None]:
    def change(lines: list[Line]) -> None:
        lines[_find(lines, kind, name, **detail)].worker = worker

    return change


def _claim_again(lines: list[Line]) -> None:
    place = _find(lines, "claimed", None) + 1
    lines.insert(place, Line(0, None, "claimed", "thief", {"assets": [CHAIR]}))
    for number, line in enumerate(lines, 1):
        line.event_id = number


def _claim_suspect(lines: list[Line]) -> None:
    place = _find(lines, "worker_died", BED)
    lines[_find(lines[place:], "claimed") + place].detail["assets"].append(CHAIR)


def _swap_ids(lines: list[Line]) -> None:
    lines[3].event_id, lines[4].event_id = lines[4].event_id, lines[3].event_id


FORGERIES: dict[str, tuple[Callable[[list[Line]], None], str]] = {
    "out of order": (_swap_ids, "comes after event"),
    "never registered": (_drop("registered"), "not registered"),
    "registered twice": (_repeat("registered"), "registered twice"),
    "a stage left out": (_drop("moved", to="encoded"), "moved from encoded while"),
    "an impossible move": (_change("moved", {"to": "accepted"}, to="encoded"), "is no move"),
    "a round left out": (_change("moved", {"round": 2}, to="proposed", round=1), "to round 2"),
    "a round again": (_change("moved", {"round": 0}, to="proposed", round=1), "to round 0"),
    "a round from nowhere": (_change("moved", {"round": 3}, to="encoded"), "became 3"),
    "another's work": (_by("moved", "thief", to="encoded"), "moved by thief, leased to w1"),
    "nobody's work": (_by("moved", None, to="encoded"), "by nobody, who had not begun"),
    "leased twice": (_claim_again, "is leased to w1"),
    "begun without a lease": (_drop("claimed", None), "leased to None"),
    "ended and not begun": (_drop("started", worker_of="w6"), "begun: False"),
    "no proposal": (_drop("proposal", round=1), "without a proposal"),
    "a proposal of another round": (_change("proposal", {"round": 5}, round=1), "of round 5"),
    "no task": (_drop("review_task", round=1), "without a task of round 1"),
    "an answer twice": (_repeat("annotation"), "is stored twice"),
    "an answer from the future": (_change("annotation", {"round": 4}), "a round to come"),
    "interpreted twice": (_repeat("interpreted"), "interpreted twice"),
    "interpreted, not stored": (_drop("annotation"), "never stored"),
    "refined unasked": (_drop("interpreted", verdict="refine"), "after the verdict None"),
    "accepted against the word": (
        _change("interpreted", {"verdict": "reject"}, verdict="accept"),
        "accepted after the verdict reject",
    ),
    "accepted without labels": (_drop("label_set"), "accepted with label set None"),
    "labels without acceptance": (_drop("moved", to="accepted"), "1 label sets, 0 acceptances"),
    "labels twice": (_repeat("label_set"), "was not accepted"),
    "accepted unseen": (_change("label_set", {"by": "me"}, LAMP), "accepted unseen by 'me'"),
    "no such version": (_drop("shards", None), "which is not recorded"),
    "a version twice": (_repeat("shards", None), "recorded twice"),
    "failed for nothing": (
        lambda lines: (
            [lines.remove(line) for line in list(lines) if line.kind == "attempt_failed"] and None
        ),
        "without a failed attempt",
    ),
    "an attempt forgotten": (_drop("attempt_failed", TABLE, n=2), "attempt 3 after 1"),
    "parked for a first death": (_drop("worker_died", BED), "after 1 deaths over it alone"),
    "a death of another": (_by("worker_died", "thief", name=BED), "thief died, leased to d0"),
    "a death unseen": (_drop("worker_died", STOOL), "leased to d3, before to None"),
    "taken back by another": (_by("taken_back", "thief", name=STOOL), "before to d3"),
    "a suspect among others": (_claim_suspect, "is a suspect and leased with others"),
    "an unknown kind": (lambda lines: setattr(lines[-1], "kind", "blessed"), "unknown kind"),
    "the end left out": (lambda lines: lines.pop() and None, "its history"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_journal_is_caught(true_run, name):
    lines = copy.deepcopy(true_run[0])
    for line in lines:  # so that a forgery can name one of several alike
        if line.kind == "started":
            line.detail["worker_of"] = line.worker
    forge, words = FORGERIES[name]
    forge(lines)
    problems = check_history(lines, true_run[1])
    assert any(words in problem for problem in problems), problems


@given(st.data())
def test_no_move_can_be_left_out_repeated_or_turned_round(true_run, data):
    lines = copy.deepcopy(true_run[0])
    places = [number for number, line in enumerate(lines) if line.kind == "moved"]
    place = data.draw(st.sampled_from(places))
    how = data.draw(st.sampled_from(["drop", "repeat", "turn"]))
    if how == "drop":
        lines.pop(place)
    elif how == "repeat":
        lines.insert(place, copy.deepcopy(lines[place]))
    else:
        detail = lines[place].detail
        detail["from"], detail["to"] = detail["to"], detail["from"]
    for number, line in enumerate(lines, 1):
        line.event_id = number
    assert check_history(lines, true_run[1])


@pytest.mark.parametrize(("name", "value"), [("round", 7), ("attempts", 2), ("lease_owner", "w")])
def test_a_row_that_its_history_does_not_lead_to(true_run, name, value):
    lines, rows = true_run
    forged = [copy.copy(row) for row in rows]
    held = Row(**{key: getattr(forged[0], key) for key in Row.__annotations__} | {name: value})
    problems = check_history(lines, [held, *forged[1:]])
    assert any("the row says" in problem for problem in problems)


@dataclass
class Row:
    """What the check asks of an asset's row."""

    asset_id: str
    state: Any
    round: int
    attempts: int
    lease_owner: str | None


def test_a_lost_row_is_found(true_run):
    lines, rows = true_run
    assert "4 assets, 5 histories" in check_history(lines, rows[1:])


def test_the_models_moves_are_those_of_the_catalogue(tmp_path: Path):
    """Two lists made apart from each other agree, so that neither is changed alone."""
    from tasks.catalogue import ALLOWED_MOVES
    from tests.chaos.history import MOVES

    assert {str(old): set(map(str, new)) for old, new in ALLOWED_MOVES.items()} == MOVES
