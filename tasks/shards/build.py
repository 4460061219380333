"""Build fine-tuning shards: tar files for `webdataset`, a byte-range index, a manifest.

A version is named by the hash of everything it is made of, so the same label sets give the same
version and the same bytes, and building again without news writes nothing. The manifest is
written last: a version without one is unfinished. Every version holds the whole dataset; samples
that an earlier version has are copied from there (shard_reuse.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from segvigen_model.serialization import encoding_from_bytes
from tasks.catalogue import (
    DONE,
    AssetRow,
    AssetState,
    Catalogue,
    LabelSetRow,
    ProposalRow,
    ShardMemberRow,
    ShardVersionRow,
)
from tasks.errors import StageError, is_transient_error
from tasks.labelling.label_sets import load_label_set
from tasks.labelling.loading import load_asset_mesh, load_proposal
from tasks.labelling.taxonomy import Taxonomy, configured_taxonomy
from tasks.settings import ShardSettings
from tasks.shards.reader import ReaderState, ShardReader, read_manifest
from tasks.shards.reuse import EarlierSamples
from tasks.shards.samples import SAMPLE_SCHEMA, SampleSource, build_sample_members
from tasks.stages.encode import ENCODER_CHARS
from tasks.storage import keys
from tasks.storage.canonical import canonical_json
from tasks.workspace import Workspace

__all__ = ["ReaderState", "ShardBuild", "ShardReader", "build_shards", "read_manifest"]

log = logging.getLogger(__name__)

MANIFEST_SCHEMA = "segvigen-shards/2"  # /1 had no taxonomy; it is still read
VERSION_CHARS = 16
NUM_FOLDS = 10  # for splits by asset: fold = hash of the asset id


@dataclass(frozen=True, slots=True)
class ShardBuild:
    """What a build did.

    Attributes:
        version: "" when there is nothing to build.
        is_new: False when exactly this version was there already.
        failed: (asset id, error) of assets that were left out; they stay accepted.
        num_reused: samples taken over from an earlier version.
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


@dataclass(frozen=True, slots=True)
class _Entry:
    """One asset of the dataset: its rows."""

    asset: AssetRow
    labels: LabelSetRow
    proposal: ProposalRow

    @property
    def recipe(self) -> list[str]:
        return [self.asset.asset_id, self.labels.label_id, self.labels.sha256, self.proposal.sha256]


def build_shards(workspace: Workspace) -> ShardBuild:
    """Bring the dataset up to all label sets that count now; accepted assets become sharded.

    One asset whose blobs cannot be used is left out, stays accepted and is reported.

    Args:
        workspace: gives label sets, encodings and proposals; gets shards, version, members, moves.
            Without a taxonomy in its settings all semantic ids are -1.
    """
    store, settings = workspace.store, workspace.settings.shard
    taxonomy = configured_taxonomy(workspace.settings.review)
    entries, lost = _collect_entries(workspace.catalogue)
    if not entries:
        return ShardBuild(settings.dataset, "", False, 0, 0, 0, None, tuple(lost))
    version = _compute_version(entries, settings, taxonomy)
    key = keys.make_shard_manifest_key(settings.dataset, version)
    if store.exists(key):
        return _record_version(workspace, version, is_new=False, failed=tuple(lost))
    with tempfile.TemporaryDirectory(prefix="segvigen-shards-") as folder:
        writer = _Writer(Path(folder), settings.max_shard_bytes)
        with writer.open():
            made = _write_all(workspace, writer, entries, taxonomy)
        good, failed, num_reused = made
        failed = (*lost, *failed)
        if not good:
            return ShardBuild(settings.dataset, "", False, 0, 0, 0, None, failed)
        version = _compute_version(good, settings, taxonomy)
        is_new = not store.exists(keys.make_shard_manifest_key(settings.dataset, version))
        if is_new:
            _upload_shards(workspace, version, writer, good, taxonomy)
    done = _record_version(workspace, version, is_new=is_new, failed=failed)
    return replace(done, num_reused=num_reused)


