"""Blobs below one root URL (`file://` or `s3://`, any fsspec URL), written once and never changed.

Nothing that is read is believed: `get` compares the bytes with the hash that was recorded when they
were written (`checked_reads`).
Create-only: local files by a hard link of a finished temporary file; S3 by a conditional put.
A server that ignores the condition (rclone does; see `probe_conditional_put`) leaves only the
check before the write: there the catalogue's leases keep two writers from one key.
Never caches listings: another process writes too.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec

from tasks.settings import StoreSettings
from tasks.storage.canonical import json_document, parse_json
from tasks.storage.checked_reads import (
    REPAIR,
    Fetch,
    HashBook,
    fetch_agreeing,
    fetch_checked,
    md5_of_etag,
)
from tasks.storage.errors import BlobConflict, BlobDamaged, BlobMissing, ChangedSinceListed
from tasks.storage.keys import check_key
from tasks.storage.leftovers import MIN_AGE_S, clean_bucket, clean_folder, is_temporary
from tasks.storage.local_files import (
    check_place,
    compute_file_sha256,
    create_copy,
    create_file,
    describe_file,
    list_files,
    read_file,
)
from tasks.storage.objects import Blob, ObjectInfo, make_object_info
from tasks.storage.s3_errors import raise_on_lost_race
from tasks.storage.s3_options import check_s3_bucket, is_encrypted, make_s3_options, use_raw_keys

__all__ = ["Blob", "BlobConflict", "BlobDamaged", "BlobMissing", "ObjectInfo", "Store"]

log = logging.getLogger(__name__)

READ_CHUNK_BYTES = 8 * 2**20
MAX_S3_KEY_BYTES = 1024
_NUM_TRIES = 2  # to create: S3 also refuses while another's write is not there yet


class Store:
    """Read and create objects below one root URL.

    Args:
        root_url: e.g. "file://.segvigen/store" or "s3://bucket/prefix".
        storage_options: passed to fsspec (endpoint, keys); never logged or shown.
        hashes: the records that reads are compared with and writes are added to; None = a store
            without records: what the caller knows no hash of is read twice.
    """

    def __init__(
        self,
        root_url: str,
        storage_options: Mapping[str, Any] | None = None,
        hashes: HashBook | None = None,
    ) -> None:
        options = {"use_listings_cache": False, **(storage_options or {})}
        self._fs, root = fsspec.url_to_fs(root_url, **options)
        self._root = str(root).rstrip("/")
        self._hashes = hashes
        protocol = self._fs.protocol
        self._protocol = protocol if isinstance(protocol, str) else protocol[0]
        self._is_local = "file" in (protocol if isinstance(protocol, tuple) else (protocol,))
        self._is_s3 = self._protocol in ("s3", "s3a")
        self._has_md5_etags = True

    @classmethod
    def from_settings(
        cls, settings: StoreSettings, *, raw: bool = False, hashes: HashBook | None = None
    ) -> Store:
        """Open the pipeline's store, or with `raw` the bucket of raw meshes."""
        url = settings.raw_url if raw else settings.root_url
        if not url.startswith(("s3://", "s3a://")):
            return cls(url, None, hashes)
        return cls(url, make_s3_options(use_raw_keys(settings) if raw else settings), hashes)

    def __repr__(self) -> str:
        return f"Store({self.root_url!r})"

    @property
    def is_local(self) -> bool:
        """Is it a folder, whose files may be seen half written?"""
        return self._is_local

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
        if self._is_s3:
            check_s3_bucket(self._fs, self._root.partition("/")[0])

    def get_uri(self, key: str) -> str:
        """Absolute URI of a key."""
        return f"{self.root_url}/{check_key(key)}"

    def exists(self, key: str) -> bool:
        """Is there an object at this key (a folder is none)?"""
        return self.get_size(key) is not None

    def get_size(self, key: str) -> int | None:
        """Size in bytes, or None when there is no such object."""
        info = self.find_info(key)
        return None if info is None else info.size

    def find_info(self, key: str) -> ObjectInfo | None:
        """What a listing would say of one object, or None when there is none."""
        path = self._make_path(key)
        if not self._is_local and len(path.partition("/")[2].encode()) > MAX_S3_KEY_BYTES:
            return None  # a server answers this as it answers ended credentials
        try:
            info = describe_file(Path(path)) if self._is_local else self._fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            if err.errno == errno.ENAMETOOLONG:
                return None
            raise
        return make_object_info(key, info) if info["type"] == "file" else None

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Read an object, and prove that the bytes are those that were written.

        Args:
            key: which.
            sha256: recorded hash of the content, from a catalogue row, a manifest or an index;
                None = that of the store's records. An object of before there were records is read
                until two reads agree, and then recorded.

        Raises:
            BlobMissing: there is no object, and no record of one.
            BlobDamaged, BlobLost: it is not what was written; an infrastructure error.
        """
        uri = self.get_uri(key)
        wanted = sha256 or (self._hashes.find_sha256(key) if self._hashes else None)
        if wanted:
            return fetch_checked(lambda: self._fetch(key), uri, wanted)
        info = self.find_info(key)
        if info is None:
            self._fetch(key)  # raises what the server says: no such object, or no such bucket
            raise BlobMissing(f"no object {uri}")
        data = self._fetch_proven(lambda: self._fetch(key), info)
        if self._hashes:
            log.warning("read=%s note=no_record_of_its_hash, recorded now", uri)
            self._record(key, hashlib.sha256(data).hexdigest(), len(data))
        return data

    def get_as_listed(self, info: ObjectInfo) -> bytes:
        """Read an object that others may change: whole, of the listed size and ETag.

        Raises:
            ChangedSinceListed: it was changed since; what was read must not be used.
            BlobMissing: it was deleted since.
            BlobDamaged: it is unchanged, and other bytes came on every try.
        """
        uri = self.get_uri(info.key)

        def fetch() -> bytes:
            data = self._fetch(info.key)
            now = self.find_info(info.key)
            if now is not None and (now.size, now.etag) != (info.size, info.etag):
                raise ChangedSinceListed(f"{uri} was changed while it was read; scan again")
            return data

        return self._fetch_proven(fetch, info)

    def get_range(self, key: str, start: int, length: int, sha256: str | None = None) -> bytes:
        """Read `length` bytes from byte `start`.

        Args:
            key: of the object.
            start, length: in bytes.
            sha256: recorded hash of these bytes; None reads until two reads agree.

        Raises:
            BlobMissing: there is no such object, or it ends before.
            BlobDamaged, BlobLost: as `get`.
        """
        if length == 0:
            return b""
        uri = f"{self.get_uri(key)}[{start}:{start + length}]"
        if sha256:
            return fetch_checked(lambda: self._fetch(key, start, start + length), uri, sha256)
        if self._need_size(key) < start + length:
            raise BlobMissing(f"{self.get_uri(key)} ends before byte {start + length}")
        return fetch_agreeing(lambda: self._fetch(key, start, start + length), uri, length, None)

    def compute_sha256(self, key: str) -> str:
        """Hash an object as one read gives it, in pieces; raises BlobMissing."""
        digest, size = hashlib.sha256(), self._need_size(key)
        for start in range(0, size, READ_CHUNK_BYTES):
            digest.update(self._fetch(key, start, min(start + READ_CHUNK_BYTES, size)))
        return digest.hexdigest()

    def delete(self, key: str) -> None:
        """Remove a damaged object so that the same key can be made again; its record goes too.

        For repairs only: everywhere else blobs are never changed. Nothing there is fine.
        """
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._make_path(key))
        if self._hashes:
            self._hashes.forget(key)

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
                own = hashlib.sha256(data).hexdigest()
                return self._record(key, own, len(data), is_replacing=True)
        return self._compare(key, data, keep_existing)

    def put_file(self, key: str, file: Path) -> Blob:
        """Create an object from a local file, without holding it in memory."""
        digest = compute_file_sha256(file)
        if not self.exists(key):
            path = self._make_path(key)
            with suppress(FileExistsError):
                if self._is_local:
                    create_copy(file, Path(path))
                else:
                    with raise_on_lost_race(path):
                        self._fs.put_file(str(file), path, mode="create")
        held: list[str] = []
        while digest not in held and len(held) < _NUM_TRIES:
            held.append(self.compute_sha256(key))
        if digest in held:
            return self._record(key, digest, file.stat().st_size, is_replacing=True)
        if len(set(held)) > 1:
            raise BlobDamaged(f"{self.get_uri(key)} reads differently every time; try again later")
        raise BlobConflict(f"{self.get_uri(key)} holds other bytes (sha256 {held[0][:12]})")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below the folder `prefix`, in ascending key order."""
        path = self._make_path(prefix.rstrip("/")) if prefix.strip("/") else self._root
        if self._is_local:
            found = list_files(Path(self._root), Path(path))
        else:
            found = self._fs.find(path, withdirs=False, detail=True)
        for name in sorted(found):
            info = found[name]
            key = name[len(self._root) :].removeprefix("/")
            if is_temporary(key) or (key.endswith("/") or not key):
                continue
            yield make_object_info(key, info)

    def check_place(self, key: str) -> None:
        """Refuse a local object that must not be opened; a bucket holds none.

        Raises:
            UnsafePlace: it is a link out of the folder, or no regular file.
            BlobMissing: there is no such file.
        """
        if not self._is_local:
            return
        try:
            check_place(Path(self._root), Path(self._make_path(key)))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as err:
            raise BlobMissing(f"no object {self.get_uri(key)}") from err

    def check_listing(self) -> None:
        """Ask for one entry of the listing; raises what the server has against us."""
        if not self._is_s3:
            self._fs.ls(self._root, detail=False)
            return
        bucket, _, prefix = self._root.partition("/")
        self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)

    def get_json(self, key: str, sha256: str | None = None) -> Any:
        """Read a JSON object, checked as `get` does.

        Raises:
            BadDocument: the bytes are those that were written, and no JSON.
        """
        return parse_json(self.get(key, sha256), self.get_uri(key))

    def put_json(self, key: str, value: Any, *, keep_existing: bool = False) -> Blob:
        """Create a JSON object; equal values are equal bytes."""
        return self.put(key, json_document(value), "application/json", keep_existing=keep_existing)

    def remove_leftovers(self, min_age_s: float = MIN_AGE_S) -> int:
        """Remove what killed writers left behind and is older; returns the number."""
        if self._is_local:
            return clean_folder(Path(self._root), min_age_s)
        return clean_bucket(self._fs, self._root, min_age_s) if self._is_s3 else 0

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
            create_file(Path(path), data)
            return
        extra = {"ContentType": content_type} if content_type and self._protocol == "s3" else {}
        with raise_on_lost_race(path):
            self._fs.pipe_file(path, data, mode="create", **extra)

    def _compare(self, key: str, data: bytes, keep_existing: bool) -> Blob:
        """Compare with an object that is there, by its record where there is one."""
        size = self.get_size(key) or 0
        own = hashlib.sha256(data).hexdigest()
        held = self._hashes.find_sha256(key) if self._hashes else None
        if held is None and (size == len(data) or keep_existing):
            held = hashlib.sha256(self.get(key)).hexdigest()
        if held is None or (held != own and not keep_existing):
            text = f"{self.get_uri(key)} holds other bytes ({size} bytes, new {len(data)})"
            raise BlobConflict(text)
        if held == own and size != len(data):
            raise BlobDamaged(f"{self.get_uri(key)} has {size} of {len(data)} bytes; {REPAIR}")
        return self._record(key, held, size)

    def _record(self, key: str, sha256: str, size: int, *, is_replacing: bool = False) -> Blob:
        """Remember an object; one that was just made replaces the record of a lost one."""
        if self._hashes:
            if is_replacing and self._hashes.find_sha256(key) not in (None, sha256):
                self._hashes.forget(key)
            self._hashes.record(key, sha256, size)
        return Blob(self.get_uri(key), key, sha256, size)

    def _fetch_proven(self, fetch: Fetch, info: ObjectInfo) -> bytes:
        """Read an object without a record, by its ETag where that is an MD5."""
        uri, md5 = self.get_uri(info.key), md5_of_etag(info.etag) if self._has_md5_etags else None
        try:
            return fetch_agreeing(fetch, uri, info.size, md5)
        except BlobDamaged:
            if not md5 or not self._is_s3 or not is_encrypted(self._fs, self._make_path(info.key)):
                raise
            self._has_md5_etags = False
        return fetch_agreeing(fetch, uri, info.size, None)

    def _need_size(self, key: str) -> int:
        size = self.get_size(key)
        if size is None:
            raise BlobMissing(f"no object {self.get_uri(key)}")
        return size

    def _fetch(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """One unproven read of an object or of a range; all reads go through here."""
        try:
            if self._is_local:
                return read_file(Path(self._root), Path(self._make_path(key)), start, end)
            return bytes(self._fs.cat_file(self._make_path(key), start=start, end=end))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as err:
            raise BlobMissing(f"no object {self.get_uri(key)}") from err
