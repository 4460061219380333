"""Build fine-tuning shards: tar files for `webdataset`, a byte-range index, a manifest.

A version is named by the hash of everything it is made of, so the same label sets give the same
version and the same bytes, and building again without news writes nothing. The manifest is
written last: a version without one is unfinished. Every version holds the whole dataset; samples
that an earlier version has are copied from there (reuse.py). One process at a time builds a
dataset (lock.py), so the newest version is the one that was collected last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from segvigen_model.serialization import encoding_from_bytes, proposal_from_bytes
from tasks.catalogue import AssetState, Catalogue, ShardMemberRow, ShardVersionRow
from tasks.errors import StageError, is_transient_error
from tasks.labelling.label_sets import load_label_set
from tasks.labelling.loading import load_asset_mesh, load_proposal
from tasks.labelling.taxonomy import Taxonomy, build_taxonomy, configured_taxonomy
from tasks.settings import ShardSettings
from tasks.shards.entries import Entry, collect_entries, collect_members, compute_version
from tasks.shards.lock import HeldLock, hold_lock
from tasks.shards.reader import ReaderState, ShardReader, read_manifest
from tasks.shards.reuse import EarlierSamples
from tasks.shards.samples import SampleSource, build_sample_members
from tasks.shards.tars import TarWriter, pack_tar
from tasks.shards.versions import find_damage, publish_version
from tasks.stages.encode import ENCODER_CHARS
from tasks.storage import keys
from tasks.storage.store import BlobDamaged, BlobMissing
from tasks.workspace import Workspace

__all__ = ["ReaderState", "ShardBuild", "ShardReader", "build_shards", "read_manifest"]

log = logging.getLogger(__name__)

MOVED_AT_ONCE = 500  # assets in one statement


@dataclass(frozen=True, slots=True)
class ShardBuild:
    """What a build did.

    Attributes:
        version: "" when there is nothing to build.
        is_new: False when exactly this version was there already.
        failed: (asset id, error) of assets that were left out; they stay accepted.
        num_reused: samples taken over from an earlier version.
        repaired: (key, what was wrong) of blobs of this version that were made again.
    """

    dataset: str
    version: str
    is_new: bool
    num_samples: int
    num_shards: int
    size_bytes: int
    manifest_key: str | None
    failed: tuple[tuple[str, str], ...] = ()
    num_reused: int = 0
    repaired: tuple[tuple[str, str], ...] = ()


def build_shards(workspace: Workspace, *, is_thorough: bool = True) -> ShardBuild:
    """Bring the dataset up to all label sets that count now; accepted assets become sharded.

    One asset whose blobs cannot be used is left out, stays accepted and is reported. A version
    that is there already is healed: what is missing or damaged of it is made again.

    Args:
        workspace: gives label sets, encodings and proposals; gets shards, version, members, moves.
            Without a taxonomy in its settings all semantic ids are -1.
        is_thorough: read the tars of a version that is there and compare their hashes; else only
            their sizes.

    Raises:
        LockBusy: another build of the same dataset did not end in time.
        LockLost: this build stalled, and another one has taken over.
    """
    with hold_lock(workspace, f"shards:{workspace.settings.shard.dataset}") as lock:
        return _build_version(workspace, lock, is_thorough=is_thorough)


def _build_version(workspace: Workspace, lock: HeldLock, *, is_thorough: bool) -> ShardBuild:
    """Build while the lock is held: label sets are collected now, so a later fence is newer."""
    settings = workspace.settings.shard
    taxonomy = configured_taxonomy(workspace.settings.review)
    entries, lost = collect_entries(workspace.catalogue)
    if not entries:
        return ShardBuild(settings.dataset, "", False, 0, 0, 0, None, tuple(lost))
    version = compute_version(entries, settings, taxonomy)
    if not _find_damage(workspace, version, is_thorough=is_thorough):
        return _record_version(workspace, lock, version, tuple(lost))
    with tempfile.TemporaryDirectory(prefix="segvigen-shards-") as folder:
        writer = TarWriter(Path(folder), settings.max_shard_bytes)
        with writer.open():
            good, failed, num_reused = _write_all(workspace, writer, entries, taxonomy, lock)
        failed = (*lost, *failed)
        if not good:
            return ShardBuild(settings.dataset, "", False, 0, 0, 0, None, failed)
        version = compute_version(good, settings, taxonomy)
        key = keys.make_shard_manifest_key(settings.dataset, version)
        is_new = not workspace.store.exists(key)
        damage = _find_damage(workspace, version, is_thorough=is_thorough)
        if damage:
            publish_version(workspace, version, writer, good, taxonomy, lock)
    done = _record_version(workspace, lock, version, failed)
    repaired = () if is_new else tuple(damage)
    return replace(done, is_new=is_new, num_reused=num_reused, repaired=repaired)


def heal_version(workspace: Workspace, dataset: str, version: str) -> list[tuple[str, str]]:
    """Make again what is missing or damaged of any recorded version, also of an older one.

    Args:
        workspace: label sets, encodings and proposals of its members.
        dataset, version: which; its order among the versions stays.

    Returns:
        (key, what is wrong) of what is still wrong; it cannot be made by the settings and the
        taxonomy of the manifest or, where that is lost, of the workspace.
    """
    store, row = workspace.store, workspace.catalogue.labels.get_shard_version(dataset, version)
    if row is None:
        raise StageError(f"no version {version} of dataset {dataset!r} in the catalogue")
    workspace, taxonomy = _restore_settings(workspace, row)
    with (
        hold_lock(workspace, f"shards:{dataset}") as lock,
        tempfile.TemporaryDirectory(prefix="segvigen-shards-") as folder,
    ):
        entries = collect_members(workspace.catalogue, dataset, version)
        writer = TarWriter(Path(folder), workspace.settings.shard.max_shard_bytes)
        with writer.open():
            good, _, _ = _write_all(workspace, writer, entries, taxonomy, lock)
        if compute_version(good, workspace.settings.shard, taxonomy) == version:
            publish_version(workspace, version, writer, good, taxonomy, lock)
            data = store.get(row.manifest_key)
            same = replace(row, sha256=hashlib.sha256(data).hexdigest(), build_number=0)
            with workspace.catalogue.transaction():
                lock.check()
                workspace.catalogue.labels.add_shards(same, [])
    row = workspace.catalogue.labels.get_shard_version(dataset, version)
    return find_damage(store, dataset, version, row, is_thorough=True)


def _restore_settings(
    workspace: Workspace, row: ShardVersionRow
) -> tuple[Workspace, Taxonomy | None]:
    """Settings and taxonomy that a version was built by, out of its manifest if it is whole."""
    settings, taxonomy = workspace.settings, configured_taxonomy(workspace.settings.review)
    shard = settings.shard.model_copy(update={"dataset": row.dataset})
    try:
        manifest = workspace.store.get_json(row.manifest_key, row.sha256)
        shard = ShardSettings(**manifest["settings"])
        categories = manifest.get("taxonomy")
        taxonomy = build_taxonomy(categories) if categories else None
    except (BlobMissing, BlobDamaged) as err:
        log.warning(
            "stage=shards version=%s note=settings are the present ones: %s", row.version, err
        )
    return replace(workspace, settings=settings.model_copy(update={"shard": shard})), taxonomy


def _find_damage(workspace: Workspace, version: str, *, is_thorough: bool) -> list[tuple[str, str]]:
    """What is wrong with a version's blobs; a version that is not there yet lacks its manifest."""
    dataset = workspace.settings.shard.dataset
    row = workspace.catalogue.labels.get_shard_version(dataset, version)
    found = find_damage(workspace.store, dataset, version, row, is_thorough=is_thorough)
    for key, fault in found if row is not None else ():
        log.warning("stage=shards key=%s damaged: %s", key, fault)
    return found


