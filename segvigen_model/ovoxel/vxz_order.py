"""The order of voxels inside a .vxz chunk, and the two difference filters that build on it.

Voxels are sorted by Morton code (x the highest bit of each triple). The occupancy is an octree,
one child mask per node, parents before children. `parent` stores a node's value as the difference
to its previous sibling, `neighbor` a voxel's as the difference to one of its lower neighbours.
"""

# Compiled kernels take what numba infers; their types stand in the docstrings.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segvigen_model.ovoxel.compiled import compile_jit
from segvigen_model.types import ByteArray, IntArray

BIT_COUNTS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
# Lower neighbours by priority of the neighbor filter.
NEIGHBOURS = ((1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))


def encode_morton(cells: IntArray) -> NDArray[np.int64]:
    """Interleave coordinates: (N, 3) int 0..2^20-1 -> (N,) int64."""
    x, y, z = (_spread_bits(np.asarray(cells[:, axis], dtype=np.int64)) for axis in range(3))
    codes: NDArray[np.int64] = (x << 2) | (y << 1) | z
    return codes


def decode_morton(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Undo `encode_morton`: (N,) int64 -> (N, 3) int64."""
    return np.stack(
        [_gather_bits(codes >> 2), _gather_bits(codes >> 1), _gather_bits(codes)], axis=1
    )


def _spread_bits(values: NDArray[np.int64]) -> NDArray[np.int64]:
    values = (values | (values << 32)) & 0x1F00000000FFFF
    values = (values | (values << 16)) & 0x1F0000FF0000FF
    values = (values | (values << 8)) & 0x100F00F00F00F00F
    values = (values | (values << 4)) & 0x10C30C30C30C30C3
    return (values | (values << 2)) & 0x1249249249249249


def _gather_bits(values: NDArray[np.int64]) -> NDArray[np.int64]:
    values = values & 0x1249249249249249
    values = (values | (values >> 2)) & 0x10C30C30C30C30C3
    values = (values | (values >> 4)) & 0x100F00F00F00F00F
    values = (values | (values >> 8)) & 0x1F0000FF0000FF
    values = (values | (values >> 16)) & 0x1F00000000FFFF
    return (values | (values >> 32)) & 0x1FFFFF


def encode_octree(codes: NDArray[np.int64], depth: int) -> bytes:
    """Write the child masks of sorted Morton codes, parents before children."""
    keys, levels, masks = [], [], []
    for level in range(depth):
        shift = 3 * (depth - level)
        children = np.unique(codes >> (shift - 3))
        parents, start = np.unique(children >> 3, return_index=True)
        masks.append(np.bitwise_or.reduceat(1 << (children & 7), start).astype(np.uint8))
        keys.append(parents << shift)
        levels.append(np.full(len(parents), level))
    order = np.lexsort((np.concatenate(levels), np.concatenate(keys)))
    stored: ByteArray = np.concatenate(masks)[order]
    return stored.tobytes()


def decode_octree(data: bytes, depth: int, max_voxels: int) -> NDArray[np.int64] | None:
    """Read Morton codes back; None if the masks are no octree of that depth, or too large."""
    masks = np.frombuffer(data, dtype=np.uint8)
    # Every node but the root is a bit of its parent; the other bits are voxels.
    num_voxels = int(BIT_COUNTS[masks].sum(dtype=np.int64)) - len(masks) + 1
    if len(masks) == 0 or not 0 < num_voxels <= max_voxels:
        return None
    codes = np.zeros(num_voxels, dtype=np.int64)
    return codes if _walk_octree(masks, depth, codes) == num_voxels else None


@compile_jit
def _walk_octree(masks, depth, codes):
    waiting = np.zeros(depth, dtype=np.int64)
    prefix = np.zeros(depth, dtype=np.int64)
    waiting[0] = masks[0]
    level, used, count = 0, 1, 0
    while level >= 0:
        if waiting[level] == 0:
            level -= 1
            continue
        bit = 0
        while (waiting[level] >> bit) & 1 == 0:
            bit += 1
        waiting[level] &= waiting[level] - 1
        child = prefix[level] * 8 + bit
        if level == depth - 1:
            if count == len(codes):
                return -1
            codes[count] = child
            count += 1
            continue
        if used >= len(masks) or masks[used] == 0:
            return -1
        level += 1
        prefix[level] = child
        waiting[level] = masks[used]
        used += 1
    return count if used == len(masks) else -1


def apply_filter(name: str, codes: NDArray[np.int64], values: ByteArray, depth: int) -> ByteArray:
    """Turn (N, C) uint8 values in Morton order into differences; "none" keeps them."""
    if name == "parent":
        rows, previous = _find_sibling_links(codes, depth)
        return np.concatenate([values[:1], values[rows] - values[previous]])
    if name == "neighbor":
        source = _find_neighbour_links(codes)
        return np.where(source[:, None] < 0, values, values - values[source])
    return values


def undo_filter(name: str, codes: NDArray[np.int64], stored: ByteArray, depth: int) -> ByteArray:
    """Turn differences back into (N, C) uint8 values in Morton order."""
    if name == "none":
        return stored
    if name == "parent":
        rows, source = _find_sibling_links(codes, depth)
        values = np.zeros_like(stored)
        values[0] = stored[0]
        values[rows] = stored[1:]
        links = np.full(len(codes), -1, dtype=np.int64)
        links[rows] = source
        return _sum_chains(values, links)
    return _sum_chains(stored, _find_neighbour_links(codes))


def _sum_chains(values: ByteArray, links: NDArray[np.int64]) -> ByteArray:
    """Add to each row all rows that its link leads to, by doubling: log(longest chain) steps."""
    padded = np.concatenate([values, np.zeros_like(values[:1])])
    end = len(values)
    ahead = np.append(np.where(links < 0, end, links), end)
    while (ahead != end).any():
        padded = padded + padded[ahead]
        ahead = ahead[ahead]
    return padded[:-1]


def _find_sibling_links(
    codes: NDArray[np.int64], depth: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are a node's first leaf but not the parent's, in stored order, and what they
    differ from: the first leaf of the previous sibling.
    """
    rows, sources, keys, levels = [], [], [], []
    for level in range(depth):
        shift = 3 * (depth - level)
        children, first = np.unique(codes >> (shift - 3), return_index=True)
        parents = children >> 3
        later = np.flatnonzero(parents[1:] == parents[:-1]) + 1
        rows.append(first[later])
        sources.append(first[later - 1])
        keys.append(parents[later] << shift)
        levels.append(np.full(len(later), level))
    # Parents come in pre-order; the sort is stable, so siblings keep theirs.
    order = np.lexsort((np.concatenate(levels), np.concatenate(keys)))
    return np.concatenate(rows)[order], np.concatenate(sources)[order]


def _find_neighbour_links(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the lower neighbour that each voxel differs from, -1 for none."""
    cells = decode_morton(codes)
    links = np.full(len(codes), -1, dtype=np.int64)
    for offset in NEIGHBOURS:
        lower = cells - np.array(offset)
        is_open = (links < 0) & (lower >= 0).all(axis=1)
        wanted = encode_morton(np.maximum(lower, 0))
        places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        is_found = is_open & (codes[places] == wanted)
        links[is_found] = places[is_found]
    return links
