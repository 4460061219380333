"""From catalogue rows to values: an asset's mesh, encoding and proposal out of the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.serialization import proposal_from_bytes
from segvigen_model.types import AssetMesh, Proposal
from tasks.catalogue import AssetRow, Catalogue, ProposalRow
from tasks.errors import StageError
from tasks.settings import IngestSettings
from tasks.storage import keys
from tasks.storage.store import Store


def load_asset_mesh(store: Store, asset: AssetRow) -> AssetMesh:
    """Read an asset's mesh as ingest checked it: same side files, same limits."""
    if asset.source_key is None:
        raise StageError(f"asset {asset.asset_id[:12]} has no source; ingest it again")
    about = load_asset_info(store, asset.asset_id)
    side_files = {name: store.get(entry["key"]) for name, entry in about["side_files"].items()}
    limits = MeshLimits(**about["limits"])
    return mesh_from_bytes(
        store.get(asset.source_key), asset.suffix, side_files=side_files, limits=limits
    )


def load_asset_info(store: Store, asset_id: str) -> Mapping[str, Any]:
    """What ingest found out: name, faces, bounds, side files, licence, limits."""
    about: Mapping[str, Any] = store.get_json(keys.make_asset_json_key(asset_id))
    return about


def load_proposal(store: Store, row: ProposalRow) -> Proposal:
    """Read the proposal that a catalogue row stands for."""
    return proposal_from_bytes(store.get(row.key))


def get_current_proposal(catalogue: Catalogue, asset: AssetRow) -> ProposalRow:
    """The proposal of the asset's present round."""
    row = catalogue.get_proposal(asset.asset_id, asset.round)
    if row is None:
        raise StageError(f"asset {asset.asset_id[:12]} has no proposal of round {asset.round}")
    return row


def make_mesh_limits(settings: IngestSettings) -> MeshLimits:
    """Turn the input gate's settings into the loader's limits."""
    return MeshLimits(
        max_bytes=settings.max_bytes,
        max_faces=settings.max_faces,
        max_vertices=settings.max_vertices,
        max_texture_pixels=settings.max_texture_pixels,
        is_side_file_required=settings.is_side_file_required,
    )