def _write_all(
    workspace: Workspace,
    writer: TarWriter,
    entries: list[Entry],
    taxonomy: Taxonomy | None,
    lock: HeldLock,
) -> tuple[list[Entry], tuple[tuple[str, str], ...], int]:
    """Which entries were written, which not and why, and how many were there already."""
    earlier = EarlierSamples(workspace, taxonomy)
    good, failed, num_reused = [], [], 0
    for entry in entries:
        asset_id = entry.asset_id
        try:
            data = earlier.find_sample(asset_id, entry.label_id)
            num_reused += data is not None
            if data is None:
                source = _load_source(workspace, entry, taxonomy)
                data = pack_tar(asset_id, build_sample_members(source, workspace.settings.shard))
        except Exception as err:
            # A blob that stays damaged must not stop the whole dataset; `repair` sees to it.
            if is_transient_error(err) and not isinstance(err, BlobDamaged):
                raise
            log.exception("stage=shards asset=%s failed", asset_id[:12])
            failed.append((asset_id, f"{type(err).__name__}: {err}"))
            continue
        writer.add(entry, data)
        good.append(entry)
        lock.step()
    log.info("stage=shards samples=%d reused=%d", len(good), num_reused)
    return good, tuple(failed), num_reused


def _load_source(workspace: Workspace, entry: Entry, taxonomy: Taxonomy | None) -> SampleSource:
    store, catalogue = workspace.store, workspace.catalogue
    asset_id, rows = entry.asset_id, catalogue.list_proposals(entry.asset_id)
    shown_rows = [row for row in rows if row.round <= entry.round]
    proposal = proposal_from_bytes(store.get(entry.proposal_key, entry.proposal_sha256))
    own = keys.make_encoding_key(entry.checkpoint[:ENCODER_CHARS], asset_id)
    encoding = encoding_from_bytes(store.get(own))
    if len(encoding.coords) != len(proposal.voxel_labels):
        raise StageError(
            f"{len(encoding.coords)} voxels, {len(proposal.voxel_labels)} voxel labels; "
            "propose the asset again"
        )
    shown = [load_proposal(store, row).voxel_labels for row in shown_rows]
    label_set = load_label_set(store, catalogue.labels.get(entry.label_id))
    return SampleSource(
        asset_id=asset_id,
        mesh=load_asset_mesh(store, catalogue.get_asset(asset_id)),
        encoding=encoding,
        label_set=label_set,
        voxel_labels=label_set.proposal_parts[proposal.voxel_labels],
        taxonomy=taxonomy,
        shown=tuple(labels for labels in shown if len(labels) == len(encoding.coords)),
    )


