"""Parity of both autoencoders, their training mode, and mesh extraction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.checkpoints.official_config import parse_decoder_config, parse_encoder_config
from segvigen_model.parity.golden import (
    DECODER_TOLERANCE,
    FLOW_TOLERANCE,
    VERTEX_TOLERANCE,
    Golden,
    find_grid,
    read_arrays,
)
from segvigen_model.parity.row import ParityRow, compare_each
from segvigen_model.sparse.tensor import SparseTensor, make_sparse_tensor
from segvigen_model.vae.decoder import Decoder, compute_subdivision_loss
from segvigen_model.vae.encoder import Encoder
from segvigen_model.vae.mesh import extract_mesh, extract_meshes
from segvigen_model.vae.shape import decode_shape_voxels, encode_shape_features

MESH_GRID = 64  # of decoded meshes where the config does not say


def _build_pair(golden: Golden) -> tuple[Encoder, Decoder]:
    parts = golden.config["encoder"], golden.config["decoder"]
    encoder = Encoder(parse_encoder_config(parts[0]["name"], parts[0]["args"]))
    decoder = Decoder(parse_decoder_config(parts[1]["name"], parts[1]["args"]))
    golden.load_weights(encoder, "encoder.")
    golden.load_weights(decoder, "decoder.")
    return encoder, decoder


def _read_shape_input(golden: Golden) -> SparseTensor:
    dual = golden.inputs["dual_vertices_u8"].float() / 255.0
    feats = encode_shape_features(dual, golden.inputs["intersected"])
    return make_sparse_tensor(feats, golden.inputs["coords"])


@torch.no_grad()
def compare_shape_vae(folder: Path) -> list[ParityRow]:
    """Encode, then decode with predicted structure, then extract meshes."""
    golden = Golden(folder)
    encoder, decoder = _build_pair(golden)
    posterior = encoder(_read_shape_input(golden))
    fresh = SparseTensor(golden.outputs["z"], posterior.mean.structure.without_fine())
    decoded = decoder(fresh)
    rows = [
        golden.compare_exact("z_coords", posterior.mean.coords),
        golden.compare_close("z", posterior.mean.feats, FLOW_TOLERANCE),
        golden.compare_close("mean", posterior.mean.feats, FLOW_TOLERANCE),
        golden.compare_close("logvar", posterior.logvar, FLOW_TOLERANCE),
        golden.compare_alone("latents", _encode_separately(golden, encoder), posterior.mean.feats),
        golden.compare_exact("dec_coords", decoded.voxels.coords),
        golden.compare_close("dec_raw", decoded.voxels.feats, DECODER_TOLERANCE),
    ]
    for level, logits in enumerate(decoded.subdivisions):
        rows.append(golden.compare_exact(f"sub{level}_coords", logits.coords))
        rows.append(golden.compare_close(f"sub{level}_logits", logits.feats, DECODER_TOLERANCE))
    grid = _read_grid(golden)
    for asset, mesh in enumerate(extract_meshes(decode_shape_voxels(decoded.voxels), grid)):
        rows.append(
            golden.compare_close(f"mesh{asset}_vertices", mesh.vertices, DECODER_TOLERANCE / grid)
        )
        rows.append(golden.compare_exact(f"mesh{asset}_faces", mesh.faces))
    return [*rows, *golden.list_left_over()]


def _read_grid(golden: Golden) -> int:
    return int(golden.config["decoder"]["args"].get("resolution", MESH_GRID))


def _encode_separately(golden: Golden, encoder: Encoder) -> Tensor:
    """Latents of each asset encoded without the others, one after the other."""
    whole = _read_shape_input(golden)
    parts = []
    for asset in range(whole.batch_size):
        rows = whole.structure.batch_index == asset
        coords = whole.coords[rows].clone()
        coords[:, 0] = 0
        parts.append(encoder(make_sparse_tensor(whole.feats[rows], coords)).mean.feats)
    return torch.cat(parts)


def compare_shape_vae_training(folder: Path) -> list[ParityRow]:
    """Decode on the encoder's own structure, take the losses and all gradients."""
    golden = Golden(folder)
    encoder, decoder = _build_pair(golden)
    flags = golden.inputs["intersected"]
    decoded = decoder(encoder(_read_shape_input(golden)).mean)
    voxels = decode_shape_voxels(decoded.voxels)
    grid = _read_grid(golden)
    meshes = extract_meshes(voxels, grid, intersected=flags, split="train")
    loss: Tensor = F.binary_cross_entropy_with_logits(voxels.intersected_logits, flags.float())
    loss = loss + F.mse_loss(voxels.dual, golden.inputs["dual_vertices_u8"].float() / 255.0)
    loss = loss + compute_subdivision_loss(decoded)
    for mesh in meshes:
        loss = loss + 0.01 * mesh.vertices.square().sum()
    torch.autograd.backward(loss)
    rows = [
        golden.compare_exact("coords", voxels.coords),
        golden.compare_close("vertices", voxels.dual, DECODER_TOLERANCE),
        golden.compare_close("intersected_logits", voxels.intersected_logits, DECODER_TOLERANCE),
        golden.compare_close("loss", loss, DECODER_TOLERANCE),
    ]
    for level, logits in enumerate(decoded.subdivisions):
        rows.append(golden.compare_close(f"sub{level}_logits", logits.feats, DECODER_TOLERANCE))
        rows.append(golden.compare_exact(f"sub{level}_gt", logits.structure.subdivision))
    for asset, mesh in enumerate(meshes):
        rows.append(golden.compare_close(f"mesh{asset}_vertices", mesh.vertices, DECODER_TOLERANCE))
        rows.append(golden.compare_exact(f"mesh{asset}_faces", mesh.faces))
    pair = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    return [*rows, golden.compare_gradients(pair, "grad_norm_sum"), *golden.list_left_over()]


