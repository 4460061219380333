"""The catalogue on a real PostgreSQL: the same rules as on SQLite, with several processes."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tasks.catalogue import (
    AnnotationRow,
    AssetRow,
    AssetState,
    Catalogue,
    CopyRole,
    CopyRow,
    FindingKind,
    FindingRow,
    GateRow,
    IllegalMove,
    LabelSetRow,
    ProposalRow,
    RawRow,
    ShardMemberRow,
    ShardVersionRow,
    make_worker_id,
)


def _claim_all(url: str, name: str, queue: mp.Queue[list[str]]) -> None:
    catalogue, mine = Catalogue(url), []
    while rows := catalogue.claim(["registered"], 3, f"{make_worker_id()}{name}"):
        for row in rows:
            catalogue.move(row.asset_id, "encoded", worker=row.lease_owner)
            mine.append(row.asset_id)
    queue.put(mine)


def test_processes_never_share_an_asset(postgres_url: str) -> None:
    catalogue = Catalogue(postgres_url)
    ids = [f"{number:064x}" for number in range(60)]
    for asset_id in ids:
        assert catalogue.register(AssetRow(asset_id, AssetState.REGISTERED))
    context = mp.get_context("spawn")
    queue: mp.Queue[list[str]] = context.Queue()
    workers = [
        context.Process(target=_claim_all, args=(postgres_url, str(i), queue)) for i in range(3)
    ]
    for worker in workers:
        worker.start()
    got = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(asset_id for mine in got for asset_id in mine) == ids
    moves = catalogue.list_events(kind="moved")
    assert len(moves) == 60


def test_moves_rows_and_rollback(postgres_url: str) -> None:
    catalogue = Catalogue(postgres_url)
    a = "f" * 64
    assert catalogue.register(AssetRow(a, AssetState.REGISTERED, name="é"))
    assert not catalogue.register(AssetRow(a, AssetState.REGISTERED))
    with pytest.raises(IllegalMove), catalogue.transaction():
        catalogue.move(a, "encoded")
        catalogue.add_proposal(ProposalRow(a, 0, "k", "s", 2, 0.5, "c", {"x": [1]}))
        catalogue.move(a, "sharded")
    assert catalogue.get_asset(a).state is AssetState.REGISTERED
    assert catalogue.get_latest_proposal(a) is None
    for key in ("k1", "k2"):
        catalogue.add_proposal(ProposalRow(a, 0, key, "s", 2, 0.5, "c", {"x": [1]}))
    latest = catalogue.get_latest_proposal(a)
    assert latest is not None
    assert (latest.key, latest.provenance) == ("k2", {"x": [1]})
    catalogue.raw.record(RawRow("key", "e1", 2**40))
    catalogue.raw.record(RawRow("key", "e2", 2**40))
    assert catalogue.raw.list_etags()["key"] == "e2"
    catalogue.claim(["registered"], 1, "nobody/1/2/", lease_s=-1)
    assert [row.asset_id for row in catalogue.claim(["registered"], 1, make_worker_id())] == [a]
    row = catalogue.record_failure(a, "boom", max_attempts=1)
    assert (row.state, row.parked_from) == (AssetState.FAILED, "registered")


def _while_uncommitted(
    url: str, first: Callable[[Catalogue], object], second: Callable[[Catalogue], object]
) -> object:
    """What `second` gives when it runs into `first`, whose transaction is still open."""
    catalogue = Catalogue(url)
    waiting = (
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query not like"
        " '%pg_stat_activity%'"
    )
    with ThreadPoolExecutor(1) as pool, psycopg.connect(url, autocommit=True) as watch:
        with catalogue.transaction():
            first(catalogue)
            other = pool.submit(second, catalogue)
            while not other.done() and watch.execute(waiting).fetchone() == (0,):
                time.sleep(0.01)
        return other.result(timeout=60)


ANSWER = AnnotationRow("u", "t", 1, 1, "9" * 64, 0, "ann", {"id": 1})
LABELS = LabelSetRow("same", "9" * 64, "k", "s", "p", "pk", 2, 0, 1, 1.0, "ann")
VERSION = ShardVersionRow("d", "v1", "m", "s", 1, 1)
MEMBER = ShardMemberRow("d", "v1", "9" * 64, "same", "k")


@pytest.mark.parametrize(
    ("add", "event"),
    [
        (lambda c: c.register(AssetRow("9" * 64, AssetState.REGISTERED)), "registered"),
        (lambda c: c.reviews.record_annotation(ANSWER), "annotation"),
        (lambda c: c.labels.add(LABELS), "label_set"),
        (lambda c: c.labels.add_shards(VERSION, [MEMBER]), "shards"),
        (lambda c: c.quality.add_copy(CopyRow("8" * 64, CopyRole.DOUBLE, "9" * 64)), "copy"),
        (lambda c: c.quality.add_gold(LABELS), "gold"),
    ],
    ids=["asset", "answer", "labels", "shards", "copy", "gold"],
)
def test_two_that_add_the_same_at_once_add_it_once(
    fresh_url: str, add: Callable[[Catalogue], bool], event: str
) -> None:
    catalogue = Catalogue(fresh_url)
    before = len(catalogue.list_events(kind=event))
    assert _while_uncommitted(fresh_url, add, add) is False
    assert len(catalogue.list_events(kind=event)) == before + 1


def test_nobody_moves_an_asset_that_is_locked(fresh_url: str) -> None:
    catalogue, asset_id = Catalogue(fresh_url), "7" * 64
    catalogue.register(AssetRow(asset_id, AssetState.REGISTERED))

    def lock_and_move(mine: Catalogue) -> None:
        mine.lock_asset(asset_id)
        mine.move(asset_id, "encoded", detail="first")

    with pytest.raises(IllegalMove, match="encoded -> encoded"):
        _while_uncommitted(fresh_url, lock_and_move, lambda mine: mine.move(asset_id, "encoded"))
    (moved,) = catalogue.list_events(asset_id, "moved")
    assert moved.detail["detail"] == "first"


def test_quality_control_speaks_postgresql_too(postgres_url: str) -> None:
    catalogue = Catalogue(postgres_url)
    ledger = catalogue.quality
    first, second, known = ("5" * 63 + end for end in "abc")
    for name in (first, second, known):
        catalogue.register(AssetRow(name, AssetState.REGISTERED))
        catalogue.move(name, "encoded")
        catalogue.add_proposal(ProposalRow(name, 0, f"p/{name}", "s", 2, 0.4, "c"))
        catalogue.move(name, "proposed")
    assert ledger.add_copy(CopyRow(second, CopyRole.DOUBLE, first))
    assert not ledger.add_copy(CopyRow(second, CopyRole.DOUBLE, first))
    ledger.add_copy(CopyRow(known, CopyRole.GOLD, first, "truth"))
    assert ledger.count_held() == 0, "held once it is accepted"
    assert ledger.is_held(first) and [row.asset_id for row in ledger.list_open_doubles()] == [
        second
    ]
    ledger.add_decision(GateRow(known, 0, "r", False, True, ("why",)))
    condition = ledger.is_ungated("r")
    claimed = {row.asset_id for row in catalogue.claim(["proposed"], 99, "w", where=condition)}
    assert {first, second} <= claimed and known not in claimed
    catalogue.release([first, second], "w")
    ledger.set_priorities({first: 0.5, second: 0.25})
    places = {row.asset_id: row.priority for row in ledger.list_waiting()}
    assert (places[first], places[second]) == (0.5, 0.25)
    catalogue.move(known, "rejected", reason="reviewer_rejected")
    assert set(ledger.list_contradicted()) == {
        (known, FindingKind.GOLD),
        (known, FindingKind.AUDIT),
    }
    labels = LabelSetRow("lq", first, "k", "s", "p", "pk", 2, 0, 1, 1.0, "ann")
    catalogue.labels.add(labels)
    assert ledger.add_gold(labels) and [row.label_id for row in ledger.list_gold()] == ["lq"]
    assert [row.label_id for row in ledger.list_uncompared("gate")] == ["lq"]
    ledger.add_finding(FindingRow(first, FindingKind.GAIN, "lq", "ann", iou=0.5))
    ledger.add_finding(FindingRow(first, FindingKind.DOUBLE, "pair", "ann", "bob", iou=0.5))
    assert ledger.list_uncompared("gate") == [] and not ledger.is_held(first)
    assert [row.iou for row in ledger.list_last_findings(FindingKind.GAIN, 5)] == [0.5]
    assert ledger.list_annotations() == [] and ledger.count_clicks() == {}
    assert ledger.get_decision(known, 0).rejection_reasons == ["why"]