def _record_version(
    workspace: Workspace, lock: HeldLock, version: str, failed: tuple[tuple[str, str], ...]
) -> ShardBuild:
    """Record a finished version and move its assets; also where a killed build left off."""
    store, catalogue = workspace.store, workspace.catalogue
    dataset = workspace.settings.shard.dataset
    key = keys.make_shard_manifest_key(dataset, version)
    data = store.get(key)
    manifest = json.loads(data)
    index = manifest["index"]
    lines = [json.loads(line) for line in store.get(index["key"], index["sha256"]).splitlines()]
    size = sum(shard["size"] for shard in manifest["shards"])
    digest = hashlib.sha256(data).hexdigest()
    row = ShardVersionRow(
        *(dataset, version, key, digest, len(lines), size), build_number=lock.fence
    )
    members = [
        ShardMemberRow(
            dataset,
            version,
            line["key"],
            line["label_id"],
            manifest["shards"][line["shard"]]["key"],
        )
        for line in lines
    ]
    with catalogue.transaction():
        lock.check()
        catalogue.labels.add_shards(row, members)
        _move_members(catalogue, members, f"{dataset}/{version}")
    log.info("stage=shards dataset=%s version=%s samples=%d", dataset, version, len(lines))
    return ShardBuild(
        dataset, version, False, len(lines), len(manifest["shards"]), size, key, failed
    )


def _move_members(catalogue: Catalogue, members: list[ShardMemberRow], detail: str) -> None:
    """Accepted assets become sharded, unless a correction has changed their state or labels."""
    accepted, sharded = AssetState.ACCEPTED, AssetState.SHARDED
    made_of = {member.asset_id: member.label_id for member in members}
    waiting = catalogue.lock_all(accepted)
    for first in range(0, len(waiting), MOVED_AT_ONCE):
        chunk = [name for name in waiting[first : first + MOVED_AT_ONCE] if name in made_of]
        # Read after the assets are locked: a correction adds its label set with their move.
        latest = catalogue.labels.find_latest_ids(chunk)
        current = [name for name in chunk if latest.get(name) == made_of[name]]
        catalogue.move_all(current, accepted, sharded, detail=detail)
