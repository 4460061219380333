"""Sizes in the official json files -> our configs, with a clear word for what we do not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from segvigen_model.errors import CheckpointMismatch
from segvigen_model.slat_flow.transformer import FlowConfig, SLatFlowModel
from segvigen_model.vae import shape, texture
from segvigen_model.vae.decoder import Decoder, DecoderConfig
from segvigen_model.vae.encoder import Encoder, EncoderConfig

SHAPE_ENCODER, SHAPE_DECODER = "FlexiDualGridVaeEncoder", "FlexiDualGridVaeDecoder"
TEX_ENCODER, TEX_DECODER = "SparseUnetVaeEncoder", "SparseUnetVaeDecoder"


def parse_flow_config(args: Mapping[str, Any]) -> FlowConfig:
    """Read the sizes of an official flow transformer from its json `args`."""
    for key, wanted in (("pe_mode", "rope"), ("share_mod", True)):
        if args.get(key, wanted) != wanted:
            raise CheckpointMismatch(f"flow models with {key}={args[key]!r} are not supported")
    with _name_config_errors("the flow model"):
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


def parse_encoder_config(name: str, args: Mapping[str, Any]) -> EncoderConfig:
    """Read the sizes of an official encoder from its json `name` and `args`."""
    _check_blocks(args)
    if name not in (SHAPE_ENCODER, TEX_ENCODER):
        known = f"{SHAPE_ENCODER}, {TEX_ENCODER}"
        raise CheckpointMismatch(f"{name!r} is no encoder that we know ({known})")
    is_shape = name == SHAPE_ENCODER
    with _name_config_errors(name):
        return EncoderConfig(
            shape.IN_CHANNELS if is_shape else int(args["in_channels"]),
            tuple(args["model_channels"]),
            tuple(args["num_blocks"]),
            int(args["latent_channels"]),
        )


def parse_decoder_config(name: str, args: Mapping[str, Any]) -> DecoderConfig:
    """Read the sizes of an official decoder from its json `name` and `args`."""
    _check_blocks(args)
    if name not in (SHAPE_DECODER, TEX_DECODER):
        known = f"{SHAPE_DECODER}, {TEX_DECODER}"
        raise CheckpointMismatch(f"{name!r} is no decoder that we know ({known})")
    is_shape = name == SHAPE_DECODER
    with _name_config_errors(name):
        return DecoderConfig(
            shape.OUT_CHANNELS if is_shape else int(args.get("out_channels", texture.CHANNELS)),
            tuple(args["model_channels"]),
            tuple(args["num_blocks"]),
            int(args["latent_channels"]),
            predicts_subdivision=bool(args.get("pred_subdiv", True)),
        )


def build_network(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Make the network of an official json's `name` and `args`, weights as torch starts them."""
    if "Flow" in name:
        return SLatFlowModel(parse_flow_config(args))
    if name in (SHAPE_ENCODER, TEX_ENCODER):
        return Encoder(parse_encoder_config(name, args))
    return Decoder(parse_decoder_config(name, args))


@contextmanager
def _name_config_errors(name: str) -> Iterator[None]:
    """Raise naming the config is wrong where a size is absent or no number."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as err:
        raise CheckpointMismatch(f"the config of {name} is incomplete: {err!r}") from err


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
