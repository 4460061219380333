"""Reads whose bytes are proven before anybody sees them.

A proof is the sha256 that was recorded when the object was written; failing that the MD5 in an
ETag, of the listed size; failing that two reads in a row that agree. A read without its proof is
tried again after a pause, for a disk, a proxy or a server may lie once. What lies every time raises
`BlobDamaged`: a fault of the infrastructure, never of an asset.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tasks.storage.errors import BlobDamaged, BlobLost, BlobMissing

log = logging.getLogger(__name__)

RETRY_DELAYS_S: Sequence[float] = (0.05, 0.3, 1.0)  # one try more than there are pauses
REPAIR = "run `segvigen verify`, then `segvigen repair`"
_MD5 = re.compile(r"[0-9a-f]{32}")

Fetch = Callable[[], bytes]  # one try; raises BlobMissing where there is no object


class HashBook(Protocol):
    """Remembers the sha256 of every object that was written, e.g. `Catalogue.blobs`."""

    def find_sha256(self, key: str) -> str | None:
        """The recorded hash; None for an object of before there were records."""
        ...

    def record(self, key: str, sha256: str, size_bytes: int) -> None:
        """Remember an object; the first record of a key stays."""
        ...

    def forget(self, key: str) -> None:
        """Drop the record of an object that was deleted to be made again."""
        ...


def fetch_checked(fetch: Fetch, uri: str, sha256: str) -> bytes:
    """Read until the bytes have the hash that was recorded for them.

    Args:
        fetch: one try.
        uri: of what is read, for messages.
        sha256: hex digits, recorded when it was written.

    Raises:
        BlobDamaged: other bytes on every try.
        BlobLost: no object on every try.
    """
    found = ""
    for _ in _tries():
        try:
            data = fetch()
        except BlobMissing:
            found = ""
            continue
        found = hashlib.sha256(data).hexdigest()
        if found == sha256:
            return data
        log.warning("read=%s bytes=%d sha256=%s wanted=%s", uri, len(data), found, sha256)
    if not found:
        raise BlobLost(f"no object {uri}, though it was written (sha256 {sha256[:12]}); {REPAIR}")
    raise BlobDamaged(f"{uri} holds sha256 {found[:12]}, written was {sha256[:12]}; {REPAIR}")


def fetch_agreeing(fetch: Fetch, uri: str, size: int, md5: str | None) -> bytes:
    """Read what has no recorded hash until its size is right and its MD5, or two reads, agree.

    Args:
        fetch: one try.
        uri: of what is read, for messages.
        size: in bytes, as listed.
        md5: hex digits out of the ETag; None = the ETag is none.

    Raises:
        BlobMissing: no object on the last try.
        BlobDamaged: a wrong size or MD5 on every try, or no two reads alike.
    """
    before: str | None = None
    problem: Exception = BlobMissing(f"no object {uri}")
    for _ in _tries(1 if md5 is None else 0):
        try:
            data = fetch()
        except BlobMissing as err:
            problem = err
            continue
        if len(data) != size:
            problem = BlobDamaged(f"{uri} gave {len(data)} of {size} bytes; try again later")
            continue
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if found == (before if md5 is None else md5):
            return data
        wanted = "another read" if md5 is None else f"its ETag {md5}"
        problem = BlobDamaged(f"{uri} gave bytes of MD5 {found}, unlike {wanted}; try again later")
        before = found
    raise problem


def md5_of_etag(etag: str) -> str | None:
    """The MD5 that an S3 ETag is for an object of one part; None for any other ETag."""
    return etag if _MD5.fullmatch(etag) else None


def _tries(num_free: int = 0) -> Iterator[None]:
    """Yield once for each try, with growing pauses between all but the first `num_free` + 1."""
    for _ in range(num_free + 1):
        yield
    for pause in RETRY_DELAYS_S:
        time.sleep(pause)
        yield
