"""Affinity of patches from the masks of automatic clicks.

Two patches are of one part with the share of masks holding either that hold both. On a single shell
a click finds more of a part than pairs of patches do, because a decoder and a mask selector follow.
So without a reviewer, the model prompts itself at points far apart.
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
    crops: Sequence[Crop], faces: IntArray, batch_size: int
) -> Iterator[BoolArray]:
    """Masks of a click on each face: by the whole, and by the crop with the highest predicted IoU.

    The second may be the whole again; its mask then counts twice.

    Args:
        crops: at the object, the whole first; each shows every face.
        faces: (K,) int, to click.
        batch_size: clicks that the network answers in one batch.

    Yields:
        (F,) bool, both masks of the first click, then of the next.
    """
    for predictions in predict_clicks_separately(crops, faces, batch_size):
        best = select_best_masks(predictions)
        for number in (0, find_highest_predicted_iou(best)):
            mask = np.zeros(len(crops[0].faces), bool)
            mask[crops[number].faces] = best[number][1][crops[number].superfaces.of_face]
            yield mask


def combine_mask_consensus(
    affinity_logits: FloatArray, memberships: FloatArray, config: MaskVotingConfig
) -> FloatArray:
    """Combine the patch network's affinity with the consensus of masks.

    Args:
        affinity_logits: (A, A) logits that two patches are of one part, by the patch network.
        memberships: (V, A) 0..1, how much of each patch each mask holds.
        config: weight of the masks.

    Returns:
        (A, A) logits: weighted mean of the network's logits and those of the share of masks. The
        network's alone where no mask holds a patch.
    """
    both = memberships.T @ memberships
    own = np.diag(both)
    share = np.clip(both / np.maximum(own[:, None] + own - both, TINY), *config.share_range)
    mask_logits = np.log(share / (1.0 - share))
    consensus = (1 - config.weight) * affinity_logits + config.weight * mask_logits + config.bias
    is_covered = own >= config.min_masks
    logits: FloatArray = np.where(is_covered[:, None] & is_covered, consensus, affinity_logits)
    return logits
