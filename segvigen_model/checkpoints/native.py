"""Whole models on disk: a folder with `model.safetensors` and `config.json`, nothing executable.

Weights may be stored in half precision; they compute in float32 unless requested otherwise. A file
that does not fit says which tensors and what to do. `sha256` names the weights file. A folder may
hold a patch network of its own, `patches.safetensors`; without one the shipped one serves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from segvigen_model.archives import parse_json
from segvigen_model.checkpoints.weights import (
    hash_file,
    load_weights,
    name_some,
    strip_prefix,
)
from segvigen_model.config import SegmenterConfig, override_settings
from segvigen_model.errors import CheckpointMismatch, CorruptBlob, InvalidConfig
from segvigen_model.interactive.patch_network import PATCHES_FILE
from segvigen_model.interactive.patch_network import WEIGHTS_FILE as SHIPPED_PATCHES
from segvigen_model.model.bundle import (
    PARTS,
    SegviGenModel,
    build_model_from_config,
    build_normalization,
    move_to_device,
)
from segvigen_model.model.presets import ModelConfig
from segvigen_model.slat_flow.conditioning import ViewConfig
from segvigen_model.slat_flow.segmentation import SegmentationConfig
from segvigen_model.slat_flow.transformer import FlowConfig
from segvigen_model.vae.decoder import DecoderConfig
from segvigen_model.vae.encoder import EncoderConfig

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT = "segvigen-checkpoint-1"
MAX_SIZE = 2**16  # of a layer; the released model's widest has 8,192
MAX_SIZES, MAX_BLOCKS = 200, 256
MAX_GROWTH = 2  # weights that a configuration describes by those that its file holds


def load_folder(path_or_name: str | Path = "default", device: str = "cpu") -> SegviGenModel:
    """Load a checkpoint of our own format.

    Args:
        path_or_name: a folder, or the name of one shipped with the package.
        device: where to put the weights.

    Raises:
        CheckpointMismatch: absent, damaged, or not fitting; the message says what to do.
    """
    folder = resolve_checkpoint_folder(path_or_name)
    header = _read_header(folder)
    weights = folder / WEIGHTS_FILE
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as err:
        raise CheckpointMismatch(f"cannot read {weights}: {err}; fetch the file again") from err
    config = parse_config(header["model"])
    _check_announced(config, sum(tensor.numel() for tensor in state.values()))
    model = build_model_from_config(config)
    for part, module in model.list_modules().items():
        load_weights(module, strip_prefix(state, f"{part}."), f"{weights.name}:{part}")
    extra = [key for key in state if key.split(".")[0] not in PARTS]
    if extra:
        raise CheckpointMismatch(f"{weights} holds unknown tensors: {name_some(extra)}")
    return move_to_device(
        replace(
            model,
            normalization=build_normalization(
                header["normalization"], model.config.latent_channels
            ),
            sha256=hash_file(weights),
            card=header.get("card", {}),
            patch_weights=find_patch_weights(folder),
        ),
        device,
    )


def read_config(folder: Path) -> ModelConfig:
    """Sizes and the segmenter's configuration of a checkpoint, without its weights.

    Raises:
        CheckpointMismatch: its `config.json` is damaged or wrong.
    """
    return parse_config(_read_header(folder)["model"])


def find_patch_weights(folder: Path) -> Path:
    """File of the patch network that serves a checkpoint: its own, or the shipped one."""
    own = folder / PATCHES_FILE
    return own if own.is_file() else SHIPPED_PATCHES


def save_model(model: SegviGenModel, folder: str | Path, *, is_half: bool = True) -> SegviGenModel:
    """Write a checkpoint.

    Args:
        model: the model; its `card` and a patch network of its own are stored too.
        folder: made when absent; files in it are replaced.
        is_half: store weights in float16.

    Returns:
        The same model with the file's sha256.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if is_half else torch.float32
    state = {key: value.detach().to("cpu", dtype) for key, value in model.collect_state().items()}
    partial = target / f"{WEIGHTS_FILE}.part"
    save_file({key: value.contiguous() for key, value in state.items()}, partial)
    partial.replace(target / WEIGHTS_FILE)
    sha256 = hash_file(target / WEIGHTS_FILE)
    header = {
        "format": FORMAT,
        "model": asdict(model.config),
        "normalization": {
            name: getattr(model.normalization, name).tolist()
            for name in ("shape_mean", "shape_std", "tex_mean", "tex_std")
        },
        "sha256": sha256,
        "card": dict(model.card),
    }
    (target / CONFIG_FILE).write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    own = target / PATCHES_FILE
    if model.patch_weights == SHIPPED_PATCHES:
        own.unlink(missing_ok=True)
    elif model.patch_weights != own:
        shutil.copyfile(model.patch_weights, own)
    return replace(model, sha256=sha256, patch_weights=find_patch_weights(target))


