"""Train a small perceptron on questions of many rows, each question counting alike."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.geometry import TINY
from segvigen_model.types import FloatArray

MEAN_ROWS = 2000  # questions whose features are all used for the normalisation
IGNORED = 1e6  # divides features that never varied
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rows:
    """Features of one question.

    Attributes:
        features: (R, D) float32.
        target: (R,) float32, 0..1.
        weight: (R,) float32: area of an atom, length of a border.
    """

    features: FloatArray
    target: FloatArray
    weight: FloatArray


def fit(
    rows: list[Rows], *, width: int, epochs: int, batch: int, has_overlap: bool, seed: int = 0
) -> dict[str, FloatArray]:
    """Train one perceptron.

    Args:
        rows: questions.
        width: of the two hidden layers.
        epochs: passes over all questions.
        batch: questions a step.
        has_overlap: add a soft IoU per question (masks), else cross-entropy alone (borders).
        seed: of weights and order.

    Returns:
        Arrays as `perceptron.load_network` reads them.
    """
    torch.manual_seed(seed)
    everything = np.concatenate([each.features[:: max(1, len(rows) // MEAN_ROWS)] for each in rows])
    everything = everything.astype(np.float32)  # stored in half precision, whose sums overflow
    spread = everything.std(axis=0)
    scale = np.where(spread < 1e-4, IGNORED, spread + 1e-2).astype(np.float32)
    mean = everything.mean(axis=0).astype(np.float32)
    layers = [nn.Linear(len(mean), width), nn.Linear(width, width), nn.Linear(width, 1)]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    steps = epochs * (len(rows) // batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 2))
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        losses = []
        for chosen in np.array_split(
            rng.permutation(len(rows))[: steps // epochs * batch], steps // epochs
        ):
            loss = _loss(net, [rows[i] for i in chosen], mean, scale, has_overlap)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        log.info("epoch=%d loss=%.4f", epoch, float(np.mean(losses)))
    state = {"mean": mean, "scale": scale}
    for index, layer in enumerate(layers):
        state[f"weight{index}"] = np.ascontiguousarray(layer.weight.detach().numpy().T)
        state[f"bias{index}"] = layer.bias.detach().numpy()
    return state


def _loss(
    net: nn.Sequential, rows: list[Rows], mean: FloatArray, scale: FloatArray, has_overlap: bool
) -> Tensor:
    """Cross-entropy weighted by area or length, and soft IoU, each question counting alike."""
    index = torch.from_numpy(np.repeat(np.arange(len(rows)), [len(r.target) for r in rows]))
    features = np.concatenate([each.features for each in rows]).astype(np.float32)
    target = torch.from_numpy(np.concatenate([each.target for each in rows]).astype(np.float32))
    weight = torch.from_numpy(np.concatenate([_even(each.weight) for each in rows]))
    odds = net(torch.from_numpy((features - mean) / scale))[:, 0]

    def per_question(values: Tensor) -> Tensor:
        return torch.zeros(len(rows)).index_add(0, index, values)

    entropy = per_question(
        weight * F.binary_cross_entropy_with_logits(odds, target, reduction="none")
    )
    if not has_overlap:
        return entropy.mean()
    chance = torch.sigmoid(odds)
    shared = per_question(weight * chance * target)
    union = per_question(weight * (chance + target - chance * target)) + 1e-6
    # Small parts would hardly count in the entropy, whose weights are areas.
    part = torch.sqrt(per_question(weight * target) + 1e-6)
    return (entropy / part).mean() + (1.0 - shared / union).mean()


def _even(weight: FloatArray) -> FloatArray:
    """Weights of sum 1."""
    return (weight / max(float(weight.sum()), TINY)).astype(np.float32)
