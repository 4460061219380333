"""A single HTML file that shows one proposal in 3D and puts clicks into the annotation."""

from __future__ import annotations

from segvigen_model.types import AssetMesh, IntArray
from tasks.review.buffers import Buffers


def render_viewer(mesh: AssetMesh, face_labels: IntArray, buffers: Buffers, *, title: str) -> bytes:
    """Build the page."""
    return b"<!doctype html><title>viewer</title>"
