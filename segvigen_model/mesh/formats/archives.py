"""ZIP archives from untrusted bytes: a mesh with its side files, a 3MF package, a USDZ.

The directory is checked before anything is unpacked: how many entries, how large together, no name
that leads out, no entry twice, no encryption. An entry is unpacked to the size that it announces,
and its checksum is compared. Works in a confined process only (`isolation.py`).
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.isolation import require_isolation
from segvigen_model.mesh.formats.limits import MeshLimits, make_unreadable_error

MAX_ENTRIES = 10_000
MAX_RATIO = 1032  # what deflate can reach at most; more is a lie in the directory
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1
# Folders and files that operating systems leave in archives.
LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
ARCHIVES = ("zip", "7z", "rar", "gz", "tar", "3mf", "usdz")


@dataclass(frozen=True, slots=True)
class Archive:
    """A checked directory; entries are unpacked when they are read.

    Attributes:
        entries: name with forward slashes -> its record.
    """

    file: zipfile.ZipFile
    entries: Mapping[str, zipfile.ZipInfo]

    def read(self, name: str) -> bytes:
        """Unpack one entry.

        Raises:
            AssetRejected: unreadable, when it is damaged.
        """
        entry = self.entries[name]
        try:
            with self.file.open(entry) as stream:
                content = stream.read(entry.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as err:
            raise make_unreadable_error(
                f"{name[:80]!r} in the archive is damaged: {err}", "pack it again"
            ) from err
        if len(content) != entry.file_size:
            raise make_unreadable_error(
                f"{name[:80]!r} in the archive is {len(content)} bytes or more, "
                f"announced {entry.file_size}",
                "pack it again",
            )
        return content


def open_archive(data: bytes, limits: MeshLimits, what: str = "ZIP") -> Archive:
    """Check an archive's directory.

    Args:
        data: the whole file.
        limits: `max_bytes` bounds all entries together.
        what: the format, for messages.

    Raises:
        AssetRejected: truncated, unreadable, too_large or external_reference.
    """
    require_isolation(what)
    try:
        file = zipfile.ZipFile(io.BytesIO(data))
        records = file.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, UnicodeDecodeError, OverflowError) as err:
        raise AssetRejected(
            "truncated", f"the {what} has no readable directory at its end: {err}; fetch it again"
        ) from err
    except NotImplementedError as err:
        raise make_unreadable_error(
            f"the {what} cannot be unpacked: {err}", "pack it again"
        ) from err
    if len(records) > MAX_ENTRIES:
        raise AssetRejected("too_large", f"the {what} has {len(records)} > {MAX_ENTRIES} entries")
    entries: dict[str, zipfile.ZipInfo] = {}
    for record in records:
        if not record.filename:
            raise make_unreadable_error(f"the {what} has an entry without a name", "pack it again")
        if record.is_dir() or _is_litter(record.filename):
            continue
        name = _check_entry(record, what)
        if name in entries:
            raise make_unreadable_error(f"the {what} holds {name[:80]!r} twice", "pack it again")
        entries[name] = record
    total = sum(record.file_size for record in entries.values())
    if total > limits.max_bytes:
        raise AssetRejected(
            "too_large",
            f"the {what} unfolds to {total} bytes > {limits.max_bytes}; shrink it or raise "
            "max_bytes",
        )
    return Archive(file, entries)


def _is_litter(name: str) -> bool:
    return any(part in LITTER or part.startswith("._") for part in PurePosixPath(name).parts)


def _check_entry(record: zipfile.ZipInfo, what: str) -> str:
    name = record.filename.replace("\\", "/")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or ":" in parts[0] or "\x00" in name:
        raise AssetRejected(
            "external_reference",
            f"the {what} holds {name[:80]!r}, which leads outside; pack it again",
        )
    if record.flag_bits & ENCRYPTED:
        raise make_unreadable_error(f"{name[:80]!r} is encrypted", "pack it without a password")
    if record.compress_type not in METHODS:
        raise make_unreadable_error(
            f"{name[:80]!r} is packed by method {record.compress_type}", "pack it with deflate"
        )
    if record.file_size > MAX_RATIO * max(record.compress_size, 1):
        raise AssetRejected(
            "too_large",
            f"{name[:80]!r} announces {record.file_size} bytes in {record.compress_size}; no "
            "packer reaches that",
        )
    return name.removeprefix("./")


def unpack_mesh(
    data: bytes, limits: MeshLimits, suffixes: tuple[str, ...]
) -> tuple[bytes, str, dict[str, bytes]]:
    """Give the one mesh of an archive and everything beside it.

    Args:
        data: a ZIP.
        limits: bounds.
        suffixes: of meshes.

    Returns:
        The mesh's bytes, its suffix, and side files by their name relative to its folder. A file
        outside that folder goes by its base name, where that is free.

    Raises:
        AssetRejected: no_mesh_in_archive, several_meshes_in_archive, and those of `open_archive`.
    """
    archive = open_archive(data, limits)
    meshes = [name for name in archive.entries if _get_suffix(name) in suffixes]
    nested = [name for name in archive.entries if _get_suffix(name) in ARCHIVES]
    if nested and not set(meshes) - set(nested):
        raise AssetRejected(
            "no_mesh_in_archive", f"the ZIP holds another archive, {nested[0][:80]!r}; unpack it"
        )
    if not meshes:
        raise AssetRejected(
            "no_mesh_in_archive",
            f"none of {len(archive.entries)} files is a mesh ({', '.join(suffixes)}); put one in",
        )
    if len(meshes) > 1:
        raise AssetRejected(
            "several_meshes_in_archive",
            f"the ZIP holds {len(meshes)} meshes, {meshes[0][:60]!r} and {meshes[1][:60]!r}; pack "
            "one a ZIP",
        )
    folder = PurePosixPath(meshes[0]).parent
    sides: dict[str, bytes] = {}
    spare: dict[str, bytes] = {}
    for name in archive.entries:
        if name == meshes[0] or name in nested:
            continue
        path = PurePosixPath(name)
        if path.is_relative_to(folder):
            sides[str(path.relative_to(folder))] = archive.read(name)
        else:
            spare[path.name] = archive.read(name)
    return archive.read(meshes[0]), _get_suffix(meshes[0]), spare | sides


def _get_suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower().removeprefix(".")
