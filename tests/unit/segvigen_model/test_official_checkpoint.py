"""Released weights, in small: a TRELLIS.2 folder and a SegviGen checkpoint made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segvigen_model import checkpoint
from segvigen_model.dit import FlowConfig
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.official_checkpoint import (
    AUTOENCODERS,
    find_official,
    flow_config_of,
    load_official,
    official_sampler,
    read_segvigen,
)
from segvigen_model.segmentation_flow import SegmentationConfig, SegmentationFlow
from segvigen_model.vae.decoder import Decoder, DecoderConfig
from segvigen_model.vae.encoder import Encoder, EncoderConfig

WIDTHS = [8, 16]
FLOW = FlowConfig(16, 8, 24, 12, num_blocks=2, num_heads=2, mlp_ratio=5.3334)
PARAMS = {
    "steps": 12,
    "rescale_t": 3.0,
    "guidance_strength": 1.0,
    "guidance_interval": [0.6, 0.9],
    "guidance_rescale": 0.0,
}


def write_pair(folder, part, name):
    is_encoder, is_shape = "encoder" in part, "shape" in part
    kind = ("FlexiDualGridVae" if is_shape else "SparseUnetVae") + (
        "Encoder" if is_encoder else "Decoder"
    )
    args = {"latent_channels": 8, "use_fp16": True}
    if is_encoder:
        args |= {"model_channels": WIDTHS, "num_blocks": [0, 1], "in_channels": 6}
        module = Encoder(EncoderConfig(6, tuple(WIDTHS), (0, 1), 8))
    else:
        args |= {"model_channels": WIDTHS[::-1], "num_blocks": [1, 0], "pred_subdiv": is_shape}
        module = Decoder(DecoderConfig(7 if is_shape else 6, (16, 8), (1, 0), 8, is_shape))
    (folder / f"{name}.json").write_text(json.dumps({"name": kind, "args": args}))
    save_file(module.state_dict(), folder / f"{name}.safetensors")


@pytest.fixture
def released(tmp_path) -> Path:
    """Return the path of a SegviGen checkpoint with its TRELLIS.2 folder beside it."""
    ckpts = tmp_path / "TRELLIS.2" / "ckpts"
    ckpts.mkdir(parents=True)
    for part, name in AUTOENCODERS.items():
        write_pair(ckpts, part, name)
    slat = {"mean": [0.5] * 8, "std": [2.0] * 8}
    args = {
        "shape_slat_normalization": slat,
        "tex_slat_normalization": slat,
        "tex_slat_sampler": {"params": PARAMS},
    }
    (tmp_path / "TRELLIS.2" / "pipeline.json").write_text(json.dumps({"args": args}))
    flow = SegmentationFlow(SegmentationConfig(FLOW, 1, False, None))
    state = {f"gen3dseg.{key}": value for key, value in flow.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "interactive_seg.ckpt")
    return tmp_path / "interactive_seg.ckpt"


def test_released_weights_load_and_run(released):
    bundle = checkpoint.load(released)
    assert bundle.config.factor == 2
    assert bundle.config.flow.num_click_embeddings == 1
    assert bundle.sha256 == checkpoint.file_sha256(released)
    wanted = read_segvigen(released)
    for name, value in bundle.dit.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    latent = torch.ones(3, 8)
    assert torch.allclose(bundle.normalization.normalize_tex(latent), torch.full((3, 8), 0.25))


def test_half_torso_is_stored_in_sixteen_bits(released):
    bundle = load_official(find_official(released), is_half=True)
    assert bundle.dit.flow_model.dtype == torch.bfloat16
    assert bundle.tex_encoder.blocks[1][0].conv.weight.dtype == torch.float16
    assert bundle.tex_encoder.to_latent.weight.dtype == torch.float32


def test_sizes_are_read_off_the_weights(released):
    found = flow_config_of(read_segvigen(released), "flow_model.")
    hidden = int(found.mlp_ratio * found.model_channels)
    assert hidden == int(FLOW.mlp_ratio * FLOW.model_channels)
    assert (found.num_blocks, found.num_heads, found.cond_channels) == (2, 2, 12)


def test_the_released_sampler_is_read(released):
    options = official_sampler(find_official(released).trellis)
    assert (options.num_steps, options.rescale_t) == (12, 3.0)
    assert not options.needs_null


class Malicious:
    """Runs code when unpickled without care."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_checkpoint_cannot_run_code(released, tmp_path):
    torch.save({"state_dict": {}, "callback": Malicious(tmp_path / "ran")}, released)
    with pytest.raises(CheckpointMismatch, match="tensors only"):
        checkpoint.load(released)
    assert not (tmp_path / "ran").exists()


def test_wrong_and_absent_files_are_named(released, tmp_path):
    torch.save({"weights": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointMismatch, match="holds no 'state_dict'"):
        checkpoint.load(tmp_path / "other.ckpt")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointMismatch, match="no weights of a SegviGen flow"):
        checkpoint.load(tmp_path / "other.ckpt")
    ckpts = tmp_path / "TRELLIS.2" / "ckpts"
    (ckpts / f"{AUTOENCODERS['tex_encoder']}.json").unlink()
    with pytest.raises(CheckpointMismatch, match="lacks tex_enc"):
        checkpoint.load(released)
    (tmp_path / "TRELLIS.2" / "pipeline.json").write_text("{}")
    with pytest.raises(CheckpointMismatch, match=r"cannot read .*pipeline.json"):
        checkpoint.load(released)
    (tmp_path / "TRELLIS.2" / "pipeline.json").unlink()
    with pytest.raises(CheckpointMismatch, match="no TRELLIS"):
        checkpoint.load(released)
