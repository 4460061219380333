"""Who is killed, in which order: all from the seed. When, follows the progress of the work.

A kill is due when enough has happened since the last one, however fast the machine is, or when
nothing has happened for some time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.chaos.points import ADD_EVENT, POINTS, Order

MAX_NUMBER = 4  # an order is carried out at one of the next calls


class Kind(StrEnum):
    """What is killed."""

    FLOW_AT_CALL = "flow process, at a named call"
    FLOW = "flow process, at any time"
    PARSER = "mesh parser"
    DATABASE = "database"
    S3 = "S3 server"
    REFINE = "refine service"
    PREFECT = "Prefect server"
    WORKER = "Prefect worker and its runs"
    WORKER_RUN = "a flow run of the worker"
    LABEL_STUDIO = "Label Studio"


SERVICE_OF: Mapping[Kind, str] = {
    Kind.S3: "s3",
    Kind.REFINE: "refine",
    Kind.PREFECT: "prefect",
    Kind.WORKER: "worker-gpu",
    Kind.LABEL_STUDIO: "label-studio",
    Kind.DATABASE: "database",
}
# Of a hundred kills; what takes long to come back is killed less often.
SHARES: Mapping[Kind, int] = {
    Kind.FLOW_AT_CALL: 34,
    Kind.FLOW: 18,
    Kind.DATABASE: 12,
    Kind.S3: 10,
    Kind.REFINE: 8,
    Kind.PARSER: 5,
    Kind.PREFECT: 4,
    Kind.WORKER_RUN: 4,
    Kind.WORKER: 2,
    Kind.LABEL_STUDIO: 3,
}


@dataclass(frozen=True, slots=True)
class PlannedKill:
    """One kill to come.

    Attributes:
        kind: of what.
        choice: 0..1, which of several.
        pause_s: the victim is started again after so long.
        order: for FLOW_AT_CALL, and for the database where killing its users is all one can do.
    """

    kind: Kind
    choice: float
    pause_s: float
    order: Order


def replace_stuck_kills(plan: Sequence[PlannedKill]) -> list[PlannedKill]:
    """When only victims are left that need not run again, take flow processes in their place.

    The last inputs come with the last kills: a parser or a worker's run that is waited for may
    never begin.
    """
    if any(kill.kind not in (Kind.PARSER, Kind.WORKER_RUN) for kill in plan):
        return list(plan)
    return [replace(kill, kind=Kind.FLOW) for kill in plan]


def plan_kills(count: int, seed: int, *, has_worker: bool = True) -> list[PlannedKill]:
    """All kills of a run, in order. Every kind comes at least once where there is room."""
    rng = random.Random(f"kills:{seed}")
    absent = set() if has_worker else {Kind.WORKER, Kind.WORKER_RUN}
    shares = {kind: share for kind, share in SHARES.items() if kind not in absent}
    kinds = list(shares)[:count]
    while len(kinds) < count:
        kinds += rng.choices(list(shares), list(shares.values()))
    rng.shuffle(kinds)
    return [_plan_kill(kind, rng) for kind in kinds]


def _plan_kill(kind: Kind, rng: random.Random) -> PlannedKill:
    point = (
        ADD_EVENT if kind is Kind.DATABASE else rng.choices(list(POINTS), list(POINTS.values()))[0]
    )
    number = rng.randint(1, MAX_NUMBER)
    order = Order(point, number, is_before=rng.random() < 0.5)
    return PlannedKill(kind, rng.random(), round(rng.uniform(0.0, 2.0), 2), order)
