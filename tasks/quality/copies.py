"""Copies of assets for quality control: double annotations and gold tasks.

In Label Studio a copy is an asset like any other: same fields, an id of the same form, the same
stages. Only the catalogue knows what it is. Its id is a hash of the asset that it was made for, so
that making it again after a kill makes nothing.
"""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from segvigen_model.datasets.procedural import CATEGORIES, LabelledMesh, make_asset
from segvigen_model.mesh.canonical import mesh_to_canonical
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import mesh_from_bytes, mesh_to_glb
from segvigen_model.types import AssetMesh, IntArray
from tasks.catalogue import AssetRow, AssetState, Catalogue, CopyRole, CopyRow, ProposalRow
from tasks.errors import StageError
from tasks.labelling.loading import (
    MESH_TYPE,
    load_asset_info,
    load_face_labels,
    make_parsed_key,
)
from tasks.storage import keys
from tasks.storage.keys import hash_uniform
from tasks.storage.store import Store
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

NUM_SEEDS = 2**31  # of shapes made in code; far beyond those of training and tests
FIRST_SEED = 10**6
# What ids of copies are hashed from; other text would copy every asset a second time.
_HASHED_ROLES = {CopyRole.DOUBLE: "second", CopyRole.GOLD: "known"}


def plan_copies(workspace: Workspace, asset: AssetRow) -> list[str]:
    """Make the copies that an asset calls for when it goes to review for the first time.

    Args:
        workspace: gets the copies' small files and rows; its settings say how many.
        asset: of the dataset, in state proposed, round 0.

    Returns:
        Ids of copies made now.
    """
    made, settings = [], workspace.settings.quality
    # The purposes of these hashes stay: other text would choose other assets.
    if hash_uniform("double", asset.asset_id) < settings.double_share:
        made += add_double_annotation(workspace, asset)
    if hash_uniform("known", asset.asset_id) < settings.gold_share:
        made += add_gold_task(workspace, asset)
    return made


def add_double_annotation(workspace: Workspace, asset: AssetRow) -> list[str]:
    """Have another reviewer label an asset, from the same first proposal."""
    copy = CopyRow(make_copy_id(CopyRole.DOUBLE, asset.asset_id), CopyRole.DOUBLE, asset.asset_id)
    return _copy_asset(workspace, asset, copy)


def add_gold_task(workspace: Workspace, asset: AssetRow) -> list[str]:
    """Put a task with known labels into the queue because `asset` went there.

    The labels are those of a gold label set, drawn by hash; where none is marked, a shape made in
    code, which has yet to be encoded and proposed.
    """
    catalogue = workspace.catalogue
    name = make_copy_id(CopyRole.GOLD, asset.asset_id)
    gold = catalogue.quality.list_gold()
    if gold:
        chosen = gold[int(hash_uniform("gold", asset.asset_id) * len(gold))]
        copy = CopyRow(name, CopyRole.GOLD, asset.asset_id, chosen.key)
        return _copy_asset(workspace, catalogue.get_asset(chosen.asset_id), copy)
    return _make_gold_shape(workspace, asset, name)


def load_gold_labels(store: Store, copy: CopyRow) -> IntArray:
    """(F,) int32 right labels of a GOLD copy."""
    if copy.truth_key is None:
        raise StageError(f"copy {copy.asset_id[:12]} has no known labels")
    return load_face_labels(store, copy.truth_key)


def make_copy_id(role: CopyRole, asset_id: str) -> str:
    """Id of the copy that an asset calls for; of the form of any asset's id."""
    return hashlib.sha256(f"segvigen-{_HASHED_ROLES[role]}:{asset_id}".encode()).hexdigest()


def _copy_asset(workspace: Workspace, source: AssetRow, copy: CopyRow) -> list[str]:
    """A copy of an asset with its first proposal: files first, then the rows together."""
    store, catalogue = workspace.store, workspace.catalogue
    proposal = catalogue.get_proposal(source.asset_id, 0)
    if proposal is None:
        raise StageError(f"asset {source.asset_id[:12]} has no first proposal; propose it first")
    if catalogue.find_asset(copy.asset_id) is not None:
        return []
    about = {**load_asset_info(store, source.asset_id), "asset_id": copy.asset_id}
    _put_info(store, copy.asset_id, about)
    encoding = _copy_encoding(source, copy.asset_id, store)
    row = AssetRow(
        copy.asset_id,
        AssetState.REGISTERED,
        name=source.name,
        suffix=source.suffix,
        source_key=source.source_key,
        size_bytes=source.size_bytes,
        num_faces=source.num_faces,
        licence=source.licence,
    )
    return _register_copy(
        row, copy, catalogue, _copy_proposal(proposal, copy.asset_id, store), encoding
    )


