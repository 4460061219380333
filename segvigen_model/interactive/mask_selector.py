"""A small network that chooses one of the proposed masks by its predicted IoU.

It chooses where the clicked connected components hold most of the surface, so that connectivity
carries little information. Elsewhere the plain mask stays. It was trained on objects from sources
that the patch network had not seen, because the patch network is overconfident on its own training
sources (training/train_mask_selector.py).

Departs from paper: SegviGen cuts its mask at one threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segvigen_model.config import MaskSelectionConfig
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.interactive.mask_features import (
    COLUMNS,
    NUM_MASK_FEATURES,
    compute_mask_features,
)
from segvigen_model.interactive.mask_proposals import (
    ClickPrediction,
    RegionGraph,
    compute_clicked_share,
    propose_masks,
)
from segvigen_model.interactive.patch_network import UNREADABLE_WEIGHTS, check_finite
from segvigen_model.surface.feature_schema import check_columns, metadata_of, settings_of
from segvigen_model.types import BoolArray, IntArray

WEIGHTS_FILE = Path(__file__).parents[1] / "weights" / "mask_selector.safetensors"
FORMAT = "segvigen-mask-selector/2"  # /1 stored weights alone; it is still read
WIDTH = 48
_MAX_DEVIATION = 5.0  # spreads: what is further out is not distinguished


class MaskSelector(nn.Module):
    """Features of a mask to a score; the highest score of one prediction is best."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_MASK_FEATURES))
        self.register_buffer("scale", torch.ones(NUM_MASK_FEATURES))
        self.layers = nn.Sequential(
            *(nn.Linear(NUM_MASK_FEATURES, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU()),
            nn.Linear(WIDTH, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(..., M) features -> (...) scores."""
        normalized = ((features - self.mean) / self.scale).clamp(-_MAX_DEVIATION, _MAX_DEVIATION)
        score: Tensor = self.layers(normalized)[..., 0]
        return score


@lru_cache(maxsize=1)
def load_mask_selector(path: Path = WEIGHTS_FILE) -> MaskSelector:
    """Load the weights once.

    Raises:
        CheckpointMismatch: absent, damaged, of another kind of network, or trained with other
            columns.
    """
    network = MaskSelector()
    try:
        with safe_open(path, "pt") as stored:
            settings = settings_of(stored.metadata())
        check_columns(path, settings["columns"] if settings else None, _columns())
        state = load_file(path)
        check_finite(state)
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except UNREADABLE_WEIGHTS as err:
        first = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise CheckpointMismatch(
            f"{path} holds no mask selector: {first}; take the file that "
            "`segvigen_model.training.train_mask_selector` wrote"
        ) from err
    return network.eval().requires_grad_(False)


def save_choice_network(network: MaskSelector, path: Path) -> None:
    """Write weights with the columns that they were trained with."""
    save_file(network.state_dict(), path, metadata=metadata_of({"format": FORMAT}, _columns()))


def _columns() -> dict[str, tuple[str, ...]]:
    return {"mask_features": COLUMNS}


def has_mask_choice(
    region_graph: RegionGraph, positive: IntArray, config: MaskSelectionConfig
) -> bool:
    """Whether the selector applies: the clicked connected components hold most of the surface.

    Args:
        region_graph: of the whole object.
        positive: clicked patches.
        config: how much "most" is.
    """
    return compute_clicked_share(region_graph, positive) >= config.min_clicked_share


def select_best_masks(predictions: Sequence[ClickPrediction]) -> list[tuple[float, BoolArray]]:
    """The mask of each crop with the highest predicted IoU.

    Args:
        predictions: of all crops of one object.

    Returns:
        Per crop the predicted IoU, comparable between crops, and (A,) bool of its patches. The mask
        has the positive patches and lacks the negative ones.
    """
    found = [propose_masks(prediction) for prediction in predictions]
    features = [compute_mask_features(*each) for each in zip(predictions, found, strict=True)]
    with torch.no_grad():
        scores = load_mask_selector()(torch.from_numpy(np.concatenate(features))).numpy()
    best, start = [], 0
    for each in found:
        own = scores[start : start + len(each.masks)]
        best.append((float(own.max()), each.masks[own.argmax()]))
        start += len(own)
    return best


def select_mask(predictions: Sequence[ClickPrediction]) -> tuple[int, BoolArray]:
    """The best mask of all crops: the number of its prediction, and (A,) bool of its patches."""
    best = select_best_masks(predictions)
    number = find_highest_predicted_iou(best)
    return number, best[number][1]


def find_highest_predicted_iou(best: Sequence[tuple[float, BoolArray]]) -> int:
    """Which crop's best mask has the highest predicted IoU; the first of equals."""
    return max(range(len(best)), key=lambda number: best[number][0])
