"""Running a model that is larger than the accelerator's memory, network by network.

Weights rest on the CPU; a network's are copied over for the block that uses it and dropped
afterwards, so that memory holds one network and its activations. Nothing is copied back: weights
do not change while they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)
# All released networks in 16 bits (12 GiB with three flows and the image model) and activations.
DIRECT_COPY_BYTES = 20 << 30

_Module = TypeVar("_Module", bound=nn.Module)


@contextmanager
def on_device(module: _Module, device: torch.device | str) -> Iterator[_Module]:
    """Bring a network's weights to a device for a block; afterwards it is as it was.

    Args:
        module: the network; it must not be trained inside the block.
        device: where it shall compute; where it already is, nothing happens.
    """
    target = torch.device(device)
    resting: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    try:
        for owner in module.modules():
            for table in (owner._parameters, owner._buffers):
                for name, value in table.items():
                    if value is not None and not _is_on(value, target):
                        resting.append((table, name, value))  # type: ignore[arg-type]
                        table[name] = _copy_to_device(value, target)  # type: ignore[assignment]
        yield module
    finally:
        for table, name, value in resting:
            table[name] = value


def is_offload_needed(device: torch.device | str, needed_bytes: int = DIRECT_COPY_BYTES) -> bool:
    """Return whether a CUDA device has too little free memory to hold all networks at once."""
    target = torch.device(device)
    if target.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(target)
    if free >= needed_bytes:
        return False
    logger.warning("offload device=%s free_gib=%.1f", target, free / 2**30)
    return True


def _is_on(value: Tensor, device: torch.device) -> bool:
    same_index = device.index is None or value.device.index in (None, device.index)
    return value.device.type == device.type and same_index


def _copy_to_device(value: Tensor, device: torch.device) -> Tensor:
    moved = value.detach().to(device, non_blocking=True)
    return nn.Parameter(moved, requires_grad=False) if isinstance(value, nn.Parameter) else moved
