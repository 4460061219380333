"""What geometry and clicks say about every patch of the surface, read by the patch network.

Its odds and those of the flow model's mask add up, so that a new checkpoint needs no new fit of
the network. Closer looks at the clicks answer beside the whole object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segvigen_model.config import FusionWeights, SegmenterConfig
from segvigen_model.interactive.affinity import Bonds, Reading, sigmoid
from segvigen_model.interactive.crops import Look
from segvigen_model.interactive.mask_proposals import Answer, clicked_share
from segvigen_model.interactive.mask_selector import chosen_mask, is_choice
from segvigen_model.types import BoolArray, FloatArray, IntArray

NEVER = -20.0  # log odds


def part_probability(
    looks: Sequence[Look],
    faces: IntArray,
    is_positive: BoolArray,
    mask: FloatArray | None,
    config: SegmenterConfig,
) -> FloatArray:
    """Probability that each face belongs to the clicked part.

    Args:
        looks: at the object, the whole first; others show every positive click.
        faces: (K,) int clicked faces, at least one positive.
        is_positive: (K,) bool.
        mask: (F,) float 0..1, the flow model's opinion, or None.
        config: of the segmenter.

    Returns:
        (F,) float64, 0..1; exactly 1 on positive and 0 on negative faces.
    """
    answers = ask_looks(looks, faces, is_positive, config, mask)
    whole = answers[0]
    is_trusted = config.fusion.is_mask_decisive
    clicked = clicked_share(whole.terrain, whole.positive)
    is_skin = clicked >= config.components.single_shell_share
    elsewhere = None if is_trusted or is_skin else config.clicks.careful_cut_elsewhere
    odds = looks[0].reading.blend @ whole.above_cut(whole.odds, elsewhere)
    if not is_trusted and is_choice(whole.terrain, whole.positive, config.selection):
        odds = _decided(odds, looks, answers, is_skin, config.clicks.firm_logit)
    result: FloatArray = np.clip(sigmoid(odds), *config.clicks.probability_range)
    result[faces[is_positive]] = 1.0
    result[faces[~is_positive]] = 0.0
    return result


def ask_looks(
    looks: Sequence[Look],
    faces: IntArray,
    is_positive: BoolArray,
    config: SegmenterConfig,
    mask: FloatArray | None = None,
) -> list[Answer]:
    """Answer clicks once per look; see `part_probability`. The flow's opinion is of the whole."""
    clicked = [_clicked(look, faces, is_positive) for look in looks]
    at_once = config.limits.max_batch_questions
    odds = [
        part_odds(look.reading, [own], at_once)[0] for look, own in zip(looks, clicked, strict=True)
    ]
    if mask is not None:
        fusion = config.fusion
        mean = np.clip(looks[0].atoms.mean(mask, looks[0].areas), *fusion.mask_range)
        odds[0] = odds[0] + fusion.mask * np.log(mean / (1.0 - mean))
    return _answers(looks, odds, clicked)


def ask_each(looks: Sequence[Look], faces: IntArray, at_once: int) -> list[list[Answer]]:
    """Answer positive clicks, every one as a question of its own.

    Args:
        looks: at the object, the whole first; each shows every face.
        faces: (K,) int clicked faces.
        at_once: questions that the network answers in one batch.

    Returns:
        Per click the answers of all looks.
    """
    clicked = [
        [_clicked(look, faces[[row]], np.array([True])) for look in looks]
        for row in range(len(faces))
    ]
    odds = [
        part_odds(look.reading, [each[number] for each in clicked], at_once)
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
    odds: FloatArray,
    looks: Sequence[Look],
    answers: Sequence[Answer],
    is_skin: bool,
    firm_logit: float,
) -> FloatArray:
    """(F,) log odds after a mask of one look was chosen.

    Beyond a closer look the clicked loose pieces are no part of it. Other pieces stay as they
    were, but crumbs beside a clicked skin go with the mask.
    """
    number, chosen = chosen_mask(answers)
    look, answer = looks[number], answers[number]
    known = answer.above_cut(answer.odds)
    firm = np.where(chosen, np.maximum(known, firm_logit), np.minimum(known, -firm_logit))
    is_near = answers[0].near[looks[0].atoms.of_face]
    decided: FloatArray = np.where(is_near, np.minimum(odds, -firm_logit), odds)
    is_told = is_near[look.faces] | is_skin
    decided[look.faces[is_told]] = (look.reading.blend @ firm)[is_told]
    return decided


@torch.no_grad()
def part_odds(
    reading: Reading, clicks: Sequence[tuple[IntArray, IntArray]], at_once: int
) -> FloatArray:
    """Ask about several parts of one object.

    Args:
        reading: of the object.
        clicks: per part the positive and negative patches; a part may have no positive ones.
        at_once: parts that the network answers in one batch.

    Returns:
        (P, A) float64 log odds; very low where a part has no positive patch.
    """
    odds = np.full((len(clicks), len(reading.together)), NEVER)
    asked = [row for row, (positive, _) in enumerate(clicks) if len(positive)]
    for start in range(0, len(asked), at_once):
        rows = asked[start : start + at_once]
        questions = [(_tensor(clicks[row][0]), _tensor(clicks[row][1])) for row in rows]
        odds[rows] = reading.network.ask(reading.encoded, questions).double().numpy()
    return odds


def draw_odds(agreement: FloatArray, config: FusionWeights) -> FloatArray:
    """(A, A) log odds that a flow's draws add to those of geometry.

    Args:
        agreement: (A, A) share of draws that give two patches one label.
        config: weight of the draws.
    """
    agreed = np.clip(agreement, *config.draw_range)
    odds: FloatArray = config.draws * np.log(agreed / (1.0 - agreed))
    return odds


def togetherness(bonds: Bonds, drawn: FloatArray | None = None, reserve: float = 0.0) -> FloatArray:
    """(A, A) probability that two patches are of one part, after geometry and draws.

    Args:
        bonds: of the patches.
        drawn: (A, A) from `draw_odds`; None without draws.
        reserve: log odds taken from patches of different loose pieces.
    """
    odds = bonds.together
    if reserve:
        odds = odds - reserve * (bonds.pieces[:, None] != bonds.pieces)
    if drawn is not None:
        odds = odds + drawn
    return sigmoid(odds)


def _tensor(ids: IntArray) -> Tensor:
    return torch.from_numpy(np.unique(ids).astype(np.int64))
