"""A tiny model with no silent layer, and random latents for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from segvigen_model import checkpoint
from segvigen_model.checkpoint import Bundle
from segvigen_model.sparse.structure import Structure


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """Return a random model whose zero-initialised layers were drawn too; do not change it."""
    bundle = checkpoint.build("tiny", seed=1)
    generator = torch.Generator().manual_seed(2)
    for module in bundle.modules().values():
        for parameter in module.parameters():
            if not bool(parameter.any()):
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return bundle


@pytest.fixture
def latent_structure() -> Callable[..., Structure]:
    """Return a maker of latent voxels, one count per asset."""

    def make(*counts: int) -> Structure:
        rows = []
        for asset, count in enumerate(counts):
            cells = torch.randperm(512, generator=torch.Generator().manual_seed(asset))[:count]
            xyz = torch.stack([cells // 64, cells // 8 % 8, cells % 8], dim=1)
            rows.append(torch.nn.functional.pad(xyz, (1, 0), value=asset))
        return Structure(torch.cat(rows).to(torch.int32))

    return make
