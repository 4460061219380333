"""Clicks tried all over an object: two patches are of one part as surely as the masks that take
either take both.

One click on a part of an unknown skin finds more of it than pairs of patches tell by themselves,
because it is answered by a decoder and a choice among masks. So where nobody clicks, the model
clicks far apart and every mask votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segvigen_model.config import MaskVotingConfig
from segvigen_model.interactive.click_decoding import ask_each
from segvigen_model.interactive.crops import Look
from segvigen_model.interactive.mask_selector import best_masks, most_promising
from segvigen_model.surface.arrays import TINY
from segvigen_model.types import BoolArray, FloatArray, IntArray


def taken(looks: Sequence[Look], faces: IntArray, at_once: int) -> Iterator[BoolArray]:
    """What a click on each face would take: by the whole, and by the most promising look.

    That may be the whole again, whose mask then counts twice.

    Args:
        looks: at the object, the whole first; each shows every face.
        faces: (K,) int, to click.
        at_once: clicks that the network answers in one batch.

    Yields:
        (F,) bool, both masks of the first click, then of the next.
    """
    for answers in ask_each(looks, faces, at_once):
        best = best_masks(answers)
        for number in (0, most_promising(best)):
            held = np.zeros(len(looks[0].faces), bool)
            held[looks[number].faces] = best[number][1][looks[number].atoms.of_face]
            yield held


def with_votes(read: FloatArray, votes: FloatArray, config: MaskVotingConfig) -> FloatArray:
    """What readings and tried clicks say together of every two patches.

    Args:
        read: (A, A) log odds that two patches are of one part, by the readings.
        votes: (V, A) 0..1, how much of each patch each mask holds.
        config: weight of the votes.

    Returns:
        (A, A) log odds: a mean of the readings' and of those of the share of masks with either
        patch that have both. The readings alone where no mask holds a patch.
    """
    both = votes.T @ votes
    own = np.diag(both)
    share = np.clip(both / np.maximum(own[:, None] + own - both, TINY), *config.share_range)
    odds_of_votes = np.log(share / (1.0 - share))
    voted = (1 - config.weight) * read + config.weight * odds_of_votes + config.bias
    is_held = own >= config.min_masks
    odds: FloatArray = np.where(is_held[:, None] & is_held, voted, read)
    return odds
