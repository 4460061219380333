"""Growing parts from patches: touching groups join while they are likely to be of one part.

The likelihood of two groups is the mean over all pairs of their patches, weighted by area. A
border that is weak at one place only does not join two parts, and a strong fold inside a part
does not cut it, as long as the rest says otherwise.
"""

from __future__ import annotations

import numpy as np

from segvigen_model.surface.adjacency import Superfaces
from segvigen_model.surface.arrays import densify_ids, find_typical_size
from segvigen_model.types import BoolArray, FloatArray, IntArray

NO_NEIGHBOUR = -np.inf
MIN_SHARE = 1e-12  # of the surface: patches without area, of degenerate faces, weigh that much


class PartMerger:
    """Mutable state of joining superfaces into parts, likeliest first.

    Args:
        superfaces: the pieces.
        affinity: (A, A) float 0..1, symmetric: probability that two superfaces are of one part.
        kept: (B,) bool, borders over which groups may join; all when None.
    """

    def __init__(
        self, superfaces: Superfaces, affinity: FloatArray, kept: BoolArray | None = None
    ) -> None:
        pairs = superfaces.pairs if kept is None else superfaces.pairs[kept]
        count = superfaces.count
        self.areas = np.maximum(superfaces.areas.astype(np.float64), MIN_SHARE)
        self._group: IntArray = np.arange(count)
        self._alive = np.ones(count, bool)
        self._sums = affinity * self.areas[:, None] * self.areas
        self._touch = np.zeros((count, count), bool)
        self._touch[pairs[:, 0], pairs[:, 1]] = True
        self._touch |= self._touch.T
        weight = self.areas[:, None] * self.areas
        self._score = np.where(self._touch, self._sums / weight, NO_NEIGHBOUR)
        self._best = self._score.argmax(axis=1)
        self._value = self._score[np.arange(count), self._best]

    @property
    def count(self) -> int:
        """Groups left."""
        return int(self._alive.sum())

    @property
    def labels(self) -> IntArray:
        """(A,) int64 dense group of each superface."""
        return densify_ids(self._group)

    def merge_above(self, threshold: float) -> None:
        """Join the likeliest two groups while they are likelier than the threshold."""
        while self._value.max(initial=NO_NEIGHBOUR) > max(threshold, NO_NEIGHBOUR):
            self._join(int(self._value.argmax()))

    def merge_to(self, count: int) -> None:
        """Join the likeliest groups until `count` are left or no two touch."""
        while self.count > count and self._value.max(initial=NO_NEIGHBOUR) > NO_NEIGHBOUR:
            self._join(int(self._value.argmax()))

    def absorb_small(self, min_area: float, of_typical: float = np.inf) -> None:
        """Join small groups to their likeliest neighbour.

        Args:
            min_area: share of the surface below which a group is small,
            of_typical: if it is also below this share of a typical group.
        """
        min_area = min(min_area, of_typical * find_typical_size(self.areas[self._alive]))
        while True:
            is_small = self._alive & (self.areas < min_area) & (self._value > NO_NEIGHBOUR)
            if not is_small.any():
                break
            self._join(int(np.where(is_small, self._value, NO_NEIGHBOUR).argmax()))

    def _join(self, row: int) -> None:
        """Join a group and its likeliest neighbour."""
        keep, removed = sorted((row, int(self._best[row])))
        for matrix in (self._sums, self._touch):
            matrix[keep] += matrix[removed]
            matrix[:, keep] = matrix[keep]
        self._touch[keep, [keep, removed]] = False
        self._touch[removed] = self._touch[:, removed] = False
        self.areas[keep] += self.areas[removed]
        self._alive[removed] = False
        self._group[self._group == removed] = keep
        weight = self.areas[keep] * self.areas
        fresh = np.where(self._touch[keep], self._sums[keep] / weight, NO_NEIGHBOUR)
        self._score[removed] = self._score[:, removed] = NO_NEIGHBOUR
        self._score[keep] = self._score[:, keep] = fresh
        was_best = (self._best == keep) | (self._best == removed)
        stale = np.flatnonzero(self._touch[keep] & was_best)
        for each in (keep, removed, *stale):
            self._best[each] = self._score[each].argmax()
            self._value[each] = self._score[each, self._best[each]]
        better = fresh > self._value
        self._best[better], self._value[better] = keep, fresh[better]
