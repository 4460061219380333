"""Each voxel's quadric minimised inside the closed voxel: the twin of `ovoxel.dual_solve`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Quadrics(NamedTuple):
    """x A x + 2 b x + c.

    Attributes:
        a: (N, 3, 3) float64.
        b: (N, 3) float64.
        c: (N,) float64.
    """

    a: Tensor
    b: Tensor
    c: Tensor


def solve(sums: Tensor, regularization: float, budget: int) -> Tensor:
    """Place every dual vertex.

    Args:
        sums: (N, 14) float64: crossing sum (3), count, quadric (A upper triangle 6, b 3, c).
        regularization: pull towards the mean crossing.
        budget: voxels at once.

    Returns:
        (N, 3) float64, 0..1.
    """
    return torch.cat([_solve_slice(part, regularization) for part in torch.split(sums, budget)])


def _solve_slice(sums: Tensor, regularization: float) -> Tensor:
    quadrics = _add_regularization(sums, regularization)
    dual = _find_free_minimum(quadrics)
    is_out = ~((dual.amin(dim=1) >= 0.0) & (dual.amax(dim=1) <= 1.0))
    rows = torch.nonzero(is_out)[:, 0]
    dual[rows] = _find_bounded_minimum(Quadrics(*(each[rows] for each in quadrics)))
    return dual


def _add_regularization(sums: Tensor, regularization: float) -> Quadrics:
    pull = regularization * sums[:, 3]
    mean = sums[:, :3] / sums[:, 3:4]
    a = sums[:, 4:10][:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3).clone()
    b = sums[:, 10:13] - pull[:, None] * mean
    for k in range(3):
        a[:, k, k] += pull
    square = mean * mean
    c = sums[:, 13] + pull * (square[:, 0] + square[:, 1] + square[:, 2])
    return Quadrics(a, b, c)


def _find_free_minimum(quadrics: Quadrics) -> Tensor:
    a, b = quadrics.a, quadrics.b
    a00, a01, a02 = a[:, 0].unbind(dim=1)
    a11, a12, a22 = a[:, 1, 1], a[:, 1, 2], a[:, 2, 2]
    b0, b1, b2 = b.unbind(dim=1)
    c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
    c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
    det = a00 * c00 + a01 * c01 + a02 * c02
    x0 = -(c00 * b0 + c01 * b1 + c02 * b2) / det
    x1 = -(c01 * b0 + c11 * b1 + c12 * b2) / det
    x2 = -(c02 * b0 + c12 * b1 + c22 * b2) / det
    return torch.stack([x0, x1, x2], dim=1)


def _find_bounded_minimum(quadrics: Quadrics) -> Tensor:
    """(N, 3) least of the minima on faces, edges and corners, the first of equals."""
    best = torch.zeros_like(quadrics.b)
    least = torch.full_like(quadrics.c, torch.inf)
    for x, is_allowed in _list_candidates(quadrics):
        value = _evaluate(quadrics, x)
        is_better = is_allowed & (value < least)
        best = torch.where(is_better[:, None], x, best)
        least = torch.where(is_better, value, least)
    return best


def _list_candidates(quadrics: Quadrics) -> Iterator[tuple[Tensor, Tensor]]:
    a, b = quadrics.a, quadrics.b
    always = torch.ones(len(b), dtype=torch.bool, device=b.device)
    for fixed in range(3):  # faces
        i, j = (fixed + 1) % 3, (fixed + 2) % 3
        det = a[:, i, i] * a[:, j, j] - a[:, i, j] * a[:, i, j]
        for side in range(2):
            x = torch.full_like(b, float(side))
            right_i, right_j = -b[:, i] - a[:, i, fixed] * side, -b[:, j] - a[:, j, fixed] * side
            x[:, i] = (a[:, j, j] * right_i - a[:, i, j] * right_j) / det
            x[:, j] = (a[:, i, i] * right_j - a[:, i, j] * right_i) / det
            yield x, _is_unit(x[:, i]) & _is_unit(x[:, j])
    for free in range(3):  # edges
        i, j = (free + 1) % 3, (free + 2) % 3
        for sides in range(4):
            x = torch.zeros_like(b)
            x[:, i], x[:, j] = float(sides >> 1), float(sides & 1)
            top = b[:, free] + a[:, free, i] * x[:, i] + a[:, free, j] * x[:, j]
            x[:, free] = -top / a[:, free, free]
            yield x, _is_unit(x[:, free])
    for corner in range(8):
        place = [0.0 if (corner >> (2 - k)) & 1 else 1.0 for k in range(3)]
        yield b.new_tensor(place).expand_as(b), always


def _is_unit(values: Tensor) -> Tensor:
    return (values >= 0.0) & (values <= 1.0)


def _evaluate(quadrics: Quadrics, x: Tensor) -> Tensor:
    total = quadrics.c
    for i in range(3):
        total = total + 2.0 * quadrics.b[:, i] * x[:, i]
        for j in range(3):
            total = total + quadrics.a[:, i, j] * x[:, i] * x[:, j]
    return total
