"""What is known of an object: as it was written, and as it is listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


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


def make_object_info(key: str, info: Mapping[str, Any]) -> ObjectInfo:
    """What fsspec says of an object, in our terms."""
    return ObjectInfo(key, int(info["size"]), _get_etag(info), _get_mtime(info))


def _get_etag(info: Mapping[str, Any]) -> str:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if etag:
        return str(etag).strip('"')
    return f"{info.get('mtime', 0)!r}-{info['size']}-{info.get('ino', 0)}"


def _get_mtime(info: Mapping[str, Any]) -> float:
    value = info.get("LastModified") or info.get("mtime") or 0.0
    return value.timestamp() if isinstance(value, datetime) else float(value)
