"""Files that a mesh names beside itself: glTF buffers and images, OBJ materials and textures.

Only plain relative names below the mesh's own folder are fetched. Others are not fetched;
the loader then refuses the mesh, or loads it plain and the absence is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.side_names import PLY_HEAD_BYTES
from tasks.ingest.sandbox import Parser, ParserBudget
from tasks.settings import IngestSettings
from tasks.storage.keys import BadKey, check_key
from tasks.storage.store import MAX_S3_KEY_BYTES, Store

MAX_SEGMENT_BYTES = 255  # what file systems take
MAX_AWAITED = 64  # keys whose arrival is watched for; any one of them is enough


@dataclass(frozen=True, slots=True)
class RawFile:
    """A mesh file of the raw bucket, read and not yet trusted.

    Attributes:
        key: in the bucket; side files lie below its folder.
        suffix: without dot, e.g. "gltf".
        data: the whole file.
    """

    key: str
    suffix: str
    data: bytes


@dataclass(frozen=True, slots=True)
class SideFiles:
    """What a mesh's side files are.

    Attributes:
        found: name as the loader requests it -> bytes.
        missing: names that are absent.
        awaited: keys, one of which an absent file would have; not all where they are many.
    """

    found: dict[str, bytes] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    awaited: tuple[str, ...] = ()


def fetch_side_files(
    raw: Store, file: RawFile, parser: Parser, settings: IngestSettings
) -> SideFiles:
    """Read the side files of one mesh.

    Args:
        raw: the bucket.
        file: the mesh.
        parser: reads the names.
        settings: bounds on number and bytes, and on reading the names.

    Raises:
        AssetRejected: too many side files, too many bytes in all, or names that cannot be read.
    """
    folder = file.key.rpartition("/")[0]
    budget = settings.max_bytes - len(file.data)
    found: dict[str, bytes] = {}
    missing: dict[str, list[str]] = {}
    waiting = [(name, "") for name in _list_names(file.data, file.suffix, settings, parser)]
    while waiting:
        name, mesh_folder = waiting.pop(0)
        if name in found or name in missing:
            continue
        if len(found) + len(missing) >= settings.max_side_files:
            limit = settings.max_side_files
            raise AssetRejected("too_many_side_files", f"more than {limit}; pack them as one GLB")
        places = _list_places(folder, mesh_folder, name)
        content = _read_first(raw, places, budget)
        if content is None:
            missing[name] = places
            continue
        budget -= len(content)
        found[name] = content
        if name.lower().endswith(".mtl"):
            textures = _list_names(content, "mtl", settings, parser)
            waiting.extend((texture, name.rpartition("/")[0]) for texture in textures)
    awaited = dict.fromkeys(place for places in missing.values() for place in places)
    return SideFiles(found, tuple(missing), tuple(awaited)[:MAX_AWAITED])


def _list_names(data: bytes, kind: str, settings: IngestSettings, parser: Parser) -> list[str]:
    """What a file names, read by the parser's process: a small file may unfold to gigabytes."""
    if kind not in ("gltf", "obj", "mtl", "ply"):
        return []
    head = data[:PLY_HEAD_BYTES] if kind == "ply" else data
    most = settings.max_side_files + 1
    return parser.list_side_names(head, kind, most, parser_budget(settings))


def parser_budget(settings: IngestSettings) -> ParserBudget:
    """The settings' limits for parsing one file."""
    return ParserBudget(settings.parse_seconds, settings.parse_gib, settings.is_sandbox_required)


def _list_places(folder: str, mesh_folder: str, name: str) -> list[str]:
    """Keys where a name is searched: beside the file that names it, then beside the mesh."""
    keys = (
        "/".join(part for part in (folder, beside_file, name) if part)
        for beside_file in (mesh_folder, "")
    )
    return [key for key in dict.fromkeys(keys) if _is_allowed(key)]


def _is_allowed(key: str) -> bool:
    try:
        check_key(key)
    except BadKey:
        return False  # absolute or climbing: never fetched
    sizes = [len(part.encode()) for part in key.split("/")]
    return ":" not in key and max(sizes) <= MAX_SEGMENT_BYTES and sum(sizes) <= MAX_S3_KEY_BYTES


def _read_first(raw: Store, places: Sequence[str], budget: int) -> bytes | None:
    for key in places:
        size = raw.get_size(key)
        if size is None:
            continue
        if size > budget:
            raise AssetRejected("too_large", f"side file {key[:120]!r} has {size} bytes; shrink it")
        return raw.get(key)
    return None
