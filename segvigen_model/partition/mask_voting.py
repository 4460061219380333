"""Clicks tried all over an object: two patches are of one part as surely as the masks that take
either take both.

One click on a part of an unknown single shell finds more of it than pairs of patches tell by
themselves, because it is answered by a decoder and a choice among masks. So where nobody clicks,
the model clicks far apart and every mask votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segvigen_model.config import MaskVotingConfig
from segvigen_model.interactive.click_decoding import predict_clicks_separately
from segvigen_model.interactive.crops import Crop
from segvigen_model.interactive.mask_selector import find_highest_predicted_iou, select_best_masks
from segvigen_model.surface.arrays import TINY
from segvigen_model.types import BoolArray, FloatArray, IntArray


def predict_click_masks(
    crops: Sequence[Crop], faces: IntArray, at_once: int
) -> Iterator[BoolArray]:
    """What a click on each face would take: by the whole, and by the most promising look.

    That may be the whole again, whose mask then counts twice.

    Args:
        crops: at the object, the whole first; each shows every face.
        faces: (K,) int, to click.
        at_once: clicks that the network answers in one batch.

    Yields:
        (F,) bool, both masks of the first click, then of the next.
    """
    for predictions in predict_clicks_separately(crops, faces, at_once):
        best = select_best_masks(predictions)
        for number in (0, find_highest_predicted_iou(best)):
            mask = np.zeros(len(crops[0].faces), bool)
            mask[crops[number].faces] = best[number][1][crops[number].superfaces.of_face]
            yield mask


def combine_mask_consensus(
    affinity_logits: FloatArray, memberships: FloatArray, config: MaskVotingConfig
) -> FloatArray:
    """What readings and tried clicks say together of every two patches.

    Args:
        affinity_logits: (A, A) logits that two patches are of one part, by the readings.
        memberships: (V, A) 0..1, how much of each patch each mask holds.
        config: weight of the votes.

    Returns:
        (A, A) logits: a mean of the readings' and of those of the share of masks with either
        patch that have both. The readings alone where no mask holds a patch.
    """
    both = memberships.T @ memberships
    own = np.diag(both)
    share = np.clip(both / np.maximum(own[:, None] + own - both, TINY), *config.share_range)
    odds_of_votes = np.log(share / (1.0 - share))
    consensus = (1 - config.weight) * affinity_logits + config.weight * odds_of_votes + config.bias
    is_covered = own >= config.min_masks
    logits: FloatArray = np.where(is_covered[:, None] & is_covered, consensus, affinity_logits)
    return logits
