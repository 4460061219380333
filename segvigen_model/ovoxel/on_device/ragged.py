"""Lists of different lengths as flat tensors: slicing them to a budget, and adding up by row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BUDGET = 1 << 19  # rows worked on at once; the widest step holds about 2 kB for each


def expand_counts(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Number the items of ragged lists.

    Args:
        counts: (L,) int64 items of each list.
        total: their sum, known to the caller so that no device is waited for.

    Returns:
        (total,) int64 list of each item, and (total,) int64 its place in that list.
    """
    lists = torch.arange(len(counts), device=counts.device)
    owner = torch.repeat_interleave(lists, counts, output_size=total)
    start = torch.cumsum(counts, 0) - counts
    return owner, torch.arange(total, device=counts.device) - start[owner]


def split_slices(counts: Tensor, budget: int) -> Iterator[tuple[slice, int]]:
    """Cut lists into runs of at most `budget` items, or one list; runs without items are left out.

    Args:
        counts: (L,) int64 items of each list; read by the host, once.
        budget: items per run.

    Yields:
        The run's lists and its number of items.
    """
    sums = np.concatenate([[0], np.cumsum(counts.cpu().numpy())])
    start, end = 0, len(sums) - 1
    while start < end and sums[start] < sums[end]:
        # Lists without items at the start of a run cost nothing and are skipped.
        start = int(np.searchsorted(sums, sums[start], side="right")) - 1
        stop = int(np.searchsorted(sums, sums[start] + budget, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop), int(sums[stop] - sums[start])
        start = stop


def add_in_order(sums: Tensor, rows: Tensor, values: Tensor) -> None:
    """Add values to rows of a table, strictly one after the other within each row.

    Unlike atomic additions this gives the same bits every time, on every device and for every
    slicing of the same list.

    Args:
        sums: (N, C) floating, changed in place.
        rows: (H,) int64.
        values: (H, C), same dtype.
    """
    touched, counts = torch.unique(rows, return_counts=True)
    if not len(touched):
        return
    # What a row holds already comes first.
    order = torch.argsort(torch.cat([touched, rows]), stable=True)
    listed = torch.cat([sums[touched], values])[order]
    sums[touched] = torch.segment_reduce(listed, "sum", lengths=counts + 1, unsafe=True)


def compute_root(values: Tensor) -> Tensor:
    """Take square roots, correctly rounded on every device; the compiled kernels' are.

    torch's own may be off by one bit on a CPU, which turns ties between voxels the other way.
    """
    if values.device.type != "cpu":
        return torch.sqrt(values)
    return torch.from_numpy(np.sqrt(values.numpy()))
