"""Released weights, in small: a TRELLIS.2 folder and a SegviGen checkpoint made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from segvigen_model.checkpoints.loading import load_model
from segvigen_model.checkpoints.official import (
    AUTOENCODERS,
    find_official,
    infer_flow_config,
    load_official,
    load_pair,
    read_official_sampler,
    read_segvigen,
)
from segvigen_model.checkpoints.weights import hash_file
from segvigen_model.errors import CheckpointMismatch
from segvigen_model.slat_flow.segmentation import SegmentationConfig, SegmentationFlow
from segvigen_model.slat_flow.transformer import FlowConfig, SLatFlowModel
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
    model = load_model(released)
    assert model.config.factor == 2
    assert model.config.flow.num_click_embeddings == 1
    assert model.sha256 == hash_file(released)
    wanted = read_segvigen(released)
    for name, value in model.dit.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    latent = torch.ones(3, 8)
    assert torch.allclose(model.normalization.normalize_tex(latent), torch.full((3, 8), 0.25))


def test_half_torso_is_stored_in_sixteen_bits(released):
    model = load_official(find_official(released), is_half=True)
    assert model.dit.flow_model.dtype == torch.bfloat16
    assert model.tex_encoder.blocks[1][0].conv.weight.dtype == torch.float16
    assert model.tex_encoder.to_latent.weight.dtype == torch.float32


def test_sizes_are_read_off_the_weights(released):
    found = infer_flow_config(read_segvigen(released), "flow_model.")
    hidden = int(found.mlp_ratio * found.model_channels)
    assert hidden == int(FLOW.mlp_ratio * FLOW.model_channels)
    assert (found.num_blocks, found.num_heads, found.cond_channels) == (2, 2, 12)


def test_the_released_sampler_is_read(released):
    options = read_official_sampler(find_official(released).trellis)
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
        load_model(released)
    assert not (tmp_path / "ran").exists()


def test_wrong_and_absent_files_are_named(released, tmp_path):
    torch.save({"weights": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointMismatch, match="holds no 'state_dict'"):
        load_model(tmp_path / "other.ckpt")
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointMismatch, match="no weights of a SegviGen flow"):
        load_model(tmp_path / "other.ckpt")
    ckpts = tmp_path / "TRELLIS.2" / "ckpts"
    (ckpts / f"{AUTOENCODERS['tex_encoder']}.json").unlink()
    with pytest.raises(CheckpointMismatch, match="lacks tex_enc"):
        load_model(released)
    (tmp_path / "TRELLIS.2" / "pipeline.json").write_text("{}")
    with pytest.raises(CheckpointMismatch, match=r"cannot read .*pipeline.json"):
        load_model(released)
    (tmp_path / "TRELLIS.2" / "pipeline.json").unlink()
    with pytest.raises(CheckpointMismatch, match="no TRELLIS"):
        load_model(released)


def edit_json(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_flow(path, change):
    state = torch.load(path, weights_only=True)["state_dict"]  # noqa: TID251
    change(state)
    torch.save({"state_dict": state}, path)


def drop_norms(state):
    for key in [key for key in state if "self_attn.q_rms_norm" in key]:
        del state[key]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda s: s.pop("gen3dseg.flow_model.out_layer.bias"),
            r"1 missing: flow_model\.out",
        ),
        (lambda s: s.update({"gen3dseg.head.weight": torch.zeros(1)}), "1 unknown: head.weight"),
        (
            lambda s: s.update({"gen3dseg.flow_model.out_layer.bias": torch.zeros(3)}),
            r"out_layer\.bias \(3,\) instead of \(8,\)",
        ),
        (drop_norms, "without head norms are not supported"),
        (
            lambda s: s.update({f"gen3dseg.extra.{i}": torch.zeros(1) for i in range(9)}),
            "9 unknown: .* and 5 more",
        ),
    ],
)
def test_flow_weights_that_do_not_fit_are_named(released, change, match):
    edit_flow(released, change)
    with pytest.raises(CheckpointMismatch, match=match):
        load_model(released)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.pop("tex_slat_sampler"), "no texture sampler: KeyError"),
        (lambda a: a["tex_slat_sampler"]["params"].update(steps="many"), "no texture sampler"),
        (lambda a: a.pop("shape_slat_normalization"), "lacks 'shape_slat_normalization'"),
        (lambda a: a["tex_slat_normalization"].update(std=["x"]), "normalisation is incomplete"),
        (
            lambda a: a["tex_slat_normalization"].update(std=[1.0] * 7),
            r"tex_std has shape \(7,\) for latents of 8 channels",
        ),
    ],
)
def test_a_wrong_pipeline_reports_what_is_wrong(released, change, match):
    pipeline = released.parent / "TRELLIS.2" / "pipeline.json"
    edit_json(pipeline, lambda data: change(data["args"]))
    with pytest.raises(CheckpointMismatch, match=match):
        load_model(released)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.pop("args"), "is no model config: KeyError"),
        (lambda d: d.update(name="UNet"), "'UNet' is no encoder that we know"),
        (lambda d: d["args"].pop("latent_channels"), "SparseUnetVaeEncoder is incomplete: KeyErr"),
        (
            lambda d: d["args"].update(block_type=["Swin"]),
            "is not supported, only",
        ),
        (lambda d: d["args"].update(model_channels=[16, 16]), "wrong shape: "),
    ],
)
def test_a_wrong_autoencoder_config_reports_what_is_wrong(released, change, match):
    name = f"{AUTOENCODERS['tex_encoder']}.json"
    edit_json(released.parent / "TRELLIS.2" / "ckpts" / name, change)
    with pytest.raises(CheckpointMismatch, match=match):
        load_model(released)


def test_damaged_autoencoder_weights_report_what_to_do(released):
    name = f"{AUTOENCODERS['shape_decoder']}.safetensors"
    (released.parent / "TRELLIS.2" / "ckpts" / name).write_bytes(b"cut short")
    with pytest.raises(CheckpointMismatch, match=rf"cannot read .*{name}.*fetch it again"):
        load_model(released)


def test_absent_checkpoints_are_distinguished(released):
    with pytest.raises(CheckpointMismatch, match=r"no file .*nowhere\.ckpt; give a SegviGen"):
        load_model(released.parent / "nowhere.ckpt")
    with pytest.raises(CheckpointMismatch, match=r"a SegviGen \.ckpt or a folder of them"):
        load_model(released.parent / "TRELLIS.2")


def test_every_file_that_was_used_is_recorded(released):
    model = load_model(released)
    name = f"{AUTOENCODERS['tex_decoder']}.safetensors"
    wanted = hash_file(released.parent / "TRELLIS.2" / "ckpts" / name)
    assert model.card["autoencoder_sha256"]["tex_decoder"] == wanted
    assert set(model.card["autoencoder_sha256"]) == set(AUTOENCODERS)


def test_one_official_network_loads_by_itself(released, tmp_path):
    ckpts = released.parent / "TRELLIS.2" / "ckpts"
    name = AUTOENCODERS["shape_encoder"]
    for path in (ckpts / name, ckpts / f"{name}.json", str(ckpts / f"{name}.safetensors")):
        assert isinstance(load_pair(path), Encoder)
    args = {"in_channels": 16, "out_channels": 8, "model_channels": 24, "cond_channels": 12}
    args |= {"num_blocks": 2, "num_heads": 2, "mlp_ratio": 5.3334, "qk_rms_norm": True}
    args |= {"qk_rms_norm_cross": True, "pe_mode": "rope", "share_mod": True}
    flow = SLatFlowModel(FLOW)
    (tmp_path / "flow.json").write_text(json.dumps({"name": "SLatFlowModel", "args": args}))
    save_file(flow.state_dict(), tmp_path / "flow.safetensors")
    again = load_pair(tmp_path / "flow", is_half=True)
    assert again.dtype == torch.bfloat16 and again.out_layer.weight.dtype == torch.float32
    assert torch.equal(again.input_layer.weight, flow.input_layer.weight)
    edit_json(tmp_path / "flow.json", lambda data: data["args"].update(pe_mode="ape"))
    with pytest.raises(CheckpointMismatch, match="pe_mode='ape' are not supported"):
        load_pair(tmp_path / "flow")
    edit_json(tmp_path / "flow.json", lambda data: data["args"].clear())
    with pytest.raises(CheckpointMismatch, match="the flow model is incomplete: KeyError"):
        load_pair(tmp_path / "flow")
    (tmp_path / "flow.safetensors").unlink()
    with pytest.raises(CheckpointMismatch, match=r"no file .*flow\.safetensors"):
        load_pair(tmp_path / "flow")
