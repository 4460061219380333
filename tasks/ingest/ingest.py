"""Ingest: scan the raw bucket, check every new object, copy the good ones, register all.

Nothing in the raw bucket is trusted: sizes are checked before bytes, bytes before meshes. An
object that cannot be used becomes an asset in state rejected with a reason; the scan goes on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from segvigen_model.errors import AssetRejected, MissingExtra
from segvigen_model.mesh.canonical import mesh_from_canonical
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.io import SUFFIXES
from tasks.catalogue import AssetRow, AssetState, Catalogue, RawRow
from tasks.catalogue.raw import SeenObject
from tasks.errors import is_transient_error
from tasks.ingest.licences import find_licence
from tasks.ingest.listing import RawListing, get_suffix, is_candidate, wait_for_quiet
from tasks.ingest.sandbox import Parser, ParserFault, get_shared_parser, summarize_mesh
from tasks.ingest.side_files import RawFile, SideFileFinder, SideFiles, parser_budget
from tasks.labelling.loading import MESH_TYPE, make_mesh_limits, make_parsed_key
from tasks.settings import IngestSettings
from tasks.storage import keys
from tasks.storage.errors import BlobMissing, ChangedSinceListed, UnsafePlace
from tasks.storage.store import Blob, ObjectInfo, Store
from tasks.workspace import Workspace

log = logging.getLogger(__name__)

ASSET_SCHEMA = "segvigen-asset/1"
LACKING = "missing_side_file"  # the loader's reason; tried again when such a file arrives
NOT_READABLE = "not_readable"  # tried again by every scan: its content need not change
MISSING_EXTRA = "missing_extra"  # likewise: a decoder that is not installed here
PAGE_SIZE = 1000  # keys of the listing that are looked up at once; S3's pages are as long
_MAGIC = {
    b"glTF": "glb",
    b"ply\n": "ply",
    b"ply\r": "ply",
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpeg",
    b"PK\x03\x04": "zip",
    b"Kaydara FBX": "fbx",
    b"%PDF": "pdf",
    b"\x1f\x8b": "gzip",
}


@dataclass(frozen=True, slots=True)
class _Source:
    """A checked object with all its bytes, and the mesh in them, ready to be registered."""

    asset_id: str
    info: ObjectInfo
    file: RawFile
    side: SideFiles
    canonical: bytes


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of one raw object.

    Attributes:
        key: as the catalogue spells it.
        asset_id: empty for "gone" and "changed".
        outcome: "registered", "duplicate" (same bytes as another key), "rejected", "failed", or
            "gone" or "changed" (since it was listed; nothing is recorded).
        reason: short word for rejected and failed.
    """

    key: str
    asset_id: str
    outcome: str
    reason: str | None = None
    note: str = ""


def list_raw(workspace: Workspace, prefix: str = "") -> RawListing:
    """List a folder of the raw bucket, for one scan and the objects that it finds."""
    return RawListing.of_folder(workspace.raw, prefix)


def scan_raw(
    workspace: Workspace,
    prefix: str = "",
    *,
    is_retrying: bool = False,
    listing: RawListing | None = None,
) -> list[ObjectInfo]:
    """List what ingest has not seen yet, or not with this content.

    Args:
        workspace: its raw bucket; its catalogue remembers what was seen.
        prefix: folder to list.
        is_retrying: also objects that were rejected before (for example after limits were raised).
        listing: of that folder; None = it is listed now.

    Returns:
        New objects, ascending by key; companions such as textures are left out, and local files
        that are still being written. Objects that lack a file which is there now come again, and
        those that could not be read.
    """
    listing = listing or list_raw(workspace, prefix)
    candidates = (info for info in listing if is_candidate(info.key))
    found: list[ObjectInfo] = []
    # A page at a time: the catalogue may hold a million keys.
    while page := {keys.escape_key(info.key): info for info in islice(candidates, PAGE_SIZE)}:
        seen = workspace.catalogue.raw.find_seen(list(page))
        for key, info in page.items():
            old = seen.get(key)
            if old is None or old.etag != info.etag or _is_due(key, old, listing, is_retrying):
                found.append(info)
    quiet = wait_for_quiet(workspace.raw, found, workspace.settings.ingest.quiet_s)
    if len(quiet) < len(found):
        log.info("stage=ingest waiting=%d: still being written", len(found) - len(quiet))
    return quiet


def _is_due(key: str, seen: SeenObject, listing: RawListing, is_retrying: bool) -> bool:
    """Is an object that has not changed to be tried again?"""
    if seen.reason in (NOT_READABLE, MISSING_EXTRA) or (is_retrying and seen.reason):
        return True
    if seen.awaited is None:
        return seen.reason == LACKING  # of before such files were awaited
    return listing.has_any(key, seen.awaited)


