"""Which file is meant by a name in a mesh file: as written, in another case, or by its base name.

Works on names alone, of a bucket's listing or of a folder. Nothing outside the mesh's own folder is
ever given: a name that leads there (absolute, `..`, a drive, an address) counts by its base name.
A file that is not where it was said to be is a rescue, and says how it was found.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

# Folders that exporters put textures into; first those beside the file that names them.
USUAL_FOLDERS = ("textures", "texture", "images", "image", "maps", "materials", "tex", "img")
OTHER_CASE = "in another case"
BY_BASE_NAME = "by its base name"


class Listing(Protocol):
    """Names of files and folders, as they are spelled there."""

    def list_names(self, folder: str) -> Sequence[str]:
        """Names directly in a folder ("" = the root); none where there is no such folder."""
        ...

    def is_file(self, path: str) -> bool:
        """Is there a file (not a folder) at this path?"""
        ...


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that a name stands for.

    Attributes:
        path: of the file in the listing.
        how: "" = where the name says; else how it was found.
    """

    path: str
    how: str = ""


def find_side_file(listing: Listing, root: str, naming_folder: str, name: str) -> FoundFile | None:
    """Find a file that a mesh or material file names.

    Args:
        listing: of the mesh's folder at least.
        root: folder of the mesh; nothing above or beside it is given.
        naming_folder: of the file that has the name, below `root` ("" = `root` itself).
        name: as written, with forward slashes.
    """
    folders = list(dict.fromkeys((_join(root, naming_folder), root)))
    wanted = [path for folder in folders if (path := resolve_below(root, folder, name))]
    for path in wanted:
        if listing.is_file(path):
            return FoundFile(path)
    for path in wanted:
        for other in _match_cases(listing, root, path):
            return FoundFile(other, OTHER_CASE)
    base = name.rstrip("/").rpartition("/")[2]
    if not _is_plain(base):
        return None
    for folder in _list_usual_folders(listing, folders):
        exact = _join(folder, base)
        if listing.is_file(exact):
            return FoundFile(exact, f"{BY_BASE_NAME} in {folder[len(root) :].strip('/') or '.'!r}")
        for other in _match_cases(listing, root, exact):
            return FoundFile(other, f"{BY_BASE_NAME}, {OTHER_CASE}")
    return None


def list_places(root: str, naming_folder: str, name: str) -> list[str]:
    """Paths where a file would be found first, for whoever waits for it."""
    folders = dict.fromkeys((_join(root, naming_folder), root))
    places = [path for folder in folders if (path := resolve_below(root, folder, name))]
    base = name.rstrip("/").rpartition("/")[2]
    if not places and _is_plain(base):
        places = [_join(root, base)]
    return list(dict.fromkeys(places))


def resolve_below(root: str, folder: str, name: str) -> str | None:
    """Path of a relative name in a folder, `..` resolved; None where it leads out of `root`."""
    if name.startswith(("/", "~")) or ":" in name or "\\" in name or "\0" in name:
        return None
    parts = [part for part in folder.split("/") if part]
    least = len([part for part in root.split("/") if part])
    for part in name.split("/"):
        if part == "..":
            if len(parts) <= least:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) if len(parts) > least else None


def fold_name(name: str) -> str:
    """Spelling that names have in common which differ in case or in how accents are encoded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _match_cases(listing: Listing, root: str, path: str) -> Iterator[str]:
    """Files below `root` whose path is `path` but for case and accents, in order of spelling."""
    rest = path[len(root) :].strip("/").split("/")
    places = [root]
    for part in rest:
        folded = fold_name(part)
        places = [
            _join(place, name)
            for place in places
            for name in sorted(listing.list_names(place))
            if fold_name(name) == folded
        ]
    return (place for place in places if listing.is_file(place))


def _list_usual_folders(listing: Listing, folders: Sequence[str]) -> Iterator[str]:
    yield from folders
    for folder in folders:
        names = sorted(listing.list_names(folder))
        for usual in USUAL_FOLDERS:
            yield from (_join(folder, name) for name in names if fold_name(name) == usual)


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name
