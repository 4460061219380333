"""From catalogue rows to values: an asset's mesh, encoding and proposal out of the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from segvigen_model.archives import read_npz, take_ids
from segvigen_model.mesh.canonical import mesh_from_canonical
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.sandbox.parser import ParserBudget, get_library_parser
from segvigen_model.serialization import proposal_from_bytes
from segvigen_model.types import AssetMesh, IntArray, Proposal
from tasks.catalogue import AssetRow, Catalogue, ProposalRow
from tasks.errors import StageError
from tasks.settings import IngestSettings
from tasks.storage import keys
from tasks.storage.canonical import BadDocument
from tasks.storage.store import Store

log = logging.getLogger(__name__)

MESH_TYPE = "application/octet-stream"
BOUNDS_TOLERANCE = 1e-6  # share of the longest side; other readers round otherwise
_LABELS = "face labels"


def load_asset_mesh(store: Store, asset: AssetRow) -> AssetMesh:
    """Read an asset's mesh as ingest parsed it, within the limits that held then.

    An asset of before there were parsed meshes is parsed now, once, by the confined process.

    Raises:
        StageError: the asset has no source, or its file is read otherwise than at its registration.
        CorruptBlob: the stored mesh is none.
        AssetRejected: it is larger than the limits; or as `Parser.parse_mesh`.
    """
    if asset.source_key is None:
        raise StageError(f"asset {asset.asset_id[:12]} has no source; ingest it again")
    about = load_asset_info(store, asset.asset_id)
    limits = MeshLimits(**about["limits"])
    key = make_parsed_key(asset.source_key)
    if not store.exists(key):
        canonical = _parse_source(store, asset, about, limits)
        store.put(key, canonical, MESH_TYPE, keep_existing=True)
    recorded = about.get("mesh", {}).get("sha256")  # else the store's own record is compared
    mesh = mesh_from_canonical(store.get(key, recorded), limits)
    _check_faces(asset, mesh)
    return mesh


def make_parsed_key(source_key: str) -> str:
    """Key of the parsed mesh that belongs to a source; copies of an asset share both."""
    return keys.make_mesh_key(PurePosixPath(source_key).parent.name)


def _parse_source(
    store: Store, asset: AssetRow, about: Mapping[str, Any], limits: MeshLimits
) -> bytes:
    """The canonical mesh of an asset that was registered without one."""
    log.info("stage=parse asset=%s note=registered_before_parsed_meshes", asset.asset_id[:12])
    assert asset.source_key is not None
    entries = about["side_files"].items()
    side_files = {name: store.get(entry["key"], entry.get("sha256")) for name, entry in entries}
    source = store.get(asset.source_key, about.get("sha256"))
    budget = ParserBudget()
    parsed = get_library_parser().parse_mesh(source, asset.suffix, side_files, limits, budget)
    mesh = mesh_from_canonical(parsed.canonical, limits)
    _check_faces(asset, mesh)
    _check_bounds(asset, mesh, about)
    return parsed.canonical


def _check_faces(asset: AssetRow, mesh: AssetMesh) -> None:
    if asset.num_faces and mesh.num_faces != asset.num_faces:
        raise StageError(
            f"asset {asset.asset_id[:12]} is read as {mesh.num_faces} faces and was registered "
            f"with {asset.num_faces}; its labels would not fit, put the file in under a new key"
        )


def _check_bounds(asset: AssetRow, mesh: AssetMesh, about: Mapping[str, Any]) -> None:
    """Compare with what was recorded at the registration; assets made in code have no record."""
    if "bounds" not in about:
        return
    used = mesh.used_vertices
    bounds, before = np.stack([used.min(0), used.max(0)]), np.array(about["bounds"])
    if not np.allclose(bounds, before, rtol=0, atol=BOUNDS_TOLERANCE * np.ptp(before)):
        raise StageError(
            f"asset {asset.asset_id[:12]} is read with bounds {bounds.tolist()} and was registered "
            f"with {before.tolist()}; put the file in under a new key"
        )


def load_asset_info(store: Store, asset_id: str) -> Mapping[str, Any]:
    """What ingest found out: name, faces, bounds, side files, licence, limits.

    Raises:
        BadDocument: `asset.json` is of another form.
    """
    key = keys.make_asset_json_key(asset_id)
    return check_asset_info(store.get_json(key), key)


def check_asset_info(document: Any, name: str) -> Mapping[str, Any]:
    """Check the entries of an `asset.json` that are used to read the asset.

    Args:
        document: as read.
        name: of the document, for messages.

    Raises:
        BadDocument: an entry is absent or of another type.
    """
    about = document if isinstance(document, Mapping) else {}
    side_files, limits = about.get("side_files"), about.get("limits")
    if isinstance(side_files, Mapping) and isinstance(limits, Mapping):
        entries = [about, about.get("mesh", {}), *side_files.values()]
        known = {each.name for each in fields(MeshLimits)}
        is_sound = (
            set(limits) <= known
            and all(type(value) in (int, bool) for value in limits.values())
            and all(isinstance(entry, Mapping) for entry in entries)
            and all(isinstance(entry.get("key"), str) for entry in entries[2:])
            and all(isinstance(entry.get("sha256"), str | None) for entry in entries)
            and _are_bounds(about.get("bounds", [[0, 0, 0]] * 2))
        )
        if is_sound:
            return about
    raise BadDocument(f"{name} lacks side_files or limits, or holds bad ones; ingest again")


def _are_bounds(value: Any) -> bool:
    """Two corners of three numbers?"""
    try:
        corners = [[type(number) for number in corner] for corner in value]
    except TypeError:
        return False
    return [len(corner) for corner in corners] == [3, 3] and {*corners[0], *corners[1]} <= {
        *(int, float)
    }


def load_proposal(store: Store, row: ProposalRow) -> Proposal:
    """Read the proposal that a catalogue row stands for, and no other."""
    return proposal_from_bytes(store.get(row.key, row.sha256))


def load_face_labels(store: Store, key: str) -> IntArray:
    """(F,) int32 labels out of a label set or a gold task's labels.

    Raises:
        CorruptBlob: the object holds none.
    """
    members = read_npz(store.get(key), _LABELS)
    labels: IntArray = take_ids(members, "face_labels", (None,), (0, 2**31), _LABELS)
    return labels.astype(np.int32)


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
