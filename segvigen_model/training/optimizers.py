"""Optimizers and learning rates of long runs of the patch network."""

from __future__ import annotations

import math

import torch
from torch import nn

KINDS = ("adamw", "muon")
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.02


def make_optimizers(network: nn.Module, kind: str, rate: float) -> list[torch.optim.Optimizer]:
    """One AdamW for all weights, or Muon for the matrices of blocks and AdamW for the rest.

    Args:
        network: with attention blocks in `encoder` and `decoder`.
        kind: of KINDS.
        rate: learning rate; Muon's updates are scaled to the size of AdamW's.

    Raises:
        ValueError: `kind` is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"optimizer {kind!r} is not one of {', '.join(KINDS)}")
    named = list(network.named_parameters())
    is_matrix = {
        name: kind == "muon" and value.ndim == 2 and name.startswith(("encoder.", "decoder."))
        for name, value in named
    }
    rest = [value for name, value in named if not is_matrix[name]]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, rate, BETAS, weight_decay=WEIGHT_DECAY)
    ]
    matrices = [value for name, value in named if is_matrix[name]]
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices, rate, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
            )
        )
    return optimizers


def compute_rate_factor(
    step: int, *, warmup: int, cooldown_step: int, cooldown_steps: int
) -> float:
    """Learning-rate factor: linear warm-up, constant, then 1 - sqrt down to 0.

    Args:
        step: finished steps.
        warmup: steps of the warm-up.
        cooldown_step: where the rate begins to fall; negative = never.
        cooldown_steps: how long it falls.
    """
    factor = min(1.0, (step + 1) / max(1, warmup))
    if cooldown_step < 0 or step < cooldown_step:
        return factor
    share = min(1.0, (step - cooldown_step) / max(1, cooldown_steps))
    return factor * (1.0 - math.sqrt(share))
