"""What geometry and clicks say about every patch of the surface, read by the patch network.

Its odds and those of the flow model's mask add up, so that a new checkpoint needs no new fit of
the network. Closer looks at the clicks answer beside the whole object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segvigen_model.interactive.affinity import Bonds, Reading, sigmoid
from segvigen_model.interactive.crops import Look
from segvigen_model.interactive.mask_proposals import CUT_ELSEWHERE, Answer, clicked_share
from segvigen_model.interactive.mask_selector import chosen_mask, is_choice
from segvigen_model.surface.geometry import MIN_SKIN
from segvigen_model.types import BoolArray, FloatArray, IntArray

MASK_RANGE = (0.02, 0.98)
DRAW_RANGE = (0.05, 0.95)
NEVER = -20.0  # log odds
FIRM = 0.5  # log odds, at least, of a patch inside the chosen mask; its negative outside
# A flow model trusted this much beside geometry decides by itself: choosing was learned without.
TRUSTED = 0.5
# How likely loose pieces that nobody clicked must be, unless a flow model is trusted or the clicked
# ones are nearly everything: on meshes of other makers most of what one click took of others was
# wrong (table in docs/experiments.md).
SURE_ELSEWHERE = 0.6
_QUESTIONS_AT_ONCE = 16


def part_probability(
    looks: Sequence[Look],
    faces: IntArray,
    is_positive: BoolArray,
    mask: FloatArray | None,
    trust: float = 0.0,
) -> FloatArray:
    """Probability that each face belongs to the clicked part.

    Args:
        looks: at the object, the whole first; others show every positive click.
        faces: (K,) int clicked faces, at least one positive.
        is_positive: (K,) bool.
        mask: (F,) float 0..1, the flow model's opinion, or None.
        trust: in that opinion, a factor of its log odds.

    Returns:
        (F,) float64, 0..1; exactly 1 on positive and 0 on negative faces.
    """
    answers = ask_looks(looks, faces, is_positive, mask, trust)
    whole = answers[0]
    is_trusted = trust >= TRUSTED
    is_skin = clicked_share(whole.terrain, whole.positive) >= MIN_SKIN
    elsewhere = CUT_ELSEWHERE if is_trusted or is_skin else SURE_ELSEWHERE
    odds = looks[0].reading.blend @ whole.above_cut(whole.odds, elsewhere)
    if not is_trusted and is_choice(whole.terrain, whole.positive):
        odds = _decided(odds, looks, answers, is_skin)
    result: FloatArray = np.clip(sigmoid(odds), 0.001, 0.999)
    result[faces[is_positive]] = 1.0
    result[faces[~is_positive]] = 0.0
    return result


def ask_looks(
    looks: Sequence[Look],
    faces: IntArray,
    is_positive: BoolArray,
    mask: FloatArray | None = None,
    trust: float = 0.0,
) -> list[Answer]:
    """Answer clicks once per look; see `part_probability`. The flow's opinion is of the whole."""
    clicked = [_clicked(look, faces, is_positive) for look in looks]
    odds = [part_odds(look.reading, [own])[0] for look, own in zip(looks, clicked, strict=True)]
    if mask is not None:
        mean = np.clip(looks[0].atoms.mean(mask, looks[0].areas), *MASK_RANGE)
        odds[0] = odds[0] + trust * np.log(mean / (1.0 - mean))
    return _answers(looks, odds, clicked)


def ask_each(looks: Sequence[Look], faces: IntArray) -> list[list[Answer]]:
    """Answer positive clicks, every one as a question of its own.

    Args:
        looks: at the object, the whole first; each shows every face.
        faces: (K,) int clicked faces.

    Returns:
        Per click the answers of all looks.
    """
    clicked = [
        [_clicked(look, faces[[row]], np.array([True])) for look in looks]
        for row in range(len(faces))
    ]
    odds = [
        part_odds(look.reading, [each[number] for each in clicked])
        for number, look in enumerate(looks)
    ]
    return [_answers(looks, [each[row] for each in odds], own) for row, own in enumerate(clicked)]


