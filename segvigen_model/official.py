"""Sizes in the official json files -> our configs, with a clear word for what we do not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segvigen_model.dit import FlowConfig
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.vae import shape, texture
from segvigen_model.vae.decoder import DecoderConfig
from segvigen_model.vae.encoder import EncoderConfig

SHAPE_ENCODER, SHAPE_DECODER = "FlexiDualGridVaeEncoder", "FlexiDualGridVaeDecoder"
TEX_ENCODER, TEX_DECODER = "SparseUnetVaeEncoder", "SparseUnetVaeDecoder"


def flow_config(args: Mapping[str, Any]) -> FlowConfig:
    """Read the sizes of an official flow transformer from its json `args`."""
    for key, wanted in (("pe_mode", "rope"), ("share_mod", True)):
        if args.get(key, wanted) != wanted:
            raise CheckpointMismatch(f"flow models with {key}={args[key]!r} are not supported")
    try:
        return FlowConfig(
            in_channels=int(args["in_channels"]),
            out_channels=int(args["out_channels"]),
            model_channels=int(args["model_channels"]),
            cond_channels=int(args["cond_channels"]),
            num_blocks=int(args["num_blocks"]),
            num_heads=int(args["num_heads"]),
            mlp_ratio=float(args.get("mlp_ratio", 4.0)),
            has_head_norm=bool(args.get("qk_rms_norm", False)),
            has_cross_head_norm=bool(args.get("qk_rms_norm_cross", False)),
        )
    except KeyError as err:
        raise CheckpointMismatch(f"the flow model's config lacks {err}") from err


def encoder_config(name: str, args: Mapping[str, Any]) -> EncoderConfig:
    """Read the sizes of an official encoder from its json `name` and `args`."""
    _check_blocks(args)
    if name not in (SHAPE_ENCODER, TEX_ENCODER):
        raise CheckpointMismatch(f"{name!r} is no encoder that we know")
    in_channels = shape.IN_CHANNELS if name == SHAPE_ENCODER else int(args["in_channels"])
    return EncoderConfig(
        in_channels,
        tuple(args["model_channels"]),
        tuple(args["num_blocks"]),
        int(args["latent_channels"]),
    )


def decoder_config(name: str, args: Mapping[str, Any]) -> DecoderConfig:
    """Read the sizes of an official decoder from its json `name` and `args`."""
    _check_blocks(args)
    if name not in (SHAPE_DECODER, TEX_DECODER):
        raise CheckpointMismatch(f"{name!r} is no decoder that we know")
    is_shape = name == SHAPE_DECODER
    return DecoderConfig(
        shape.OUT_CHANNELS if is_shape else int(args.get("out_channels", texture.CHANNELS)),
        tuple(args["model_channels"]),
        tuple(args["num_blocks"]),
        int(args["latent_channels"]),
        predicts_subdivision=bool(args.get("pred_subdiv", True)),
    )


def _check_blocks(args: Mapping[str, Any]) -> None:
    known = {
        "block_type": "SparseConvNeXtBlock3d",
        "down_block_type": "SparseResBlockS2C3d",
        "up_block_type": "SparseResBlockC2S3d",
    }
    for key, wanted in known.items():
        strange = set(args.get(key, [])) - {wanted}
        if strange:
            raise CheckpointMismatch(f"{key} {sorted(strange)} is not supported, only {wanted}")
