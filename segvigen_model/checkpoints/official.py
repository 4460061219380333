"""The released weights: a TRELLIS.2 folder (json + safetensors pairs) and SegviGen `.ckpt` files.

A `.ckpt` is a pickle; it is read with tensors only, so no code in it can run. Sizes of the flow
are read off its tensors. Networks are built without memory and take the files' tensors as theirs.
One `.ckpt` knows one task; a folder of them makes one model for all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from segvigen_model.checkpoints import official_config
from segvigen_model.checkpoints.weights import hash_file, load_weights
from segvigen_model.errors import CheckpointMismatch, MissingExtra
from segvigen_model.model.bundle import Normalization, SegviGenModel, build_normalization
from segvigen_model.model.offload import is_offload_needed
from segvigen_model.model.presets import OFFICIAL_SEGMENTER, ModelConfig
from segvigen_model.slat_flow import transformer
from segvigen_model.slat_flow.conditioning import Task
from segvigen_model.slat_flow.image_tokens import ImageTokenizer, find_image_model, load_tokenizer
from segvigen_model.slat_flow.sampler import SamplerOptions
from segvigen_model.slat_flow.segmentation import SegmentationConfig, SegmentationFlow
from segvigen_model.slat_flow.transformer import FlowConfig, SLatFlowModel
from segvigen_model.vae import encoder as vae

logger = logging.getLogger(__name__)
PIPELINE_FILE = "pipeline.json"
CHECKPOINT_PREFIX = "gen3dseg."
AUTOENCODERS = {
    "shape_encoder": "shape_enc_next_dc_f16c32_fp16",
    "shape_decoder": "shape_dec_next_dc_f16c32_fp16",
    "tex_encoder": "tex_enc_next_dc_f16c32_fp16",
    "tex_decoder": "tex_dec_next_dc_f16c32_fp16",
}
_Pair = tuple[Path, Path]  # json and safetensors
GRID = 512  # voxels along the cube that the released weights were trained on


@dataclass(frozen=True, slots=True)
class OfficialFiles:
    """Where the released weights lie.

    Attributes:
        trellis: folder with pipeline.json and, in it or in `ckpts/`, the autoencoders.
        segvigen: the `.ckpt` of one segmentation mode.
    """

    trellis: Path
    segvigen: Path


def load_official(
    files: OfficialFiles,
    *,
    device: str = "cpu",
    is_half: bool | None = None,
    is_offloaded: bool | None = None,
) -> SegviGenModel:
    """Load the released weights of one task as a model.

    Args:
        files: where they lie.
        device: where they compute.
        is_half: 16-bit torsos as released; None = yes on CUDA, no on a CPU.
        is_offloaded: weights rest on the CPU and visit the device one network at a time; None =
            when the device's memory is too small for all.

    Raises:
        CheckpointMismatch: a file is absent, damaged or does not fit.
    """
    half = torch.device(device).type == "cuda" if is_half is None else is_half
    offload = is_offload_needed(device) if is_offloaded is None else is_offloaded
    device_at_rest = "cpu" if offload else device
    sampler = read_official_sampler(files.trellis)
    pairs = {part: _find_pair(files.trellis, name) for part, name in AUTOENCODERS.items()}
    flow, task = _load_flow(files.segvigen, half, device_at_rest)
    config = _read_config(files.segvigen.stem, pairs, flow)
    modules = _load_autoencoders(pairs, device_at_rest, half)
    image_tokenizer, image_source = _load_image_tokenizer(files, device_at_rest)
    return SegviGenModel(
        **modules,
        dit=flow,
        config=config,
        normalization=_read_normalization(files.trellis, config.latent_channels).to(device),
        sha256=hash_file(files.segvigen),
        card=_list_sources(pairs) | _prepare_running(half, offload, image_source),
        flows={task: flow},
        sampler=sampler,
        image_tokenizer=image_tokenizer,
        compute_device=torch.device(device) if offload else None,
    )


def _read_config(name: str, pairs: Mapping[str, _Pair], flow: SegmentationFlow) -> ModelConfig:
    """Read the sizes of all networks; says so where a file holds another kind than its name."""
    headers = {part: _read_name_args(header) for part, (header, _) in pairs.items()}
    return ModelConfig(
        name=name,
        grid=GRID,
        shape_encoder=official_config.parse_encoder_config(*headers["shape_encoder"]),
        shape_decoder=official_config.parse_decoder_config(*headers["shape_decoder"]),
        tex_encoder=official_config.parse_encoder_config(*headers["tex_encoder"]),
        tex_decoder=official_config.parse_decoder_config(*headers["tex_decoder"]),
        flow=flow.config,
        segmenter=OFFICIAL_SEGMENTER,
    )


def _load_autoencoders(
    pairs: Mapping[str, _Pair], device_at_rest: str, half: bool
) -> dict[str, Any]:
    return {
        part: load_pair(weights, device=device_at_rest, is_half=half)
        for part, (_, weights) in pairs.items()
    }


def _prepare_running(half: bool, offload: bool, image_model: str) -> dict[str, Any]:
    return {"has_half_torso": half, "is_offloaded": offload, "image_model": image_model}


def _list_sources(pairs: Mapping[str, _Pair]) -> dict[str, Any]:
    hashes = {part: hash_file(weights) for part, (_, weights) in pairs.items()}
    return {"source": "official", "autoencoders": AUTOENCODERS, "autoencoder_sha256": hashes}


def load_pair(path: str | Path, *, device: str = "cpu", is_half: bool | None = None) -> Any:
    """Load one official network: `NAME.json` beside `NAME.safetensors`.

    Args:
        path: either file, or the two without their suffix.
        device: where to put it.
        is_half: 16-bit torso as released; None = yes on CUDA, no on a CPU.

    Returns:
        An `Encoder`, a `Decoder` or an `SLatFlowModel`, ready to compute.

    Raises:
        CheckpointMismatch: a file is absent, damaged or does not fit.
    """
    half = torch.device(device).type == "cuda" if is_half is None else is_half
    given = Path(path)
    base = given if given.suffix not in (".json", ".safetensors") else given.with_suffix("")
    header, weights = (base.with_name(base.name + end) for end in (".json", ".safetensors"))
    for file in (header, weights):
        if not file.is_file():
            raise CheckpointMismatch(f"no file {file}; an official network is a pair of both")
    name, args = _read_name_args(header)
    with torch.device("meta"):
        module = official_config.build_network(name, args)
    _load_state(module, _read_safetensors(weights), str(weights))
    if isinstance(module, SLatFlowModel):
        transformer.set_torso_dtype(module, torch.bfloat16 if half else torch.float32)
    else:
        vae.set_torso_dtype(module, torch.float16 if half else torch.float32)
    return module.to(device).eval()


def load_released(
    path: Path,
    *,
    device: str = "cpu",
    is_half: bool | None = None,
    is_offloaded: bool | None = None,
) -> SegviGenModel:
    """Load one `.ckpt`, or all of a folder as one model that knows each one's task.

    Args:
        path: the file or the folder; TRELLIS.2 lies in or beside it.
        device: where it computes.
        is_half: see `load_official`.
        is_offloaded: see `load_official`.
    """
    if path.suffix == ".ckpt" and not path.is_file():
        raise CheckpointMismatch(f"no file {path}; give a SegviGen .ckpt or a folder of them")
    found = [path] if path.suffix == ".ckpt" else sorted(path.glob("*.ckpt"))
    first, *others = found
    model = load_official(
        find_official(first), device=device, is_half=is_half, is_offloaded=is_offloaded
    )
    flows, digests = dict(model.flows), [model.sha256]
    device_at_rest = "cpu" if model.card["is_offloaded"] else device
    for other in others:
        flow, task = _load_flow(other, model.card["has_half_torso"], device_at_rest)
        if task in flows:
            raise CheckpointMismatch(f"{other} is a second one for {task.name.lower()}; keep one")
        flows[task] = flow
        digests.append(hash_file(other))
    if not others:
        return model
    return replace(model, flows=flows, sha256=hashlib.sha256("".join(digests).encode()).hexdigest())


def find_official(checkpoint_path: Path) -> OfficialFiles:
    """Find the TRELLIS.2 folder that goes with a SegviGen checkpoint: beside it or above it."""
    for base in (checkpoint_path.parent, checkpoint_path.parent.parent):
        for pipeline in [base / PIPELINE_FILE, *sorted(base.glob(f"*/{PIPELINE_FILE}"))]:
            if pipeline.is_file():
                return OfficialFiles(pipeline.parent, checkpoint_path)
    raise CheckpointMismatch(
        f"no TRELLIS.2 folder with {PIPELINE_FILE} beside {checkpoint_path}; put it there"
    )


def read_official_sampler(trellis: Path) -> SamplerOptions:
    """Read the texture sampler's parameters from pipeline.json."""
    try:
        values = _read_pipeline(trellis)["tex_slat_sampler"]["params"]
        low, high = values["guidance_interval"]
        return SamplerOptions(
            num_steps=int(values["steps"]),
            rescale_t=float(values["rescale_t"]),
            guidance_strength=float(values["guidance_strength"]),
            guidance_interval=(float(low), float(high)),
            guidance_rescale=float(values.get("guidance_rescale", 0.0)),
        )
    except (KeyError, TypeError, ValueError) as err:
        raise CheckpointMismatch(f"{PIPELINE_FILE} has no texture sampler: {err!r}") from err


