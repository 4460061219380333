"""Graph cuts: alpha expansion of a Potts model on any graph, by the maxflow library."""

from __future__ import annotations

import maxflow
import numpy as np

from segvigen_model.types import FloatArray, IntArray


def expand_labels(
    unaries: FloatArray, pairs: IntArray, weights: FloatArray, start: IntArray, num_sweeps: int
) -> IntArray:
    """Alpha expansion of a Potts model: no single label can grow to lower the energy.

    Args:
        unaries: (A, L) float cost of each label at each node, finite.
        pairs: (B, 2) int neighbours.
        weights: (B,) float >= 0, cost of different labels across a pair.
        start: (A,) int labels to start from.
        num_sweeps: over all labels, at most.

    Returns:
        (A,) int64 labels; the energy is never above the start's.
    """
    labels: IntArray = start.astype(np.int64)
    for _ in range(num_sweeps):
        before = labels.copy()
        for alpha in range(unaries.shape[1]):
            labels = _expand_label(unaries, pairs, weights, labels, alpha)
        if np.array_equal(before, labels):
            break
    return labels


def compute_energy(
    unaries: FloatArray, pairs: IntArray, weights: FloatArray, labels: IntArray
) -> float:
    """Energy of a labeling: its unaries plus the weights of pairs with different labels."""
    own = unaries[np.arange(len(labels)), labels].sum()
    return float(own + weights[labels[pairs[:, 0]] != labels[pairs[:, 1]]].sum())


def _expand_label(
    unaries: FloatArray, pairs: IntArray, weights: FloatArray, labels: IntArray, alpha: int
) -> IntArray:
    """Best move in which any set of nodes changes to `alpha`."""
    left, right = pairs[:, 0], pairs[:, 1]
    keep_keep = weights * (labels[left] != labels[right])
    keep_take = weights * (labels[left] != alpha)
    take_keep = weights * (labels[right] != alpha)
    # A pairwise term is a constant, two unaries and one directed edge (take_take is zero).
    take = unaries[:, alpha].copy()
    np.add.at(take, left, take_keep - keep_keep)
    np.add.at(take, right, -take_keep)
    keep = unaries[np.arange(len(labels)), labels]
    base = np.minimum(take, keep)  # capacities must not be negative
    graph = maxflow.GraphFloat(len(labels), len(pairs))
    nodes = graph.add_nodes(len(labels))
    # Cutting source -> node costs `take`: the node ends on the sink's side, which means alpha.
    graph.add_grid_tedges(nodes, take - base, keep - base)
    graph.add_edges(
        left, right, np.maximum(keep_take + take_keep - keep_keep, 0.0), np.zeros(len(pairs))
    )
    graph.maxflow()
    moved = np.where(graph.get_grid_segments(nodes), alpha, labels)
    if compute_energy(unaries, pairs, weights, moved) > compute_energy(
        unaries, pairs, weights, labels
    ):
        return labels  # rounding only
    return moved.astype(np.int64)
