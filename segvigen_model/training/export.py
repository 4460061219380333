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
from segvigen_model.checkpoints.loading import load
from segvigen_model.checkpoints.native import CONFIG_FILE, WEIGHTS_FILE
from segvigen_model.datasets.voxel_samples import holdout, shard_paths
from segvigen_model.interactive.patch_network import PATCHES_FILE
from segvigen_model.model.bundle import Bundle

DATA_LICENCES = {
    "procedural shapes": "made in code by segvigen_model.datasets.procedural",
    "trebeljahr/quaternius-showcase": "CC0-1.0",
    "beep2bleep/FreeAssetsByKenneyNLandQuaternius": "CC0-1.0",
    "pmndrs/market-assets": "CC0-1.0",
    "Nelipot-Lee/SegviGen": "MIT, one example mesh",
}
PROCEDURAL_ONLY = {name: DATA_LICENCES[name] for name in ("procedural shapes",)}


def card_of(bundle: Bundle, data: Path | None) -> dict[str, Any]:
    """What is known of a checkpoint's making, for its config file."""
    card: dict[str, Any] = {**bundle.card, "held_out": holdout()}
    if data is not None:
        note = json.loads((data / "data.json").read_text())
        num_shards = len(shard_paths(data, "train"))
        card["data"] = {
            **note,
            "shards": num_shards,
            "licences": DATA_LICENCES if note["parts"] else PROCEDURAL_ONLY,
        }
    return card


def export(run: Path, out: Path, data: Path | None = None, curves: Sequence[Path] = ()) -> Bundle:
    """Write RUN/bundle to `out` with a full card and the curves.

    Args:
        run: folder of a flow training run.
        out: checkpoint folder.
        data: folder of the shards it was trained on, for the card.
        curves: folders of other runs whose curves are shown beside.

    Returns:
        The checkpoint as written.
    """
    bundle = load(run / "bundle")
    bundle = replace(bundle, card=card_of(bundle, data))
    saved = native.save(bundle, out)
    if (run / "curves.png").exists():
        shutil.copyfile(run / "curves.png", out / "curves.png")
    for other in curves:
        shutil.copyfile(other / "curves.png", out / f"curves-{other.name}.png")
    return saved


def with_patches(
    path_or_name: str | Path, patch_weights: Path, folder: Path, told: Mapping[str, Any]
) -> Bundle:
    """Write a checkpoint with another patch network; its other weights stay byte for byte.

    Args:
        path_or_name: a checkpoint folder, or the name of a shipped one.
        patch_weights: file of the patch network.
        folder: made when absent.
        told: what is known of that network's making, for the card; JSON-able.
    """
    start = native.folder_of(path_or_name)
    header = json.loads((start / CONFIG_FILE).read_text())
    header["card"] = {**header.get("card", {}), "patch_network": dict(told)}
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(start / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    shutil.copyfile(patch_weights, folder / PATCHES_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(header, indent=1) + "\n")
    return load(folder)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--curves", type=Path, nargs="*", default=[], help="folders of other runs")
    args = parser.parse_args(arguments)
    export(args.run, args.out, args.data, args.curves)


if __name__ == "__main__":
    main()
