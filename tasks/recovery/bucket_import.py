"""Rebuild a catalogue from the bucket alone: assets, label sets, their history, dataset versions.

Nothing is believed: a label set counts only if its arrays have the hash that its JSON names, and
both together hash to its id. What was never recorded in the bucket stays lost: assets under
review begin anew (their encodings and first proposals are found again), aliases of checkpoints,
marks of gold labels, findings and rejections by reviewers.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from segvigen_model.errors import SegvigenError
from segvigen_model.serialization import proposal_from_bytes
from tasks.catalogue import (
    DONE,
    AssetRow,
    AssetState,
    CatalogueError,
    CopyRole,
    CopyRow,
    LabelSetRow,
    ProposalRow,
    ShardMemberRow,
    ShardVersionRow,
)
from tasks.errors import is_transient_error
from tasks.labelling.label_sets import LABEL_ID_CHARS, check_partition, label_set_from_bytes
from tasks.labelling.lineage import PARENT, parent_of
from tasks.quality.copies import make_copy_id
from tasks.recovery.history_import import add_history
from tasks.storage import keys
from tasks.storage.canonical import json_document
from tasks.storage.objects import ObjectInfo
from tasks.storage.store import Store
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

UNFINISHED = "bucket_import"  # cursor while an import is under way, so that it can be run again
DETAIL = "imported from the bucket"


@dataclass(slots=True)
class ImportReport:
    """What an import did.

    Attributes:
        assets, label_sets, versions: taken over now.
        problems: (key, why it was left out).
    """

    assets: int = 0
    label_sets: int = 0
    versions: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "assets": self.assets,
            "label_sets": self.label_sets,
            "versions": self.versions,
            "problems": [{"key": key, "problem": problem} for key, problem in self.problems],
        }


@dataclass(frozen=True, slots=True)
class _FoundLabels:
    """A label set of the bucket whose bytes are proven; `document` is its provenance."""

    row: LabelSetRow
    document: Mapping[str, Any]
    mtime: float

    @property
    def order(self) -> tuple[int, str, float, str]:
        """A later label set of an asset has seen more reviews."""
        stamps = [str(review["updated_at"]) for review in self.document["reviews"]]
        return len(stamps), max(stamps, default=""), self.mtime, self.row.label_id


def import_from_bucket(workspace: Workspace, *, is_adding: bool = False) -> ImportReport:
    """Take assets, label sets and dataset versions of the bucket into the catalogue.

    Run again after a kill, it goes on. Ids are those of before.

    Args:
        workspace: its store is read, its catalogue filled.
        is_adding: the catalogue has rows, for example of an older backup: add what it lacks.

    Raises:
        CatalogueError: the catalogue is not empty, and nothing is to be added.
    """
    catalogue = workspace.catalogue
    num_assets = sum(catalogue.count_assets().values())
    if num_assets and not is_adding and catalogue.raw.get_cursor(UNFINISHED) != "yes":
        raise CatalogueError(
            f"the catalogue holds {num_assets} assets; import into an empty one, or let the import "
            "add what this one lacks (--add)"
        )
    catalogue.raw.set_cursor(UNFINISHED, "yes")
    report = ImportReport()
    _import_assets(workspace, report)
    for asset_id, found in _find_labels(workspace.store, report):
        _import_labels(workspace, asset_id, found, report)
    _import_versions(workspace, report)
    catalogue.raw.set_cursor(UNFINISHED, "done")
    log.warning(
        "stage=import assets=%d label_sets=%d versions=%d problems=%d",
        *(report.assets, report.label_sets, report.versions, len(report.problems)),
    )
    return report


def _import_assets(workspace: Workspace, report: ImportReport) -> None:
    store, catalogue = workspace.store, workspace.catalogue
    found: dict[str, Mapping[str, Any]] = {}
    for info in store.list("assets"):
        if not info.key.endswith("/asset.json"):
            continue
        asset_id = info.key.split("/")[1]
        try:
            found[asset_id] = store.get_json(info.key)
        except SegvigenError as err:
            _leave_out(report, info.key, err)
    originals = {make_copy_id(role, each): (role, each) for each in found for role in CopyRole}
    for asset_id, about in sorted(found.items()):
        role, of_asset = originals.get(asset_id, (None, asset_id))
        source_id = of_asset if role is CopyRole.DOUBLE else asset_id
        source_key = keys.make_asset_source_key(source_id, str(about["suffix"]))
        size = store.get_size(source_key)
        if size is None:
            report.problems.append((source_key, "there is no source"))
            continue
        row = AssetRow(
            asset_id,
            AssetState.REGISTERED,
            name=str(about["name"]),
            suffix=str(about["suffix"]),
            source_key=source_key,
            size_bytes=size,
            num_faces=int(about.get("num_faces", 0)),
            licence=str(about.get("licence", "unknown")),
        )
        with catalogue.transaction():
            report.assets += catalogue.register(row)
            if role is not None:
                truth = keys.make_gold_labels_key(asset_id) if role is CopyRole.GOLD else None
                catalogue.quality.add_copy(CopyRow(asset_id, role, of_asset, truth))


def _find_labels(store: Store, report: ImportReport) -> Iterator[tuple[str, list[_FoundLabels]]]:
    """Asset id -> its proven label sets, in the order in which they were accepted."""
    found: dict[str, list[_FoundLabels]] = {}
    for info in store.list("labels"):
        if info.key.endswith(".json"):
            try:
                labels = _read_labels(store, info)
                found.setdefault(labels.row.asset_id, []).append(labels)
            except (SegvigenError, ValueError, KeyError, TypeError) as err:
                if is_transient_error(err) and not isinstance(err, SegvigenError):
                    raise
                _leave_out(report, info.key, err)
    for asset_id in sorted(found):
        yield asset_id, sorted(found[asset_id], key=lambda each: each.order)


def _read_labels(store: Store, info: ObjectInfo) -> _FoundLabels:
    """Read a label set and prove that its files belong together."""
    provenance = store.get_json(info.key)
    key = info.key.removesuffix(".json") + ".npz"
    arrays = store.get(key, provenance["labels_sha256"])
    named = ("label_id", "labels_sha256")
    history = {name: value for name, value in provenance.items() if name not in named}
    digest = hashlib.sha256(arrays + json_document(history)).hexdigest()[:LABEL_ID_CHARS]
    if digest != provenance["label_id"]:
        raise CatalogueError(f"its content hashes to {digest}, its name is another; not imported")
    labels = label_set_from_bytes(arrays, provenance, str(provenance["decided_by"]))
    check_partition(labels.face_labels, int(provenance["num_faces"]), len(labels.part_names))
    row = LabelSetRow(
        label_id=digest,
        asset_id=provenance["asset_id"],
        key=key,
        sha256=provenance["labels_sha256"],
        provenance_key=info.key,
        proposal_key=provenance["proposal"]["key"],
        num_parts=provenance["num_parts"],
        num_clicks=len(provenance["clicks"]),
        num_rounds=provenance["num_rounds"],
        seconds=provenance["seconds"],
        decided_by=provenance["decided_by"],
    )
    return _FoundLabels(row, provenance, info.mtime)


def _import_labels(
    workspace: Workspace, asset_id: str, found: list[_FoundLabels], report: ImportReport
) -> None:
    """Record an asset's label sets, proposals and reviews, and let it be accepted."""
    catalogue = workspace.catalogue
    asset = catalogue.find_asset(asset_id)
    if asset is None:
        report.problems.append((found[-1].row.provenance_key, "its asset is not in the bucket"))
        return
    known = {row.label_id for row in catalogue.labels.list_all(asset_id)}
    orders = [each.order for each in found if each.row.label_id in known]
    new = [each for each in found if not orders or each.order > max(orders)]
    if not new:
        return
    if asset.state in (AssetState.REJECTED, AssetState.SKIPPED):
        report.problems.append((new[-1].row.key, f"its asset is {asset.state}; left alone"))
        return
    proposals = _trace_proposals(workspace.store, asset_id, new, report)
    with catalogue.transaction():
        for row in proposals:
            catalogue.add_proposal(row)
        for each in new:
            report.label_sets += catalogue.labels.add(each.row)
        add_history(catalogue, asset_id, new[-1].document)
        _accept(workspace, asset, new[-1])


