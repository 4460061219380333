"""Everything here needs a CUDA device and skips without one. Device from SEGVIGEN_GPU_DEVICE."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from segvigen_model.model.bundle import SegviGenModel, build_model
from segvigen_model.sparse.structure import Structure


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/gpu" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> torch.device:
    wanted = torch.device(os.environ.get("SEGVIGEN_GPU_DEVICE", "cuda"))
    if wanted.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    # Comparisons with the CPU need full float32 products.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return wanted


@pytest.fixture
def make_model() -> Callable[..., SegviGenModel]:
    """Return a maker of a tiny random model with no silent layer; the same on every device."""

    def make(device="cpu") -> SegviGenModel:
        model = build_model("tiny", seed=1)
        generator = torch.Generator().manual_seed(2)
        for module in model.list_modules().values():
            for parameter in module.parameters():
                if not bool(parameter.any()):
                    parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
            module.to(device)
        return replace(model, normalization=model.normalization.to(device))

    return make


@pytest.fixture(scope="session")
def shell() -> Callable[[int], Structure]:
    """Return a maker of the voxels of a thin sphere in a grid."""

    def make(grid: int) -> Structure:
        cells = torch.cartesian_prod(*[torch.arange(grid)] * 3)
        distance = (cells - (grid - 1) / 2).norm(dim=1)
        on_shell = cells[(distance - grid / 3.2).abs() < 0.8]
        return Structure(torch.nn.functional.pad(on_shell, (1, 0)).to(torch.int32))

    return make