def read_segvigen(path: Path) -> dict[str, Tensor]:
    """Read a SegviGen checkpoint's weights, keys without their prefix, running no code of it."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # noqa: TID251
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as err:
        raise CheckpointMismatch(f"cannot read {path} as tensors only: {err}") from err
    state = data.get("state_dict") if isinstance(data, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointMismatch(f"{path} holds no 'state_dict' of tensors; is it SegviGen's?")
    return {str(key).replace(CHECKPOINT_PREFIX, ""): value for key, value in state.items()}


def infer_flow_config(state: Mapping[str, Tensor], prefix: str = "") -> FlowConfig:
    """Read the flow's sizes off its weights."""
    try:
        width, in_channels = state[f"{prefix}input_layer.weight"].shape
        block = f"{prefix}blocks.0."
        hidden = state[f"{block}mlp.mlp.0.weight"].shape[0]
        norm = state.get(f"{block}self_attn.q_rms_norm.gamma")
        if norm is None:
            raise CheckpointMismatch("flow weights without head norms are not supported")
        pattern = re.compile(re.escape(prefix) + r"blocks\.(\d+)\.")
        found = [match for match in map(pattern.match, state) if match]
        return FlowConfig(
            in_channels=in_channels,
            out_channels=state[f"{prefix}out_layer.weight"].shape[0],
            model_channels=width,
            cond_channels=state[f"{block}cross_attn.to_kv.weight"].shape[1],
            num_blocks=1 + max(int(match.group(1)) for match in found),
            num_heads=len(norm),
            mlp_ratio=(hidden + 0.5) / width,  # int(ratio * width) must give `hidden` back
            has_cross_head_norm=f"{block}cross_attn.q_rms_norm.gamma" in state,
        )
    except (KeyError, ValueError) as err:
        raise CheckpointMismatch(f"these are no weights of a SegviGen flow: {err!r}") from err


