"""Files that a mesh names beside itself: glTF buffers and images, OBJ materials and textures.

They are looked up in the bucket's listing by `side_search`: where their name says, else in another
case or by their base name, which is recorded. Only what lies below the mesh's own folder is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.side_names import CHAINED_KINDS, NAMING_KINDS, PLY_HEAD_BYTES
from segvigen_model.mesh.formats.side_search import FoundFile, find_side_file, list_places
from tasks.ingest.listing import RawListing, get_suffix, is_quiet, is_readable_key
from tasks.ingest.sandbox import Parser, ParserBudget
from tasks.settings import IngestSettings
from tasks.storage.errors import BlobMissing, ChangedSinceListed
from tasks.storage.store import ObjectInfo, Store

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

    @property
    def folder(self) -> str:
        """Its folder, "" = the root."""
        return self.key.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Rescue:
    """A side file that is not where its name says.

    Attributes:
        wanted: name as written.
        found: key in the raw bucket.
        how: in words.
    """

    wanted: str
    found: str
    how: str


@dataclass(frozen=True, slots=True)
class SideFiles:
    """What a mesh's side files are.

    Attributes:
        found: name as the loader requests it -> bytes.
        missing: names that are absent.
        awaited: keys, one of which an absent file would have; not all where they are many.
        rescues: those of `found` that are not where their name says.
    """

    found: dict[str, bytes] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    awaited: tuple[str, ...] = ()
    rescues: tuple[Rescue, ...] = ()


@dataclass(frozen=True, slots=True)
class SideFileFinder:
    """Reads the side files of meshes.

    Attributes:
        raw: the bucket.
        listing: of it, or of the mesh's folder.
        parser: reads the names.
        settings: bounds on number and bytes, and on reading the names.
    """

    raw: Store
    listing: RawListing
    parser: Parser
    settings: IngestSettings

    def fetch(self, file: RawFile) -> SideFiles:
        """Read the side files of one mesh.

        Raises:
            AssetRejected: too many side files, too many bytes in all, or names that cannot be read.
            ChangedSinceListed: one is being written or changed; the next scan tries again.
        """
        left = self.settings.max_bytes - len(file.data)
        found: dict[str, bytes] = {}
        missing: dict[str, list[str]] = {}
        rescues: list[Rescue] = []
        waiting = [(name, "") for name in self._list_names(file.data, file.suffix)]
        while waiting:
            name, naming_folder = waiting.pop(0)
            if name in found or name in missing:
                continue
            self._check_number(len(found) + len(missing))
            place = find_side_file(self.listing, file.folder, naming_folder, name)
            content = self._read(place, left) if place else None
            if place is None or content is None:
                missing[name] = list_places(file.folder, naming_folder, name)
                continue
            left -= len(content)
            found[name] = content
            if place.how:
                rescues.append(Rescue(name, place.path, place.how))
            kind = get_suffix(name)
            if kind in CHAINED_KINDS:
                folder = place.path[len(file.folder) :].strip("/").rpartition("/")[0]
                waiting += [(other, folder) for other in self._list_names(content, kind)]
        return SideFiles(found, tuple(missing), _list_awaited(missing.values()), tuple(rescues))

    def _check_number(self, number: int) -> None:
        limit = self.settings.max_side_files
        if number >= limit:
            raise AssetRejected("too_many_side_files", f"more than {limit}; pack them as one GLB")

    def _list_names(self, data: bytes, kind: str) -> list[str]:
        """What a file names, read by the parser's process: a small file may unfold to gigabytes."""
        if kind not in NAMING_KINDS:
            return []
        head = data[:PLY_HEAD_BYTES] if kind == "ply" else data
        most = self.settings.max_side_files + 1
        return self.parser.list_side_names(head, kind, most, parser_budget(self.settings))

    def _read(self, place: FoundFile, left: int) -> bytes | None:
        """Bytes of a listed file, or None where it is gone since.

        Args:
            place: of the file.
            left: bytes that the asset may still have.
        """
        info = self.listing.find(place.path)
        assert isinstance(info, ObjectInfo)  # the finder gives what is listed
        if info.size > left:
            raise AssetRejected(
                "too_large", f"side file {place.path[:120]!r} has {info.size} bytes; shrink it"
            )
        if not is_quiet(self.raw, info, self.settings.quiet_s):
            raise ChangedSinceListed(f"{place.path[:120]!r} is being written; scan again")
        try:
            return self.raw.get_as_listed(info)
        except BlobMissing:
            return None


def parser_budget(settings: IngestSettings) -> ParserBudget:
    """The settings' limits for parsing one file."""
    return ParserBudget(settings.parse_seconds, settings.parse_gib, settings.is_sandbox_required)


def _list_awaited(places: Iterable[Sequence[str]]) -> tuple[str, ...]:
    keys = dict.fromkeys(key for group in places for key in group if is_readable_key(key))
    return tuple(keys)[:MAX_AWAITED]
