"""The demo's results: one row per asset, and checks of label sets and shards."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.demo.assets import DemoObject
from segvigen_model.command.terminal import make_table, out, sanitize_text
from segvigen_model.evaluation.metrics import compute_miou_matched
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import IntArray
from tasks.catalogue import DONE, PARKED, AssetRow
from tasks.labelling.label_sets import load_label_set
from tasks.labelling.loading import load_asset_mesh, load_proposal
from tasks.shards.reader import read_manifest
from tasks.workspace import Workspace


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One asset at the end of the demo.

    Attributes:
        num_true_parts, num_parts: in truth and in the last proposal or label set.
        iou_before, iou_after: one-to-one matched, of the first proposal and of the accepted
            labels; None where there are none.
        seconds: reviewers' time.
    """

    name: str
    state: str
    reason: str = ""
    num_true_parts: int | None = None
    num_parts: int | None = None
    rounds: int = 0
    clicks: int = 0
    iou_before: float | None = None
    iou_after: float | None = None
    seconds: float = 0.0


def describe_objects(workspace: Workspace, objects: Sequence[DemoObject]) -> list[DemoRow]:
    """Make one row per asset, in the order of the bucket's keys."""
    truth = {item.key: item.true_labels for item in objects}
    rows: list[DemoRow] = []
    seen: set[str] = set()
    for raw in workspace.catalogue.raw.list_all():
        if raw.key not in truth or raw.asset_id is None or raw.asset_id in seen:
            continue
        seen.add(raw.asset_id)
        rows.append(
            _make_row(workspace, workspace.catalogue.get_asset(raw.asset_id), truth[raw.key])
        )
    return rows


def _make_row(workspace: Workspace, asset: AssetRow, truth: IntArray | None) -> DemoRow:
    proposals = workspace.catalogue.list_proposals(asset.asset_id)
    label_set = workspace.catalogue.labels.get_latest(asset.asset_id)
    before = after = None
    if truth is not None and proposals:
        areas = measure_surface(load_asset_mesh(workspace.store, asset)).areas
        first = load_proposal(workspace.store, proposals[0]).face_labels
        before = compute_miou_matched(first, truth, areas)
        if label_set is not None:
            accepted = load_label_set(workspace.store, label_set).face_labels
            after = compute_miou_matched(accepted, truth, areas)
    annotations = workspace.catalogue.reviews.list_annotations(asset.asset_id)
    return DemoRow(
        name=asset.name,
        state=str(asset.state),
        reason=asset.reason or "",
        num_true_parts=None if truth is None else int(truth.max()) + 1,
        num_parts=proposals[-1].num_parts if proposals else None,
        rounds=asset.round,
        clicks=len(workspace.catalogue.reviews.list_clicks(asset.asset_id)),
        iou_before=before,
        iou_after=after,
        seconds=sum(annotation.lead_time_s for annotation in annotations),
    )


def show_rows(rows: Sequence[DemoRow]) -> None:
    """Print the table."""
    columns = ("parts (true)", "rounds", "clicks", "IoU before", "IoU after", "state", "s")
    shown = make_table("Demo", "asset", *columns)
    for row in rows:
        parts = "" if row.num_parts is None else f"{row.num_parts} ({row.num_true_parts})"
        shown.add_row(
            sanitize_text(row.name),
            parts,
            str(row.rounds),
            str(row.clicks),
            _format_percent(row.iou_before),
            _format_percent(row.iou_after),
            row.state,
            f"{row.seconds:.0f}",
        )
    out.print(shown)
    for row in rows:
        if row.reason:
            out.print(f"{sanitize_text(row.name)} was parked: {sanitize_text(row.reason)}")


def find_problems(workspace: Workspace, objects: Sequence[DemoObject]) -> list[str]:
    """List every problem: lost assets, bad label sets, unreadable shards."""
    found = []
    catalogue = workspace.catalogue
    for item in objects:
        raw = catalogue.raw.get(item.key)
        if item.true_labels is None and raw is None:
            continue  # a companion file
        if raw is None or raw.asset_id is None:
            found.append(f"{item.key} was never ingested")
            continue
        asset = catalogue.get_asset(raw.asset_id)
        if asset.state not in DONE | PARKED:
            found.append(f"{item.key} is {asset.state}, neither accepted nor parked")
        if asset.state in PARKED and not asset.reason:
            found.append(f"{item.key} is {asset.state} without a reason")
        found += _find_label_problems(workspace, asset)
    return found + _find_shard_problems(workspace)


def _find_label_problems(workspace: Workspace, asset: AssetRow) -> list[str]:
    if asset.state not in DONE:
        return []
    row = workspace.catalogue.labels.get_latest(asset.asset_id)
    if row is None:
        return [f"{asset.name} is {asset.state} without a label set"]
    labels = load_label_set(workspace.store, row).face_labels
    if len(labels) != asset.num_faces:
        return [f"{asset.name} has {asset.num_faces} faces and {len(labels)} labels"]
    return []


def _find_shard_problems(workspace: Workspace) -> list[str]:
    """Read the newest dataset version with the webdataset library itself."""
    versions = workspace.catalogue.labels.list_shard_versions(workspace.settings.shard.dataset)
    if not versions:
        return ["no shards were built"]
    newest = versions[-1]
    members = workspace.catalogue.labels.list_shard_members(newest.dataset, newest.version)
    wanted = {member.asset_id for member in members}
    samples = read_shards(workspace, newest.dataset, newest.version)
    if set(samples) != wanted:
        return [f"shards hold {len(samples)} of {len(wanted)} assets"]
    out.print(
        f"webdataset read {len(samples)} samples of {newest.dataset}/{newest.version}, "
        f"{sum(map(sum, (s.values() for s in samples.values()))) / 1e6:.1f} MB",
        highlight=False,
    )
    return []


def read_shards(
    workspace: Workspace, dataset: str, version: str
) -> Mapping[str, Mapping[str, int]]:
    """Read a version with `webdataset`: sample key -> member -> bytes."""
    import webdataset

    manifest = read_manifest(workspace.store, dataset, version)
    with tempfile.TemporaryDirectory(prefix="segvigen-demo-") as folder:
        files = []
        for number, shard in enumerate(manifest["shards"]):
            file = Path(folder) / f"shard-{number:06d}.tar"
            file.write_bytes(workspace.store.get(shard["key"]))
            files.append(str(file))
        found = webdataset.WebDataset(files, shardshuffle=False)
        return {
            sample["__key__"]: {
                name: len(data) for name, data in sample.items() if isinstance(data, bytes)
            }
            for sample in found
        }


def _format_percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
