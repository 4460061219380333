"""Encode: mesh -> O-Voxel -> shape and texture latents, once per asset and checkpoint."""

from __future__ import annotations

import logging
import time

from segvigen_model.serialization import encoding_from_bytes, encoding_to_bytes
from segvigen_model.types import AssetMesh, Encoding
from tasks.catalogue import AssetRow, AssetState
from tasks.labelling.loading import load_asset_mesh
from tasks.labelling.segmenter import Segmenter, Session
from tasks.stages.runner import StageResult, make_not_needed_result
from tasks.storage import keys
from tasks.storage.store import Store
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

ENCODER_CHARS = 16  # of the checkpoint's sha256, enough to distinguish checkpoints


def encode_asset(workspace: Workspace, asset_id: str, segmenter: Segmenter) -> StageResult:
    """Encode one registered asset and move it to encoded; idempotent.

    The asset is leased, if the workspace has a worker.

    Raises:
        AssetRejected: the mesh gives no voxels or cannot be loaded any more.
    """
    begin = time.perf_counter()
    store, catalogue = workspace.store, workspace.catalogue
    asset = catalogue.get_asset(asset_id)
    if asset.state is not AssetState.REGISTERED:
        return make_not_needed_result("encode", catalogue, asset_id)
    key = make_encoding_key(asset_id, segmenter)
    if not store.exists(key):
        _write_encoding(store, key, segmenter.encode(load_asset_mesh(store, asset)))
    moved = catalogue.move(asset_id, AssetState.ENCODED, worker=workspace.worker, encoding_key=key)
    seconds = time.perf_counter() - begin
    log.info("stage=encode asset=%s key=%s seconds=%.2f", asset_id[:12], key, seconds)
    return StageResult(asset_id, "encode", moved.state, True, key, seconds=seconds)


def make_encoding_key(asset_id: str, segmenter: Segmenter) -> str:
    """Key of an asset's encoding by the segmenter's checkpoint."""
    return keys.make_encoding_key(segmenter.model.sha256[:ENCODER_CHARS], asset_id)


def load_or_make_encoding(
    workspace: Workspace, asset: AssetRow, mesh: AssetMesh, segmenter: Segmenter
) -> Encoding:
    """The asset's encoding by the segmenter's checkpoint; made where that one has none yet."""
    store = workspace.store
    key = make_encoding_key(asset.asset_id, segmenter)
    if not store.exists(key):
        log.info("stage=encode asset=%s note=new_checkpoint key=%s", asset.asset_id[:12], key)
        _write_encoding(store, key, segmenter.encode(mesh))
    if asset.encoding_key != key:
        workspace.catalogue.update(asset.asset_id, encoding_key=key)
    return encoding_from_bytes(store.get(key))


def open_session(
    workspace: Workspace, asset: AssetRow, mesh: AssetMesh, segmenter: Segmenter
) -> Session:
    """A session on the asset with its stored encoding (`load_or_make_encoding`)."""
    encoding = load_or_make_encoding(workspace, asset, mesh, segmenter)
    return segmenter.open(mesh, encoding)


def _write_encoding(store: Store, key: str, encoding: Encoding) -> None:
    # Two workers may round differently on different hardware: the first result counts.
    store.put(key, encoding_to_bytes(encoding), "application/octet-stream", keep_existing=True)
