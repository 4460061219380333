"""The store on local files: created once, whole, never changed."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from tasks.settings import load_settings
from tasks.storage.keys import BadKey
from tasks.storage.store import Blob, BlobConflict, BlobMissing, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/root")


def test_put_and_get(store: Store, tmp_path: Path) -> None:
    blob = store.put("a/b.bin", b"hello")
    digest = hashlib.sha256(b"hello").hexdigest()
    assert blob == Blob(f"file://{tmp_path}/root/a/b.bin", "a/b.bin", digest, 5)
    assert store.get("a/b.bin") == b"hello"
    assert store.get_range("a/b.bin", 1, 3) == b"ell"
    assert store.exists("a/b.bin")
    assert store.get_size("a/b.bin") == 5


def test_same_bytes_again_are_fine_and_others_are_not(store: Store) -> None:
    first = store.put("k", b"one")
    assert store.put("k", b"one") == first
    with pytest.raises(BlobConflict, match="holds other bytes"):
        store.put("k", b"two")
    with pytest.raises(BlobConflict):
        store.put("k", b"longer")
    assert store.get("k") == b"one"


def test_keep_existing_describes_what_is_there(store: Store) -> None:
    first = store.put("k", b"one")
    assert store.put("k", b"two-and-more", keep_existing=True) == first


def test_many_writers_leave_one_whole_object(store: Store) -> None:
    payloads = [bytes([i]) * 200_000 for i in range(6)]
    won: list[int] = []

    def write(number: int) -> None:
        try:
            store.put("race", payloads[number])
        except BlobConflict:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("race") == payloads[won[0]]
    assert [info.key for info in store.list()] == ["race"]


def test_put_file_streams_and_compares(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "big"
    file.write_bytes(b"x" * 100_000)
    blob = store.put_file("f", file)
    assert blob.size == 100_000
    assert store.put_file("f", file) == blob
    file.write_bytes(b"y" * 100_000)
    with pytest.raises(BlobConflict):
        store.put_file("f", file)


def test_list_is_sorted_recursive_and_by_folder(store: Store) -> None:
    for key in ("b/2", "a", "b/1/x", "bc"):
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == ["a", "b/1/x", "b/2", "bc"]
    assert [info.key for info in store.list("b")] == ["b/1/x", "b/2"]
    assert list(store.list("none")) == []
    assert {info.size for info in store.list("b")} == {3, 5}


def test_leftovers_of_a_killed_write_are_not_listed(store: Store, tmp_path: Path) -> None:
    store.put("a/x", b"1")
    (tmp_path / "root/a/.tmp-123").write_bytes(b"half")
    assert [info.key for info in store.list()] == ["a/x"]


def test_etag_changes_with_content(store: Store, tmp_path: Path) -> None:
    store.put("a", b"1")
    before = next(store.list()).etag
    (tmp_path / "root/a").write_bytes(b"22")
    assert next(store.list()).etag != before


def test_what_is_missing_reports_it(store: Store) -> None:
    with pytest.raises(BlobMissing, match="nothing"):
        store.get("nothing")
    store.put("folder/x", b"123")
    assert not store.exists("folder")
    assert not store.exists("folder/x/y")
    with pytest.raises(BlobMissing):
        store.get("folder")
    with pytest.raises(BlobMissing, match="ends before"):
        store.get_range("folder/x", 1, 3)


def test_keys_cannot_climb(store: Store) -> None:
    for use in (store.get, store.exists, store.get_uri, lambda key: store.put(key, b"")):
        with pytest.raises(BadKey):
            use("../outside")


def test_json_is_stable(store: Store) -> None:
    first = store.put_json("j", {"b": 1, "a": [1.5, "é"]})
    assert store.put_json("j", {"a": [1.5, "é"], "b": 1}) == first
    assert store.get_json("j") == {"a": [1.5, "é"], "b": 1}


def test_probe_leaves_nothing(store: Store) -> None:
    assert store.probe_conditional_put()
    assert list(store.list()) == []


def test_secrets_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = {
        "store": {
            "root_url": "s3://bucket/root",
            "s3_access_key": "key-id",
            "s3_secret_key": "hush-hush",
            "s3_endpoint_url": "http://127.0.0.1:1",
        }
    }
    store = Store.from_settings(load_settings(None, overrides).store)
    assert repr(store) == "Store('s3://bucket/root')"
    assert store.get_uri("a/b") == "s3://bucket/root/a/b"
