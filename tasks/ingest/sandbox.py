"""Untrusted files are parsed in a confined process, so that none can take the run down with it.

    python -P -m segvigen_model.mesh.sandbox.child tasks.ingest.sandbox

is that process: `handle_request` parses a mesh and describes it. What confines it, and the frames
on its input and output, are those of `segvigen_model.mesh.sandbox`.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from segvigen_model.mesh.sandbox import handlers
from segvigen_model.mesh.sandbox.child import serve
from segvigen_model.mesh.sandbox.parser import ParsedMesh, Parser, ParserBudget
from segvigen_model.mesh.sandbox.process import PROGRAM as CHILD
from segvigen_model.mesh.sandbox.process import ParserFault, SandboxUnavailable
from segvigen_model.surface.geometry import measure_surface
from segvigen_model.types import AssetMesh

__all__ = [
    "PROGRAM",
    "ParsedMesh",
    "Parser",
    "ParserBudget",
    "ParserFault",
    "SandboxUnavailable",
    "get_shared_parser",
    "handle_request",
    "main",
    "summarize_mesh",
]

PROGRAM = (*CHILD, "tasks.ingest.sandbox")


@lru_cache(maxsize=1)
def get_shared_parser() -> Parser:
    """The one of this process; ended with it."""
    parser = Parser(PROGRAM)
    atexit.register(parser.close)
    return parser


def summarize_mesh(mesh: AssetMesh) -> dict[str, Any]:
    """Description of a mesh for asset.json: counts, surface area, bounds (mesh frame)."""
    surface, used = measure_surface(mesh), mesh.used_vertices
    return {
        "num_faces": mesh.num_faces,
        "num_vertices": len(mesh.vertices),
        "num_geometries": max(len(mesh.geometry_names), 1),
        "num_materials": len(mesh.materials),
        "num_components": int(surface.components.max(initial=-1)) + 1,
        "is_textured": any(m.base_color_texture is not None for m in mesh.materials),
        "surface_area": float(surface.areas.sum()),
        "bounds": np.stack([used.min(0), used.max(0)]).tolist(),
    }


def handle_request(
    head: Mapping[str, Any], blobs: Sequence[bytes]
) -> tuple[dict[str, Any], list[bytes]]:
    """Parse one file and describe it, in the process made for it."""
    return handlers.handle_request(head, blobs, summarize_mesh)


def main() -> None:
    """Answer requests until the input ends."""
    serve(handle_request)


if __name__ == "__main__":
    main()
