"""Which golden folders the neural part answers, by the start of the folder's name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segvigen_model.parity import autoencoders, flows, manifests
from segvigen_model.parity.row import ParityRow, left_out
from segvigen_model.sparse.conv import use_conv_backend

Runner = Callable[[Path], list[ParityRow]]


def _on_both_backends(run: Runner) -> Runner:
    """Repeat a set on spconv's convolution where that is installed."""

    def both(folder: Path) -> list[ParityRow]:
        rows = run(folder)
        reason = _why_no_spconv()
        if reason:
            return [*rows, left_out(f"{folder.name} [spconv]", reason)]
        with use_conv_backend("spconv"):
            return rows + [replace(row, name=f"{row.name} [spconv]") for row in run(folder)]

    return both


def _why_no_spconv() -> str:
    """Say why the other backend cannot run; empty when it can. A broken wheel must not crash."""
    try:
        importlib.import_module("spconv.pytorch")
    except (ImportError, OSError, RuntimeError) as err:
        return f"spconv cannot be imported ({type(err).__name__})"
    return ""


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
