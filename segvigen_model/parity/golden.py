"""Reading golden folders and comparing with them; shared by all parity sets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segvigen_model.checkpoints.weights import load_weights
from segvigen_model.parity.row import ParityRow, make_left_out_row, make_row

FLOW_TOLERANCE = 2e-5  # flow, heads, samplers, encoders
DECODER_TOLERANCE = 1e-4
VERTEX_TOLERANCE = 2e-7
GRADIENT_TOLERANCE = 1e-4  # relative, of norms
BF16_TOLERANCE = 5e-2
BATCH_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Golden:
    """One folder of golden data.

    Attributes:
        folder: holds config.json, inputs.npz, outputs.npz and mostly state.safetensors.
        compared: outputs looked at so far.
    """

    folder: Path
    compared: set[str] = field(default_factory=set)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Constructor arguments and notes."""
        data: dict[str, Any] = json.loads((self.folder / "config.json").read_text("utf-8"))
        return data

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Input arrays as tensors."""
        return read_arrays(self.folder / "inputs.npz")

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """Wanted arrays as tensors."""
        return read_arrays(self.folder / "outputs.npz")

    def read_state(self, prefix: str = "") -> dict[str, Tensor]:
        """Return weights under a prefix, from here or from where the config points."""
        path = self.folder / self.config.get("state", "state.safetensors")
        weights = load_file(path)
        return {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}

    def load_weights(self, module: nn.Module, prefix: str = "") -> None:
        """Load the golden weights into a network in eval mode."""
        load_weights(module.eval(), self.read_state(prefix), str(self.folder))

    def compare_close(
        self, name: str, found: Tensor, tolerance: float, key: str | None = None
    ) -> ParityRow:
        """Compare with the output `key` (default: `name`); reported when the set has none."""
        wanted = self.outputs.get(key or name)
        if wanted is None:
            return make_left_out_row(self._resolve_name(name), "not in this set")
        self.compared.add(key or name)
        return make_row(self._resolve_name(name), compute_worst_error(found, wanted), tolerance)

    def list_left_over(self) -> list[ParityRow]:
        """Report the outputs that nothing was compared with."""
        names = sorted(set(self.outputs) - self.compared)
        return [make_left_out_row(self._resolve_name(name), "unknown output") for name in names]

    def compare_exact(self, name: str, found: Tensor, key: str | None = None) -> ParityRow:
        """Compare integers or flags; any difference fails."""
        return self.compare_close(name, found, 0.0, key)

    def compare_gradients(self, module: nn.Module, key: str) -> ParityRow:
        """Compare [L2 norm, sum] per parameter, relative to the norm; from the config's `key`."""
        label = "gradient norms (relative)"
        wanted: Mapping[str, Any] | None = self.config.get(key)
        if wanted is None:
            return make_left_out_row(self._resolve_name(label), "not in this set")
        found = dict(module.named_parameters())
        worst = float("inf") if set(found) - set(wanted) else 0.0
        for name, (norm, total) in wanted.items():
            grad = found[name].grad if name in found else None
            worst = max(
                worst, float("inf") if grad is None else _compute_relative_error(grad, norm, total)
            )
        return make_row(self._resolve_name(label), worst, GRADIENT_TOLERANCE)

    def compare_alone(self, name: str, single: Tensor, batched: Tensor) -> ParityRow:
        """Compare assets in one batch with the same assets alone; needs no golden output."""
        label = f"{name}: batch against alone"
        return make_row(
            self._resolve_name(label), compute_worst_error(batched, single), BATCH_TOLERANCE
        )

    def has_output(self, name: str) -> bool:
        """Whether the set wants this output."""
        return name in self.outputs

    def _resolve_name(self, name: str) -> str:
        return f"{self.folder.name}/{name}"


def compute_worst_error(found: Tensor, wanted: Tensor) -> float:
    """Largest absolute difference; inf when shapes differ or a number is missing."""
    if found.shape != wanted.shape:
        return float("inf")
    if not found.numel():
        return 0.0
    worst = float((found.detach().double() - wanted.detach().double()).abs().max())
    return worst if worst == worst else float("inf")


def _compute_relative_error(grad: Tensor, norm: float, total: float) -> float:
    """Relative error of the norm, or of the sum on the scale that rounding gives it."""
    scale = max(norm, 1e-12)
    spread = scale * math.sqrt(max(1, grad.numel()))
    wide = grad.double()
    off_norm = abs(float(torch.linalg.vector_norm(wide)) - norm) / scale
    off_sum = abs(float(wide.sum()) - total) / spread
    return max(off_norm, off_sum)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read an npz file of plain arrays as tensors."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}


def find_grid(folder: Path, name: str, num_voxels: int) -> tuple[Path, int]:
    """Find the dual grid that an extraction set was made of, beside it.

    Args:
        folder: the extraction set.
        name: of the mesh.
        num_voxels: voxels it must have.

    Returns:
        The file, and voxels along an axis.
    """
    for path in sorted(folder.parent.glob(f"ovoxel*/{name}_*.npz")):
        size = path.stem.removeprefix(f"{name}_")
        if not size.isdigit():
            continue
        with np.load(path, allow_pickle=False) as arrays:
            if len(arrays["coords"]) == num_voxels:
                return path, int(size)
    raise FileNotFoundError(
        f"no dual grid of {name!r} with {num_voxels} voxels in {folder.parent}/ovoxel*; "
        "put the ovoxel set beside this one"
    )
