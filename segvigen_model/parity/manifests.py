"""Names, shapes and dtypes of the full-size official networks, built without memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segvigen_model.checkpoints import official_config
from segvigen_model.model.presets import PRESETS
from segvigen_model.parity.row import ParityRow, compare_each, make_row
from segvigen_model.slat_flow import transformer
from segvigen_model.slat_flow.segmentation import SegmentationConfig, SegmentationFlow
from segvigen_model.slat_flow.transformer import SLatFlowModel
from segvigen_model.vae import encoder as vae

CHECKPOINT_PREFIX = "gen3dseg."
_Names = dict[str, tuple[list[int], str]]


def compare_manifests(folder: Path) -> list[ParityRow]:
    """Count differing tensors of every manifest; none may differ."""
    paths = sorted(folder.glob("*.json"))
    return compare_each(
        folder.name, ((path.name, partial(_compare_manifest, path)) for path in paths)
    )


def _compare_manifest(path: Path) -> list[ParityRow]:
    manifest = json.loads(path.read_text("utf-8"))
    if "tensors" not in manifest:
        return []
    wanted = {
        name.removeprefix(CHECKPOINT_PREFIX): (list(shape), dtype)
        for name, (shape, dtype) in manifest["tensors"].items()
    }
    found = _list_tensors(_build(path.stem, manifest))
    differing = [k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k)]
    return [make_row(f"{path.parent.name}/{path.stem}", len(differing), 0)]


def _build(name: str, manifest: Mapping[str, Any]) -> nn.Module:
    config = manifest.get("config")
    with torch.device("meta"):
        if config is None:
            return _build_head("interactive" in name)
        kind, args = config["name"], config["args"]
        module = official_config.build_network(kind, args)
    if isinstance(module, SLatFlowModel):
        if name.endswith("bfloat16"):
            transformer.set_torso_dtype(module, torch.bfloat16)
    elif args.get("use_fp16"):
        vae.set_torso_dtype(module, torch.float16)
    return module


def _build_head(is_interactive: bool) -> SegmentationFlow:
    flow = PRESETS["trellis2_1b"].flow.flow
    return SegmentationFlow(SegmentationConfig(flow, int(is_interactive), False, None))


def _list_tensors(module: nn.Module) -> _Names:
    return {
        name: (list(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in module.state_dict().items()
    }