def _answers(
    looks: Sequence[Look],
    odds: Sequence[FloatArray],
    clicked: Sequence[tuple[IntArray, IntArray]],
) -> list[Answer]:
    """Odds of each look, and what all say together."""
    shared = _shared_odds(looks, odds)
    return [
        Answer(look.reading.terrain, own, *clicks, every, look.rim, look.share)
        for look, own, clicks, every in zip(looks, odds, clicked, shared, strict=True)
    ]


def _clicked(look: Look, faces: IntArray, is_positive: BoolArray) -> tuple[IntArray, IntArray]:
    """Positive and negative patches of a look; clicks that it does not show are left out."""
    rows = look.rows(faces)
    yes, no = rows[is_positive & (rows >= 0)], rows[~is_positive & (rows >= 0)]
    return look.atoms.of_face[yes], look.atoms.of_face[no]


def _shared_odds(looks: Sequence[Look], odds: Sequence[FloatArray]) -> list[FloatArray]:
    """What all looks say together, on the patches of each: the mean of those that show a face."""
    if len(looks) == 1:
        return list(odds)
    total = np.zeros(len(looks[0].faces))
    count = np.zeros(len(total))
    for look, own in zip(looks, odds, strict=True):
        total[look.faces] += look.reading.blend @ own
        count[look.faces] += 1
    mean = total / count
    return [look.atoms.mean(mean[look.faces], look.areas) for look in looks]


def _decided(
    odds: FloatArray, looks: Sequence[Look], answers: Sequence[Answer], is_skin: bool
) -> FloatArray:
    """(F,) log odds after a mask of one look was chosen.

    Beyond a closer look the clicked loose pieces are no part of it. Other pieces stay as they
    were, but crumbs beside a clicked skin go with the mask.
    """
    number, chosen = chosen_mask(answers)
    look, answer = looks[number], answers[number]
    known = answer.above_cut(answer.odds)
    firm = np.where(chosen, np.maximum(known, FIRM), np.minimum(known, -FIRM))
    is_near = answers[0].near[looks[0].atoms.of_face]
    decided: FloatArray = np.where(is_near, np.minimum(odds, -FIRM), odds)
    is_told = is_near[look.faces] | is_skin
    decided[look.faces[is_told]] = (look.reading.blend @ firm)[is_told]
    return decided


@torch.no_grad()
def part_odds(reading: Reading, clicks: Sequence[tuple[IntArray, IntArray]]) -> FloatArray:
    """Ask about several parts of one object.

    Args:
        reading: of the object.
        clicks: per part the positive and negative patches; a part may have no positive ones.

    Returns:
        (P, A) float64 log odds; very low where a part has no positive patch.
    """
    odds = np.full((len(clicks), len(reading.together)), NEVER)
    asked = [row for row, (positive, _) in enumerate(clicks) if len(positive)]
    for start in range(0, len(asked), _QUESTIONS_AT_ONCE):
        rows = asked[start : start + _QUESTIONS_AT_ONCE]
        questions = [(_tensor(clicks[row][0]), _tensor(clicks[row][1])) for row in rows]
        odds[rows] = reading.network.ask(reading.encoded, questions).double().numpy()
    return odds


def togetherness(
    bonds: Bonds, agreement: FloatArray | None, trust: float = 0.0, reserve: float = 0.0
) -> FloatArray:
    """(A, A) probability that two patches are of one part, after geometry and draws.

    Args:
        bonds: of the patches.
        agreement: (A, A) share of draws that give two patches one label; None without draws.
        trust: in the draws, a factor of their log odds.
        reserve: log odds taken from patches of different loose pieces.
    """
    odds = bonds.together
    if reserve:
        odds = odds - reserve * (bonds.pieces[:, None] != bonds.pieces)
    if agreement is not None:
        agreed = np.clip(agreement, *DRAW_RANGE)
        odds = odds + trust * np.log(agreed / (1.0 - agreed))
    return sigmoid(odds)


def _tensor(ids: IntArray) -> Tensor:
    return torch.from_numpy(np.unique(ids).astype(np.int64))
