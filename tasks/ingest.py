"""Ingest: scan the raw bucket, check every new object, copy the good ones, register all.

Nothing in the raw bucket is trusted: sizes are looked at before bytes, bytes before meshes. An
object that cannot be used becomes an asset in state rejected with a reason; the scan goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh_io import SUFFIXES
from tasks import keys
from tasks.assets import mesh_limits
from tasks.catalogue import AssetRow, AssetState, Catalogue, RawRow
from tasks.licences import find_licence
from tasks.parser import Parser, ParserFault, shared_parser
from tasks.settings import IngestSettings
from tasks.side_files import SideFiles, fetch_side_files
from tasks.stage import is_surroundings
from tasks.store import ObjectInfo, Store

log = logging.getLogger(__name__)

ASSET_SCHEMA = "segvigen-asset/1"
# Files that come along with meshes and are no assets themselves.
COMPANIONS = frozenset(
    [
        "bin",
        "mtl",
        "png",
        "jpg",
        "jpeg",
        "webp",
        "ktx2",
        "tga",
        "bmp",
        "gif",
        "tif",
        "tiff",
        "hdr",
        "exr",
        "json",
        "jsonl",
        "csv",
        "txt",
        "md",
        "licence",
        "license",
        "npz",
        "npy",
        "yaml",
        "yml",
        "xml",
        "html",
        "pdf",
    ]
)
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
    """A raw object with all its bytes, read but not yet believed."""

    info: ObjectInfo
    suffix: str
    data: bytes
    side: SideFiles


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What became of one raw object.

    Attributes:
        outcome: "registered", "duplicate" (same bytes as another key), "rejected" or "failed".
        reason: short word for rejected and failed.
    """

    key: str
    asset_id: str
    outcome: str
    reason: str | None = None
    note: str = ""


def scan_raw(
    raw: Store, catalogue: Catalogue, *, prefix: str = "", is_retrying: bool = False
) -> list[ObjectInfo]:
    """List what ingest has not seen yet, or not with this content.

    Args:
        raw: the bucket.
        catalogue: remembers what was seen.
        prefix: folder to look into.
        is_retrying: also objects that were rejected before (after limits were raised, say).

    Returns:
        New objects, ascending by key; companions such as textures are left out.
    """
    seen = catalogue.raw.etags()
    rejected = {row.key for row in catalogue.raw.all() if row.reason} if is_retrying else set()
    return [
        info
        for info in raw.list(prefix)
        if _is_candidate(info.key) and (seen.get(info.key) != info.etag or info.key in rejected)
    ]


def ingest_object(
    info: ObjectInfo,
    *,
    raw: Store,
    store: Store,
    catalogue: Catalogue,
    settings: IngestSettings,
    parser: Parser | None = None,
) -> IngestResult:
    """Check one raw object and register it; idempotent, and never raises for a bad object.

    Args:
        info: the object, as listed.
        raw: the bucket of raw meshes.
        store: blobs of the pipeline.
        catalogue: where the asset is registered.
        settings: what the gate lets in.
        parser: reads the mesh in a process of its own; None = the one of this process.
    """
    try:
        _check_announced(info, settings)
        data = raw.get(info.key)
    except AssetRejected as err:
        unread = hashlib.sha256(f"unread:{info.key}:{info.etag}".encode()).hexdigest()
        return _park(info, unread, err, catalogue)
    asset_id = hashlib.sha256(data).hexdigest()
    try:
        suffix = _suffix(info.key)
        _check_magic(data, suffix)
        side = fetch_side_files(raw, info.key, data, suffix, settings)
        asset_id = _asset_id(data, side)
        known = catalogue.find_asset(asset_id)
        if known is not None and not _is_ingest_reject(known):
            return _duplicate(info, known, catalogue)
        limits = mesh_limits(settings)
        facts = (parser or shared_parser()).measure(
            data,
            suffix,
            side.found,
            limits,
            seconds=settings.parse_seconds,
            gib=settings.parse_gib,
        )
        source = _Source(info, suffix, data, side)
        about = {
            "schema": ASSET_SCHEMA,
            "name": PurePosixPath(info.key).name,
            "raw_key": info.key,
            "suffix": suffix,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            **facts,
            "licence": find_licence(raw, info.key, settings.default_licence),
            "missing_side_files": list(side.missing),
            "limits": asdict(limits),
        }
        return _register(source, asset_id, about, store, catalogue)
    except Exception as err:
        if is_surroundings(err):
            raise
        if not isinstance(err, AssetRejected):
            log.exception("stage=ingest key=%r failed", info.key)
        return _park(info, asset_id, err, catalogue)


def _is_candidate(key: str) -> bool:
    name = PurePosixPath(key).name
    is_companion = _suffix(key) in COMPANIONS or name.upper().startswith(("LICEN", "README"))
    return not (name.startswith(".") or is_companion)


