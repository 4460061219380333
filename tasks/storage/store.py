"""Blobs below one root URL (`file://` or `s3://`, any fsspec URL), written once and never changed.

Create-only: local files by a hard link of a finished temporary file; S3 by a conditional put.
A server that ignores the condition (rclone does; see `probe_conditional_put`) leaves only the
check before the write: there the catalogue's leases keep two writers from one key.
Never caches listings: another process writes too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec

from segvigen_model.errors import SegvigenError
from tasks.settings import StoreSettings
from tasks.storage.canonical import json_document
from tasks.storage.keys import check_key
from tasks.storage.s3_errors import is_lost_race

log = logging.getLogger(__name__)

READ_CHUNK_BYTES = 8 * 2**20
S3_CONNECT_TIMEOUT_S = 10
S3_READ_TIMEOUT_S = 120
MAX_S3_KEY_BYTES = 1024
_NUM_TRIES = 2  # to create: S3 also refuses while another's write is not there yet


class BlobConflict(SegvigenError):
    """A key already holds other bytes; blobs never change."""


class BlobMissing(SegvigenError):
    """A key that should be there is not."""


class BucketUnusable(SegvigenError):
    """There is no such bucket, no such server, or nothing to log in with."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A written object: `uri` is absolute, `key` relative to the store's root, `size` in bytes."""

    uri: str
    key: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A listed object; `etag` changes with the content, `mtime` is seconds since the epoch."""

    key: str
    size: int
    etag: str
    mtime: float


class Store:
    """Read and create objects below one root URL.

    Args:
        root_url: e.g. "file://.segvigen/store" or "s3://bucket/prefix".
        storage_options: passed to fsspec (endpoint, keys); never logged or shown.
    """

    def __init__(self, root_url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        options = {"use_listings_cache": False, **(storage_options or {})}
        self._fs, root = fsspec.url_to_fs(root_url, **options)
        self._root = str(root).rstrip("/")
        protocol = self._fs.protocol
        self._protocol = protocol if isinstance(protocol, str) else protocol[0]
        self._is_local = "file" in (protocol if isinstance(protocol, tuple) else (protocol,))

    @classmethod
    def from_settings(cls, settings: StoreSettings, *, raw: bool = False) -> Store:
        """Open the pipeline's store, or with `raw` the bucket of raw meshes."""
        url = settings.raw_url if raw else settings.root_url
        if not url.startswith(("s3://", "s3a://")):
            return cls(url)
        return cls(url, _make_s3_options(use_raw_keys(settings) if raw else settings))

    def __repr__(self) -> str:
        return f"Store({self.root_url!r})"

    @property
    def root_url(self) -> str:
        """The absolute root, without secrets."""
        return f"{'file' if self._is_local else self._protocol}://{self._root}"

    def check_bucket(self) -> None:
        """Ask whether an S3 bucket is there; nothing to ask where the store is a folder.

        A server that does not let us ask is believed: what is wrong then shows at the first use.

        Raises:
            BucketUnusable: it is absent, or the server does not answer; one line with the hint.
        """
        if self._protocol not in ("s3", "s3a"):
            return
        from botocore.exceptions import BotoCoreError

        bucket = self._root.partition("/")[0]
        where = f"{bucket!r} at {self._fs.endpoint_url or 'AWS'}"
        try:
            self._fs.call_s3("head_bucket", Bucket=bucket)
        except FileNotFoundError:
            raise BucketUnusable(
                f"no bucket {where}; create it, or say where it is: SEGVIGEN_STORE_ROOT_URL, "
                "SEGVIGEN_STORE_RAW_URL, SEGVIGEN_STORE_S3_ENDPOINT_URL"
            ) from None
        except BotoCoreError as err:
            raise BucketUnusable(
                f"cannot ask for bucket {where}: {err}; check SEGVIGEN_STORE_S3_ENDPOINT_URL, "
                "_REGION, _ACCESS_KEY and _SECRET_KEY"
            ) from err
        except OSError as err:
            log.warning("store=%s error=%r", self.root_url, err)

    def get_uri(self, key: str) -> str:
        """Absolute URI of a key."""
        return f"{self.root_url}/{check_key(key)}"

    def exists(self, key: str) -> bool:
        """Is there an object at this key (a folder is none)?"""
        return self.get_size(key) is not None

    def get_size(self, key: str) -> int | None:
        """Size in bytes, or None when there is no such object."""
        path = self._make_path(key)
        if not self._is_local and len(path.partition("/")[2].encode()) > MAX_S3_KEY_BYTES:
            return None  # a server answers this as it answers ended credentials
        try:
            info = self._fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            if err.errno == errno.ENAMETOOLONG:
                return None
            raise
        return int(info["size"]) if info["type"] == "file" else None

    def get(self, key: str) -> bytes:
        """Read an object; raises BlobMissing."""
        try:
            return bytes(self._fs.cat_file(self._make_path(key)))
        except (FileNotFoundError, IsADirectoryError) as err:
            raise BlobMissing(f"no object {self.get_uri(key)}") from err

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read `length` bytes from byte `start`; raises BlobMissing, also for a short object."""
        if length == 0:
            return b""
        try:
            data = bytes(self._fs.cat_file(self._make_path(key), start=start, end=start + length))
        except (FileNotFoundError, IsADirectoryError) as err:
            raise BlobMissing(f"no object {self.get_uri(key)}") from err
        if len(data) != length:
            raise BlobMissing(f"{self.get_uri(key)} ends before byte {start + length}")
        return data

    def put(
        self, key: str, data: bytes, content_type: str | None = None, *, keep_existing: bool = False
    ) -> Blob:
        """Create an object. The same bytes again are fine.

        Args:
            key: where, relative to the root.
            data: what.
            content_type: as a web server should send it; local files have none.
            keep_existing: when other bytes are there already, keep and describe those instead of
                raising (for results that two workers may compute with different rounding).

        Raises:
            BlobConflict: the key holds other bytes.
        """
        path = self._make_path(key)
        for _ in range(_NUM_TRIES):
            if self.exists(key):
                break
            with suppress(FileExistsError):  # another writer was faster, or is about to be
                self._create(path, data, content_type)
                return self._make_blob(key, data)
        return self._compare(key, data, keep_existing)

    def put_file(self, key: str, file: Path) -> Blob:
        """Create an object from a local file, without holding it in memory."""
        digest = _hash_file(file)
        if not self.exists(key):
            path = self._make_path(key)
            try:
                if self._is_local:
                    _link_copy(file, Path(path))
                else:
                    with _raise_on_lost_race(path):
                        self._fs.put_file(str(file), path, mode="create")
            except FileExistsError:
                pass
        held = self._compute_sha256(key)
        if held != digest:
            raise BlobConflict(f"{self.get_uri(key)} holds other bytes (sha256 {held[:12]})")
        return Blob(self.get_uri(key), key, digest, file.stat().st_size)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below the folder `prefix`, in ascending key order."""
        path = self._make_path(prefix.rstrip("/")) if prefix.strip("/") else self._root
        found = self._fs.find(path, withdirs=False, detail=True)
        for name in sorted(found):
            info = found[name]
            key = name[len(self._root) :].removeprefix("/")
            if _is_temporary(key) or (key.endswith("/") or not key):
                continue
            yield ObjectInfo(key, int(info["size"]), _get_etag(info), _get_mtime(info))

    def check_listing(self) -> None:
        """Ask for one entry of the listing; raises what the server has against us."""
        if self._protocol in ("s3", "s3a"):
            bucket, _, prefix = self._root.partition("/")
            self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        else:
            self._fs.ls(self._root, detail=False)

    def get_json(self, key: str) -> Any:
        """Read a JSON object."""
        return json.loads(self.get(key))

    def put_json(self, key: str, value: Any, *, keep_existing: bool = False) -> Blob:
        """Create a JSON object; equal values are equal bytes."""
        return self.put(key, json_document(value), "application/json", keep_existing=keep_existing)

    def probe_conditional_put(self) -> bool:
        """Does the server itself refuse to write a key twice? Leaves nothing behind."""
        path = self._make_path(f".probe/{uuid4().hex}")
        try:
            self._create(path, b"1", None)
            self._create(path, b"2", None)
        except FileExistsError:
            return True
        finally:
            if self._fs.exists(path):
                self._fs.rm_file(path)
        return False

    def _make_path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _create(self, path: str, data: bytes, content_type: str | None) -> None:
        if self._is_local:
            _link_new(Path(path), data)
            return
        extra = {"ContentType": content_type} if content_type and self._protocol == "s3" else {}
        with _raise_on_lost_race(path):
            self._fs.pipe_file(path, data, mode="create", **extra)

    def _compare(self, key: str, data: bytes, keep_existing: bool) -> Blob:
        size = self.get_size(key)
        if size == len(data) or keep_existing:
            held = self.get(key)
            if keep_existing or held == data:
                return self._make_blob(key, held)
        raise BlobConflict(f"{self.get_uri(key)} holds other bytes ({size} bytes, new {len(data)})")

    def _make_blob(self, key: str, data: bytes) -> Blob:
        return Blob(self.get_uri(key), key, hashlib.sha256(data).hexdigest(), len(data))

    def _compute_sha256(self, key: str) -> str:
        digest = hashlib.sha256()
        size = self.get_size(key) or 0
        for start in range(0, size, READ_CHUNK_BYTES):
            digest.update(self.get_range(key, start, min(READ_CHUNK_BYTES, size - start)))
        return digest.hexdigest()


