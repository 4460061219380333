"""Clicks tried all over an object: two patches are of one part as surely as the masks that take
either take both.

One click on a part of an unknown skin finds more of it than pairs of patches tell by themselves,
because it is answered by a decoder and a choice among masks. So where nobody clicks, the model
clicks far apart and every mask votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segvigen_model.interactive.click_decoding import ask_each
from segvigen_model.interactive.crops import Look
from segvigen_model.interactive.mask_selector import best_masks, most_promising
from segvigen_model.surface.arrays import TINY
from segvigen_model.types import BoolArray, FloatArray, IntArray

VOTE_RANGE = (0.01, 0.99)
LEAST_HELD = 0.5  # masks that hold a patch; with less the readings alone decide
VOTE_WEIGHT = 0.3  # of the votes' log odds against the readings'
# Log odds. Masks of neighbouring clicks overlap more often than these clicks are of one part; with
# this the thresholds of the readings serve both.
BIAS = -0.8


def taken(looks: Sequence[Look], faces: IntArray) -> Iterator[BoolArray]:
    """What a click on each face would take: by the whole, and by the most promising look.

    That may be the whole again, whose mask then counts twice.

    Args:
        looks: at the object, the whole first; each shows every face.
        faces: (K,) int, to click.

    Yields:
        (F,) bool, both masks of the first click, then of the next.
    """
    for answers in ask_each(looks, faces):
        best = best_masks(answers)
        for number in (0, most_promising(best)):
            held = np.zeros(len(looks[0].faces), bool)
            held[looks[number].faces] = best[number][1][looks[number].atoms.of_face]
            yield held


def with_votes(read: FloatArray, votes: FloatArray) -> FloatArray:
    """What readings and tried clicks say together of every two patches.

    Args:
        read: (A, A) log odds that two patches are of one part, by the readings.
        votes: (V, A) 0..1, how much of each patch each mask holds.

    Returns:
        (A, A) log odds: a mean of the readings' and of those of the share of masks with either
        patch that have both. The readings alone where no mask holds a patch.
    """
    both = votes.T @ votes
    own = np.diag(both)
    share = np.clip(both / np.maximum(own[:, None] + own - both, TINY), *VOTE_RANGE)
    voted = (1 - VOTE_WEIGHT) * read + VOTE_WEIGHT * np.log(share / (1.0 - share)) + BIAS
    is_held = own >= LEAST_HELD
    odds: FloatArray = np.where(is_held[:, None] & is_held, voted, read)
    return odds
