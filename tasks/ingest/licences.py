"""The licence of a raw object, from the files beside it.

Searched, nearest first: `<file>.licence`, `<file>.json` with a "licence" entry, the folder's
LICENSE. Spelling with c or s. What is found travels into asset.json, label sets and manifests.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import PurePosixPath

from tasks.ingest.listing import RawListing
from tasks.storage.store import BlobMissing, Store

MAX_LICENCE_CHARS = 200
MAX_READ_BYTES = 64 * 1024


def find_licence(raw: Store, listing: RawListing, key: str, default: str) -> str:
    """One line that names the licence, or `default`.

    Args:
        raw: the bucket.
        listing: of the object's folder at least; only what it has is asked for.
        key: of the object.
        default: where no file names one.
    """
    read = partial(_read_file, raw, listing)
    path = PurePosixPath(key)
    stem = str(path.with_suffix(""))
    for base in (key, stem):
        for ending in (".licence", ".license"):
            found = _read_first_line(read(f"{base}{ending}"))
            if found:
                return found
        found = _read_json_entry(read(f"{base}.json"))
        if found:
            return found
    for name in ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md"):
        found = _read_first_line(read(str(path.parent / name)))
        if found:
            return found
    return default


def _read_file(raw: Store, listing: RawListing, key: str) -> str:
    """The beginning of a listed text file; "" where there is none."""
    info = listing.find(key) if listing.is_file(key) else None
    if info is None or info.size == 0:
        return ""
    try:
        return raw.get_range(key, 0, min(info.size, MAX_READ_BYTES)).decode("utf-8", "replace")
    except BlobMissing:
        return ""  # deleted or changed since


def _read_first_line(text: str) -> str | None:
    lines = (line.strip() for line in text.splitlines())
    return next((_strip_unprintable(line) for line in lines if line), None)


def _read_json_entry(text: str) -> str | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None  # another program's file, or none
    if not isinstance(value, dict):
        return None
    entry = value.get("licence", value.get("license"))
    return _strip_unprintable(entry) if isinstance(entry, str) and entry.strip() else None


def _strip_unprintable(text: str) -> str:
    clean = "".join(char for char in text if char.isprintable()).strip()
    return clean[:MAX_LICENCE_CHARS]