def _accept(workspace: Workspace, asset: AssetRow, last: _FoundLabels) -> None:
    """Move an asset to accepted by the moves that the table has."""
    catalogue, asset_id = workspace.catalogue, asset.asset_id
    round_ = int(last.document["proposal"]["round"])
    if asset.state in DONE:
        catalogue.move(asset_id, AssetState.REFINING, detail=DETAIL)
        catalogue.move(asset_id, AssetState.PROPOSED, round=round_, detail=DETAIL)
    elif asset.state is not AssetState.PROPOSED:
        steps = {
            AssetState.REGISTERED: (AssetState.ENCODED, AssetState.PROPOSED),
            AssetState.IN_REVIEW: (AssetState.PROPOSED,),
        }.get(asset.state, (AssetState.PROPOSED,))
        for step in steps:
            catalogue.move(asset_id, step, round=round_, detail=DETAIL)
    encoding = keys.make_encoding_key(str(last.document["checkpoint"])[:16], asset_id)
    fields = {"encoding_key": encoding} if workspace.store.exists(encoding) else {}
    catalogue.move(asset_id, AssetState.ACCEPTED, round=round_, detail=DETAIL, **fields)


def _trace_proposals(
    store: Store, asset_id: str, labels: list[_FoundLabels], report: ImportReport
) -> list[ProposalRow]:
    """The rounds behind label sets: each proposal names the one that it was refined from."""
    rows: dict[int, ProposalRow] = {}
    for each in labels:
        wanted = parent_of({PARENT: each.document["proposal"]})
        while wanted is not None:
            key, sha256, round_ = wanted
            try:
                proposal = proposal_from_bytes(store.get(key, sha256))
            except SegvigenError as err:
                _leave_out(report, key, err)
                break
            rows[round_] = ProposalRow(
                asset_id=asset_id,
                round=round_,
                key=key,
                sha256=sha256,
                num_parts=proposal.num_parts,
                confidence=float(proposal.confidence),
                checkpoint=proposal.checkpoint or str(each.document["checkpoint"]),
                provenance=proposal.provenance,
            )
            wanted = parent_of(proposal.provenance)
    return [rows[round_] for round_ in sorted(rows)]