def _suffix(key: str) -> str:
    return PurePosixPath(key).suffix.lower().removeprefix(".")


def _check_announced(info: ObjectInfo, settings: IngestSettings) -> None:
    """What the listing alone tells: no byte is read of what cannot be used."""
    suffix = _suffix(info.key)
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


def _check_magic(data: bytes, suffix: str) -> None:
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if kind is not None and kind != suffix:
        raise AssetRejected("wrong_suffix", f"named .{suffix} but holds {kind}; rename the file")


def _asset_id(data: bytes, side: SideFiles) -> str:
    """Content hash: of the file, and of its side files where it has any."""
    own = hashlib.sha256(data)
    if not side.found:
        return own.hexdigest()
    parts = [own.hexdigest()]
    for name in sorted(side.found):
        parts.append(f"{name}\n{hashlib.sha256(side.found[name]).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _is_ingest_reject(asset: AssetRow) -> bool:
    return asset.state in (AssetState.REJECTED, AssetState.FAILED) and asset.source_key is None


def _register(
    source: _Source, asset_id: str, about: dict[str, Any], store: Store, catalogue: Catalogue
) -> IngestResult:
    """Blobs first, then the rows: a kill in between leaves only blobs that the next run finds."""
    info = source.info
    facts = {
        "name": about["name"],
        "num_faces": about["num_faces"],
        "licence": about["licence"],
        "source_key": _copy(source, asset_id, about, store),
        "suffix": source.suffix,
        "size_bytes": len(source.data),
    }
    with catalogue.transaction():
        fresh = catalogue.register(AssetRow(asset_id, AssetState.REGISTERED, **facts))
        if not fresh and _is_ingest_reject(catalogue.asset(asset_id)):
            catalogue.move(asset_id, AssetState.REGISTERED, **facts)
            fresh = True
        catalogue.raw.record(RawRow(info.key, info.etag, info.size, asset_id))
    log.info("stage=ingest key=%r asset=%s faces=%d", info.key, asset_id[:12], about["num_faces"])
    return IngestResult(info.key, asset_id, "registered" if fresh else "duplicate")


def _copy(source: _Source, asset_id: str, about: dict[str, Any], store: Store) -> str:
    """Write source, side files and asset.json; returns the source's key."""
    copied = store.put(keys.asset_source(asset_id, source.suffix), source.data)
    entries = {}
    for number, name in enumerate(sorted(source.side.found)):
        # Numbered: the name is the file author's, and need not fit into a key.
        key = keys.asset_side_file(asset_id, f"{number:04d}")
        blob = store.put(key, source.side.found[name])
        entries[name] = {"key": blob.key, "sha256": blob.sha256, "size": blob.size}
    store.put(
        keys.asset_json(asset_id),
        _json_bytes({**about, "asset_id": asset_id, "side_files": entries}),
        "application/json",
        keep_existing=True,  # a second key with the same bytes has another name
    )
    return copied.key


def _duplicate(info: ObjectInfo, known: AssetRow, catalogue: Catalogue) -> IngestResult:
    others = [row.key for row in catalogue.raw.all(known.asset_id) if row.key != info.key]
    note = f"same content as {others[0]!r}" if others else ""
    catalogue.raw.record(RawRow(info.key, info.etag, info.size, known.asset_id, detail=note))
    return IngestResult(info.key, known.asset_id, "duplicate", note=note)


def _park(info: ObjectInfo, asset_id: str, error: Exception, catalogue: Catalogue) -> IngestResult:
    """Record an object that cannot be used, as an asset that is parked at once."""
    is_rejected = isinstance(error, AssetRejected)
    reason = error.reason if isinstance(error, AssetRejected) else "ingest_failed"
    if isinstance(error, AssetRejected):
        detail = error.message
    else:
        name_of = "" if isinstance(error, ParserFault) else f"{type(error).__name__}: "
        detail = f"{name_of}{error}"
    name = PurePosixPath(info.key).name
    asset = AssetRow(asset_id, AssetState.REGISTERED, name=name, size_bytes=info.size)
    with catalogue.transaction():
        if catalogue.register(asset):
            if is_rejected:
                catalogue.move(asset_id, AssetState.REJECTED, reason=reason, detail=detail)
            else:
                catalogue.record_failure(asset_id, detail, max_attempts=1)
        catalogue.raw.record(
            RawRow(info.key, info.etag, info.size, asset_id, reason=reason, detail=detail)
        )
    log.warning("stage=ingest key=%r reason=%s detail=%s", info.key, reason, detail)
    return IngestResult(info.key, asset_id, "rejected" if is_rejected else "failed", reason, detail)


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"
