"""How two labelings overlap: shared areas, IoU of every two parts, and one-to-one partners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from segvigen_model.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Shared area of every part of one labeling with every part of another.

    Attributes:
        rows: (R,) part ids of the one labeling, ascending.
        columns: (C,) part ids of the other, ascending.
        shared: (R, C) float64 area.
    """

    rows: IntArray
    columns: IntArray
    shared: FloatArray

    @property
    def iou(self) -> FloatArray:
        """(R, C) float64; 0 for two parts without area."""
        shared = self.shared
        union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
        table: FloatArray = np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
        return table

    def drop_empty_rows(self) -> Overlap:
        """The same without parts of the one labeling that have no area."""
        kept = self.shared.sum(axis=1) > 0
        return Overlap(self.rows[kept], self.columns, self.shared[kept])

    def match_parts(self) -> tuple[IntArray, IntArray]:
        """Rows and columns of one-to-one pairs with the greatest sum of IoU, rows ascending."""
        rows, columns = linear_sum_assignment(-self.iou)
        return rows, columns

    def compute_matched_ious(self) -> FloatArray:
        """(R,) float64 IoU of each part with its one-to-one partner; 0 without one."""
        rows, columns = self.match_parts()
        best = np.zeros(len(self.rows))
        best[rows] = self.iou[rows, columns]
        return best

    def find_partners(self) -> dict[int, int | None]:
        """The part of the other labeling that stands for each part of the one, one-to-one.

        A partner lies mostly in the part or covers most of it; a chance overlap is none, however
        large: it would hide a new part that is still small from the one who asked for it.
        """
        shared = self.shared
        least = np.minimum(shared.sum(1, keepdims=True), shared.sum(0, keepdims=True))
        table = np.where(shared > least / 2, self.iou, 0.0)
        partners: dict[int, int | None] = dict.fromkeys(map(int, self.rows))
        for row, column in zip(*linear_sum_assignment(-table), strict=True):
            if table[row, column] > 0:
                partners[int(self.rows[row])] = int(self.columns[column])
        return partners


def measure_overlap(labels: IntArray, others: IntArray, areas: FloatArray) -> Overlap:
    """Compare two labelings.

    Args:
        labels: (N,) int part ids of any numbering, of faces or of pixels; these become rows.
        others: (N,) int part ids of the other labeling; these become columns.
        areas: (N,) float >= 0.
    """
    rows, row = np.unique(labels, return_inverse=True)
    columns, column = np.unique(others, return_inverse=True)
    shape = (len(rows), len(columns))
    keys = row.reshape(-1) * shape[1] + column.reshape(-1)
    shared = np.bincount(keys, areas, shape[0] * shape[1]).reshape(shape)
    return Overlap(rows, columns, shared.astype(np.float64))
