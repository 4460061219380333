"""One dataset version in the store: publish its tars, index and manifest, and find damage in them.

Publishing is idempotent: blobs that are right stay, others are replaced by the same bytes made
again. The manifest is written last, and only while the build's lock is held.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tasks.catalogue import ShardVersionRow
from tasks.labelling.taxonomy import Taxonomy
from tasks.shards.entries import MANIFEST_SCHEMA, Entry, list_categories
from tasks.shards.lock import HeldLock
from tasks.shards.samples import SAMPLE_SCHEMA
from tasks.shards.tars import TarWriter
from tasks.storage import keys
from tasks.storage.canonical import canonical_json, json_document
from tasks.storage.local_files import compute_file_sha256
from tasks.storage.store import Blob, BlobConflict, BlobDamaged, BlobMissing, Store
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

NUM_READS = 2


def find_damage(
    store: Store, dataset: str, version: str, row: ShardVersionRow | None, *, is_thorough: bool
) -> list[tuple[str, str]]:
    """What is wrong with the blobs of one version.

    Args:
        store: where the version is.
        dataset, version: which.
        row: of the catalogue; None if the version is not recorded yet.
        is_thorough: read and hash every tar; else only its size is compared.

    Returns:
        (key, what is wrong); the manifest comes first.
    """
    key = keys.make_shard_manifest_key(dataset, version)
    try:
        data = store.get(key)
        manifest = json.loads(data)
        parts = [manifest["index"], *manifest["shards"]]
        wanted = [(str(part["key"]), str(part["sha256"]), int(part["size"])) for part in parts]
    except BlobMissing:
        return [(key, "missing")]
    except BlobDamaged as err:
        return [(key, str(err))]
    except (ValueError, KeyError, TypeError) as err:
        return [(key, f"unreadable: {err}")]
    if row is not None and hashlib.sha256(data).hexdigest() != row.sha256:
        return [(key, "its hash is not the catalogue's")]
    if row is None and (data != json_document(manifest) or manifest.get("version") != version):
        return [(key, "not as it was written")]
    index, *tars = wanted
    found = [(index[0], _find_fault(store, *index, is_thorough=True))]
    found += [(tar[0], _find_fault(store, *tar, is_thorough=is_thorough)) for tar in tars]
    return [(name, fault) for name, fault in found if fault]


def publish_version(
    workspace: Workspace,
    version: str,
    writer: TarWriter,
    entries: Sequence[Entry],
    taxonomy: Taxonomy | None,
    lock: HeldLock,
) -> None:  # more than five parameters: a version is made of all of them
    """Write shards, then the index, then the manifest; what holds other bytes is replaced."""
    store, dataset = workspace.store, workspace.settings.shard.dataset
    shards = []
    for number, file in enumerate(writer.files):
        key = keys.make_shard_key(dataset, version, number)
        digest = compute_file_sha256(file)
        blob = _ensure_blob(store, key, digest, partial(store.put_file, file=file), lock)
        num_samples = sum(line["shard"] == number for line in writer.index)
        shards.append({**_describe_blob(blob), "num_samples": num_samples})
        lock.step()
    text = "".join(canonical_json(line) + "\n" for line in writer.index).encode()
    key, digest = keys.make_shard_index_key(dataset, version), hashlib.sha256(text).hexdigest()
    put_index = partial(store.put, data=text, content_type="application/x-ndjson")
    index = _ensure_blob(store, key, digest, put_index, lock)
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "sample_schema": SAMPLE_SCHEMA,
        "dataset": dataset,
        "version": version,
        "settings": workspace.settings.shard.model_dump(),
        "shards": shards,
        "index": _describe_blob(index),
        "counts": _count_members(writer.index),
        "taxonomy": list_categories(taxonomy),
        "licences": dict(Counter(line["licence"] for line in writer.index)),
        "checkpoints": sorted({entry.checkpoint for entry in entries}),
        "decided_by": dict(Counter(entry.decided_by for entry in entries)),
        "members": [[entry.asset_id, entry.label_id] for entry in entries],
    }
    lock.check()
    digest = hashlib.sha256(json_document(manifest)).hexdigest()
    key = keys.make_shard_manifest_key(dataset, version)
    _ensure_blob(store, key, digest, partial(store.put_json, value=manifest), lock)


def _find_fault(store: Store, key: str, sha256: str, size: int, *, is_thorough: bool) -> str:
    held = store.get_size(key)
    if held is None:
        return "missing"
    if held != size:
        return f"{held} bytes instead of {size}"
    if is_thorough and not _has_hash(store, key, sha256):
        return "its hash is not the manifest's"
    return ""


def _has_hash(store: Store, key: str, sha256: str) -> bool:
    """Does an object hold the bytes with this hash? One read may lie, so a no is asked again."""
    try:
        return any(store.compute_sha256(key) == sha256 for _ in range(NUM_READS))
    except BlobMissing:
        return False


def _ensure_blob(
    store: Store, key: str, sha256: str, put: Callable[[str], Blob], lock: HeldLock
) -> Blob:
    """Put a blob; other bytes, or the record of other bytes, are removed first."""
    is_recorded_otherwise = False
    if _has_hash(store, key, sha256):
        try:
            return put(key)
        except BlobConflict:
            is_recorded_otherwise = True
    lock.check()
    if is_recorded_otherwise or store.exists(key):
        log.warning("stage=shards key=%s replaced", key)
    store.delete(key)
    return put(key)


def _describe_blob(blob: Blob) -> dict[str, Any]:
    return {"key": blob.key, "sha256": blob.sha256, "size": blob.size}


def _count_members(index: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "samples": len(index),
        "parts": sum(line["num_parts"] for line in index),
        "clicks": sum(line["num_clicks"] for line in index),
    }
