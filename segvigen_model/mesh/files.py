"""Meshes from files of this machine, with the buffers, materials and textures beside them."""

from __future__ import annotations

from pathlib import Path

from segvigen_model.errors import AssetRejected
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.side_names import find_names
from segvigen_model.mesh.io import load_mesh
from segvigen_model.types import AssetMesh

MAX_SIDE_FILES = 256


def load_mesh_file(path: Path, limits: MeshLimits = MeshLimits()) -> AssetMesh:  # noqa: B008 - frozen
    """Read a mesh file.

    Args:
        path: GLB, glTF, OBJ, PLY, STL or OFF. Its side files are read from its folder and below.
        limits: what the asset may cost.

    Returns:
        The mesh, mesh frame.

    Raises:
        AssetRejected: a file cannot be read or cannot be used; `reason` is the cause.
    """
    try:
        data = path.read_bytes()
        side_files = _read_side_files(path, data)
    except OSError as err:
        raise AssetRejected("unreadable_file", f"{path}: {err.strerror or err}") from err
    return load_mesh(data, path.suffix, side_files=side_files, limits=limits)


def _read_side_files(path: Path, data: bytes) -> dict[str, bytes]:
    """Read what a mesh names, and what its materials name; absent ones are left to the reader."""
    found: dict[str, bytes] = {}
    waiting = [(name, path.parent) for name in _side_names(data, path.suffix)]
    while waiting:
        name, folder = waiting.pop(0)
        place = _find_below(path.parent, (folder / name, path.parent / name))
        if place is None or name in found:
            continue
        if len(found) >= MAX_SIDE_FILES:
            raise AssetRejected(
                "too_many_side_files", f"{path} names more than {MAX_SIDE_FILES}; pack one GLB"
            )
        found[name] = place.read_bytes()
        if place.suffix.lower() == ".mtl":
            waiting += [(texture, place.parent) for texture in _side_names(found[name], ".mtl")]
    return found


def _side_names(data: bytes, suffix: str) -> list[str]:
    return find_names(data, suffix.lstrip(".").lower(), MAX_SIDE_FILES + 1)


def _find_below(root: Path, places: tuple[Path, ...]) -> Path | None:
    """Find the first file that lies in a folder or below it."""
    for place in places:
        try:
            whole = place.resolve()
            if whole.is_relative_to(root.resolve()) and whole.is_file():
                return whole
        except (OSError, ValueError):
            continue  # no name of a file: too long, or with a zero byte
    return None
