"""One polygon in the plane to n - 2 triangles, for polygons that no fan of one corner covers.

Ear clipping in which every corner stays: libraries for this (earcut) drop corners on straight
edges, which leaves gaps to the neighbouring polygon and fewer triangles than the file announces.
Corners that lie on each other, as in polygons with a slit to a hole, are distinguished by their
edges. Plain Python on lists: such polygons are few and small, and nothing has to be compiled.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

import numpy as np

from segvigen_model.types import FloatArray

Triangle = tuple[int, int, int]
RELATIVE_TOLERANCE = 1e-12  # of the polygon's area: flatter corners count as straight
MAX_TESTS = 50_000_000  # corners compared with ears: seconds; then the rest becomes a fan
STRICT, LOOSE, FORCED = range(3)  # how much an ear has to fulfil; the next when there is none


@dataclass(slots=True)
class _Ring:
    """The polygon that is left: a linked list over its corners, and the corners that may block.

    Attributes:
        x, y: coordinates of all corners, counterclockwise.
        before, after: neighbours of each corner that is left.
        tolerance: area up to which a corner is straight.
        blockers: corners that were not convex at first, by x. None becomes one later.
        keys: their x.
        is_left: whether a corner is left.
        num_tests: how many corners were tested.
    """

    x: list[float]
    y: list[float]
    before: list[int]
    after: list[int]
    tolerance: float
    blockers: list[int] = field(default_factory=list)
    keys: list[float] = field(default_factory=list)
    is_left: list[bool] = field(default_factory=list)
    num_tests: int = 0


def clip_ears(points: FloatArray) -> tuple[list[Triangle], bool]:
    """Triangulate one polygon.

    Args:
        points: (N, 2) float corners in order, counterclockwise, N >= 3.

    Returns:
        N - 2 triangles of corner numbers, each counterclockwise in the polygon's order, and
        whether they cover the polygon exactly. False for polygons that cut themselves.
    """
    ring = _make_ring(points)
    triangles: list[Triangle] = []
    corner, num_left, num_failed, rule = 0, len(points), 0, STRICT
    is_exact = True
    while num_left > 3:
        is_spent = ring.num_tests > MAX_TESTS or rule > FORCED
        if is_spent or _is_ear(ring, corner, rule):
            is_exact &= not is_spent
            triangles.append((ring.before[corner], corner, ring.after[corner]))
            corner = _remove(ring, corner)
            num_left, num_failed = num_left - 1, 0
            rule = rule if is_spent else STRICT
            continue
        corner, num_failed = ring.after[corner], num_failed + 1
        if num_failed > num_left:
            num_failed, rule = 0, rule + 1
    triangles.append((ring.before[corner], corner, ring.after[corner]))
    return triangles, is_exact and _has_same_area(ring, triangles)


def _make_ring(points: FloatArray) -> _Ring:
    # Smaller numbers lose less; only differences count.
    local = points - points.mean(axis=0)
    x, y = local.T
    area = abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()))
    count = len(points)
    before, after = np.roll(np.arange(count), 1), np.roll(np.arange(count), -1)
    ring = _Ring(x.tolist(), y.tolist(), before.tolist(), after.tolist(), RELATIVE_TOLERANCE * area)
    ring.is_left = [True] * count
    reflex = [k for k in range(count) if _measure_corner(ring, k) <= ring.tolerance]
    ring.blockers = sorted(reflex, key=ring.x.__getitem__)
    ring.keys = [ring.x[k] for k in ring.blockers]
    return ring


def _remove(ring: _Ring, corner: int) -> int:
    """Take a corner out; gives the one to go on with, not its neighbour: that would make fans."""
    before, after = ring.before[corner], ring.after[corner]
    ring.after[before], ring.before[after] = after, before
    ring.is_left[corner] = False
    return ring.after[after]


def _measure_turn(ring: _Ring, a: int, b: int, c: int) -> float:
    """Twice the signed area of three corners; > 0 = counterclockwise."""
    x, y = ring.x, ring.y
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])


def _measure_corner(ring: _Ring, corner: int) -> float:
    return _measure_turn(ring, ring.before[corner], corner, ring.after[corner])


def _is_ear(ring: _Ring, corner: int, rule: int) -> bool:
    a, b, c = ring.before[corner], corner, ring.after[corner]
    turn = _measure_turn(ring, a, b, c)
    if rule == FORCED:
        return turn >= 0
    if turn <= ring.tolerance if rule == STRICT else turn < 0:
        return False
    x, y = ring.x, ring.y
    first = bisect_left(ring.keys, min(x[a], x[b], x[c]))
    last = bisect_right(ring.keys, max(x[a], x[b], x[c]))
    ring.num_tests += last - first + 1
    low, high = min(y[a], y[b], y[c]), max(y[a], y[b], y[c])
    near = [p for p in ring.blockers[first:last] if low <= y[p] <= high and ring.is_left[p]]
    slack = -ring.tolerance if rule == STRICT else ring.tolerance
    return not any(p not in (a, b, c) and _is_blocking(ring, p, (a, b, c), slack) for p in near)


def _is_blocking(ring: _Ring, p: int, ear: Triangle, slack: float) -> bool:
    """Whether a corner lies in an ear, by `slack` or more, or its edges enter the ear."""
    a, b, c = ear
    at = (ring.x[p], ring.y[p])
    for left, tip, right in ((c, a, b), (a, b, c), (b, c, a)):
        if at == (ring.x[tip], ring.y[tip]):
            return any(
                _measure_turn(ring, tip, right, q) > 0 and _measure_turn(ring, tip, q, left) > 0
                for q in (ring.before[p], ring.after[p])
            )
    if _measure_corner(ring, p) > ring.tolerance:
        return False  # it has become convex: its neighbours block, if anything does
    return (
        _measure_turn(ring, a, b, p) >= slack
        and _measure_turn(ring, b, c, p) >= slack
        and _measure_turn(ring, c, a, p) >= slack
    )


def _has_same_area(ring: _Ring, triangles: list[Triangle]) -> bool:
    turns = [_measure_turn(ring, *triangle) for triangle in triangles]
    total = sum(turns)
    return total > 0 and sum(map(abs, turns)) - total <= 1e-9 * total