def parse_config(data: Mapping[str, Any]) -> ModelConfig:
    """Rebuild sizes and the segmenter's configuration from `asdict(config)`, after JSON."""
    try:
        flow = dict(data["flow"])
        view = flow.pop("view", None)
        flow["flow"] = FlowConfig(**flow["flow"])
        return ModelConfig(
            name=str(data["name"]),
            grid=int(data["grid"]),
            shape_encoder=EncoderConfig(**_convert_to_tuples(data["shape_encoder"])),
            shape_decoder=DecoderConfig(**_convert_to_tuples(data["shape_decoder"])),
            tex_encoder=EncoderConfig(**_convert_to_tuples(data["tex_encoder"])),
            tex_decoder=DecoderConfig(**_convert_to_tuples(data["tex_decoder"])),
            flow=SegmentationConfig(**flow, view=None if view is None else ViewConfig(**view)),
            segmenter=_segmenter_of(data),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise CheckpointMismatch(f"the model's sizes in {CONFIG_FILE} are wrong: {err!r}") from err
    except InvalidConfig as err:
        raise CheckpointMismatch(f"{CONFIG_FILE} is wrong: {err}") from err


def _check_announced(config: ModelConfig, num_held: int) -> None:
    """Refuse sizes that need far more weights than the file holds, before they are allocated."""
    networks = {name: value for name, value in asdict(config).items() if name != "segmenter"}
    sizes = _list_numbers(networks)
    counts = [number for number in sizes if isinstance(number, int)]
    if len(sizes) > MAX_SIZES or max(map(abs, counts), default=0) > MAX_SIZE:
        raise CheckpointMismatch(f"{CONFIG_FILE} has a size above {MAX_SIZE}, or too many sizes")
    try:
        blocks = [*config.shape_encoder.num_blocks, *config.shape_decoder.num_blocks]
        blocks += [*config.tex_encoder.num_blocks, *config.tex_decoder.num_blocks]
        if max(*blocks, config.flow.flow.num_blocks) > MAX_BLOCKS:
            raise ValueError(f"more than {MAX_BLOCKS} blocks in a network")
        with torch.device("meta"):  # shapes without memory
            modules = build_model_from_config(config, device="meta").list_modules().values()
    except (ArithmeticError, TypeError, ValueError, RuntimeError, LookupError) as err:
        raise CheckpointMismatch(f"the sizes in {CONFIG_FILE} make no model: {err}") from err
    num_wanted = sum(each.numel() for module in modules for each in module.state_dict().values())
    if num_wanted > MAX_GROWTH * num_held:  # less than that is reported tensor by tensor
        raise CheckpointMismatch(
            f"{CONFIG_FILE} describes {num_wanted} weights, {WEIGHTS_FILE} holds {num_held}; "
            "use the config that was saved with these weights"
        )


def _list_numbers(value: Any) -> list[int | float]:
    if isinstance(value, Mapping):
        return [number for each in value.values() for number in _list_numbers(each)]
    if isinstance(value, (list, tuple)):
        return [number for each in value for number in _list_numbers(each)]
    return [value] if isinstance(value, (int, float)) else []


def _segmenter_of(data: Mapping[str, Any]) -> SegmenterConfig:
    """The segmenter's configuration; older files have only fusion weights, as "trust"."""
    if "trust" in data and "segmenter" in data:
        raise InvalidConfig("model has both trust and segmenter; move trust to segmenter.fusion")
    settings = {"fusion": data["trust"]} if "trust" in data else data.get("segmenter", {})
    return override_settings(SegmenterConfig(), settings, "model.segmenter")


def _convert_to_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def resolve_checkpoint_folder(path_or_name: str | Path) -> Path:
    """Folder of a checkpoint that is not a released one, by path or shipped name."""
    for folder in (Path(path_or_name), WEIGHTS_FOLDER / str(path_or_name)):
        if (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file():
            return folder
    shipped = sorted(each.parent.name for each in WEIGHTS_FOLDER.glob(f"*/{CONFIG_FILE}"))
    raise CheckpointMismatch(
        f"no checkpoint at {str(path_or_name)!r}: give a folder with {CONFIG_FILE} and "
        f"{WEIGHTS_FILE}, a SegviGen .ckpt or a folder of them with TRELLIS.2 in or beside it, "
        f"or a shipped name ({', '.join(shipped) or 'none is installed'})"
    )


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = parse_json((folder / CONFIG_FILE).read_bytes(), CONFIG_FILE)
    except CorruptBlob as err:
        raise CheckpointMismatch(f"{folder / CONFIG_FILE} is no JSON: {err}") from err
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise CheckpointMismatch(f"{folder / CONFIG_FILE} has format {found!r}, not {FORMAT!r}")
    for key in ("model", "normalization"):
        if key not in header:
            raise CheckpointMismatch(f"{folder / CONFIG_FILE} lacks {key!r}; save it again")
    return header
