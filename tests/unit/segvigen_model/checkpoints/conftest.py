"""A folder of released weights in small: TRELLIS.2, three SegviGen checkpoints, an image model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segvigen_model.checkpoints import official
from segvigen_model.slat_flow.image_tokens import MODEL_FOLDER
from segvigen_model.slat_flow.segmentation import SegmentationConfig, SegmentationFlow
from segvigen_model.slat_flow.transformer import FlowConfig
from segvigen_model.vae.decoder import Decoder, DecoderConfig
from segvigen_model.vae.encoder import Encoder, EncoderConfig

GRID, LATENT, COND = 16, 8, 16
FLOW = FlowConfig(2 * LATENT, LATENT, 24, COND, num_blocks=2, num_heads=2, mlp_ratio=5.3334)
SAMPLER = {
    "steps": 3,
    "rescale_t": 3.0,
    "guidance_strength": 1.0,
    "guidance_interval": [0.6, 0.9],
    "guidance_rescale": 0.0,
}


def drawn(module, seed):
    """Redraw every silent layer, so that a wrong path shows."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if not bool(parameter.any()):
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


def write_autoencoder(folder, part, name):
    is_encoder, is_shape = "encoder" in part, "shape" in part
    kind = "FlexiDualGridVae" if is_shape else "SparseUnetVae"
    if is_encoder:
        args = {"model_channels": [8, 16], "num_blocks": [0, 1], "in_channels": 6}
        module = Encoder(EncoderConfig(6, (8, 16), (0, 1), LATENT))
    else:
        args = {"model_channels": [16, 8], "num_blocks": [1, 0], "pred_subdiv": is_shape}
        module = Decoder(DecoderConfig(7 if is_shape else 6, (16, 8), (1, 0), LATENT, is_shape))
    header = {"name": kind + ("Encoder" if is_encoder else "Decoder")}
    header["args"] = {**args, "latent_channels": LATENT, "use_fp16": True}
    (folder / f"{name}.json").write_text(json.dumps(header))
    save_file(drawn(module, 1).state_dict(), folder / f"{name}.safetensors")


def write_segvigen(path, num_clicks, seed):
    torch.manual_seed(seed)
    flow = drawn(SegmentationFlow(SegmentationConfig(FLOW, num_clicks, False, None)), seed)
    state = {f"gen3dseg.{key}": value for key, value in flow.state_dict().items()}
    torch.save({"state_dict": state}, path)


@pytest.fixture
def write_released(monkeypatch, request) -> Callable[..., Path]:
    """Return a writer of such a folder; `has_image_model=False` leaves DINOv3 out."""
    monkeypatch.setattr(official, "GRID", GRID)

    def write(folder: Path, *, has_image_model: bool = True) -> Path:
        torch.manual_seed(0)
        ckpts = folder / "TRELLIS.2-4B" / "ckpts"
        ckpts.mkdir(parents=True)
        for part, name in official.AUTOENCODERS.items():
            write_autoencoder(ckpts, part, name)
        slat = {"mean": [0.1] * LATENT, "std": [1.5] * LATENT}
        args = {
            "shape_slat_normalization": slat,
            "tex_slat_normalization": slat,
            "tex_slat_sampler": {"params": SAMPLER},
        }
        (ckpts.parent / "pipeline.json").write_text(json.dumps({"args": args}))
        write_segvigen(folder / "full_seg.ckpt", 0, 1)
        write_segvigen(folder / "full_seg_w_2d_map.ckpt", 0, 2)
        write_segvigen(folder / "interactive_seg.ckpt", 1, 3)
        if has_image_model:
            sizes = {"hidden_size": COND, "num_hidden_layers": 1, "num_attention_heads": 2}
            make_tokenizer = request.getfixturevalue("make_tokenizer")
            tokenizer = make_tokenizer(**sizes, intermediate_size=32)
            from transformers.models.dinov3_vit import DINOv3ViTModel

            model = DINOv3ViTModel(tokenizer.model.config)
            model.save_pretrained(folder / MODEL_FOLDER)
        return folder

    return write


@pytest.fixture
def released_folder(write_released, tmp_path) -> Path:
    pytest.importorskip("transformers")
    return write_released(tmp_path / "weights")