def ingest_object(
    workspace: Workspace,
    info: ObjectInfo,
    parser: Parser | None = None,
    listing: RawListing | None = None,
) -> IngestResult:
    """Check one raw object and register it; idempotent, and never raises for a bad object.

    Every byte is proven by size and ETag as listed (`Store.get_as_listed`), so a short or changed
    read is an infrastructure error, which is raised.

    Args:
        workspace: raw bucket, store, catalogue, and the settings of the input gate.
        info: the object, as listed.
        parser: reads the mesh in a process of its own; None = the one of this process.
        listing: of the object's folder or above; None = that folder is listed now.
    """
    raw, catalogue, settings = workspace.raw, workspace.catalogue, workspace.settings.ingest
    asset_id, side = keys.unread_id(info.key, info.etag), SideFiles()
    parser = parser or get_shared_parser()
    try:
        _check_key(info.key)
        with _separate_read_errors(raw):
            raw.check_place(info.key)
        _check_announced(info, settings)
        with _separate_read_errors(raw):
            file = RawFile(info.key, get_suffix(info.key), raw.get_as_listed(info))
            listing = listing or RawListing.of_folder(raw, file.folder)
        asset_id = hashlib.sha256(file.data).hexdigest()
        _check_magic(file)
        with _separate_read_errors(raw), _reject_missing_extra():
            side = SideFileFinder(raw, listing, parser, settings).fetch(file)
        asset_id = _compute_asset_id(file, side)
        known = catalogue.find_asset(asset_id)
        if known is not None and not _is_ingest_reject(known):
            return _record_duplicate(info, known, side, catalogue)
        limits, budget = make_mesh_limits(settings), parser_budget(settings)
        with _reject_missing_extra():
            parsed = parser.parse_mesh(file.data, file.suffix, side.found, limits, budget)
        with _separate_read_errors(raw):
            licence = find_licence(raw, listing, info.key, settings.default_licence)
        source = _Source(asset_id, info, file, side, parsed.canonical)
        about = {
            **_describe_source(source),
            **parsed.facts,
            "sandbox": parsed.confinement.describe(),
            "licence": licence,
            "limits": asdict(limits),
        }
        return _register(workspace, source, about)
    except Exception as err:
        if is_transient_error(err):
            raise
        if isinstance(err, (BlobMissing, ChangedSinceListed)):  # the next scan lists what is there
            outcome = "gone" if isinstance(err, BlobMissing) else "changed"
            log.warning("stage=ingest key=%r %s: %s", info.key, outcome, err)
            return IngestResult(keys.escape_key(info.key), "", outcome, note=str(err))
        if not isinstance(err, AssetRejected):
            log.exception("stage=ingest key=%r failed", info.key)
        return _park_object(info, asset_id, side, err, catalogue)


@contextmanager
def _separate_read_errors(raw: Store) -> Iterator[None]:
    """Distinguish one forbidden object from a bucket that does not answer."""
    try:
        yield
    except UnsafePlace as err:
        raise AssetRejected(err.reason, str(err)) from err
    except OSError as err:
        if isinstance(err, PermissionError):  # denied, or archived
            raw.check_listing()
        elif is_transient_error(err):
            raise
        raise AssetRejected(
            NOT_READABLE, f"{err}; let the pipeline read it and what it names, or restore it"
        ) from err


@contextmanager
def _reject_missing_extra() -> Iterator[None]:
    """One format that cannot be decoded on this machine does not hold up the others."""
    try:
        yield
    except MissingExtra as err:
        raise AssetRejected(MISSING_EXTRA, str(err)) from err


def _check_key(key: str) -> None:
    try:
        keys.check_key(key)
    except keys.BadKey as err:
        raise AssetRejected("bad_key", f"{err}; rename the object") from err


def _check_announced(info: ObjectInfo, settings: IngestSettings) -> None:
    """Checks by the listing alone: no byte is read of an object that cannot be used."""
    suffix = get_suffix(info.key)
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise AssetRejected(
            "unsupported_format", f"{suffix[:20] or 'no suffix'!r} is not read; export as {known}"
        )
    if info.size == 0:
        raise AssetRejected("empty_file", "the object has 0 bytes; upload it again")
    if info.size > settings.max_bytes:
        raise AssetRejected(
            "too_large", f"{info.size} bytes > {settings.max_bytes}; shrink it or raise max_bytes"
        )


def _check_magic(file: RawFile) -> None:
    kind = next((kind for magic, kind in _MAGIC.items() if file.data.startswith(magic)), None)
    if kind is not None and kind != file.suffix:
        raise AssetRejected(
            "wrong_suffix", f"named .{file.suffix} but holds {kind}; rename the file"
        )


