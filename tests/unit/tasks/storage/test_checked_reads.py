"""What is read is what was written, or an infrastructure error; shown with a store that lies."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest

from tasks.catalogue import AssetRow, AssetState, BlobRow, Catalogue
from tasks.errors import is_transient_error
from tasks.settings import load_settings
from tasks.stages.runner import StageResult, run_stage_safely
from tasks.storage.canonical import BadDocument
from tasks.storage.checked_reads import md5_of_etag
from tasks.storage.errors import BlobDamaged, BlobLost, BlobMissing, ChangedSinceListed
from tasks.storage.store import Store
from tasks.workspace import Workspace
from tests.faults import Lies, lying_reads

OFTEN = Lies(seed=5, short=0.1, flipped=0.1, stale=0.1)
RARELY = Lies(seed=5, short=0.03, flipped=0.03, stale=0.03)  # where two reads in a row must agree


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(f"sqlite:///{tmp_path}/c.db")


@pytest.fixture
def store(tmp_path: Path, catalogue: Catalogue) -> Store:
    return Store(f"file://{tmp_path}/root", hashes=catalogue.blobs)


def damage(store: Store, key: str, data: bytes) -> None:
    path = Path(store.get_uri(key).removeprefix("file://"))
    path.write_bytes(data)


def test_every_write_is_recorded_with_its_hash(store: Store, catalogue: Catalogue) -> None:
    store.put("a", b"one")
    store.put("a", b"one")
    file = Path(store.get_uri("a").removeprefix("file://"))
    store.put_file("b", file)
    rows = catalogue.blobs.list_all()
    assert [(row.key, row.sha256, row.size_bytes) for row in rows] == [
        ("a", hash_of(b"one"), 3),
        ("b", hash_of(b"one"), 3),
    ]
    assert len(catalogue.list_events(kind="blob")) == 2
    assert catalogue.blobs.list_all("b") == rows[1:]


@pytest.mark.parametrize("damaged", [b"", b"on", b"onf", b"one, two"])
def test_damage_on_disk_is_reported_by_the_record_and_by_a_given_hash(
    store: Store, tmp_path: Path, damaged: bytes
) -> None:
    store.put("a", b"one")
    damage(store, "a", damaged)
    plain = Store(f"file://{tmp_path}/root")
    for read in (lambda: store.get("a"), lambda: plain.get("a", hash_of(b"one"))):
        with pytest.raises(BlobDamaged, match="segvigen repair") as caught:
            read()
        assert is_transient_error(caught.value)


def test_another_objects_bytes_are_not_this_ones(store: Store) -> None:
    store.put("a", b"one")
    store.put("b", b"two")
    damage(store, "a", b"two")
    with pytest.raises(BlobDamaged):
        store.get("a")


def test_a_lost_object_is_an_infrastructure_error_only_where_it_was_written(store: Store) -> None:
    store.put("a", b"one")
    Path(store.get_uri("a").removeprefix("file://")).unlink()
    with pytest.raises(BlobLost, match="though it was written") as lost:
        store.get("a")
    assert isinstance(lost.value, BlobMissing) and is_transient_error(lost.value)
    with pytest.raises(BlobMissing) as never:
        store.get("never")
    assert not is_transient_error(never.value)


def test_an_object_without_a_record_is_read_twice_and_recorded(
    tmp_path: Path, store: Store, catalogue: Catalogue
) -> None:
    Store(f"file://{tmp_path}/root").put("old", b"of before")
    with lying_reads(RARELY):
        assert store.get("old") == b"of before"
    assert catalogue.blobs.find("old") == BlobRow(
        "old", hash_of(b"of before"), 9, catalogue.blobs.find("old").created_at
    )
    with lying_reads(Lies(stale=1.0)) as liar, pytest.raises(BlobDamaged):
        store.get("old")
    assert liar.num_lies["stale"] == 4


def test_no_lie_gets_through(store: Store) -> None:
    contents = {f"k{number}": bytes([number]) * (number + 20) for number in range(40)}
    for key, data in contents.items():
        store.put(key, data)
    with lying_reads(OFTEN) as liar:
        for _ in range(10):
            for key, data in contents.items():
                try:
                    assert store.get(key) == data
                except BlobDamaged:
                    continue  # four lies in a row
    assert set(liar.num_lies) == {"short", "flipped", "stale"}
    assert min(liar.num_lies.values()) > 10


def test_ranges_are_proven_too(store: Store) -> None:
    store.put("a", bytes(range(200)))
    part = bytes(range(50, 90))
    with lying_reads(RARELY) as liar:
        for _ in range(100):
            assert store.get_range("a", 50, 40, hash_of(part)) == part
            assert store.get_range("a", 50, 40) == part
    assert liar.num_lies["short"] and liar.num_lies["flipped"]
    with pytest.raises(BlobDamaged):
        store.get_range("a", 50, 40, hash_of(b"other"))


def test_what_lies_always_stops(store: Store) -> None:
    store.put("a", b"one")
    for lies in (Lies(short=1.0), Lies(flipped=1.0), Lies(stale=1.0)):
        with lying_reads(lies), pytest.raises(BlobDamaged):
            store.get("a")


def test_a_put_beside_damage_says_so(store: Store) -> None:
    store.put("a", b"one")
    damage(store, "a", b"on")
    with pytest.raises(BlobDamaged, match="2 of 3 bytes"):
        store.put("a", b"one")
    store.delete("a")
    assert store.put("a", b"other").sha256 == hash_of(b"other")
    assert store.get("a") == b"other"
    store.delete("never")


def test_what_is_made_in_place_of_a_lost_object_is_what_counts(
    store: Store, catalogue: Catalogue, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"again, rounded otherwise")
    for key, make in (
        ("a", lambda: store.put("a", file.read_bytes(), keep_existing=True)),
        ("b", lambda: store.put_file("b", file)),
    ):
        store.put(key, b"once")
        Path(store.get_uri(key).removeprefix("file://")).unlink()
        make()
        assert store.get(key) == file.read_bytes()
    assert len(catalogue.list_events(kind="blob_forgotten")) == 2


def test_a_listed_object_is_read_as_listed(tmp_path: Path) -> None:
    raw = Store(f"file://{tmp_path}/raw")
    raw.put("m.obj", b"v 0 0 0\n" * 30)
    (info,) = raw.list()
    with lying_reads(RARELY):
        assert raw.get_as_listed(info) == b"v 0 0 0\n" * 30
    with lying_reads(Lies(short=1.0)), pytest.raises(BlobDamaged, match="of 240 bytes"):
        raw.get_as_listed(info)
    with lying_reads(Lies(seed=1, flipped=1.0)), pytest.raises(BlobDamaged, match="another read"):
        raw.get_as_listed(info)
    damage(raw, "m.obj", b"v 1 1 1\n" * 31)
    with pytest.raises(ChangedSinceListed, match="scan again"):
        raw.get_as_listed(info)
    Path(raw.get_uri("m.obj").removeprefix("file://")).unlink()
    with pytest.raises(BlobMissing):
        raw.get_as_listed(info)


def test_only_an_md5_is_taken_for_one() -> None:
    digest = hashlib.md5(b"x").hexdigest()
    assert md5_of_etag(digest) == digest
    assert md5_of_etag(f"{digest}-3") is None and md5_of_etag("0x8D") is None


def test_json_that_is_none_is_reported(store: Store) -> None:
    for key, data in (("a", b"{"), ("b", b'{"x": NaN}'), ("c", b"[" * 9000), ("d", b"\xff")):
        store.put(key, data)
        with pytest.raises(BadDocument, match=f"{key} is no JSON"):
            store.get_json(key)
    store.put_json("e", {"x": [1]})
    assert store.get_json("e") == {"x": [1]}


def test_damage_costs_no_asset_an_attempt(store: Store, catalogue: Catalogue) -> None:
    asset_id = "a" * 64
    catalogue.register(AssetRow(asset_id, AssetState.REGISTERED))
    catalogue.claim([AssetState.REGISTERED], 1, "w")
    store.put("k", b"one")
    damage(store, "k", b"two")
    workspace = Workspace(store, store, catalogue, load_settings(), "w")

    def read() -> StageResult:
        store.get("k")
        raise AssertionError("was read")

    with pytest.raises(BlobDamaged):
        run_stage_safely(workspace, "test", asset_id, read)
    asset = catalogue.get_asset(asset_id)
    assert (asset.state, asset.attempts, asset.lease_owner) == (AssetState.REGISTERED, 0, None)


def test_errors_survive_a_process_border() -> None:
    for error in (BlobDamaged("x"), BlobLost("x"), ChangedSinceListed("x")):
        assert str(pickle.loads(pickle.dumps(error))) == "x"
