"""What clicks say by geometry alone, and together with the model's mask.

A click speaks for the nested segments round it: surely for the smallest, less and less for the
larger. A negative click takes back every segment that no positive one shares.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.atoms import Atoms
from segvigen_model.geometry import Surface
from segvigen_model.segments import SegmentTree
from segvigen_model.types import BoolArray, FloatArray, IntArray

MASK_SHARE = 0.5  # of the model against geometry
SNAP_SHARE = 0.5  # of a segment's mean against each face's own value (prototype: +.03 to +.05 IoU)


def click_evidence(tree: SegmentTree, faces: IntArray, is_positive: BoolArray) -> FloatArray:
    """How strongly clicks claim each face by the segments that they lie in.

    Args:
        tree: nested segments.
        faces: (K,) int clicked faces.
        is_positive: (K,) bool.

    Returns:
        (F,) float64, 0..1: the share of levels on which the face is in a segment with a positive
        click and without a negative one.
    """
    votes = np.zeros(tree.levels.shape[1])
    for ids in tree.levels:
        claimed = np.isin(ids, ids[faces[is_positive]])
        votes += claimed & ~np.isin(ids, ids[faces[~is_positive]])
    share: FloatArray = votes / len(tree.levels)
    return share


def part_probability(
    surface: Surface,
    tree: SegmentTree,
    atoms: Atoms,
    faces: IntArray,
    is_positive: BoolArray,
    mask: FloatArray | None,
) -> FloatArray:
    """Probability that each face belongs to the clicked part.

    Args:
        surface: geometry.
        tree: nested segments.
        atoms: pieces to snap to.
        faces: (K,) int clicked faces.
        is_positive: (K,) bool.
        mask: (F,) float 0..1, the model's opinion, or None.

    Returns:
        (F,) float64, 0..1; exactly 1 on positive and 0 on negative faces.
    """
    result = click_evidence(tree, faces, is_positive)
    if mask is not None:
        mean = atoms.mean(mask, surface.areas)[atoms.of_face]
        snapped = SNAP_SHARE * mean + (1 - SNAP_SHARE) * mask
        result = MASK_SHARE * snapped + (1 - MASK_SHARE) * result
    result[faces[is_positive]] = 1.0
    result[faces[~is_positive]] = 0.0
    return result