def _compute_asset_id(file: RawFile, side: SideFiles) -> str:
    """Content hash: of the file, and of its side files where it has any."""
    own, found = hashlib.sha256(file.data).hexdigest(), side.found
    if not found:
        return own
    parts = [own, *(f"{name}\n{hashlib.sha256(found[name]).hexdigest()}" for name in sorted(found))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _is_ingest_reject(asset: AssetRow) -> bool:
    return asset.state in (AssetState.REJECTED, AssetState.FAILED) and asset.source_key is None


def _describe_source(source: _Source) -> dict[str, Any]:
    """Description of the file for asset.json."""
    return {
        "schema": ASSET_SCHEMA,
        "name": PurePosixPath(source.info.key).name,
        "raw_key": source.info.key,
        "suffix": source.file.suffix,
        "sha256": hashlib.sha256(source.file.data).hexdigest(),
        "size_bytes": len(source.file.data),
        "missing_side_files": list(source.side.missing),
        "rescued_side_files": [asdict(rescue) for rescue in source.side.rescues],
    }


def _register(workspace: Workspace, source: _Source, about: dict[str, Any]) -> IngestResult:
    """Blobs first, then the rows: a kill in between leaves only blobs that the next run finds."""
    info, asset_id, catalogue = source.info, source.asset_id, workspace.catalogue
    source_key = _copy_source(source, about, workspace.store)
    summary = {
        "name": about["name"],
        "num_faces": about["num_faces"],
        "licence": about["licence"],
        "source_key": source_key,
        "suffix": source.file.suffix,
        "size_bytes": len(source.file.data),
    }
    with catalogue.transaction():
        fresh = catalogue.register(AssetRow(asset_id, AssetState.REGISTERED, **summary))
        if not fresh and _is_ingest_reject(catalogue.get_asset(asset_id)):
            catalogue.move(asset_id, AssetState.REGISTERED, **summary)
            fresh = True
        row = RawRow(info.key, info.etag, info.size, asset_id)
        catalogue.raw.record(row, _list_awaited(source.side))
    log.info("stage=ingest key=%r asset=%s faces=%d", info.key, asset_id[:12], about["num_faces"])
    return IngestResult(info.key, asset_id, "registered" if fresh else "duplicate")


def _copy_source(source: _Source, about: dict[str, Any], store: Store) -> str:
    """Write source, side files, parsed mesh and asset.json; returns the source's key."""
    asset_id = source.asset_id
    copied = store.put(keys.make_asset_source_key(asset_id, source.file.suffix), source.file.data)
    entries = {}
    for number, name in enumerate(sorted(source.side.found)):
        # Numbered: the name is the file author's, and need not fit into a key.
        blob = store.put(
            keys.make_side_file_key(asset_id, f"{number:04d}"), source.side.found[name]
        )
        entries[name] = _describe_blob(blob)
    mesh = store.put(
        make_parsed_key(copied.key),
        source.canonical,
        MESH_TYPE,
        keep_existing=True,  # another version's reader may have begun to register the same bytes
    )
    if mesh.sha256 != hashlib.sha256(source.canonical).hexdigest():
        limits = MeshLimits(**about["limits"])
        about.update(summarize_mesh(mesh_from_canonical(store.get(mesh.key), limits)))
    store.put_json(
        keys.make_asset_json_key(asset_id),
        {**about, "asset_id": asset_id, "side_files": entries, "mesh": _describe_blob(mesh)},
        keep_existing=True,  # a second key with the same bytes has another name
    )
    return copied.key


def _describe_blob(blob: Blob) -> dict[str, Any]:
    return {"key": blob.key, "sha256": blob.sha256, "size": blob.size}


def _record_duplicate(
    info: ObjectInfo, known: AssetRow, side: SideFiles, catalogue: Catalogue
) -> IngestResult:
    others = [row.key for row in catalogue.raw.list_all(known.asset_id) if row.key != info.key]
    note = f"same content as {others[0]!r}" if others else ""
    row = RawRow(info.key, info.etag, info.size, known.asset_id, detail=note)
    catalogue.raw.record(row, _list_awaited(side))
    return IngestResult(info.key, known.asset_id, "duplicate", note=note)


def _list_awaited(side: SideFiles) -> tuple[str, ...] | None:
    return side.awaited if side.missing else None


def _park_object(
    info: ObjectInfo, asset_id: str, side: SideFiles, error: Exception, catalogue: Catalogue
) -> IngestResult:
    """Record an object that cannot be used, as an asset that is parked at once."""
    key = keys.escape_key(info.key)
    is_rejected, reason, detail = _explain_error(error)
    asset = AssetRow(
        asset_id, AssetState.REGISTERED, name=key.rpartition("/")[2], size_bytes=info.size
    )
    row = RawRow(key, info.etag, info.size, asset_id, reason=reason, detail=detail)
    awaited = side.awaited if side.missing or reason == LACKING else None
    old = catalogue.raw.get(key)
    if old is None or replace(old, seen_at=0.0) != row:  # the same again is no news
        with catalogue.transaction():
            if catalogue.register(asset):
                if is_rejected:
                    catalogue.move(asset_id, AssetState.REJECTED, reason=reason, detail=detail)
                else:
                    catalogue.record_failure(asset_id, detail, max_attempts=1)
            catalogue.raw.record(row, awaited)
    log.warning("stage=ingest key=%r reason=%s detail=%s", info.key, reason, detail)
    return IngestResult(key, asset_id, "rejected" if is_rejected else "failed", reason, detail)


def _explain_error(error: Exception) -> tuple[bool, str, str]:
    """Is it the object's fault, for what reason, and in what words (that any database takes)?"""
    if isinstance(error, AssetRejected):
        return True, error.reason, _make_storable(error.message)
    name_of = "" if isinstance(error, ParserFault) else f"{type(error).__name__}: "
    return False, "ingest_failed", _make_storable(f"{name_of}{error}")


def _make_storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
