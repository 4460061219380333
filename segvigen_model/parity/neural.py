"""Which golden folders the neural part answers, by the start of the folder's name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segvigen_model.parity import autoencoders, flows, manifests
from segvigen_model.parity.row import ParityRow
from segvigen_model.sparse.conv import use_conv_backend

Runner = Callable[[Path], list[ParityRow]]


def _on_both_backends(run: Runner) -> Runner:
    """Repeat a set on spconv's convolution where that is installed."""

    def both(folder: Path) -> list[ParityRow]:
        rows = run(folder)
        if importlib.util.find_spec("spconv") is not None:
            with use_conv_backend("spconv"):
                rows += [replace(row, name=f"{row.name} [spconv]") for row in run(folder)]
        return rows

    return both


# Longer names first: "shape_vae_train" is no "shape_vae".
RUNNERS: tuple[tuple[str, Runner], ...] = (
    ("shape_vae_train", autoencoders.shape_vae_train),
    ("shape_vae", _on_both_backends(autoencoders.shape_vae)),
    ("tex_vae", _on_both_backends(autoencoders.tex_vae)),
    ("fdg_to_mesh", autoencoders.fdg_to_mesh),
    ("slat_flow", flows.slat_flow),
    ("rope_time", flows.rope_time),
    ("segvigen_full", flows.segvigen_head),
    ("segvigen_interactive", flows.segvigen_head),
    ("sampler", flows.sampler),
)


def runner_for(folder: Path) -> Runner | None:
    """Return what compares this folder, or None when it is no neural set."""
    if folder.name.startswith("manifests"):
        return manifests.run
    if not (folder / "config.json").is_file() or not (folder / "outputs.npz").is_file():
        return None
    return next((run for prefix, run in RUNNERS if folder.name.startswith(prefix)), None)
