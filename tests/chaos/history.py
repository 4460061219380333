"""A small model of what may happen to an asset, and a check of the journal against it.

Written from docs/catalogue.md and docs/architecture.md, not from the code: it knows states,
rounds, leases, acceptances and shards, and nothing of how the pipeline works. It takes the events
in their order and says which of them could not follow what stood there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

PARKING = {"rejected", "failed", "skipped"}
# What a person, the gate or a stage may do with an asset.
MOVES = {
    "registered": {"encoded"} | PARKING,
    "encoded": {"proposed"} | PARKING,
    "proposed": {"in_review", "accepted"} | PARKING,
    "in_review": {"accepted", "refining", "proposed"} | PARKING,
    "refining": {"proposed", "in_review"} | PARKING,
    "accepted": {"sharded", "refining", "rejected"},
    "sharded": {"refining", "rejected"},
    "rejected": {"registered", "proposed"},
    "failed": {"registered", "encoded", "proposed", "in_review", "refining"},
    "skipped": {"registered", "proposed"},
}
# Moves that only a worker that holds the asset may make; the others follow an answer or a person.
BY_WORKER = {("registered", "encoded"), ("encoded", "proposed"), ("proposed", "in_review")}
MIN_DEATHS = 2  # over an asset alone, before it is parked for it
FACTS = {"updated", "raw_seen", "gated", "copy", "finding", "gold"}


class Event(Protocol):
    """One line of the journal."""

    event_id: int
    asset_id: str | None
    kind: str
    worker: str | None
    detail: Mapping[str, Any]


class Asset(Protocol):
    """An asset's row at the end."""

    asset_id: str
    state: Any
    round: int
    attempts: int
    lease_owner: str | None


@dataclass
class Life:
    """What is known of one asset after some of its events.

    Attributes:
        holder: worker with the lease; former: that held it when it seemed to die.
        is_worked_on: work under the lease has begun.
        is_suspect: a worker died while it held it; alone_deaths: over it alone.
        proposals: rounds that have one; tasks: rounds that were shown.
        verdict: of the last answer to the present round since it was shown.
        answers: stored versions not yet interpreted, by unique id.
        label_set: recorded in this very moment, for the move that must follow.
        is_copy: made for quality control, and may begin with its model's proposal.
        num_label_sets, num_acceptances: so far; they stay equal.
    """

    state: str = ""
    round: int = 0
    holder: str | None = None
    former: str | None = None
    is_suspect: bool = False
    alone_deaths: int = 0
    was_alone: bool = False
    is_worked_on: bool = False
    attempts: int = 0
    proposals: set[int] = field(default_factory=set)
    tasks: set[int] = field(default_factory=set)
    verdict: str | None = None
    answers: dict[str, int] = field(default_factory=dict)
    versions: set[tuple[str, str]] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    label_set: str | None = None
    decided_by: str = ""
    is_copy: bool = False
    num_label_sets: int = 0
    num_acceptances: int = 0