def _import_versions(workspace: Workspace, report: ImportReport) -> None:
    """Dataset versions in the order of their manifests; the next build's number is higher."""
    store, catalogue = workspace.store, workspace.catalogue
    manifests = [info for info in store.list("shards") if info.key.endswith("/manifest.json")]
    for number, info in enumerate(sorted(manifests, key=lambda each: (each.mtime, each.key)), 1):
        _, dataset, version, _ = info.key.split("/")
        if catalogue.labels.get_shard_version(dataset, version) is not None:
            continue
        try:
            data = store.get(info.key)
            lines, members, size = _read_version(store, data, dataset, version)
        except (SegvigenError, ValueError, KeyError, TypeError) as err:
            _leave_out(report, info.key, err)
            continue
        row = ShardVersionRow(
            *(dataset, version, info.key, hashlib.sha256(data).hexdigest(), lines, size),
            created_at=info.mtime,
            build_number=number,
        )
        with catalogue.transaction():
            report.versions += catalogue.labels.add_shards(row, members)
            catalogue.locks.raise_fence(f"shards:{dataset}", number)


def _read_version(
    store: Store, data: bytes, dataset: str, version: str
) -> tuple[int, list[ShardMemberRow], int]:
    """Number of samples, members and bytes of a version, out of its manifest and index."""
    manifest = json.loads(data)
    index = manifest["index"]
    lines = map(json.loads, store.get(index["key"], index["sha256"]).splitlines())
    tars = [shard["key"] for shard in manifest["shards"]]
    members = [
        ShardMemberRow(dataset, version, line["key"], line["label_id"], tars[line["shard"]])
        for line in lines
    ]
    return len(members), members, sum(int(shard["size"]) for shard in manifest["shards"])


def _leave_out(report: ImportReport, key: str, error: Exception) -> None:
    log.warning("stage=import key=%s left out: %s", key, error)
    report.problems.append((key, f"{type(error).__name__}: {error}"))
