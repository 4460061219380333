"""Probability of clicked parts on every face: the flow model's masks beside the patch network.

All parts of one request share one batch of masks. A flow model with a high fusion weight decides
alone; otherwise crops around the positive clicks are used as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segvigen_model.config import SegmenterConfig
from segvigen_model.coords import grid_to_latent, mesh_to_unit
from segvigen_model.interactive.click_decoding import predict_part_probability
from segvigen_model.model.bundle import SegviGenModel
from segvigen_model.model.inference import ClickSet, draw_masks
from segvigen_model.partition.asset_geometry import AssetGeometry
from segvigen_model.partition.refinement import NO_TARGET, ClickConstraint
from segvigen_model.surface.voxel_transfer import find_nearest_voxels
from segvigen_model.types import BoolArray, Encoding, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class ClickedPart:
    """Clicks that point at one part.

    Attributes:
        faces: (K,) int64 clicked faces, oldest first.
        points: (K, 3) float64 on these faces, mesh frame.
        is_positive: (K,) whether a point lies in the part or outside; at least one inside.
    """

    faces: IntArray
    points: FloatArray
    is_positive: BoolArray


def collect_clicked_parts(
    constraints: Sequence[ClickConstraint],
    fixed: Sequence[ClickConstraint],
    points: Mapping[int, FloatArray],
) -> dict[tuple[int, int], ClickedPart]:
    """Clicks per clicked part; those on other parts are its negatives.

    Clicks of earlier rounds come before the new ones: of more than ten the model reads the last.

    Args:
        constraints: of this round.
        fixed: constraints of earlier rounds.
        points: face -> (3,) clicked point, mesh frame.

    Returns:
        `ClickConstraint.key` -> clicks.
    """
    known = [*fixed, *constraints]
    parts = {}
    for key in dict.fromkeys(constraint.key for constraint in constraints):
        mine = [constraint for constraint in known if constraint.key == key]
        others = [w for w in known if w.key != key and w.target != NO_TARGET]
        rows = [*others, *mine]
        parts[key] = ClickedPart(
            np.array([constraint.face for constraint in rows], np.int64),
            np.array([points[constraint.face] for constraint in rows], np.float64),
            np.array([constraint in mine for constraint in rows], bool),
        )
    return parts


def predict_part_probabilities(
    model: SegviGenModel,
    encoding: Encoding,
    geometry: AssetGeometry,
    parts: Sequence[ClickedPart],
    seed: int,
) -> list[FloatArray]:
    """Probability of each clicked part on every face.

    Args:
        model: the model.
        encoding: of the asset, by this model.
        geometry: of the asset.
        parts: what was clicked.
        seed: of the noise, where masks are sampled.

    Returns:
        Per part (F,) float64, 0..1; exactly 1 on positive and 0 on negative faces.
    """
    if not parts:
        return []
    masks = draw_masks(model, encoding, [_click_set(encoding, part) for part in parts], seed)
    config = model.config.segmenter
    return [
        _probability(geometry, part, mask, config) for part, mask in zip(parts, masks, strict=True)
    ]


def _probability(
    geometry: AssetGeometry, part: ClickedPart, mask: FloatArray, config: SegmenterConfig
) -> FloatArray:
    on_faces = geometry.relation.average_to_faces(mask)
    crops = (
        (geometry.crops.whole,)
        if config.fusion.is_mask_decisive
        else geometry.crops.select(part.faces[part.is_positive])
    )
    return predict_part_probability(crops, part.faces, part.is_positive, on_faces, config)


def _click_set(encoding: Encoding, part: ClickedPart) -> ClickSet:
    """Clicked points as latent cells of active voxels."""
    unit = mesh_to_unit(part.points, encoding.frame)
    rows = find_nearest_voxels(unit, encoding.coords, encoding.grid)
    return ClickSet(grid_to_latent(encoding.coords[rows], encoding.factor), part.is_positive)
