"""Which golden folders the neural part answers, by the start of the folder's name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segvigen_model.parity import autoencoders, flows, manifests
from segvigen_model.parity.row import ParityRow, make_left_out_row
from segvigen_model.sparse.conv import use_conv_backend

Runner = Callable[[Path], list[ParityRow]]


def _run_on_both_backends(run: Runner) -> Runner:
    """Repeat a set on spconv's convolution where that is installed."""

    def both(folder: Path) -> list[ParityRow]:
        rows = run(folder)
        reason = _explain_missing_spconv()
        if reason:
            return [*rows, make_left_out_row(f"{folder.name} [spconv]", reason)]
        with use_conv_backend("spconv"):
            return rows + [replace(row, name=f"{row.name} [spconv]") for row in run(folder)]

    return both


def _explain_missing_spconv() -> str:
    """Reason why the other backend cannot run; empty if it can. A broken wheel must not crash."""
    try:
        importlib.import_module("spconv.pytorch")
    except (ImportError, OSError, RuntimeError) as err:
        return f"spconv cannot be imported ({type(err).__name__})"
    return ""


# Longer names first: "shape_vae_train" is no "shape_vae".
RUNNERS: tuple[tuple[str, Runner], ...] = (
    ("shape_vae_train", autoencoders.compare_shape_vae_training),
    ("shape_vae", _run_on_both_backends(autoencoders.compare_shape_vae)),
    ("tex_vae", _run_on_both_backends(autoencoders.compare_tex_vae)),
    ("fdg_to_mesh", autoencoders.compare_fdg_to_mesh),
    ("slat_flow", flows.compare_slat_flow),
    ("rope_time", flows.compare_rope_time),
    ("segvigen_full", flows.compare_segvigen_head),
    ("segvigen_interactive", flows.compare_segvigen_head),
    ("sampler", flows.compare_sampler),
)


def find_runner(folder: Path) -> Runner | None:
    """Return what compares this folder, or None when it is no neural set."""
    if folder.name.startswith("manifests"):
        return manifests.compare_manifests
    if not (folder / "config.json").is_file() or not (folder / "outputs.npz").is_file():
        return None
    return next((run for prefix, run in RUNNERS if folder.name.startswith(prefix)), None)
