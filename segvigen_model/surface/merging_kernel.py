"""The loop of region merging, compiled: joins regions over their cheapest borders.

Every round computes what the plain array form would (tests hold such a form beside it), with the
sums in the same order, so that labels are the same bit for bit. It is fast because borders stay
sorted from round to round and only costs that can have changed are computed again.

Borders are rows (left, right, length, weighted length) with left < right, in ascending order of
(left, right), each pair once. Region ids are dense; joined regions take the order of their lowest
member.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from segvigen_model.surface.arrays import TINY
from segvigen_model.types import FloatArray, IntArray

MIN_NECK = 1e-3
MAX_ROUNDS = 2000


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sort_borders(count: int, pairs: IntArray, lengths: FloatArray, weighted: FloatArray) -> Any:
    """Sort borders and add up those of the same two regions.

    Args:
        count: regions.
        pairs: (B, 2) int64, lower id first.
        lengths, weighted: (B,) float64.

    Returns:
        left, right (int64), lengths and weighted lengths (float64) of the different pairs.
    """
    keys = pairs[:, 0] * count + pairs[:, 1]
    order = np.argsort(keys, kind="mergesort")
    left, right = np.zeros_like(keys), np.zeros_like(keys)
    total, fold = np.zeros(len(keys)), np.zeros(len(keys))
    size, before = 0, -1
    for row in order:
        if keys[row] != before:
            before = keys[row]
            left[size], right[size] = pairs[row, 0], pairs[row, 1]
            size += 1
        total[size - 1] += lengths[row]
        fold[size - 1] += weighted[row]
    return left[:size], right[:size], total[:size], fold[:size]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def merge_regions(
    limit: int,
    chain_above: int,
    areas: FloatArray,
    borders: tuple[IntArray, IntArray, FloatArray, FloatArray],
    costing: tuple[float, float, float],
) -> Any:
    """Join regions until at most `limit` are left or no two touch.

    Args:
        limit: wanted number of regions.
        chain_above: number of regions above which they are joined in chains.
        areas: (R,) float64 shares of the surface.
        borders: left, right, lengths, weighted lengths, as `sort_borders` gives them.
        costing: border_floor, size_power, neck_power of the configuration.

    Returns:
        (R,) int64 region of each region given, areas and borders of what is left.
    """
    left, right, lengths, weighted = borders
    group = np.arange(len(areas))
    costs = np.zeros(len(left))
    is_stale = np.ones(len(left), np.bool_)
    perimeters = _measure_perimeters(len(areas), left, right, lengths)
    for _ in range(MAX_ROUNDS):
        if len(areas) <= limit or len(left) == 0:
            break
        _update_costs(is_stale, costs, areas, perimeters, (left, right, lengths, weighted), costing)
        if len(areas) > chain_above:
            chosen = _select_chains(len(areas), left, right, costs)
        else:
            chosen = _select_cheapest(len(areas), left, right, costs, len(areas) - limit)
        target, is_moved = _join_chosen(len(areas), left[chosen], right[chosen])
        count = target.max() + 1
        for row in range(len(group)):
            group[row] = target[group[row]]
        old_perimeters, is_changed = perimeters, np.zeros(count, np.bool_)
        new_areas = np.zeros(count)
        for region in range(len(areas)):
            new_areas[target[region]] += areas[region]
            is_changed[target[region]] |= is_moved[region]
        left, right, lengths, weighted, costs, is_stale = _move_borders(
            target, is_moved, (left, right, lengths, weighted), costs
        )
        perimeters = _measure_perimeters(count, left, right, lengths)
        for region in range(len(areas)):
            if perimeters[target[region]] != old_perimeters[region]:
                is_changed[target[region]] = True
        for border in range(len(left)):
            is_stale[border] |= is_changed[left[border]] | is_changed[right[border]]
        areas = new_areas
    return group, areas, (left, right, lengths, weighted)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _measure_perimeters(
    count: int, left: IntArray, right: IntArray, lengths: FloatArray
) -> FloatArray:
    """(count,) border lengths round each region: where it is left, plus where it is right."""
    as_left, as_right = np.zeros(count), np.zeros(count)
    for border in range(len(left)):
        length = max(lengths[border], TINY)
        as_left[left[border]] += length
        as_right[right[border]] += length
    return as_left + as_right


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _update_costs(
    is_stale: Any,
    costs: FloatArray,
    areas: FloatArray,
    perimeters: FloatArray,
    borders: tuple[IntArray, IntArray, FloatArray, FloatArray],
    costing: tuple[float, float, float],
) -> None:
    """Compute the cost of removing each border whose regions or length changed."""
    left, right, lengths, weighted = borders
    border_floor, size_power, neck_power = costing
    for border in np.flatnonzero(is_stale):
        one, other = left[border], right[border]
        length = max(lengths[border], TINY)
        neck = length / max(min(perimeters[one], perimeters[other]), TINY)
        size = min(areas[one], areas[other]) ** size_power
        fold = border_floor + weighted[border] / length
        costs[border] = fold * size / max(neck, MIN_NECK) ** neck_power


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _select_cheapest(
    count: int, left: IntArray, right: IntArray, costs: FloatArray, limit: int
) -> IntArray:
    """At most `limit` borders, cheapest first, that are the cheapest of both their regions."""
    best = np.full(count, -1)
    for border in range(len(left)):  # of equal costs the first counts
        for region in (left[border], right[border]):
            if best[region] < 0 or costs[border] < costs[best[region]]:
                best[region] = border
    is_mutual = np.zeros(len(left), np.bool_)
    for border in range(len(left)):
        is_mutual[border] = best[left[border]] == border and best[right[border]] == border
    mutual = np.flatnonzero(is_mutual)
    if len(mutual) <= limit:
        return mutual
    return mutual[np.argsort(costs[mutual], kind="mergesort")[:limit]]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _select_chains(count: int, left: IntArray, right: IntArray, costs: FloatArray) -> IntArray:
    """The cheapest border of every region, the dearer half of them left out.

    Not the exact order, but the number of regions falls by a fixed share in every round, also on
    smooth sheets where few borders are the cheapest of both sides.
    """
    best = np.full(count, np.inf)
    for border in range(len(left)):
        best[left[border]] = min(best[left[border]], costs[border])
        best[right[border]] = min(best[right[border]], costs[border])
    is_best = np.zeros(len(left), np.bool_)
    for border in range(len(left)):
        is_best[border] = costs[border] <= max(best[left[border]], best[right[border]])
    chosen = np.flatnonzero(is_best)
    return chosen[costs[chosen] <= np.median(costs[chosen])]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _join_chosen(count: int, left: IntArray, right: IntArray) -> Any:
    """(count,) new dense id of each region, and whether its neighbourhood may have changed ids.

    A region that is not the lowest of its group is renamed; the others keep their order.
    """
    parent = np.arange(count)
    for one, other in zip(left, right):  # noqa: B905 - the compiler knows no strict
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        while parent[other] != other:
            parent[other] = parent[parent[other]]
            other = parent[other]
        parent[max(one, other)] = min(one, other)
    target, is_moved = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    size = 0
    for region in range(count):
        root = region
        while parent[root] != root:
            root = parent[root]
        if root == region:
            target[region] = size
            size += 1
        else:
            target[region] = target[root]
            is_moved[region] = True
    return target, is_moved


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _move_borders(
    target: IntArray,
    is_moved: Any,
    borders: tuple[IntArray, IntArray, FloatArray, FloatArray],
    costs: FloatArray,
) -> Any:
    """Rename the regions of all borders, drop those inside a region, add up what became equal.

    Borders between regions that were not renamed keep their order; the others are merged in.
    Equal borders are added in the order in which they stood.

    Returns:
        Borders as given, costs, and whether a cost has to be computed again.
    """
    left, right, lengths, weighted = borders
    count = np.int64(target.max() + 1)
    size = len(left)
    keys, is_other = np.zeros(size, np.int64), np.zeros(size, np.bool_)
    for border in range(size):
        one, other = target[left[border]], target[right[border]]
        keys[border] = min(one, other) * count + max(one, other) if one != other else -1
        is_other[border] = keys[border] >= 0 and (is_moved[left[border]] or is_moved[right[border]])
    renamed = np.flatnonzero(is_other)
    renamed = renamed[np.argsort(keys[renamed], kind="mergesort")]
    new_left, new_right = np.zeros(size, np.int64), np.zeros(size, np.int64)
    new_lengths, new_weighted = np.zeros(size), np.zeros(size)
    new_costs, is_stale = np.zeros(size), np.zeros(size, np.bool_)
    last, kept, at, taken = np.int64(-1), 0, 0, 0
    while True:
        while at < size and (keys[at] < 0 or is_other[at]):
            at += 1
        if at >= size and taken >= len(renamed):
            break
        is_first = taken >= len(renamed)
        if not is_first and at < size:
            row = renamed[taken]
            is_first = keys[at] < keys[row] or (keys[at] == keys[row] and at < row)
        if is_first:
            border = at
            at += 1
        else:
            border = renamed[taken]
            taken += 1
        if keys[border] == last:
            new_lengths[kept - 1] += lengths[border]
            new_weighted[kept - 1] += weighted[border]
            is_stale[kept - 1] = True
            continue
        last = keys[border]
        new_left[kept], new_right[kept] = last // count, last % count
        new_lengths[kept], new_weighted[kept] = lengths[border], weighted[border]
        new_costs[kept], is_stale[kept] = costs[border], is_other[border]
        kept += 1
    return (
        new_left[:kept],
        new_right[:kept],
        new_lengths[:kept],
        new_weighted[:kept],
        new_costs[:kept],
        is_stale[:kept],
    )
