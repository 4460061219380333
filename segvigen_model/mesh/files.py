"""Mesh files: read with the buffers, materials and textures beside them, or written as GLB."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.canonical import mesh_from_canonical
from segvigen_model.mesh.formats.isolation import NeedsIsolation
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.side_names import CHAINED_KINDS, find_names
from segvigen_model.mesh.formats.side_search import find_side_file
from segvigen_model.mesh.io import make_part_colors, mesh_from_bytes, mesh_to_glb, parts_to_glb
from segvigen_model.mesh.sandbox.parser import ParserBudget, get_library_parser
from segvigen_model.types import AssetMesh, ByteArray, IntArray, Proposal

log = logging.getLogger(__name__)

MAX_SIDE_FILES = 256


def load_mesh(path: str | Path, limits: MeshLimits = MeshLimits()) -> AssetMesh:  # noqa: B008 - frozen
    """Read a mesh file.

    Args:
        path: GLB, glTF, OBJ, PLY, STL, OFF, FBX, 3MF, USD, or a ZIP with one of them. Its
            side files are read from its folder and below.
        limits: what the asset may cost.

    Returns:
        The mesh, mesh frame. Compressed formats are decoded by a confined process.

    Raises:
        AssetRejected: a file cannot be read or cannot be used; `reason` is the cause.
        SandboxUnavailable: the file needs a confined process and this machine grants none.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        side_files = _read_side_files(path, data)
    except OSError as err:
        raise AssetRejected("unreadable_file", f"{path}: {err.strerror or err}") from err
    try:
        return mesh_from_bytes(data, path.suffix, side_files=side_files, limits=limits)
    except NeedsIsolation:
        return _parse_confined(data, path.suffix, side_files, limits)


def save_glb(
    path: str | Path,
    mesh: AssetMesh,
    parts: Proposal | IntArray | None = None,
    colors: ByteArray | None = None,
    *,
    is_painted: bool = True,
) -> None:
    """Write a mesh as a GLB file: as it came, or with one node per part.

    Args:
        path: of the file; replaced when it exists.
        mesh: what to write.
        parts: a proposal, or (F,) int dense part ids; faces of a part keep their order.
        colors: (P, 3) uint8 sRGB colour of each part; well-separated ones when None.
        is_painted: parts in plain colours; False keeps materials, textures and texture coordinates,
            and the colours are a material variant.

    Raises:
        ValueError: the path does not end in .glb, or parts or colours do not fit the mesh.
    """
    path = Path(path)
    if path.suffix.lower() != ".glb":
        raise ValueError(f"{path} does not end in .glb; only GLB is written")
    if parts is None:
        if colors is not None:
            raise ValueError("colors are of parts; give parts as well")
        path.write_bytes(mesh_to_glb(mesh))
        return
    labels = parts.face_labels if isinstance(parts, Proposal) else np.asarray(parts)
    if labels.shape != (mesh.num_faces,):
        raise ValueError(f"part ids of shape {labels.shape} for {mesh.num_faces} faces")
    if colors is None:
        colors = make_part_colors(int(labels.max(initial=-1)) + 1)
    names = parts.parts.names if isinstance(parts, Proposal) else ()
    path.write_bytes(parts_to_glb(mesh, labels, colors, names, is_painted=is_painted))


def _parse_confined(
    data: bytes, suffix: str, side_files: Mapping[str, bytes], limits: MeshLimits
) -> AssetMesh:
    parsed = get_library_parser().parse_mesh(data, suffix, side_files, limits, ParserBudget())
    return mesh_from_canonical(parsed.canonical, limits)


def _read_side_files(path: Path, data: bytes) -> dict[str, bytes]:
    """Read what a mesh names, and what its materials name; absent ones are left to the reader."""
    listing, found = _Folder(path.parent), dict[str, bytes]()
    waiting = [(name, "") for name in _side_names(data, path.suffix)]
    while waiting:
        name, naming_folder = waiting.pop(0)
        place = None if name in found else find_side_file(listing, "", naming_folder, name)
        if place is None:
            continue
        if len(found) >= MAX_SIDE_FILES:
            raise AssetRejected(
                "too_many_side_files", f"{path} names more than {MAX_SIDE_FILES}; pack one GLB"
            )
        if place.how:
            log.warning("side file=%r found %s: %r", name[:120], place.how, place.path[:120])
        found[name] = (path.parent / place.path).read_bytes()
        suffix = Path(place.path).suffix
        if suffix[1:].lower() in CHAINED_KINDS:
            folder = place.path.rpartition("/")[0]
            waiting += [(other, folder) for other in _side_names(found[name], suffix)]
    return found


def _side_names(data: bytes, suffix: str) -> list[str]:
    kind, most = suffix.lstrip(".").lower(), MAX_SIDE_FILES + 1
    try:
        return find_names(data, kind, most)
    except NeedsIsolation:
        return get_library_parser().list_side_names(data, kind, most, ParserBudget())


class _Folder:
    """Listing of a folder on disk, with all below it; links out of it lead to nothing."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def list_names(self, folder: str) -> Sequence[str]:
        place = self._resolve(folder)
        try:
            return [each.name for each in place.iterdir()] if place else []
        except OSError:
            return []  # no folder, or not ours to read

    def is_file(self, path: str) -> bool:
        place = self._resolve(path)
        try:
            return place is not None and place.is_file()
        except OSError:
            return False  # no name of a file: too long

    def _resolve(self, path: str) -> Path | None:
        try:
            whole = (self._root / path).resolve()
        except (OSError, ValueError, RuntimeError):
            return None  # no name of a file, or a circle of links
        return whole if whole.is_relative_to(self._root) else None
