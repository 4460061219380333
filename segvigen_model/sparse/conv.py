"""The 3x3x3 submanifold convolution layer and the choice of its backend.

"auto" means spconv on CUDA where it is installed and plain torch everywhere else: spconv's CPU
wheel gives wrong rows with more than one thread. Weights have one layout for both backends,
(Co, 3, 3, 3, Ci), kernel axes in the order x, y, z.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor, nn

from segvigen_model.sparse.conv_native import convolve_native
from segvigen_model.sparse.tensor import SparseTensor

Backend = Literal["auto", "native", "spconv"]

_backend: ContextVar[Backend] = ContextVar("segvigen_conv_backend", default="auto")


@contextmanager
def use_conv_backend(backend: Backend) -> Iterator[None]:
    """Run every convolution inside the block on one backend."""
    token = _backend.set(backend)
    try:
        yield
    finally:
        _backend.reset(token)


def choose_backend(device: torch.device) -> Backend:
    """Return the backend that a convolution on `device` would use now."""
    backend = _backend.get()
    if backend != "auto":
        return backend
    has_spconv = device.type == "cuda" and importlib.util.find_spec("spconv") is not None
    return "spconv" if has_spconv else "native"


class SparseConv3d(nn.Module):
    """Submanifold convolution: output voxels are the input voxels.

    Args:
        in_channels: Ci.
        out_channels: Co.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, 3, 3, 3, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        bound = 1.0 / math.sqrt(27 * in_channels)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Convolve (N, Ci) -> (N, Co)."""
        feats, weight, bias = _cast_to_common_dtype(x.feats, self.weight, self.bias)
        if choose_backend(feats.device) == "spconv":
            from segvigen_model.sparse.conv_spconv import convolve_spconv

            out = convolve_spconv(feats, weight, x.structure)
        else:
            out = convolve_native(feats, weight, x.structure.neighbours)
        return x.replace(out + bias)


def _cast_to_common_dtype(
    feats: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Follow autocast as torch's own layers do; else the weights decide."""
    kind = feats.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return feats.to(dtype), weight.to(dtype), bias.to(dtype)
