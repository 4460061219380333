"""The store on S3: moto (honours conditional puts) and `rclone serve s3` (does not)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tasks.settings import StoreSettings
from tasks.storage.checked_reads import md5_of_etag
from tasks.storage.errors import BlobDamaged, ChangedSinceListed
from tasks.storage.store import BlobConflict, BlobMissing, Store
from tests.faults import Lies, lying_reads

MULTIPART_BYTES = 101 * 2**20  # s3fs sends parts from 100 MiB on


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def open_store(request: pytest.FixtureRequest, server: str) -> Store:
    """A store in a new bucket of one server."""
    if server == "moto":
        url, key, secret = request.getfixturevalue("moto_url"), "key", "secret"
    else:
        rclone = request.getfixturevalue("s3_server")
        url, key, secret = rclone.url, rclone.access_key, rclone.secret_key
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )
    bucket = f"unit-{request.node.name.split('[')[0].replace('_', '-')[:50]}"
    client.create_bucket(Bucket=bucket)
    return Store.from_settings(
        StoreSettings(
            root_url=f"s3://{bucket}/root",
            s3_endpoint_url=url,
            s3_access_key=key,
            s3_secret_key=secret,
            s3_region="us-east-1",
        )
    )


@pytest.fixture(params=["moto", "rclone"])
def s3_store(request: pytest.FixtureRequest) -> tuple[str, Store]:
    return request.param, open_store(request, request.param)


def test_put_get_list(s3_store: tuple[str, Store]) -> None:
    _, store = s3_store
    blob = store.put("a/b.json", b"{}", "application/json")
    assert blob.uri.startswith("s3://unit-")
    store.put("a/c d é.bin", b"123")
    assert store.put("a/b.json", b"{}", "application/json") == blob
    with pytest.raises(BlobConflict):
        store.put("a/b.json", b"[]")
    assert store.get("a/b.json") == b"{}"
    assert store.get_range("a/c d é.bin", 1, 2) == b"23"
    assert [(info.key, info.size) for info in store.list()] == [("a/b.json", 2), ("a/c d é.bin", 3)]
    assert [info.key for info in store.list("a")] == ["a/b.json", "a/c d é.bin"]
    assert list(store.list("none")) == []
    info = next(store.list("a"))
    assert info.etag
    assert info.mtime > 1e9
    assert not store.exists("a")
    assert not store.exists("a/nothing")
    with pytest.raises(BlobMissing):
        store.get("a/nothing")
    with pytest.raises(BlobMissing):
        store.get_range("a/nothing", 0, 3)
    with pytest.raises(BlobMissing, match="ends before"):
        store.get_range("a/b.json", 1, 5)


def test_what_others_write_is_seen_at_once(s3_store: tuple[str, Store]) -> None:
    _, store = s3_store
    again = Store.from_settings(_settings(store))
    assert list(store.list()) == []
    assert not store.exists("x")
    again.put("x", b"1")
    assert store.exists("x")
    assert [info.key for info in store.list()] == ["x"]


def _settings(store: Store) -> StoreSettings:
    options: dict[str, Any] = store._fs.storage_options
    return StoreSettings(
        root_url=store.root_url,
        s3_endpoint_url=options["endpoint_url"],
        s3_access_key=options["key"],
        s3_secret_key=options["secret"],
        s3_region="us-east-1",
    )


def test_the_probe_distinguishes_the_servers(s3_store: tuple[str, Store]) -> None:
    name, store = s3_store
    assert store.probe_conditional_put() is (name == "moto")
    assert list(store.list()) == []


def test_a_lost_race_is_noticed_where_the_server_helps(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(request, "moto")
    store.put("race", b"first")
    crops = iter([False, True])
    monkeypatch.setattr(store, "exists", lambda key: next(crops))
    with pytest.raises(BlobConflict):
        store.put("race", b"second")
    assert store.get("race") == b"first"


def test_more_than_a_page_of_objects(request: pytest.FixtureRequest) -> None:
    store = open_store(request, "rclone")
    store._fs.pipe({store._make_path(f"many/{i:04d}"): b"x" for i in range(1050)})
    assert len(list(store.list("many"))) == 1050


def test_large_files_are_sent_in_parts(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    store = open_store(request, "rclone")
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.write(b"head")
        out.truncate(MULTIPART_BYTES)
    blob = store.put_file("large", file)
    assert blob.size == MULTIPART_BYTES
    assert store.get_range("large", 0, 5) == b"head\0"
    assert store.put_file("large", file) == blob


def test_an_unreachable_server_is_no_missing_blob() -> None:
    settings = StoreSettings(
        root_url="s3://b/root",
        s3_endpoint_url="http://127.0.0.1:9",
        s3_access_key="k",
        s3_secret_key="s",
    )
    from tasks.errors import is_transient_error

    store = Store.from_settings(settings)
    with pytest.raises(Exception, match=r".") as caught:
        store.exists("x")
    assert is_transient_error(caught.value)
    assert "hush" not in str(caught.value)


def test_a_bucket_alone_is_a_root(request: pytest.FixtureRequest) -> None:
    inside = open_store(request, "rclone")
    bucket = inside.root_url.removeprefix("s3://").partition("/")[0]
    whole = Store.from_settings(_settings(inside).model_copy(update={"root_url": f"s3://{bucket}"}))
    assert list(whole.list()) == []
    whole.put("root/a/b", b"1")
    assert [info.key for info in whole.list()] == ["root/a/b"]
    assert [info.key for info in inside.list()] == ["a/b"]


def test_a_listed_object_is_proven_by_its_etag(s3_store: tuple[str, Store]) -> None:
    _, store = s3_store
    store.put("raw/a.obj", b"v 0 0 0\n" * 40)
    (info,) = store.list("raw")
    assert md5_of_etag(info.etag) == hashlib.md5(b"v 0 0 0\n" * 40).hexdigest()
    lies = Lies(seed=2, short=0.1, flipped=0.1)
    with lying_reads(lies) as liar:
        for _ in range(30):
            assert store.get_as_listed(info) == b"v 0 0 0\n" * 40
    assert liar.num_lies["short"] and liar.num_lies["flipped"]
    with lying_reads(Lies(flipped=1.0)), pytest.raises(BlobDamaged, match="unlike its ETag"):
        store.get_as_listed(info)
    store.delete("raw/a.obj")
    store.put("raw/a.obj", b"v 1 1 1\n" * 40)
    with pytest.raises(ChangedSinceListed):
        store.get_as_listed(info)


def test_old_unfinished_uploads_are_ended(moto_url: str, request: pytest.FixtureRequest) -> None:
    store = open_store(request, "moto")
    bucket = store.root_url.split("/")[2]
    place = {"Bucket": bucket, "Key": "root/big"}
    store._fs.call_s3("create_multipart_upload", **place)
    century = 100 * 365 * 86400.0  # moto says that every upload began in 2010
    assert store.remove_leftovers(min_age_s=century) == 0, "it may still be going on"
    assert store.remove_leftovers() == 1
    assert store.remove_leftovers() == 0


def test_an_encrypted_object_is_proven_by_two_reads(
    moto_url: str, request: pytest.FixtureRequest
) -> None:
    store = open_store(request, "moto")
    bucket = store.root_url.split("/")[2]
    store.put("plain", b"content")
    place = {"Bucket": bucket, "Key": "root/hidden", "Body": b"content"}
    store._fs.call_s3("put_object", **place, ServerSideEncryption="aws:kms")
    for key, is_read in (("plain", False), ("hidden", True)):
        info = replace(store.find_info(key), etag="0" * 32)  # as AWS has it for its key service
        if is_read:
            assert store._fetch_proven(lambda: b"content", info) == b"content"
            continue
        with pytest.raises(BlobDamaged, match="unlike its ETag"):
            store._fetch_proven(lambda: b"content", info)