@torch.no_grad()
def compare_tex_vae(folder: Path) -> list[ParityRow]:
    """Encode, then decode along another decoder's subdivision."""
    golden = Golden(folder)
    encoder, decoder = _build_pair(golden)
    latent = encoder(make_sparse_tensor(golden.inputs["attr"], golden.inputs["coords"])).mean
    guides = [golden.inputs[f"guide_sub{level}_logits"] for level in range(len(decoder.blocks) - 1)]
    fresh = SparseTensor(golden.outputs["z"], latent.structure.without_fine())
    voxels = decoder(fresh, guides).voxels
    return [
        golden.compare_exact("z_coords", latent.coords),
        golden.compare_close("z", latent.feats, FLOW_TOLERANCE),
        golden.compare_exact("dec_coords", voxels.coords),
        golden.compare_close("dec", voxels.feats, DECODER_TOLERANCE),
        golden.compare_close("dec01", voxels.feats * 0.5 + 0.5, DECODER_TOLERANCE),
        *golden.list_left_over(),
    ]


def compare_fdg_to_mesh(folder: Path) -> list[ParityRow]:
    """Extract meshes from real dual grids in every split mode, by the decoder's extraction."""
    golden = Golden(folder)

    def parts() -> Iterator[tuple[str, Callable[[], list[ParityRow]]]]:
        for key, weight in golden.inputs.items():
            yield key, partial(_compare_extraction, golden, key.removesuffix("_split"), weight)

    return [*compare_each(folder.name, parts()), *golden.list_left_over()]


def _compare_extraction(golden: Golden, name: str, weight: Tensor) -> list[ParityRow]:
    rows: list[ParityRow] = []
    path, size = find_grid(golden.folder, name, len(weight))
    grid = _read_dual_grid(path)
    for split, label in (("first", "angle"), ("weights", "split"), ("train", "train")):
        mesh = extract_mesh(*grid, weight, grid=size, split=split)  # type: ignore[arg-type]
        rows.append(golden.compare_exact(f"{name}_{label}_f", mesh.faces))
        if split == "first":
            rows.append(golden.compare_close(f"{name}_angle_v", mesh.vertices, VERTEX_TOLERANCE))
        if split == "train":
            middle = mesh.vertices[len(grid[0]) :]
            rows.append(golden.compare_close(f"{name}_train_v", middle, VERTEX_TOLERANCE))
    return rows


def _read_dual_grid(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    arrays = read_arrays(path)
    flags = arrays["intersected"].reshape(-1, 1) >> torch.arange(3) & 1
    return arrays["coords"].to(torch.int32), arrays["dual_u8"].float() / 255.0, flags.bool()
