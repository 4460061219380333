"""Submanifold convolution by spconv 2.3, for CUDA; on CPU only to prove both backends equal.

Index pairs are kept with the structure and shared by all layers. The CPU wheel races between
threads, so a CPU call is pinned to one; its backward pass needs CUDA and is refused here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from segvigen_model.errors import MissingExtra
from segvigen_model.sparse.structure import Structure

_INDEX_KEY = "submanifold-3"


def convolve_spconv(feats: Tensor, weight: Tensor, structure: Structure) -> Tensor:
    """Convolve like `convolve_native`, by spconv.

    Args:
        feats: (N, Ci).
        weight: (Co, 3, 3, 3, Ci).
        structure: the voxels; keeps spconv's index pairs.

    Returns:
        (N, Co).
    """
    layer = _make_layer(weight.shape[-1], weight.shape[0])
    x = _build_input(feats, structure)
    if feats.is_cuda:
        return _call_layer(layer, weight, x)
    if torch.is_grad_enabled() and (feats.requires_grad or weight.requires_grad):
        raise ValueError("spconv cannot train on a CPU; use the native backend")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _call_layer(layer, weight, x)
    finally:
        torch.set_num_threads(threads)


def _call_layer(layer: Any, weight: Tensor, x: Any) -> Tensor:
    out = torch.func.functional_call(layer, {"weight": weight}, (x,))
    features: Tensor = out.features
    return features


def _build_input(feats: Tensor, structure: Structure) -> Any:
    spconv = _import_spconv()
    shape = (structure.coords[:, 1:].amax(dim=0) + 1).tolist()
    x = spconv.SparseConvTensor(feats, structure.coords, shape, structure.batch_size)
    x.indice_dict = structure.backend_cache.setdefault("spconv", x.indice_dict)
    return x


@lru_cache(maxsize=64)
def _make_layer(in_channels: int, out_channels: int) -> Any:
    spconv = _import_spconv()
    return spconv.SubMConv3d(in_channels, out_channels, 3, bias=False, indice_key=_INDEX_KEY)


def _import_spconv() -> Any:
    try:
        import spconv.pytorch as spconv
    except ImportError as err:
        raise MissingExtra("spconv", "pip install 'segvigen-pipeline[gpu]'") from err
    return spconv