class Model:
    """Takes events one by one; `problems` says what could not be."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.versions: set[str] = set()
        self.problems: list[str] = []
        self._last_id = 0
        self._own: Mapping[str, Callable[[Life, Event], str | None]] = {
            "moved": self._move,
            "proposal": self._propose,
            "review_task": self._show,
            "annotation": self._answer,
            "interpreted": self._interpret,
            "marked_late": self._mark_late,
            "label_set": self._label,
            "started": self._begin_work,
            "ended": self._end_work,
            "attempt_failed": self._fail,
            "worker_died": self._die,
            "taken_back": self._take_back,
        }
        self._common: Mapping[str, Callable[[Event], str | None]] = {
            "claimed": self._claim,
            "released": self._release,
            "shards": self._shard,
        }

    def take(self, event: Event) -> None:
        """Take the next event of the journal."""
        wrong = self._check(event)
        if event.event_id <= self._last_id:
            wrong = f"comes after event {self._last_id}"
        self._last_id = event.event_id
        if wrong is not None:
            about = f"{event.kind} {(event.asset_id or '')[:12]}".strip()
            self.problems.append(f"event {event.event_id} ({about}): {wrong}")

    def _check(self, event: Event) -> str | None:
        if event.asset_id is None:
            found = self._common.get(event.kind)
            return None if found is None else found(event)
        life = self.lives.get(event.asset_id)
        if event.kind == "registered":
            if life is not None:
                return "registered twice"
            self.lives[event.asset_id] = Life("registered")
            return None
        if event.kind == "raw_seen":  # a second key with the same bytes, or an unreadable one
            return None
        if life is None:
            return "not registered"
        if life.label_set is not None and event.kind != "moved":
            return f"label set {life.label_set} was recorded and the asset was not accepted"
        if event.kind in FACTS:
            life.is_copy = life.is_copy or event.kind == "copy"
            return None
        own = self._own.get(event.kind)
        return f"unknown kind {event.kind!r}" if own is None else own(life, event)

    # --- moves

    def _move(self, life: Life, event: Event) -> str | None:
        old, new, round_ = (event.detail[name] for name in ("from", "to", "round"))
        wrong = self._check_move(life, event, old, new, round_)
        if new == "accepted":
            life.num_acceptances += 1
        if (old, new) == ("proposed", "in_review"):  # shown: what was said before is over
            life.verdict = None
        life.state, life.round, life.label_set = new, round_, None
        life.holder, life.former, life.is_worked_on = None, None, False
        if new not in PARKING:
            life.attempts = 0
            _clear(life)
        return wrong

    def _check_move(self, life: Life, event: Event, old: str, new: str, round_: int) -> str | None:
        if old != life.state:
            return f"moved from {old} while it was {life.state}"
        if new not in MOVES.get(old, set()):
            return f"{old} -> {new} is no move"
        if event.worker is not None and not _may_act(life, event.worker):
            return f"moved by {event.worker}, leased to {life.holder}"
        is_born = life.is_copy and life.holder is None and old in ("registered", "encoded")
        is_by_worker = (old, new) in BY_WORKER and not is_born
        if is_by_worker and (event.worker is None or not life.is_worked_on):
            return f"{old} -> {new} by {event.worker or 'nobody'}, who had not begun"
        return self._check_round(life, old, new, round_) or self._check_reason(life, event)

    def _check_round(self, life: Life, old: str, new: str, round_: int) -> str | None:
        may_rise = new == "proposed" and old in ("refining", "in_review")
        if old == "refining" and new == "proposed" and round_ != life.round + 1:
            return f"refined from round {life.round} to round {round_}"
        if round_ != life.round and not (may_rise and round_ == life.round + 1):
            return f"round {life.round} became {round_}"
        return None

    def _check_reason(self, life: Life, event: Event) -> str | None:
        """Why may it go there now?"""
        old, new = event.detail["from"], event.detail["to"]
        if (new == "accepted") != (life.label_set is not None):
            return f"{new} with label set {life.label_set}"
        if new == "accepted" and old == "proposed" and life.decided_by != "gate":
            return f"accepted unseen by {life.decided_by!r}"
        if new == "accepted" and old == "in_review" and life.verdict != "accept":
            return f"accepted after the verdict {life.verdict}"
        if new == "refining" and life.verdict != "refine":
            return f"refined after the verdict {life.verdict}"
        if new == "in_review" and old == "proposed" and life.round not in life.tasks:
            return f"in review without a task of round {life.round}"
        if new == "sharded" and event.detail.get("detail") not in self.versions:
            return f"sharded in {event.detail.get('detail')}, which is not recorded"
        if new == "failed":
            return self._check_failure(life, event.detail["reason"])
        return None

    def _check_failure(self, life: Life, reason: str) -> str | None:
        if reason == "killed_worker":
            enough = life.alone_deaths >= MIN_DEATHS
            return None if enough else f"parked after {life.alone_deaths} deaths over it alone"
        return None if life.attempts else "parked as failed without a failed attempt"

    # --- rounds and reviews

    def _propose(self, life: Life, event: Event) -> str | None:
        round_ = event.detail["round"]
        life.proposals.add(round_)
        if life.is_copy and (life.state, round_) == ("encoded", 0):
            return None  # it comes with the copy
        if life.state != "proposed" or round_ != life.round:
            return f"proposal of round {round_} in round {life.round}, {life.state}"
        return None

    def _show(self, life: Life, event: Event) -> str | None:
        round_ = event.detail["round"]
        life.tasks.add(round_)
        if life.state != "proposed" or round_ != life.round:
            return f"task of round {round_} in round {life.round}, {life.state}"
        return None if round_ in life.proposals else f"task of round {round_} without a proposal"

    def _answer(self, life: Life, event: Event) -> str | None:
        name, version = event.detail["unique_id"], event.detail["updated_at"]
        life.answers[name] = event.detail["round"]
        if (name, version) in life.versions:
            return f"answer {name} of {version} is stored twice"
        life.versions.add((name, version))
        return None if event.detail["round"] <= life.round else "an answer to a round to come"

    def _interpret(self, life: Life, event: Event) -> str | None:
        name = event.detail["unique_id"]
        round_ = life.answers.pop(name, None)
        if round_ is None:
            return f"answer {name} is interpreted twice, or was never stored"
        if round_ == life.round and name not in life.late:
            life.verdict = event.detail["verdict"]
        return None

    def _mark_late(self, life: Life, event: Event) -> str | None:
        life.late.add(event.detail["unique_id"])
        return None

    def _label(self, life: Life, event: Event) -> str | None:
        life.num_label_sets += 1
        life.label_set, life.decided_by = event.detail["label_id"], event.detail["by"]
        if life.state not in ("proposed", "in_review"):
            return f"label set of an asset that is {life.state}"
        return None

    # --- leases

    def _claim(self, event: Event) -> str | None:
        names = event.detail["assets"]
        held = [name for name, life in self.lives.items() if life.holder == event.worker]
        wrong = self._check_suspects(names, held)
        for name in names:
            life = self.lives.get(name)
            if life is None:
                wrong = f"{name[:12]} is not registered"
                continue
            if life.holder is not None:
                wrong = f"{name[:12]} is leased to {life.holder}"
            if life.state in PARKING | {"accepted", "sharded"}:
                wrong = f"{name[:12]} is {life.state}, and no stage takes it from there"
            life.holder, life.former, life.is_worked_on = event.worker, None, False
        return wrong

    def _check_suspects(self, names: list[str], held: list[str]) -> str | None:
        """What its worker may have died of is worked on alone."""
        suspects = [name for name in [*names, *held] if name in self.lives]
        suspects = [name for name in suspects if self.lives[name].is_suspect]
        if suspects and len(names) + len(held) > 1:
            return f"{suspects[0][:12]} is a suspect and leased with others"
        return None

    def _release(self, event: Event) -> str | None:
        for life in self._lives_of(event):
            if life.holder == event.worker:  # others were named, and left alone
                life.holder, life.is_worked_on = None, False
            if life.former == event.worker:
                life.former = None
        return None

    def _die(self, life: Life, event: Event) -> str | None:
        holder, life.holder, life.former = life.holder, None, event.worker
        life.is_suspect = True
        life.was_alone = bool(event.detail["alone"] and event.detail["started"])
        life.alone_deaths += life.was_alone
        if holder != event.worker:
            return f"{event.worker} died, leased to {holder}"
        if bool(event.detail["started"]) != life.is_worked_on:
            return f"died having begun: {event.detail['started']}, not {life.is_worked_on}"
        return None

    def _take_back(self, life: Life, event: Event) -> str | None:
        """The worker lived, and nobody has touched the asset since."""
        former, life.former, holder = life.former, None, life.holder
        life.holder = event.worker
        life.alone_deaths -= life.was_alone
        if holder is not None or former != event.worker:
            return f"taken back by {event.worker}, leased to {holder}, before to {former}"
        return None

    def _lives_of(self, event: Event) -> list[Life]:
        return [self.lives[name] for name in event.detail["assets"] if name in self.lives]

    def _begin_work(self, life: Life, event: Event) -> str | None:
        life.is_worked_on = True
        if life.holder != event.worker:
            return f"begun by {event.worker}, leased to {life.holder}"
        return None

    def _end_work(self, life: Life, event: Event) -> str | None:
        was, life.is_worked_on = life.is_worked_on, False
        _clear(life)
        if life.holder != event.worker or not was:
            return f"ended by {event.worker}, leased to {life.holder}, begun: {was}"
        return None

    def _fail(self, life: Life, event: Event) -> str | None:
        before, life.attempts = life.attempts, event.detail["n"]
        may_act = event.worker is None or _may_act(life, event.worker)
        life.holder, life.former, life.is_worked_on = None, None, False
        _clear(life)
        if not may_act:
            return f"{event.worker} failed at what it did not hold"
        if life.attempts != before + 1:
            return f"attempt {life.attempts} after {before}"
        return None

    def _shard(self, event: Event) -> str | None:
        name = f"{event.detail['dataset']}/{event.detail['version']}"
        known = name in self.versions
        self.versions.add(name)
        return f"version {name} is recorded twice" if known else None


def _may_act(life: Life, worker: str) -> bool:
    """Does it hold the asset, or did it and nobody has touched the asset since?"""
    return worker == life.holder or (life.holder is None and worker == life.former)


def _clear(life: Life) -> None:
    """An attempt has ended: whatever its worker may have died of, it is not this asset."""
    life.is_suspect, life.alone_deaths, life.was_alone = False, 0, False


def check_history(events: Iterable[Event], assets: Iterable[Asset] = ()) -> list[str]:
    """What in the journal could not have happened, and where it does not lead to the rows.

    Args:
        events: all of a catalogue's, by event id.
        assets: the rows at the end; none: only the journal is checked.
    """
    model = Model()
    for event in events:
        model.take(event)
    problems = list(model.problems)
    for name, life in model.lives.items():
        if life.num_label_sets != life.num_acceptances:
            counts = (life.num_label_sets, life.num_acceptances)
            problems.append(f"{name[:12]}: {counts[0]} label sets, {counts[1]} acceptances")
    rows = list(assets)
    for row in rows:
        life = model.lives.get(row.asset_id)
        held = (str(row.state), row.round, row.attempts, row.lease_owner)
        expected = None if life is None else (life.state, life.round, life.attempts, life.holder)
        if expected != held:
            problems.append(f"{row.asset_id[:12]}: the row says {held}, its history {expected}")
    if rows and len(rows) != len(model.lives):
        problems.append(f"{len(rows)} assets, {len(model.lives)} histories")
    return problems
