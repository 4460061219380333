"""S3 errors are distinguished: the server's fault, or one object's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.catalogue import AssetRow, AssetState, Catalogue
from tasks.errors import is_transient_error
from tasks.settings import load_settings
from tasks.stages.runner import StageResult, run_stage_safely
from tasks.storage.store import BlobConflict, BlobMissing
from tasks.workspace import Workspace

OUTAGES = [
    (403, "AccessDenied"),
    (400, "ExpiredToken"),
    (403, "InvalidAccessKeyId"),
    (403, "SignatureDoesNotMatch"),
    (403, "RequestTimeTooSkewed"),
    (401, "Unauthorized"),
    (429, "TooManyRequests"),
    (500, "InternalError"),
    (503, "SlowDown"),
    (503, "ServiceUnavailable"),
]


@pytest.mark.parametrize(("status", "code"), OUTAGES)
def test_a_closed_or_busy_server_is_no_assets_fault(faulty_s3: Any, status: int, code: str) -> None:
    store = faulty_s3.new_store()
    store.put("held", b"1")
    faulty_s3.rule = lambda method, path: (status, code)
    for use in (
        lambda: store.get("held"),
        lambda: store.get_range("held", 0, 1),
        lambda: store.get_size("held"),
        lambda: store.put("new", b"2"),
        lambda: list(store.list()),
    ):
        with pytest.raises(Exception, match=r".") as caught:
            use()
        assert is_transient_error(caught.value), repr(caught.value)


def test_a_bucket_that_is_gone_is_no_assets_fault(faulty_s3: Any) -> None:
    store = faulty_s3.new_store()
    store._root = "no-such-bucket/root"
    for use in (lambda: store.get("a"), lambda: store.put("a", b"1")):
        with pytest.raises(Exception, match=r".") as caught:
            use()
        assert is_transient_error(caught.value), repr(caught.value)


def test_what_a_server_has_against_one_object_is_no_outage(faulty_s3: Any) -> None:
    store = faulty_s3.new_store()
    with pytest.raises(BlobMissing) as gone:
        store.get("a")
    faulty_s3.rule = lambda method, path: (400, "InvalidArgument") if method == "PUT" else None
    with pytest.raises(OSError, match="as you asked") as wrong:
        store.put("a", b"1")
    assert not is_transient_error(gone.value) and not is_transient_error(wrong.value)


def test_ended_credentials_cost_no_asset_an_attempt(faulty_s3: Any, tmp_path: Path) -> None:
    store = faulty_s3.new_store()
    catalogue = Catalogue(f"sqlite:///{tmp_path}/c.db")
    catalogue.register(AssetRow("a" * 64, AssetState.REGISTERED))
    catalogue.claim([AssetState.REGISTERED], 1, "w")
    workspace = Workspace(store, store, catalogue, load_settings(), "w")
    faulty_s3.rule = lambda method, path: (400, "ExpiredToken")

    def encode() -> StageResult:
        store.put("encodings/a", b"1")
        raise AssertionError("was written")

    with pytest.raises(OSError, match=r"Bad Request|as you asked"):
        run_stage_safely(workspace, "test", "a" * 64, encode)
    row = catalogue.get_asset("a" * 64)
    assert (row.attempts, row.lease_owner, row.state) == (0, None, "registered")


@pytest.mark.parametrize(
    ("status", "code"), [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")]
)
def test_a_lost_race_needs_no_named_condition(
    faulty_s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, code: str
) -> None:
    store = faulty_s3.new_store()
    store.put("race", b"first")
    faulty_s3.rule = lambda method, path: (status, code) if method == "PUT" else None
    file = tmp_path / "file"
    file.write_bytes(b"first")
    for write in (lambda: store.put("race", b"first"), lambda: store.put_file("race", file)):
        crops = iter([False, True])
        monkeypatch.setattr(store, "exists", lambda key, crops=crops: next(crops))
        assert write().size == 5
    crops = iter([False, True])
    with pytest.raises(BlobConflict):
        store.put("race", b"other")
    monkeypatch.undo()
    assert store.get("race") == b"first"


def test_a_refused_write_that_nobody_made_is_tried_again(faulty_s3: Any) -> None:
    store = faulty_s3.new_store()
    refusals = iter([(409, "ConditionalRequestConflict")])
    faulty_s3.rule = lambda method, path: next(refusals, None) if method == "PUT" else None
    assert store.put("a", b"1").size == 1
    assert store.get("a") == b"1"


def test_a_key_that_s3_cannot_hold_is_absent(faulty_s3: Any) -> None:
    store = faulty_s3.new_store()
    faulty_s3.requests.clear()
    assert store.get_size("/".join(["é" * 100] * 6)) is None
    assert faulty_s3.requests == []
