"""The licence of a raw object, from the files beside it.

Searched, nearest first: `<file>.licence`, `<file>.json` with a "licence" entry, the folder's
LICENSE. Spelling with c or s. What is found travels into asset.json, label sets and manifests.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from tasks.storage.store import Store

MAX_LICENCE_CHARS = 200
MAX_READ_BYTES = 64 * 1024


def find_licence(raw: Store, key: str, default: str) -> str:
    """One line that names the licence, or `default`."""
    path = PurePosixPath(key)
    stem = str(path.with_suffix(""))
    for base in (key, stem):
        for ending in (".licence", ".license"):
            found = _read_first_line(raw, f"{base}{ending}")
            if found:
                return found
        found = _read_json_entry(raw, f"{base}.json")
        if found:
            return found
    for name in ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md"):
        found = _read_first_line(raw, str(path.parent / name))
        if found:
            return found
    return default


def _read_file(raw: Store, key: str) -> str | None:
    size = raw.get_size(key)
    if not size:
        return None
    return raw.get_range(key, 0, min(size, MAX_READ_BYTES)).decode("utf-8", "replace")


def _read_first_line(raw: Store, key: str) -> str | None:
    lines = (line.strip() for line in (_read_file(raw, key) or "").splitlines())
    return next((_strip_unprintable(line) for line in lines if line), None)


def _read_json_entry(raw: Store, key: str) -> str | None:
    text = _read_file(raw, key)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None  # another program's file
    if not isinstance(value, dict):
        return None
    entry = value.get("licence", value.get("license"))
    return _strip_unprintable(entry) if isinstance(entry, str) and entry.strip() else None


def _strip_unprintable(text: str) -> str:
    clean = "".join(char for char in text if char.isprintable()).strip()
    return clean[:MAX_LICENCE_CHARS]
