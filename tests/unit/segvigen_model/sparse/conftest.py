"""Small random voxel sets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from segvigen_model.sparse.structure import Structure

MakeStructure = Callable[..., Structure]


@pytest.fixture
def make_structure() -> MakeStructure:
    """Return a maker of structures with random distinct voxels, in no particular order."""

    def make(num: int = 60, *, grid: int = 6, batch: int = 2, seed: int = 0) -> Structure:
        generator = torch.Generator().manual_seed(seed)
        assets = []
        for index in range(batch):
            cells = torch.randperm(grid**3, generator=generator)[:num]
            xyz = torch.stack([cells // grid**2, cells // grid % grid, cells % grid], dim=1)
            assets.append(torch.nn.functional.pad(xyz, (1, 0), value=index))
        return Structure(torch.cat(assets).to(torch.int32))

    return make
