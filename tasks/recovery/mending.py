"""Make damaged blobs again, one function per kind; what is not provably the same is not written.

A damaged object is removed only when its replacement is at hand, or when whatever needs it makes
it again by itself. Nothing here changes an asset's state (requeue.py does).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from segvigen_model.errors import SegvigenError
from segvigen_model.serialization import proposal_to_bytes
from tasks.catalogue import Catalogue, CopyRole
from tasks.errors import StageError
from tasks.ingest.ingest import ingest_object
from tasks.labelling.label_sets import make_label_set
from tasks.labelling.loading import load_asset_info, load_asset_mesh
from tasks.labelling.segmenter import Segmenter
from tasks.quality.copies import add_gold_task
from tasks.recovery.needs import BlobKind, Need
from tasks.recovery.shard_labels import find_sample, rebuild_arrays, rebuild_provenance
from tasks.review.push import draw_review_files
from tasks.shards.build import heal_version
from tasks.stages.encode import load_or_make_encoding, make_encoding_key
from tasks.stages.propose import plan_first_proposal
from tasks.stages.refine import plan_next_proposal
from tasks.storage.store import Store
from tasks.workspace import Workspace


class CannotMend(SegvigenError):
    """A blob that cannot be made again; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What blobs are made with.

    Attributes:
        open_segmenter: loads the model when it is first needed.
    """

    workspace: Workspace
    open_segmenter: Callable[[], Segmenter]


def mend(tools: Tools, need: Need) -> str:
    """Make one damaged blob again; returns how.

    Raises:
        CannotMend: it cannot be made, or not the same.
    """
    return _MENDERS[need.kind](tools, need)


def _mend_asset_file(tools: Tools, need: Need) -> str:
    """Source, side file, asset.json: ingest the raw object again, into a store of its own."""
    workspace = tools.workspace
    asset = workspace.catalogue.get_asset(need.asset_id)
    copy = workspace.catalogue.quality.get_copy(asset.asset_id)
    if copy is not None and copy.role is CopyRole.DOUBLE and need.kind is BlobKind.ASSET_INFO:
        about = {**load_asset_info(workspace.store, copy.of_asset), "asset_id": asset.asset_id}
        workspace.store.delete(need.key)
        workspace.store.put_json(need.key, about)
        return f"copied from asset {copy.of_asset[:12]}"
    if copy is not None:
        return _mend_gold(tools, need)
    for row in workspace.catalogue.raw.list_all(asset.asset_id):
        with _scratch(workspace) as scratch:
            info = workspace.raw.find_info(row.key)
            if info is None or ingest_object(scratch, info).asset_id != asset.asset_id:
                continue
            if _take(workspace.store, scratch.store, need, is_same=_is_bytes_of_a_stranger(need)):
                return f"fetched again from raw object {row.key!r}"
    raise CannotMend("no raw object has its content any more; upload the file again")


def _is_bytes_of_a_stranger(need: Need) -> bool:
    """Must the bytes be those that were there? What ingest itself wrote may be worded anew."""
    return need.kind is not BlobKind.ASSET_INFO


def _mend_mesh(tools: Tools, need: Need) -> str:
    store = tools.workspace.store
    asset = tools.workspace.catalogue.get_asset(need.asset_id)
    store.delete(need.key)
    load_asset_mesh(store, asset)  # parses the source again, in the confined process
    return "parsed again from the source"


def _mend_gold(tools: Tools, need: Need) -> str:
    workspace = tools.workspace
    copy = workspace.catalogue.quality.get_copy(need.asset_id)
    if copy is None or not (copy.truth_key or "").startswith("quality/"):
        raise CannotMend("its file is shared with another asset; repair that one")
    with _scratch(workspace) as scratch:
        add_gold_task(scratch, workspace.catalogue.get_asset(copy.of_asset))
        if _take(workspace.store, scratch.store, need, is_same=False):
            return "made again in code"
    raise CannotMend("the shape made in code is another one now")


def _mend_checkpoint(tools: Tools, need: Need) -> str:
    version, name = need.key.split("/")[1:]
    file = tools.workspace.settings.model.checkpoint_cache / version / name
    data = file.read_bytes() if file.is_file() else b""
    if need.sha256 is None or hashlib.sha256(data).hexdigest() != need.sha256:
        raise CannotMend(f"no copy of it is at {file}; put one there, or tune again")
    return _write(tools.workspace.store, need, data, f"copied from {file}")


def _mend_encoding(tools: Tools, need: Need) -> str:
    workspace, segmenter = tools.workspace, tools.open_segmenter()
    asset = workspace.catalogue.get_asset(need.asset_id)
    if make_encoding_key(asset.asset_id, segmenter) != need.key:
        raise CannotMend(
            f"it was made by checkpoint {need.key.split('/')[1]}, the settings name another; set "
            "SEGVIGEN_MODEL_CHECKPOINT to that one"
        )
    mesh = load_asset_mesh(workspace.store, asset)
    workspace.store.delete(need.key)
    load_or_make_encoding(workspace, asset, mesh, segmenter)
    return "encoded again"


def _mend_proposal(tools: Tools, need: Need) -> str:
    """Make a round's proposal again by its recipe; only the same bytes are accepted."""
    workspace, segmenter = tools.workspace, tools.open_segmenter()
    asset = workspace.catalogue.get_asset(need.asset_id)
    try:
        if need.round == 0:
            key, make = plan_first_proposal(workspace, asset, segmenter)
        else:
            before = replace(asset, round=need.round - 1)
            _, key, make = plan_next_proposal(workspace, before, segmenter)
    except StageError as err:
        raise CannotMend(str(err)) from err
    if key != need.key:
        raise CannotMend("it was made by another checkpoint, other settings or by adjudication")
    data = proposal_to_bytes(make())
    return _write(workspace.store, need, data, "made again, the same bytes")


