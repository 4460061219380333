"""Minimise each voxel's quadric inside the closed voxel.

The free minimum if it lies inside, else the least value among the minima on the faces, edges and
corners; on a tie the first in the official order (axes x, y, z; lower side first; corners from
the upper one down).
"""

# Compiled kernels take what numba infers; their types stand in the docstrings.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202
from __future__ import annotations

import numpy as np

from segvigen_model.ovoxel.compiled import compile_jit


@compile_jit
def _evaluate(a, b, c, x):
    total = c
    for i in range(3):
        total += 2.0 * b[i] * x[i]
        for j in range(3):
            total += a[i, j] * x[i] * x[j]
    return total


@compile_jit
def _find_free_minimum(a, b, x):
    """Solve a x = -b by cofactors; the pull towards the mean keeps `a` well conditioned."""
    c00 = a[1, 1] * a[2, 2] - a[1, 2] * a[1, 2]
    c01 = a[0, 2] * a[1, 2] - a[0, 1] * a[2, 2]
    c02 = a[0, 1] * a[1, 2] - a[0, 2] * a[1, 1]
    c11 = a[0, 0] * a[2, 2] - a[0, 2] * a[0, 2]
    c12 = a[0, 1] * a[0, 2] - a[0, 0] * a[1, 2]
    c22 = a[0, 0] * a[1, 1] - a[0, 1] * a[0, 1]
    det = a[0, 0] * c00 + a[0, 1] * c01 + a[0, 2] * c02
    x[0] = -(c00 * b[0] + c01 * b[1] + c02 * b[2]) / det
    x[1] = -(c01 * b[0] + c11 * b[1] + c12 * b[2]) / det
    x[2] = -(c02 * b[0] + c12 * b[1] + c22 * b[2]) / det


@compile_jit
def _keep_better(a, b, c, x, best, least):
    value = _evaluate(a, b, c, x)
    if value < least:
        for k in range(3):
            best[k] = x[k]
        return value
    return least


@compile_jit
def _find_bounded_minimum(a, b, c, best):
    x = np.zeros(3)
    least = np.inf
    for fixed in range(3):  # faces
        i, j = (fixed + 1) % 3, (fixed + 2) % 3
        det = a[i, i] * a[j, j] - a[i, j] * a[i, j]
        for side in range(2):
            x[fixed] = side
            right_i, right_j = -b[i] - a[i, fixed] * side, -b[j] - a[j, fixed] * side
            x[i] = (a[j, j] * right_i - a[i, j] * right_j) / det
            x[j] = (a[i, i] * right_j - a[i, j] * right_i) / det
            if 0.0 <= x[i] <= 1.0 and 0.0 <= x[j] <= 1.0:
                least = _keep_better(a, b, c, x, best, least)
    for free in range(3):  # edges
        i, j = (free + 1) % 3, (free + 2) % 3
        for sides in range(4):
            x[i], x[j] = sides >> 1, sides & 1
            x[free] = -(b[free] + a[free, i] * x[i] + a[free, j] * x[j]) / a[free, free]
            if 0.0 <= x[free] <= 1.0:
                least = _keep_better(a, b, c, x, best, least)
    for corner in range(8):
        for k in range(3):
            x[k] = 0.0 if (corner >> (2 - k)) & 1 else 1.0
        least = _keep_better(a, b, c, x, best, least)


@compile_jit
def solve(sums, regularization, dual):
    """Place every dual vertex.

    Args:
        sums: (N, 14) float64: crossing sum (3), count, quadric (A upper triangle 6, b 3, c).
        regularization: pull towards the mean crossing.
        dual: (N, 3) float64 out, 0..1.
    """
    a = np.zeros((3, 3))
    b, mean, x = np.zeros(3), np.zeros(3), np.zeros(3)
    for row in range(len(sums)):
        pull = regularization * sums[row, 3]
        entry = 4
        for i in range(3):
            mean[i] = sums[row, i] / sums[row, 3]
            for j in range(i, 3):
                a[i, j] = a[j, i] = sums[row, entry]
                entry += 1
        for i in range(3):
            a[i, i] += pull
            b[i] = sums[row, 10 + i] - pull * mean[i]
        c = sums[row, 13] + pull * (mean[0] ** 2 + mean[1] ** 2 + mean[2] ** 2)
        _find_free_minimum(a, b, x)
        if min(x[0], x[1], x[2]) >= 0.0 and max(x[0], x[1], x[2]) <= 1.0:
            for i in range(3):
                dual[row, i] = x[i]
        else:
            _find_bounded_minimum(a, b, c, dual[row])
