"""Simulated annotators: seeded points on a part (the paper's protocol), and error-region clicks.

The paper samples positive points on the part's surface and asks with the first 1..N of them. The
error-region annotator finds the largest wrong region and clicks its middle, with its sign.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from segvigen_model.surface.geometry import Surface
from segvigen_model.types import BoolArray, Click, FloatArray, IntArray


def draw_point_on_face(triangle: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A uniform point of one triangle (3, 3) -> (3,)."""
    u, v = rng.random(2)
    if u + v > 1:
        u, v = 1 - u, 1 - v
    point: FloatArray = (
        triangle[0] + u * (triangle[1] - triangle[0]) + v * (triangle[2] - triangle[0])
    )
    return point


def draw_surface_clicks(
    surface: Surface, mask: BoolArray, count: int, rng: np.random.Generator
) -> list[Click]:
    """Positive clicks drawn uniformly from a part's surface.

    Args:
        surface: geometry, mesh frame.
        mask: (F,) bool, the part; must have area.
        count: number of clicks.
        rng: source of chance.

    Returns:
        The clicks, in order; the first n of them are the n-click question.
    """
    weight = surface.areas * mask
    if weight.sum() <= 0:
        raise ValueError("a part without area cannot be clicked")
    faces = rng.choice(len(mask), size=count, p=weight / weight.sum())
    return [Click(int(f), draw_point_on_face(surface.triangles[f], rng)) for f in faces]


def find_error_click(surface: Surface, predicted: BoolArray, truth: BoolArray) -> Click | None:
    """The next click of an annotator who corrects the largest wrong region.

    Args:
        surface: geometry.
        predicted: (F,) bool, the mask as it is.
        truth: (F,) bool, the mask as it should be.

    Returns:
        A click in the middle of the region, positive where the part is missing; None when all
        is right.
    """
    face = find_wrong_face(surface, predicted, truth)
    if face is None:
        return None
    return Click(face, surface.centers[face].copy(), is_positive=bool(truth[face]))


def find_wrong_face(
    surface: Surface, predicted: BoolArray, truth: BoolArray, min_area: float = 0.0
) -> int | None:
    """The face in the middle of the largest wrong region.

    Args:
        surface: geometry.
        predicted: (F,) bool, the mask as it is.
        truth: (F,) bool, the mask as it should be.
        min_area: of a region that can be hit.

    Returns:
        The face; None when no region has area, or all are below `min_area`.
    """
    regions = _label_wrong_regions(surface, predicted, truth)
    if regions is None:
        return None
    sizes = np.bincount(regions[regions >= 0], surface.areas[regions >= 0])
    if sizes.max() <= 0 or sizes.max() < min_area:
        return None
    return _find_middle_face(surface, regions == int(sizes.argmax()))


def _label_wrong_regions(
    surface: Surface, predicted: BoolArray, truth: BoolArray
) -> IntArray | None:
    """(F,) id of each connected region of one kind of error, -1 where right; None without any."""
    kind = predicted.astype(int) - truth.astype(int)  # 1 too much, -1 missing
    if not kind.any():
        return None
    same = kind[surface.pairs[:, 0]] == kind[surface.pairs[:, 1]]
    left, right = surface.pairs[same].T
    graph = coo_matrix((np.ones(len(left), bool), (left, right)), (len(kind),) * 2)
    ids = connected_components(graph, directed=False)[1]
    return np.where(kind != 0, ids, -1)


def _find_middle_face(surface: Surface, region: BoolArray) -> int:
    """The face of a region that is furthest, along the surface, from the region's border."""
    rows = np.flatnonzero(region)
    inside = region[surface.pairs].all(axis=1)
    crossing = region[surface.pairs].any(axis=1) & ~inside
    border = np.unique(surface.pairs[crossing])
    border = border[region[border]]
    if len(border) == 0 or len(rows) == 1:
        return int(rows[surface.areas[rows].argmax()])
    index = np.full(len(region), -1)
    index[rows] = np.arange(len(rows))
    left, right = index[surface.pairs[inside]].T
    gaps = np.linalg.norm(np.diff(surface.centers[surface.pairs[inside]], axis=1)[:, 0], axis=1)
    graph = coo_matrix((np.maximum(gaps, 1e-12), (left, right)), (len(rows),) * 2)
    depth = dijkstra(graph.tocsr(), directed=False, indices=index[border], min_only=True)
    return int(rows[np.where(np.isfinite(depth), depth, -1).argmax()])
