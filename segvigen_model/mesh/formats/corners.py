"""Attributes that a format keeps for each corner of a face, brought to vertices.

A vertex whose corners disagree, in normal or colour, becomes several, as glTF writers do. Those of
one position follow each other in the order of the vertices.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.types import ByteArray, FloatArray, IntArray, NameColumn


def split_vertices(
    corners: IntArray, *keys: IntArray | None
) -> tuple[IntArray, IntArray, IntArray]:
    """Find the different combinations of vertex and attributes among corners.

    Args:
        corners: (C,) int vertex of each corner.
        keys: (C,) int number of each corner's attribute, or None for one that is absent.

    Returns:
        (W,) int first corner of each new vertex, (W,) int its former vertex, and (C,) int the new
        vertex of each corner.
    """
    columns = [corners, *(key for key in keys if key is not None)]
    _, first, inverse = np.unique(
        np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True
    )
    return first, corners[first], inverse.reshape(-1)


def number_rows(values: FloatArray | ByteArray) -> IntArray:
    """(N,) number of each row among the different rows; equal rows have one number."""
    _, inverse = np.unique(values, axis=0, return_inverse=True)
    return inverse.reshape(-1)


def name_all_faces(name: str, num_faces: int) -> NameColumn | None:
    """One name for all faces of a piece, or None for no name."""
    return NameColumn(np.zeros(num_faces, dtype=np.int32), (name,)) if name else None