def _register_copy(
    row: AssetRow,
    copy: CopyRow,
    catalogue: Catalogue,
    proposal: ProposalRow | None = None,
    encoding_key: str | None = None,
) -> list[str]:
    with catalogue.transaction():
        if not catalogue.register(row):
            return []
        catalogue.quality.add_copy(copy)
        if proposal is not None:
            catalogue.move(row.asset_id, AssetState.ENCODED, encoding_key=encoding_key)
            catalogue.add_proposal(proposal)
            catalogue.move(row.asset_id, AssetState.PROPOSED)
    log.info("stage=copy role=%s asset=%s of=%s", copy.role, row.asset_id[:12], copy.of_asset[:12])
    return [row.asset_id]


def _copy_encoding(source: AssetRow, asset_id: str, store: Store) -> str | None:
    """The encoding under the copy's own key: where each stage looks for it."""
    if source.encoding_key is None or not store.exists(source.encoding_key):
        return source.encoding_key
    key = keys.make_encoding_key(PurePosixPath(source.encoding_key).parent.name, asset_id)
    store.put(key, store.get(source.encoding_key), "application/octet-stream", keep_existing=True)
    return key


def _copy_proposal(source: ProposalRow, asset_id: str, store: Store) -> ProposalRow:
    """The proposal under the copy's own key: the task's data hold the key."""
    digest = PurePosixPath(source.key).stem.partition("-")[2]
    key = keys.make_proposal_key(asset_id, source.round, digest)
    store.put(key, store.get(source.key, source.sha256), "application/octet-stream")
    return replace(source, asset_id=asset_id, key=key)


def _make_gold_shape(workspace: Workspace, asset: AssetRow, name: str) -> list[str]:
    """A shape made in code, as if it had come with the raw meshes."""
    store, catalogue = workspace.store, workspace.catalogue
    if catalogue.find_asset(name) is not None:
        return []
    category = CATEGORIES[int(hash_uniform("category", asset.asset_id) * len(CATEGORIES))]
    seed = FIRST_SEED + int(hash_uniform("seed", asset.asset_id) * NUM_SEEDS)
    made = make_asset(category, seed)
    data = mesh_to_glb(made.mesh)
    mesh = _check_order(made, data)
    truth = io.BytesIO()
    np.savez_compressed(truth, face_labels=made.face_labels.astype(np.int32))
    truth_key = keys.make_gold_labels_key(name)
    store.put(truth_key, truth.getvalue(), "application/octet-stream", keep_existing=True)
    source = store.put(keys.make_asset_source_key(name, "glb"), data, keep_existing=True)
    store.put(make_parsed_key(source.key), mesh_to_canonical(mesh), MESH_TYPE, keep_existing=True)
    file = f"{category}-{name[:4]}.glb"
    about = {"name": file, "suffix": "glb", "asset_id": name, "side_files": {}}
    _put_info(store, name, {**about, "limits": asdict(MeshLimits())})
    row = AssetRow(
        name,
        AssetState.REGISTERED,
        name=file,
        suffix="glb",
        source_key=source.key,
        size_bytes=len(data),
        num_faces=made.mesh.num_faces,
        licence="CC0-1.0",
    )
    return _register_copy(row, CopyRow(name, CopyRole.GOLD, asset.asset_id, truth_key), catalogue)


def _check_order(made: LabelledMesh, data: bytes) -> AssetMesh:
    """The labels must be on the faces as any reader of the file will number them."""
    mesh = mesh_from_bytes(data, "glb")
    read_back, own = mesh.triangles, made.mesh.triangles
    if read_back.shape != own.shape or not np.allclose(read_back, own, atol=1e-4 * np.ptp(own)):
        raise StageError(f"a {made.category} came back from its file with other faces")
    return mesh


def _put_info(store: Store, asset_id: str, about: dict[str, Any]) -> None:
    store.put_json(keys.make_asset_json_key(asset_id), about, keep_existing=True)
