"""Tensors into networks: strict loading that names what does not fit, and file hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from segvigen_model.errors import CheckpointMismatch

MAX_NAMED = 4  # tensors named in an error


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], source: str, *, is_assigned: bool = False
) -> None:
    """Load a state dict strictly, naming what does not fit.

    Args:
        module: where to.
        state: names -> tensors.
        source: what to call the file in an error.
        is_assigned: take the tensors themselves instead of copying their values.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(state))
    extra = sorted(set(state) - set(wanted))
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    found = [("missing", missing), ("unknown", extra), ("wrong shape", wrong)]
    problems = [f"{len(names)} {what}: {name_some(names)}" for what, names in found if names]
    if problems:
        raise CheckpointMismatch(
            f"{source} does not fit the model ({'; '.join(problems)}); "
            "use the config that was saved with these weights"
        )
    odd = [name for name, value in state.items() if not _is_finite(value)]
    if odd:
        raise CheckpointMismatch(
            f"{source} has NaN or infinite weights: {name_some(odd)}; fetch the file again, or "
            "train it again"
        )
    module.load_state_dict(dict(state), assign=is_assigned)


def _is_finite(value: Tensor) -> bool:
    # The sum of one tensor's weights is finite only if all are; it takes no memory of their size.
    return not value.is_floating_point() or bool(value.sum(dtype=torch.float64).isfinite())


def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the tensors whose name starts with a prefix, without the prefix."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def name_some(names: list[str]) -> str:
    """Join the first few names for an error message."""
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
