"""Which golden folders the neural part answers, by the start of the folder's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segvigen_model.parity import autoencoders, flows
from segvigen_model.parity.row import ParityRow

Runner = Callable[[Path], list[ParityRow]]

# Longer names first: "shape_vae_train" is no "shape_vae".
RUNNERS: tuple[tuple[str, Runner], ...] = (
    ("shape_vae_train", autoencoders.shape_vae_train),
    ("shape_vae", autoencoders.shape_vae),
    ("tex_vae", autoencoders.tex_vae),
    ("fdg_to_mesh", autoencoders.fdg_to_mesh),
    ("slat_flow", flows.slat_flow),
    ("rope_time", flows.rope_time),
    ("segvigen_full", flows.segvigen_head),
    ("segvigen_interactive", flows.segvigen_head),
    ("sampler", flows.sampler),
)


def runner_for(folder: Path) -> Runner | None:
    """Return what compares this folder, or None when it is no neural set."""
    if not (folder / "config.json").is_file() or not (folder / "outputs.npz").is_file():
        return None
    return next((run for prefix, run in RUNNERS if folder.name.startswith(prefix)), None)
