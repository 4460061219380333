"""The blobs that the catalogue needs: every key, the hash and size known of it, and whose it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tasks.catalogue import AssetRow, ShardVersionRow
from tasks.checkpoints import FILES, VERDICT_FILE, list_published
from tasks.labelling.loading import make_parsed_key
from tasks.storage import keys
from tasks.storage.canonical import BadDocument, parse_json
from tasks.storage.store import BlobDamaged, BlobMissing, Store
from tasks.workspace import Workspace


class BlobKind(StrEnum):
    """What a blob is, in the order in which damage is repaired."""

    SOURCE = "source"
    SIDE_FILE = "side_file"
    ASSET_INFO = "asset_info"
    MESH = "mesh"
    GOLD = "gold"
    CHECKPOINT = "checkpoint"
    ENCODING = "encoding"
    PROPOSAL = "proposal"
    LABEL_SET = "label_set"
    PROVENANCE = "provenance"
    REVIEW = "review"
    SHARD = "shard"


@dataclass(frozen=True, slots=True)
class Need:
    """A blob that the catalogue needs.

    Attributes:
        sha256, size: None where nothing is recorded.
        asset_id, round, label_id: whose, where that applies.
        version: (dataset, version) of a shard blob.
    """

    key: str
    kind: BlobKind
    sha256: str | None = None
    size: int | None = None
    asset_id: str = ""
    round: int = 0
    label_id: str = ""
    version: tuple[str, str] | None = None


def list_needs(workspace: Workspace) -> list[Need]:
    """Every blob that a row needs, each once, by kind and key."""
    catalogue = workspace.catalogue
    found = [need for row in catalogue.list_assets() for need in _list_of_asset(workspace, row)]
    for version in catalogue.labels.list_shard_versions():
        found += list_version_needs(workspace.store, version)
    found += [
        Need(copy.truth_key, BlobKind.GOLD, asset_id=copy.asset_id)
        for copy in catalogue.quality.list_copies()
        if copy.truth_key and copy.truth_key.startswith("quality/")
    ]
    found += [
        Need(keys.make_checkpoint_file_key(row.alias, name), BlobKind.CHECKPOINT)
        for row in list_published(catalogue)
        for name in (*FILES, VERDICT_FILE)
    ]
    records = {row.key: (row.sha256, row.size_bytes) for row in catalogue.blobs.list_all()}
    return _add_records(found, records)


def list_asset_needs(workspace: Workspace, asset_ids: Collection[str]) -> list[Need]:
    """The blobs that some assets need; shards are not among them."""
    catalogue = workspace.catalogue
    rows = [catalogue.get_asset(asset_id) for asset_id in asset_ids]
    found = [need for row in rows for need in _list_of_asset(workspace, row)]
    records = {}
    for need in found:
        row = catalogue.blobs.find(need.key)
        if row is not None:
            records[need.key] = (row.sha256, row.size_bytes)
    return _add_records(found, records)


def list_version_needs(store: Store, row: ShardVersionRow) -> list[Need]:
    """Manifest, index and tars of a dataset version; the manifest alone if it cannot be read."""
    version = (row.dataset, row.version)
    needs = [Need(row.manifest_key, BlobKind.SHARD, row.sha256, version=version)]
    try:
        manifest = store.get_json(row.manifest_key, row.sha256)
        parts = [manifest["index"], *manifest["shards"]]
    except (BlobMissing, BlobDamaged, BadDocument):
        return needs
    return needs + [
        Need(part["key"], BlobKind.SHARD, part["sha256"], part["size"], version=version)
        for part in parts
    ]


def _list_of_asset(workspace: Workspace, row: AssetRow) -> Iterator[Need]:
    catalogue, asset_id = workspace.catalogue, row.asset_id
    if row.source_key is not None:
        yield from _list_files(workspace, row)
    if row.encoding_key is not None:
        yield Need(row.encoding_key, BlobKind.ENCODING, asset_id=asset_id)
    for proposal in catalogue.list_proposals(asset_id):
        known = (proposal.sha256, None, asset_id, proposal.round)
        yield Need(proposal.key, BlobKind.PROPOSAL, *known)
    for task in catalogue.reviews.list_tasks(asset_id):
        for key in (task.sheet_key, task.buffers_key, task.viewer_key):
            if key is not None:
                yield Need(key, BlobKind.REVIEW, asset_id=asset_id, round=task.round)
    for labels in catalogue.labels.list_all(asset_id):
        arrays = Need(labels.key, BlobKind.LABEL_SET, labels.sha256, asset_id=asset_id)
        yield replace(arrays, label_id=labels.label_id)
        key = labels.provenance_key
        yield Need(key, BlobKind.PROVENANCE, asset_id=asset_id, label_id=labels.label_id)


def _list_files(workspace: Workspace, row: AssetRow) -> Iterator[Need]:
    """Source, asset.json, and what asset.json names; if that is lost, what was recorded."""
    store, asset_id = workspace.store, row.asset_id
    assert row.source_key is not None
    info_key = keys.make_asset_json_key(asset_id)
    about: Mapping[str, Any] = {}
    with suppress(BlobMissing, BlobDamaged, BadDocument):  # its own fault is found by the scrub
        about = parse_json(store.get(info_key), info_key)
    yield Need(
        row.source_key, BlobKind.SOURCE, about.get("sha256"), row.size_bytes, asset_id=asset_id
    )
    yield Need(info_key, BlobKind.ASSET_INFO, asset_id=asset_id)
    for entry in about.get("side_files", {}).values():
        known = (entry["sha256"], entry["size"], asset_id)
        yield Need(entry["key"], BlobKind.SIDE_FILE, *known)
    if not about:
        for record in workspace.catalogue.blobs.list_all(f"assets/{asset_id}/"):
            if record.key not in (row.source_key, info_key):
                is_mesh = record.key == make_parsed_key(row.source_key)
                kind = BlobKind.MESH if is_mesh else BlobKind.SIDE_FILE
                yield Need(record.key, kind, record.sha256, record.size_bytes, asset_id)
    if "mesh" in about:
        known = (about["mesh"]["sha256"], about["mesh"]["size"], asset_id)
        yield Need(about["mesh"]["key"], BlobKind.MESH, *known)


def _add_records(needs: list[Need], records: Mapping[str, tuple[str, int]]) -> list[Need]:
    """Fill in what the store recorded when it wrote; each key once."""
    unique: dict[str, Need] = {}
    for need in needs:
        sha256, size = records.get(need.key, (None, None))
        known = replace(
            need,
            sha256=need.sha256 or sha256,
            size=need.size if need.size is not None else (size if size and size >= 0 else None),
        )
        unique.setdefault(need.key, known)
    order = list(BlobKind)
    return sorted(unique.values(), key=lambda need: (order.index(need.kind), need.key))
