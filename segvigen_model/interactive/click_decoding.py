"""From clicks to a probability on every face.

The patch network's logits and those of the flow model's mask are added, so that a new flow
checkpoint needs no new patch network. Crops around the clicks are decoded beside the whole object.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segvigen_model.config import FusionWeights, SegmenterConfig
from segvigen_model.interactive.affinity import AffinityMatrix, PatchEmbedding, sigmoid
from segvigen_model.interactive.crops import Crop
from segvigen_model.interactive.mask_proposals import ClickPrediction, compute_clicked_share
from segvigen_model.interactive.mask_selector import has_mask_choice, select_mask
from segvigen_model.types import BoolArray, FloatArray, IntArray

NO_CLICK_LOGIT = -20.0  # logits


def predict_part_probability(
    crops: Sequence[Crop],
    faces: IntArray,
    is_positive: BoolArray,
    mask: FloatArray | None,
    config: SegmenterConfig,
) -> FloatArray:
    """Probability that each face belongs to the clicked part.

    Args:
        crops: at the object, the whole first; others show every positive click.
        faces: (K,) int clicked faces, at least one positive.
        is_positive: (K,) bool.
        mask: (F,) float 0..1, the flow model's mask, or None.
        config: of the segmenter.

    Returns:
        (F,) float64, 0..1; exactly 1 on positive and 0 on negative faces.
    """
    predictions = predict_clicks(crops, faces, is_positive, config, mask)
    whole = predictions[0]
    is_flow_decisive = config.fusion.is_mask_decisive
    clicked = compute_clicked_share(whole.region_graph, whole.positive)
    is_single_shell = clicked >= config.components.single_shell_share
    cut_elsewhere = (
        None if is_flow_decisive or is_single_shell else config.clicks.careful_cut_elsewhere
    )
    logits = crops[0].embedding.blend @ whole.subtract_cut(whole.logits, cut_elsewhere)
    if not is_flow_decisive and has_mask_choice(
        whole.region_graph, whole.positive, config.selection
    ):
        logits = _apply_chosen_mask(
            logits, crops, predictions, is_single_shell, config.clicks.firm_logit
        )
    result: FloatArray = np.clip(sigmoid(logits), *config.clicks.probability_range)
    result[faces[is_positive]] = 1.0
    result[faces[~is_positive]] = 0.0
    return result


def predict_clicks(
    crops: Sequence[Crop],
    faces: IntArray,
    is_positive: BoolArray,
    config: SegmenterConfig,
    mask: FloatArray | None = None,
) -> list[ClickPrediction]:
    """Predict from all clicks, once per crop.

    See `predict_part_probability`. The flow's mask covers the whole object.
    """
    clicked = [_find_clicked_patches(crop, faces, is_positive) for crop in crops]
    batch_size = config.limits.max_batch_questions
    logits = [
        predict_part_logits(crop.embedding, [own], batch_size)[0]
        for crop, own in zip(crops, clicked, strict=True)
    ]
    if mask is not None:
        fusion = config.fusion
        mean = np.clip(crops[0].superfaces.average_faces(mask, crops[0].areas), *fusion.mask_range)
        logits[0] = logits[0] + fusion.mask * np.log(mean / (1.0 - mean))
    return _build_predictions(crops, logits, clicked)


def predict_clicks_separately(
    crops: Sequence[Crop], faces: IntArray, batch_size: int
) -> list[list[ClickPrediction]]:
    """Predict from positive clicks, each one alone.

    Args:
        crops: at the object, the whole first; each shows every face.
        faces: (K,) int clicked faces.
        batch_size: questions that the network answers in one batch.

    Returns:
        Per click the predictions of all crops.
    """
    clicked = [
        [_find_clicked_patches(crop, faces[[row]], np.array([True])) for crop in crops]
        for row in range(len(faces))
    ]
    logits = [
        predict_part_logits(crop.embedding, [each[number] for each in clicked], batch_size)
        for number, crop in enumerate(crops)
    ]
    return [
        _build_predictions(crops, [each[row] for each in logits], own)
        for row, own in enumerate(clicked)
    ]


def _build_predictions(
    crops: Sequence[Crop],
    logits: Sequence[FloatArray],
    clicked: Sequence[tuple[IntArray, IntArray]],
) -> list[ClickPrediction]:
    """Logits of each crop, and their average."""
    shared = _average_logits(crops, logits)
    return [
        ClickPrediction(crop.embedding.region_graph, own, *clicks, every, crop.rim, crop.share)
        for crop, own, clicks, every in zip(crops, logits, clicked, shared, strict=True)
    ]


def _find_clicked_patches(
    crop: Crop, faces: IntArray, is_positive: BoolArray
) -> tuple[IntArray, IntArray]:
    """Positive and negative patches of a crop; clicks that it does not show are left out."""
    rows = crop.find_rows(faces)
    yes, no = rows[is_positive & (rows >= 0)], rows[~is_positive & (rows >= 0)]
    return crop.superfaces.of_face[yes], crop.superfaces.of_face[no]


def _average_logits(crops: Sequence[Crop], logits: Sequence[FloatArray]) -> list[FloatArray]:
    """Average logits on the patches of each crop: the mean over the crops that show a face."""
    if len(crops) == 1:
        return list(logits)
    total = np.zeros(len(crops[0].faces))
    count = np.zeros(len(total))
    for crop, own in zip(crops, logits, strict=True):
        total[crop.faces] += crop.embedding.blend @ own
        count[crop.faces] += 1
    mean = total / count
    return [crop.superfaces.average_faces(mean[crop.faces], crop.areas) for crop in crops]


def _apply_chosen_mask(
    logits: FloatArray,
    crops: Sequence[Crop],
    predictions: Sequence[ClickPrediction],
    is_single_shell: bool,
    firm_logit: float,
) -> FloatArray:
    """(F,) logits after a mask of one crop was chosen.

    Outside the crop, faces of the clicked connected components are not in the part. Other
    components keep their logits, but fragments beside a clicked single shell follow the mask.
    """
    number, chosen = select_mask(predictions)
    crop, prediction = crops[number], predictions[number]
    crop_logits = prediction.subtract_cut(prediction.logits)
    decided_logits = np.where(
        chosen, np.maximum(crop_logits, firm_logit), np.minimum(crop_logits, -firm_logit)
    )
    is_near = predictions[0].is_clicked_component[crops[0].superfaces.of_face]
    decided: FloatArray = np.where(is_near, np.minimum(logits, -firm_logit), logits)
    is_decided = is_near[crop.faces] | is_single_shell
    decided[crop.faces[is_decided]] = (crop.embedding.blend @ decided_logits)[is_decided]
    return decided


@torch.no_grad()
def predict_part_logits(
    embedding: PatchEmbedding, clicks: Sequence[tuple[IntArray, IntArray]], batch_size: int
) -> FloatArray:
    """Predict several parts of one object.

    Args:
        embedding: of the object.
        clicks: per part the positive and negative patches; a part may have no positive ones.
        batch_size: parts that the network answers in one batch.

    Returns:
        (P, A) float64 logits; very low where a part has no positive patch.
    """
    logits = np.full((len(clicks), len(embedding.affinity_logits)), NO_CLICK_LOGIT)
    rows_with_clicks = [row for row, (positive, _) in enumerate(clicks) if len(positive)]
    for start in range(0, len(rows_with_clicks), batch_size):
        rows = rows_with_clicks[start : start + batch_size]
        click_sets = [
            (_to_unique_tensor(clicks[row][0]), _to_unique_tensor(clicks[row][1])) for row in rows
        ]
        logits[rows] = (
            embedding.network.predict_clicks(embedding.encoded, click_sets).double().numpy()
        )
    return logits


def compute_draw_logits(agreement: FloatArray, config: FusionWeights) -> FloatArray:
    """(A, A) logits that a flow's draws add to those of geometry.

    Args:
        agreement: (A, A) share of draws that give two patches one label.
        config: weight of the draws.
    """
    agreed = np.clip(agreement, *config.draw_range)
    logits: FloatArray = config.draws * np.log(agreed / (1.0 - agreed))
    return logits


def same_part_affinity(
    affinity_matrix: AffinityMatrix,
    draw_logits: FloatArray | None = None,
    component_penalty: float = 0.0,
) -> FloatArray:
    """(A, A) probability that two patches are of one part, after geometry and draws.

    Args:
        affinity_matrix: of the patches.
        draw_logits: (A, A) from `compute_draw_logits`; None without draws.
        component_penalty: logits taken from patches of different connected components.
    """
    logits = affinity_matrix.logits
    if component_penalty:
        logits = logits - component_penalty * (
            affinity_matrix.components[:, None] != affinity_matrix.components
        )
    if draw_logits is not None:
        logits = logits + draw_logits
    return sigmoid(logits)


def _to_unique_tensor(ids: IntArray) -> Tensor:
    return torch.from_numpy(np.unique(ids).astype(np.int64))