def _mend_label_set(tools: Tools, need: Need) -> str:
    """Decide again from the stored annotations, else take the sample of a shard."""
    workspace = tools.workspace
    rows = workspace.catalogue.labels.list_all(need.asset_id)
    row = next(row for row in rows if row.label_id == need.label_id)
    proposals = workspace.catalogue.list_proposals(need.asset_id)
    source = next((each for each in proposals if each.key == row.proposal_key), None)
    problem = "its proposal is not in the catalogue"
    if source is not None:
        asset = replace(workspace.catalogue.get_asset(need.asset_id), round=source.round)
        try:
            made = make_label_set(workspace, asset, row.decided_by)
            if made.row.label_id == row.label_id:
                is_arrays = need.kind is BlobKind.LABEL_SET
                data = made.arrays if is_arrays else made.provenance
                return _write(workspace.store, need, data, "decided again from the annotations")
            problem = "annotations came later, so the decision cannot be repeated"
        except SegvigenError as err:
            problem = str(err)
    members = find_sample(workspace, need.label_id)
    if members is None:
        raise CannotMend(f"{problem}, and no shard holds it")
    is_arrays = need.kind is BlobKind.LABEL_SET
    data = rebuild_provenance(members)
    if is_arrays:
        asset = workspace.catalogue.get_asset(need.asset_id)
        data = rebuild_arrays(members, partial(load_asset_mesh, workspace.store, asset))
    return _write(workspace.store, need, data, "taken from a shard's sample")


def _mend_review(tools: Tools, need: Need) -> str:
    """Draw a round's files again: one if it comes out the same, else all three together."""
    workspace, store = tools.workspace, tools.workspace.store
    asset = replace(workspace.catalogue.get_asset(need.asset_id), round=need.round)
    source = workspace.catalogue.get_proposal(need.asset_id, need.round)
    if source is None:
        raise CannotMend(f"round {need.round} has no proposal")
    files, _ = draw_review_files(workspace, asset, source)
    if need.key not in files:
        raise CannotMend("it shows a proposal that was replaced; nobody needs it any more")
    data, content_type = files[need.key]
    if need.sha256 in (None, hashlib.sha256(data).hexdigest()):
        store.delete(need.key)
        store.put(need.key, data, content_type)
        return "drawn again"
    for key, (content, kind) in files.items():  # a sheet and its buffers belong together
        store.delete(key)
        store.put(key, content, kind)
    return "drawn again with the other files of its round"


def _mend_shard(tools: Tools, need: Need) -> str:
    assert need.version is not None
    left = heal_version(tools.workspace, *need.version)
    if left:
        raise CannotMend(f"{len(left)} blobs of the version are still wrong: {left[0][1]}")
    return "built again"


@contextmanager
def _scratch(workspace: Workspace) -> Iterator[Workspace]:
    """A store and a catalogue of their own, for the time of one repair."""
    with tempfile.TemporaryDirectory(prefix="segvigen-repair-") as folder:
        catalogue = Catalogue(f"sqlite:///{Path(folder) / 'catalogue.db'}")
        yield replace(
            workspace, store=Store(f"file://{folder}/store"), catalogue=catalogue, worker=None
        )


def _take(store: Store, scratch: Store, need: Need, *, is_same: bool) -> bool:
    """Take a blob that was made again; False if it is not there, or not the same where it must."""
    if not scratch.exists(need.key):
        return False
    data = scratch.get(need.key)
    if is_same and need.sha256 not in (None, hashlib.sha256(data).hexdigest()):
        return False
    store.delete(need.key)
    store.put(need.key, data)
    return True


def _write(store: Store, need: Need, data: bytes, how: str) -> str:
    """Put a blob made again in the place of the damaged one, if its hash is the recorded one."""
    digest = hashlib.sha256(data).hexdigest()
    if need.sha256 not in (None, digest):
        raise CannotMend(f"it comes out with hash {digest[:12]}, written was {need.sha256}")
    store.delete(need.key)
    is_json = need.key.endswith(".json")
    store.put(need.key, data, "application/json" if is_json else "application/octet-stream")
    return how


_MENDERS: dict[BlobKind, Callable[[Tools, Need], str]] = {
    BlobKind.SOURCE: _mend_asset_file,
    BlobKind.SIDE_FILE: _mend_asset_file,
    BlobKind.ASSET_INFO: _mend_asset_file,
    BlobKind.MESH: _mend_mesh,
    BlobKind.GOLD: _mend_gold,
    BlobKind.CHECKPOINT: _mend_checkpoint,
    BlobKind.ENCODING: _mend_encoding,
    BlobKind.PROPOSAL: _mend_proposal,
    BlobKind.LABEL_SET: _mend_label_set,
    BlobKind.PROVENANCE: _mend_label_set,
    BlobKind.REVIEW: _mend_review,
    BlobKind.SHARD: _mend_shard,
}
