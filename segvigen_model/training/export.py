"""Turn the best weights of a finished run into a shippable checkpoint folder.

    python -m segvigen_model.training.export --run RUN --out FOLDER [--data DATA] [--curves RUN..]

Weights are stored in half precision; the config's card says data, licences, recipe and seed. The
curves of other runs (codec, patches) are copied as curves-NAME.png by their folders' names.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segvigen_model.checkpoints import native
from segvigen_model.checkpoints.loading import load_model
from segvigen_model.checkpoints.native import CONFIG_FILE, WEIGHTS_FILE
from segvigen_model.datasets.voxel_samples import list_shards, load_holdout
from segvigen_model.interactive.patch_network import PATCHES_FILE
from segvigen_model.model.bundle import SegviGenModel
from segvigen_model.training.runs import MODEL_FOLDER

DATA_LICENCES = {
    "procedural shapes": "made in code by segvigen_model.datasets.procedural",
    "trebeljahr/quaternius-showcase": "CC0-1.0",
    "beep2bleep/FreeAssetsByKenneyNLandQuaternius": "CC0-1.0",
    "pmndrs/market-assets": "CC0-1.0",
    "Nelipot-Lee/SegviGen": "MIT, one example mesh",
}
PROCEDURAL_ONLY = {name: DATA_LICENCES[name] for name in ("procedural shapes",)}


def build_card(model: SegviGenModel, data: Path | None) -> dict[str, Any]:
    """What is known of a checkpoint's making, for its config file."""
    card: dict[str, Any] = {**model.card, "held_out": load_holdout()}
    if data is not None:
        note = json.loads((data / "data.json").read_text())
        num_shards = len(list_shards(data, "train"))
        card["data"] = {
            **note,
            "shards": num_shards,
            "licences": DATA_LICENCES if note["parts"] else PROCEDURAL_ONLY,
        }
    return card


def export_checkpoint(
    run: Path, out: Path, data: Path | None = None, curves: Sequence[Path] = ()
) -> SegviGenModel:
    """Write the model of a run to `out` with a full card and the curves.

    Args:
        run: folder of a flow training run.
        out: checkpoint folder.
        data: folder of the shards it was trained on, for the card.
        curves: folders of other runs whose curves are shown beside.

    Returns:
        The checkpoint as written.
    """
    found = run / MODEL_FOLDER
    model = load_model(found if found.is_dir() else run / "bundle")  # its name in 0.1.0
    model = replace(model, card=build_card(model, data))
    saved = native.save_model(model, out)
    if (run / "curves.png").exists():
        shutil.copyfile(run / "curves.png", out / "curves.png")
    for other in curves:
        shutil.copyfile(other / "curves.png", out / f"curves-{other.name}.png")
    return saved


def write_with_patch_network(
    path_or_name: str | Path, patch_weights: Path, folder: Path, metadata: Mapping[str, Any]
) -> SegviGenModel:
    """Write a checkpoint with another patch network; its other weights stay byte for byte.

    Args:
        path_or_name: a checkpoint folder, or the name of a shipped one.
        patch_weights: file of the patch network.
        folder: made when absent.
        metadata: what is known of that network's making, for the card; JSON-able.
    """
    start = native.resolve_checkpoint_folder(path_or_name)
    header = json.loads((start / CONFIG_FILE).read_text())
    header["card"] = {**header.get("card", {}), "patch_network": dict(metadata)}
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(start / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    shutil.copyfile(patch_weights, folder / PATCHES_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(header, indent=1) + "\n")
    return load_model(folder)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--curves", type=Path, nargs="*", default=[], help="folders of other runs")
    args = parser.parse_args(arguments)
    export_checkpoint(args.run, args.out, args.data, args.curves)


if __name__ == "__main__":
    main()
