"""A small perceptron in numpy: fast for a few hundred rows, and needs no device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.types import FloatArray

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class Perceptron:
    """Linear layers with rectifiers between.

    Attributes:
        mean, scale: (D,) normalisation of features.
        weights, biases: per layer, (in, out) and (out,); the last has one output.
    """

    mean: FloatArray
    scale: FloatArray
    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]

    def forward(self, features: FloatArray) -> FloatArray:
        """(R, D) features -> (R,) float64 log odds, -30..30."""
        hidden = (features - self.mean) / self.scale
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = hidden @ weight + bias
            if layer + 1 < len(self.weights):
                hidden = np.maximum(hidden, 0.0)
        odds: FloatArray = np.clip(hidden[:, 0].astype(np.float64), -30.0, 30.0)
        return odds


def sigmoid(odds: FloatArray) -> FloatArray:
    """Log odds to probability."""
    probability: FloatArray = 1.0 / (1.0 + np.exp(-odds))
    return probability


@lru_cache(maxsize=8)
def load_network(path: Path) -> Perceptron:
    """Read a perceptron; kept between calls.

    Raises:
        CheckpointMismatch: absent or damaged.
    """
    try:
        state = load_file(path)
        count = sum(name.startswith("weight") for name in state)
        return Perceptron(
            mean=state["mean"],
            scale=state["scale"],
            weights=tuple(state[f"weight{layer}"] for layer in range(count)),
            biases=tuple(state[f"bias{layer}"] for layer in range(count)),
        )
    except (OSError, KeyError, SafetensorError) as err:
        raise CheckpointMismatch(f"cannot read {path}: {err}; reinstall the package") from err
