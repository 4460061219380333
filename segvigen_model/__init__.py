"""SegviGen as a library: a mesh goes in, part labels on its own faces come out.

    import segvigen_model as sg

    mesh = sg.load_mesh("chair.glb")
    session = sg.Segmenter.from_checkpoint().open(mesh)
    proposal = session.propose()
    sg.save_glb("parts.glb", mesh, proposal)

Knows nothing of Prefect, S3, SQL or Label Studio. The names below are loaded on first use, because
torch takes a second to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segvigen_model.mesh.files import load_mesh, save_glb
    from segvigen_model.segmenter import Segmenter
    from segvigen_model.session import Session
    from segvigen_model.types import Click, ClickKind, Proposal

__all__ = ["Click", "ClickKind", "Proposal", "Segmenter", "Session", "load_mesh", "save_glb"]

_MODULES = {
    "Click": "types",
    "ClickKind": "types",
    "Proposal": "types",
    "Segmenter": "segmenter",
    "Session": "session",
    "load_mesh": "mesh.files",
    "save_glb": "mesh.files",
}

if not TYPE_CHECKING:  # a type checker would take every unknown name for one of these

    def __getattr__(name: str) -> object:
        """Load one of `__all__`."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        """Names of the module, those that are not loaded yet included."""
        return sorted({*globals(), *__all__})
