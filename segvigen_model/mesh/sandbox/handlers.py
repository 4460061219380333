"""What the confined process does with a request: parse a mesh, or list the files that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segvigen_model.mesh.canonical import mesh_to_canonical
from segvigen_model.mesh.formats.limits import MeshLimits
from segvigen_model.mesh.formats.side_names import find_names
from segvigen_model.mesh.io import mesh_from_bytes
from segvigen_model.types import AssetMesh


def handle_request(
    head: Mapping[str, Any],
    blobs: Sequence[bytes],
    describe: Callable[[AssetMesh], Mapping[str, Any]] = lambda _: {},
) -> tuple[dict[str, Any], list[bytes]]:
    """Head and blobs of the reply to one request.

    Args:
        head: "suffix"; with "most": look for names only; else "names" of the side files, "limits".
        blobs: the file, then its side files.
        describe: makes the facts that come with a parsed mesh.

    Raises:
        AssetRejected: the file cannot be used.
    """
    if "most" in head:
        return {"side_names": find_names(blobs[0], head["suffix"], head["most"])}, []
    side_files = dict(zip(head["names"], blobs[1:], strict=True))
    limits = MeshLimits(**head["limits"])
    mesh = mesh_from_bytes(blobs[0], head["suffix"], side_files=side_files, limits=limits)
    return {"facts": describe(mesh)}, [mesh_to_canonical(mesh)]