def _load_flow(path: Path, half: bool, device: str) -> tuple[SegmentationFlow, Task]:
    """Read the flow of one `.ckpt`; clicks give an interactive one away, its name the others."""
    state = read_segvigen(path)
    num_clicks = len(state.get("seg_embeddings.weight", ()))
    with torch.device("meta"):
        flow = SegmentationFlow(
            SegmentationConfig(infer_flow_config(state, "flow_model."), num_clicks, False)
        )
    _load_state(flow, state, str(path))
    transformer.set_torso_dtype(flow.flow_model, torch.bfloat16 if half else torch.float32)
    flow.to(device).eval()
    if num_clicks:
        return flow, Task.INTERACTIVE
    return flow, Task.GUIDED if "2d" in path.stem.lower() else Task.FULL


def _load_image_tokenizer(files: OfficialFiles, device: str) -> tuple[ImageTokenizer | None, str]:
    """Load DINOv3 where it is present; its absence is reported when an asset is encoded."""
    near = files.segvigen.parent, files.segvigen.parent.parent, files.trellis, files.trellis.parent
    try:
        return load_tokenizer(find_image_model(*near), device), "dinov3-vitl16"
    except (CheckpointMismatch, MissingExtra) as err:
        logger.warning("image_model=absent reason=%s", err)
        return None, f"absent: {err}"


def _load_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    load_weights(module, state, source, is_assigned=True)
    module.float()


def _read_pipeline(trellis: Path) -> dict[str, Any]:
    try:
        data = json.loads((trellis / PIPELINE_FILE).read_text("utf-8"))
        arguments: dict[str, Any] = data["args"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise CheckpointMismatch(f"cannot read {trellis / PIPELINE_FILE}: {err!r}") from err
    return arguments


def _read_normalization(trellis: Path, channels: int) -> Normalization:
    arguments = _read_pipeline(trellis)
    try:
        shape = arguments["shape_slat_normalization"]
        tex = arguments["tex_slat_normalization"]
        values = {
            "shape_mean": shape["mean"],
            "shape_std": shape["std"],
            "tex_mean": tex["mean"],
            "tex_std": tex["std"],
        }
    except (KeyError, TypeError) as err:
        raise CheckpointMismatch(f"{PIPELINE_FILE} lacks {err}; fetch it again") from err
    return build_normalization(values, channels)


def _find_pair(trellis: Path, name: str) -> _Pair:
    for folder in (trellis / "ckpts", trellis):
        pair = folder / f"{name}.json", folder / f"{name}.safetensors"
        if all(path.is_file() for path in pair):
            return pair
    raise CheckpointMismatch(f"{trellis} lacks {name}.json or .safetensors (in it or in ckpts/)")


def _read_name_args(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        data = json.loads(path.read_text("utf-8"))
        return str(data["name"]), dict(data["args"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise CheckpointMismatch(f"{path} is no model config: {err!r}") from err


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as err:
        raise CheckpointMismatch(f"cannot read {path}: {err}; fetch it again") from err
    return state
