"""What steers the flow besides latents: click tokens, the task, and image tokens of one view.

Clicks beyond ten slots drop the oldest, never the latest. An absent view is one token of zeros:
attention over identical tokens does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.types import BoolArray, IntArray

NUM_CLICK_SLOTS = 10


class Task(IntEnum):
    """What the flow is requested."""

    INTERACTIVE = 0
    FULL = 1
    GUIDED = 2


@dataclass(frozen=True, slots=True, eq=False)
class ClickTokens:
    """Click slots of a batch, packed; assets without clicks have none.

    Attributes:
        coords: (K, 3) int32 latent grid coordinates; padding stands at the origin.
        labels: (K,) int64: 1 positive, -1 negative, 0 padding.
        counts: slots per asset.
    """

    coords: Tensor
    labels: Tensor
    counts: tuple[int, ...]

    def to(self, device: torch.device | str) -> ClickTokens:
        """Move to a device."""
        return ClickTokens(self.coords.to(device), self.labels.to(device), self.counts)


def make_empty_clicks(batch_size: int = 1) -> ClickTokens:
    """Return the clicks of full and guided mode: none at all."""
    return ClickTokens(
        torch.zeros(0, 3, dtype=torch.int32), torch.zeros(0, dtype=torch.int64), (0,) * batch_size
    )


def make_click_tokens(latent_coords: IntArray, is_positive: BoolArray) -> ClickTokens:
    """Make the ten slots of one asset.

    Args:
        latent_coords: (K, 3) latent cells of the clicks, oldest first; may repeat.
        is_positive: (K,) bool.

    Returns:
        Ten slots: the latest ten distinct (cell, sign) pairs, then padding.
    """
    latest: dict[tuple[int, int, int, int], None] = {}
    for cell, positive in zip(latent_coords.tolist(), is_positive.tolist(), strict=True):
        key = (int(cell[0]), int(cell[1]), int(cell[2]), 1 if positive else -1)
        latest.pop(key, None)  # a repeated click counts as a new one
        latest[key] = None
    rows = list(latest)[-NUM_CLICK_SLOTS:]
    rows += [(0, 0, 0, 0)] * (NUM_CLICK_SLOTS - len(rows))
    table = torch.tensor(rows, dtype=torch.int64)
    return ClickTokens(table[:, :3].to(torch.int32), table[:, 3], (NUM_CLICK_SLOTS,))


def stack_clicks(clicks: Sequence[ClickTokens]) -> ClickTokens:
    """Join the clicks of several batches into one batch."""
    return ClickTokens(
        torch.cat([each.coords for each in clicks]),
        torch.cat([each.labels for each in clicks]),
        tuple(count for each in clicks for count in each.counts),
    )


@dataclass(frozen=True, slots=True)
class ViewConfig:
    """Sizes of the default checkpoint's image encoder.

    Attributes:
        image_size: pixels of the square view.
        patch_size: pixels of a square patch; one token each.
    """

    image_size: int = 64
    patch_size: int = 8

    @property
    def num_tokens(self) -> int:
        """Tokens per view."""
        return (self.image_size // self.patch_size) ** 2


class ViewEncoder(nn.Module):
    """RGB view -> one token per patch. Stands in for DINOv3 in the small default model."""

    def __init__(self, config: ViewConfig, cond_channels: int) -> None:
        super().__init__()
        self.config = config
        patch_numbers = 3 * config.patch_size**2
        self.patch_layer = nn.Linear(patch_numbers, cond_channels)
        self.position = nn.Parameter(0.02 * torch.randn(config.num_tokens, cond_channels))
        self.mlp = nn.Sequential(
            nn.Linear(cond_channels, 2 * cond_channels),
            nn.GELU(approximate="tanh"),
            nn.Linear(2 * cond_channels, cond_channels),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Encode views.

        Args:
            images: (B, 3, S, S) in 0..1; resized when S is not the configured size.

        Returns:
            (B, L, cond_channels).
        """
        size, patch = self.config.image_size, self.config.patch_size
        if images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="area")
        patches = F.unfold(images * 2.0 - 1.0, patch, stride=patch).transpose(1, 2)
        h = self.patch_layer(patches) + self.position
        out: Tensor = F.layer_norm(h + self.mlp(h), h.shape[-1:])
        return out


def make_null_condition(cond_channels: int, device: torch.device | str = "cpu") -> Tensor:
    """(1, cond_channels) zeros: no view, and the unconditional branch of guidance."""
    return torch.zeros(1, cond_channels, device=device)