@contextmanager
def _raise_on_lost_race(path: str) -> Iterator[None]:
    """Raise FileExistsError for every way in which a server refuses to write a key twice."""
    try:
        yield
    except OSError as err:
        if is_lost_race(err):
            raise FileExistsError(path) from err
        raise


def check_buckets(settings: StoreSettings) -> None:
    """Raise BucketUnusable if one of the settings' buckets is not there."""
    for is_raw in (False, True):
        Store.from_settings(settings, raw=is_raw).check_bucket()


def use_raw_keys(settings: StoreSettings) -> StoreSettings:
    """Return settings whose endpoint and keys are those of the raw bucket.

    What the raw bucket does not set is the store's; access key and secret belong together.
    """
    changed: dict[str, Any] = {}
    if settings.raw_s3_endpoint_url:
        changed["s3_endpoint_url"] = settings.raw_s3_endpoint_url
    if settings.raw_s3_access_key:
        changed["s3_access_key"] = settings.raw_s3_access_key
        changed["s3_secret_key"] = settings.raw_s3_secret_key
    return settings.model_copy(update=changed)


def _make_s3_options(settings: StoreSettings) -> dict[str, Any]:
    secret = settings.s3_secret_key
    client = {"region_name": settings.s3_region} if settings.s3_region else {}
    config = {
        "connect_timeout": S3_CONNECT_TIMEOUT_S,
        "read_timeout": S3_READ_TIMEOUT_S,
        # rclone answers a ranged read with the whole object's checksum, and older servers know
        # none; our own sha256 are checked where content matters.
        "response_checksum_validation": "when_required",
        "request_checksum_calculation": "when_required",
    }
    return {
        "key": settings.s3_access_key,
        "secret": secret.get_secret_value() if secret else None,
        "endpoint_url": settings.s3_endpoint_url,
        "client_kwargs": client,
        "config_kwargs": config,
    }


def _link_new(path: Path, data: bytes) -> None:
    """Create a file with its whole content or not at all; raise FileExistsError if it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.link(temporary, path)
    finally:
        temporary.unlink()


def _link_copy(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, source.open("rb") as data:
            while chunk := data.read(READ_CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.link(temporary, path)
    finally:
        temporary.unlink()


def _hash_file(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _is_temporary(key: str) -> bool:
    return key.rpartition("/")[2].startswith(".tmp-") or key.startswith(".probe/")


def _get_etag(info: Mapping[str, Any]) -> str:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if etag:
        return str(etag).strip('"')
    return f"{info.get('mtime', 0)!r}-{info['size']}-{info.get('ino', 0)}"


def _get_mtime(info: Mapping[str, Any]) -> float:
    value = info.get("LastModified") or info.get("mtime") or 0.0
    return value.timestamp() if isinstance(value, datetime) else float(value)
