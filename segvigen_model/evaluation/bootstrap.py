"""Means over parts with honest intervals: objects are drawn again, not parts.

Parts of one object succeed and fail together, so the bootstrap takes whole objects with all their
numbers (cluster bootstrap). The same draws serve every name, hence differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from segvigen_model.types import FloatArray

NUM_RESAMPLES = 2000
COVERAGE = 0.95

Values = Mapping[str, Sequence[float]]


class ObjectMeans:
    """Means of named numbers over objects.

    Args:
        objects: per object, name -> its numbers (one a part, or one an object, or one a seed).
        seed: of the bootstrap.
    """

    def __init__(self, objects: Sequence[Values], seed: int = 0) -> None:
        self.num_objects = len(objects)
        self.names = tuple(dict.fromkeys(name for values in objects for name in values))
        self._seed = seed
        self._sums = {n: np.array([sum(o.get(n, ())) for o in objects]) for n in self.names}
        self._counts = {n: np.array([len(o.get(n, ())) for o in objects]) for n in self.names}

    def compute_mean(self, name: str) -> float:
        """Mean of all numbers of a name; every number weighs the same."""
        return float(self._sums[name].sum() / self._counts[name].sum())

    def compute_interval(self, name: str) -> tuple[float, float]:
        """95 % interval of the mean; needs two objects at least."""
        return _find_quantiles(self._resample_means(name))

    def compute_difference(self, name: str, other: str) -> tuple[float, tuple[float, float]]:
        """How far one mean lies above another, and the 95 % interval of that, paired."""
        gap = self.compute_mean(name) - self.compute_mean(other)
        return gap, _find_quantiles(self._resample_means(name) - self._resample_means(other))

    @cached_property
    def _draws(self) -> FloatArray:
        """(NUM_RESAMPLES, O) how often each object is in each resample."""
        rng = np.random.default_rng(self._seed)
        chances = np.full(self.num_objects, 1 / self.num_objects)
        draws: FloatArray = rng.multinomial(self.num_objects, chances, NUM_RESAMPLES).astype(float)
        return draws

    def _resample_means(self, name: str) -> FloatArray:
        """(NUM_RESAMPLES,) means; nan where no drawn object has the name."""
        counts = self._draws @ self._counts[name]
        sums = self._draws @ self._sums[name]
        means: FloatArray = np.divide(
            sums, counts, out=np.full(len(sums), np.nan), where=counts > 0
        )
        return means


def nest_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Unfold names: {"a|b": x} becomes {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split("|")
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node[last] = value
    return tree


def _find_quantiles(means: FloatArray) -> tuple[float, float]:
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.nanpercentile(means, [tail, 100 - tail])
    return float(low), float(high)
