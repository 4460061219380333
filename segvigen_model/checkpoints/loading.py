"""Load any checkpoint: a native folder, a shipped name, or released SegviGen weights."""

from __future__ import annotations

from pathlib import Path

from segvigen_model.checkpoints.native import load_folder
from segvigen_model.checkpoints.official import load_released
from segvigen_model.model.bundle import SegviGenModel


def load_model(path_or_name: str | Path = "default", device: str = "cpu") -> SegviGenModel:
    """Load a checkpoint.

    Args:
        path_or_name: a folder, the name of one shipped with the package, a released SegviGen
            `.ckpt` with the TRELLIS.2 folder beside it, or a folder of several such.
        device: where to put the weights.

    Raises:
        CheckpointMismatch: absent, damaged, or not fitting; the message says what to do.
    """
    path = Path(path_or_name)
    if path.suffix == ".ckpt" or any(path.glob("*.ckpt")):
        return load_released(path, device=device)
    return load_folder(path_or_name, device)
