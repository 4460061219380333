"""The raw bucket as one listing showed it: by key, by folder, and which local files are quiet.

Side files and licences are looked up here, so that no request is made for a name that is not there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from segvigen_model.mesh.formats.side_search import find_side_file
from tasks.storage.keys import BadKey, check_key
from tasks.storage.store import MAX_S3_KEY_BYTES, ObjectInfo, Store

# Files that come along with meshes and are no assets themselves.
COMPANION_SUFFIXES = frozenset(
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
MAX_SEGMENT_BYTES = 255  # what file systems take


class RawListing:
    """Objects of a bucket, or of one folder of it, at one moment.

    Args:
        objects: as listed.
    """

    def __init__(self, objects: Iterable[ObjectInfo]) -> None:
        self._objects = {info.key: info for info in objects}
        self._folders: dict[str, dict[str, None]] = {}
        for key in self._objects:
            self._add(key)

    @classmethod
    def of_folder(cls, raw: Store, folder: str) -> RawListing:
        """List one folder of a bucket with all below it."""
        return cls(raw.list(folder))

    def __iter__(self) -> Iterator[ObjectInfo]:
        """Objects, ascending by key."""
        return iter(self._objects.values())

    def find(self, key: str) -> ObjectInfo | None:
        """What was listed under a key."""
        return self._objects.get(key)

    def list_names(self, folder: str) -> Sequence[str]:
        """Names directly in a folder."""
        return list(self._folders.get(folder, ()))

    def is_file(self, path: str) -> bool:
        """Is there an object, of a key that may be read?"""
        return path in self._objects and is_readable_key(path)

    def has_any(self, key: str, awaited: Iterable[str]) -> bool:
        """Has one of the files arrived that a mesh lacked, wherever it would be found?

        Args:
            key: of the mesh.
            awaited: keys below its folder.
        """
        folder = key.rpartition("/")[0]
        start = f"{folder}/" if folder else ""
        names = (wanted.removeprefix(start) for wanted in awaited)
        return any(find_side_file(self, folder, "", name) is not None for name in names)

    def _add(self, key: str) -> None:
        while True:
            folder, _, name = key.rpartition("/")
            is_known = folder in self._folders
            self._folders.setdefault(folder, {})[name] = None
            if is_known or not folder:
                return
            key = folder


def is_candidate(key: str) -> bool:
    """May an object be a mesh by its name, good or bad?"""
    name = PurePosixPath(key).name
    is_companion = get_suffix(key) in COMPANION_SUFFIXES or name.upper().startswith(
        ("LICEN", "README")
    )
    return not (name.startswith(".") or is_companion)


def get_suffix(key: str) -> str:
    """Suffix of a key in lower case, without its dot."""
    return PurePosixPath(key).suffix.lower().removeprefix(".")


def is_readable_key(key: str) -> bool:
    """May the key be asked for: relative, plain, and no longer than file systems and S3 take?"""
    try:
        check_key(key)
    except BadKey:
        return False
    sizes = [len(part.encode()) for part in key.split("/")]
    return max(sizes) <= MAX_SEGMENT_BYTES and sum(sizes) <= MAX_S3_KEY_BYTES


def is_quiet(raw: Store, info: ObjectInfo, quiet_s: float) -> bool:
    """Was a local file left alone for a while? Objects of a bucket are there whole or not at all.

    Args:
        raw: where it is.
        info: as listed.
        quiet_s: seconds. A time far in the future is a wrong clock, and says nothing.
    """
    return not raw.is_local or abs(time.time() - info.mtime) >= quiet_s


def wait_for_quiet(raw: Store, found: Sequence[ObjectInfo], quiet_s: float) -> list[ObjectInfo]:
    """Leave out what is still being written, after waiting once for it.

    Args:
        raw: where the objects are.
        found: as listed.
        quiet_s: how long a local file must have been left alone, seconds.

    Returns:
        Objects in their order, local ones as they are now.
    """
    fresh = {info.key: info for info in found if not is_quiet(raw, info, quiet_s)}
    if not fresh:
        return list(found)
    time.sleep(quiet_s)
    now = {key: raw.find_info(key) for key in fresh if is_readable_key(key)}
    return [info for info in found if info.key not in fresh or now.get(info.key, info) == info]
