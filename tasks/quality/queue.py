"""The order of the reviewers' queue: uncertainty x expected gain, with some chance in it.

    uncertainty   = 1 - confidence of the present proposal
    expected gain = mean change that past reviews of similar confidence made, 1 - IoU of the first
                    proposal with the accepted labels; weights fall off with the difference in
                    confidence, and PRIOR_REVIEWS imagined reviews say "as much as it is unsure"
    score         = uncertainty * expected gain, 0..1

A share drawn by hash is spread evenly over the queue whatever its score: without it, nobody would
notice where the model is wrong and sure. Refined rounds go first: a reviewer waits for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segvigen_model.types import FloatArray
from tasks.catalogue import AssetState, Catalogue, FindingKind, WaitingRow
from tasks.storage.keys import hash_uniform
from tasks.workspace import Workspace

PRIOR_REVIEWS = 3.0  # imagined past reviews; real ones outweigh them soon
BANDWIDTH = 0.1  # of confidence: reviews further away than this count for little
MAX_PAST = 500  # newest reviews; older ones were of older checkpoints
SAME_PRIORITY = 1e-9
REFINED_FIRST = 1.0  # added to the score of a round that a reviewer asked for


def rank_waiting(workspace: Workspace) -> int:
    """Give every proposed asset its place in the queue; returns how many places changed."""
    ledger = workspace.catalogue.quality
    waiting = ledger.list_waiting()
    past = ledger.list_last_findings(FindingKind.GAIN, MAX_PAST)
    pairs = [
        (f.confidence, 1.0 - f.iou) for f in past if f.confidence is not None and f.iou is not None
    ]
    wanted = compute_priorities(waiting, pairs, workspace.settings.quality.exploration_share)
    changed = {
        row.asset_id: wanted[row.asset_id]
        for row in waiting
        if abs(row.priority - wanted[row.asset_id]) > SAME_PRIORITY
    }
    ledger.set_priorities(changed)
    return len(changed)


def count_free_places(workspace: Workspace) -> int:
    """How many more tasks the project may hold; in between, better ones can still overtake."""
    most = workspace.settings.quality.max_open_tasks
    return max(0, most - count_open_tasks(workspace.catalogue))


def count_open_tasks(catalogue: Catalogue) -> int:
    """Tasks that a reviewer has yet to answer.

    An accepted asset that waits for its double annotation takes no place: that look needs one.
    """
    return catalogue.count_assets()[AssetState.IN_REVIEW] - catalogue.quality.count_held()


def compute_priorities(
    waiting: Sequence[WaitingRow], past: Sequence[tuple[float, float]], exploration_share: float
) -> dict[str, float]:
    """Priority of each waiting asset; higher is earlier.

    Args:
        waiting: with the confidence of their proposals.
        past: (confidence, gain) of reviewed assets, both 0..1.
        exploration_share: of assets whose place is drawn by hash.
    """
    unsure = np.array([1.0 - row.confidence for row in waiting])
    scores = unsure * estimate_gain(1.0 - unsure, past)
    ladder = np.sort(scores)
    found: dict[str, float] = {}
    for row, score in zip(waiting, scores, strict=True):
        value = float(score)
        if hash_uniform("explore", row.asset_id) < exploration_share:
            value = float(np.quantile(ladder, hash_uniform("place", row.asset_id)))
        found[row.asset_id] = round(value + REFINED_FIRST * (row.round > 0), 9)
    return found


def estimate_gain(confidence: FloatArray, past: Sequence[tuple[float, float]]) -> FloatArray:
    """What a review of proposals of these confidences will change, (N,) 0..1."""
    known = np.array(past, dtype=np.float64).reshape(-1, 2)
    away = (np.asarray(confidence)[:, None] - known[None, :, 0]) / BANDWIDTH
    weights = np.exp(-0.5 * away**2)
    total = PRIOR_REVIEWS * (1.0 - confidence) + weights @ known[:, 1]
    gain: FloatArray = total / (PRIOR_REVIEWS + weights.sum(axis=1))
    return gain