def _collect_entries(catalogue: Catalogue) -> tuple[list[_Entry], list[tuple[str, str]]]:
    """Assets with a label set that counts, by id; and those whose rows do not fit together.

    Copies made for quality control are no assets of a dataset.
    """
    copies = catalogue.quality.list_copy_ids()
    done = [asset for state in DONE for asset in catalogue.list_assets(state)]
    assets = [asset for asset in done if asset.asset_id not in copies]
    good, lost = [], []
    for asset in sorted(assets, key=lambda row: row.asset_id):
        labels = catalogue.labels.get_latest(asset.asset_id)
        proposals = {row.key: row for row in catalogue.list_proposals(asset.asset_id)}
        if labels is None or labels.proposal_key not in proposals:
            lost.append((asset.asset_id, "no label set, or its proposal is not in the catalogue"))
        else:
            good.append(_Entry(asset, labels, proposals[labels.proposal_key]))
    return good, lost


def _compute_version(
    entries: list[_Entry], settings: ShardSettings, taxonomy: Taxonomy | None
) -> str:
    made_of = [MANIFEST_SCHEMA, SAMPLE_SCHEMA, settings.model_dump(), _list_categories(taxonomy)]
    text = canonical_json([*made_of, [entry.recipe for entry in entries]])
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_CHARS]


def _list_categories(taxonomy: Taxonomy | None) -> list[dict[str, str]]:
    """The taxonomy as the manifest holds it; a category's place is its semantic id."""
    return [] if taxonomy is None else taxonomy.to_json()


def _write_all(
    workspace: Workspace, writer: _Writer, entries: list[_Entry], taxonomy: Taxonomy | None
) -> tuple[list[_Entry], tuple[tuple[str, str], ...], int]:
    """Which entries were written, which not and why, and how many were there already."""
    earlier = EarlierSamples(workspace, taxonomy)
    good, failed, num_reused = [], [], 0
    for entry in entries:
        asset_id = entry.asset.asset_id
        try:
            data = earlier.find_sample(asset_id, entry.labels.label_id)
            num_reused += data is not None
            if data is None:
                source = _load_source(workspace, entry, taxonomy)
                data = _pack_tar(asset_id, build_sample_members(source, workspace.settings.shard))
        except Exception as err:
            if is_transient_error(err):
                raise
            log.exception("stage=shards asset=%s failed", asset_id[:12])
            failed.append((asset_id, f"{type(err).__name__}: {err}"))
            continue
        writer.add(entry, data)
        good.append(entry)
    log.info("stage=shards samples=%d reused=%d", len(good), num_reused)
    return good, tuple(failed), num_reused


def _load_source(workspace: Workspace, entry: _Entry, taxonomy: Taxonomy | None) -> SampleSource:
    store, catalogue = workspace.store, workspace.catalogue
    asset_id = entry.asset.asset_id
    proposal = load_proposal(store, entry.proposal)
    own = keys.make_encoding_key(entry.proposal.checkpoint[:ENCODER_CHARS], asset_id)
    encoding = encoding_from_bytes(store.get(own))
    if len(encoding.coords) != len(proposal.voxel_labels):
        raise StageError(
            f"{len(encoding.coords)} voxels, {len(proposal.voxel_labels)} voxel labels; "
            "propose the asset again"
        )
    rounds = [
        row for row in catalogue.list_proposals(asset_id) if row.round <= entry.proposal.round
    ]
    shown = [load_proposal(store, row).voxel_labels for row in rounds]
    label_set = load_label_set(store, entry.labels)
    return SampleSource(
        asset_id=asset_id,
        mesh=load_asset_mesh(store, entry.asset),
        encoding=encoding,
        label_set=label_set,
        voxel_labels=label_set.proposal_parts[proposal.voxel_labels],
        taxonomy=taxonomy,
        shown=tuple(labels for labels in shown if len(labels) == len(encoding.coords)),
    )


class _Writer:
    """Cuts samples into tar files of bounded size in a local folder, and keeps the index."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self.files: list[Path] = []
        self.index: list[dict[str, Any]] = []

    @contextmanager
    def open(self) -> Iterator[None]:
        """Close the last tar at the end, also after an error."""
        try:
            yield
        finally:
            self._close_shard()

    def add(self, entry: _Entry, data: bytes) -> None:
        """Append a sample's blocks; a new tar begins where the old one would grow too large."""
        if self._file is None or self._file.tell() + len(data) > self._max_bytes:
            self._begin_shard()
        assert self._file is not None
        line = {
            "key": entry.asset.asset_id,
            "label_id": entry.labels.label_id,
            "shard": len(self.files) - 1,
            "offset": self._file.tell(),
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "num_parts": entry.labels.num_parts,
            "num_clicks": entry.labels.num_clicks,
            "licence": entry.asset.licence,
            "fold": int(entry.asset.asset_id[:8], 16) % NUM_FOLDS,
        }
        self._file.write(data)
        self.index.append(line)

    def _begin_shard(self) -> None:
        self._close_shard()
        path = self._folder / f"{len(self.files):06d}.tar"
        self._file = path.open("wb")
        self.files.append(path)

    def _close_shard(self) -> None:
        if self._file is not None:
            self._file.write(b"\0" * 1024)  # a tar ends with two empty blocks
            self._file.close()
            self._file = None


def _pack_tar(asset_id: str, members: Mapping[str, bytes]) -> bytes:
    """A sample's tar blocks without the end mark; sorted, no times, no owners."""
    blocks = []
    for name in sorted(members):
        data = members[name]
        entry = tarfile.TarInfo(f"{asset_id}.{name}")
        entry.size, entry.mtime, entry.mode = len(data), 0, 0o644
        blocks += [entry.tobuf(tarfile.USTAR_FORMAT), data, b"\0" * (-len(data) % 512)]
    return b"".join(blocks)


def _upload_shards(
    workspace: Workspace,
    version: str,
    writer: _Writer,
    entries: list[_Entry],
    taxonomy: Taxonomy | None,
) -> None:
    """Shards, then the index, then the manifest."""
    store, settings = workspace.store, workspace.settings.shard
    shards = []
    for number, file in enumerate(writer.files):
        blob = store.put_file(keys.make_shard_key(settings.dataset, version, number), file)
        lines = [line for line in writer.index if line["shard"] == number]
        shards.append(
            {
                "key": blob.key,
                "sha256": blob.sha256,
                "size": blob.size,
                "num_samples": len(lines),
            }
        )
    text = "".join(canonical_json(line) + "\n" for line in writer.index)
    index = store.put(
        keys.make_shard_index_key(settings.dataset, version), text.encode(), "application/x-ndjson"
    )
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "sample_schema": SAMPLE_SCHEMA,
        "dataset": settings.dataset,
        "version": version,
        "settings": settings.model_dump(),
        "shards": shards,
        "index": {"key": index.key, "sha256": index.sha256, "size": index.size},
        "counts": _count_members(writer.index),
        "taxonomy": _list_categories(taxonomy),
        "licences": dict(Counter(line["licence"] for line in writer.index)),
        "checkpoints": sorted({entry.proposal.checkpoint for entry in entries}),
        "decided_by": dict(Counter(entry.labels.decided_by for entry in entries)),
        "members": [[entry.asset.asset_id, entry.labels.label_id] for entry in entries],
    }
    store.put_json(keys.make_shard_manifest_key(settings.dataset, version), manifest)


def _count_members(index: list[dict[str, Any]]) -> dict[str, int]:
    return {
        "samples": len(index),
        "parts": sum(line["num_parts"] for line in index),
        "clicks": sum(line["num_clicks"] for line in index),
    }


def _record_version(
    workspace: Workspace, version: str, *, is_new: bool, failed: tuple[tuple[str, str], ...]
) -> ShardBuild:
    """Record a finished version and move its assets; also where a killed build left off."""
    store, catalogue = workspace.store, workspace.catalogue
    dataset = workspace.settings.shard.dataset
    key = keys.make_shard_manifest_key(dataset, version)
    data = store.get(key)
    manifest = json.loads(data)
    lines = [json.loads(line) for line in store.get(manifest["index"]["key"]).splitlines()]
    size = sum(shard["size"] for shard in manifest["shards"])
    row = ShardVersionRow(dataset, version, key, hashlib.sha256(data).hexdigest(), len(lines), size)
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
        catalogue.labels.add_shards(row, members)
        for member in members:
            if catalogue.get_asset(member.asset_id).state is AssetState.ACCEPTED:
                catalogue.move(member.asset_id, AssetState.SHARDED, detail=f"{dataset}/{version}")
    log.info(
        "stage=shards dataset=%s version=%s new=%s samples=%d", dataset, version, is_new, len(lines)
    )
    return ShardBuild(
        dataset, version, is_new, len(lines), len(manifest["shards"]), size, key, failed
    )
