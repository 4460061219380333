"""Parity of both autoencoders, their training mode, and mesh extraction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segvigen_model.checkpoints.official_config import decoder_config, encoder_config
from segvigen_model.parity.golden import (
    DECODER_TOLERANCE,
    FLOW_TOLERANCE,
    VERTEX_TOLERANCE,
    Golden,
    find_grid,
    read_arrays,
)
from segvigen_model.parity.row import ParityRow, each
from segvigen_model.sparse.tensor import SparseTensor, sparse_tensor
from segvigen_model.vae.decoder import Decoder, subdivision_loss
from segvigen_model.vae.encoder import Encoder
from segvigen_model.vae.mesh import extract_mesh, extract_meshes
from segvigen_model.vae.shape import shape_features, shape_voxels

MESH_GRID = 64  # of decoded meshes where the config does not say


def _pair(golden: Golden) -> tuple[Encoder, Decoder]:
    parts = golden.config["encoder"], golden.config["decoder"]
    encoder = Encoder(encoder_config(parts[0]["name"], parts[0]["args"]))
    decoder = Decoder(decoder_config(parts[1]["name"], parts[1]["args"]))
    golden.fill(encoder, "encoder.")
    golden.fill(decoder, "decoder.")
    return encoder, decoder


def _shape_input(golden: Golden) -> SparseTensor:
    dual = golden.inputs["dual_vertices_u8"].float() / 255.0
    feats = shape_features(dual, golden.inputs["intersected"])
    return sparse_tensor(feats, golden.inputs["coords"])


@torch.no_grad()
def shape_vae(folder: Path) -> list[ParityRow]:
    """Encode, then decode with predicted structure, then extract meshes."""
    golden = Golden(folder)
    encoder, decoder = _pair(golden)
    posterior = encoder(_shape_input(golden))
    fresh = SparseTensor(golden.outputs["z"], posterior.mean.structure.without_fine())
    decoded = decoder(fresh)
    rows = [
        golden.exact("z_coords", posterior.mean.coords),
        golden.close("z", posterior.mean.feats, FLOW_TOLERANCE),
        golden.close("mean", posterior.mean.feats, FLOW_TOLERANCE),
        golden.close("logvar", posterior.logvar, FLOW_TOLERANCE),
        golden.alone("latents", _latents_alone(golden, encoder), posterior.mean.feats),
        golden.exact("dec_coords", decoded.voxels.coords),
        golden.close("dec_raw", decoded.voxels.feats, DECODER_TOLERANCE),
    ]
    for level, logits in enumerate(decoded.subdivisions):
        rows.append(golden.exact(f"sub{level}_coords", logits.coords))
        rows.append(golden.close(f"sub{level}_logits", logits.feats, DECODER_TOLERANCE))
    grid = _grid(golden)
    for asset, mesh in enumerate(extract_meshes(shape_voxels(decoded.voxels), grid)):
        rows.append(golden.close(f"mesh{asset}_vertices", mesh.vertices, DECODER_TOLERANCE / grid))
        rows.append(golden.exact(f"mesh{asset}_faces", mesh.faces))
    return [*rows, *golden.left_over()]


def _grid(golden: Golden) -> int:
    return int(golden.config["decoder"]["args"].get("resolution", MESH_GRID))


def _latents_alone(golden: Golden, encoder: Encoder) -> Tensor:
    """Latents of each asset encoded without the others, one after the other."""
    whole = _shape_input(golden)
    parts = []
    for asset in range(whole.batch_size):
        rows = whole.structure.batch_index == asset
        coords = whole.coords[rows].clone()
        coords[:, 0] = 0
        parts.append(encoder(sparse_tensor(whole.feats[rows], coords)).mean.feats)
    return torch.cat(parts)


def shape_vae_train(folder: Path) -> list[ParityRow]:
    """Decode on the encoder's own structure, take the losses and all gradients."""
    golden = Golden(folder)
    encoder, decoder = _pair(golden)
    flags = golden.inputs["intersected"]
    decoded = decoder(encoder(_shape_input(golden)).mean)
    voxels = shape_voxels(decoded.voxels)
    grid = _grid(golden)
    meshes = extract_meshes(voxels, grid, intersected=flags, split="train")
    loss: Tensor = F.binary_cross_entropy_with_logits(voxels.intersected_logits, flags.float())
    loss = loss + F.mse_loss(voxels.dual, golden.inputs["dual_vertices_u8"].float() / 255.0)
    loss = loss + subdivision_loss(decoded)
    for mesh in meshes:
        loss = loss + 0.01 * mesh.vertices.square().sum()
    torch.autograd.backward(loss)
    rows = [
        golden.exact("coords", voxels.coords),
        golden.close("vertices", voxels.dual, DECODER_TOLERANCE),
        golden.close("intersected_logits", voxels.intersected_logits, DECODER_TOLERANCE),
        golden.close("loss", loss, DECODER_TOLERANCE),
    ]
    for level, logits in enumerate(decoded.subdivisions):
        rows.append(golden.close(f"sub{level}_logits", logits.feats, DECODER_TOLERANCE))
        rows.append(golden.exact(f"sub{level}_gt", logits.structure.subdivision))
    for asset, mesh in enumerate(meshes):
        rows.append(golden.close(f"mesh{asset}_vertices", mesh.vertices, DECODER_TOLERANCE))
        rows.append(golden.exact(f"mesh{asset}_faces", mesh.faces))
    pair = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    return [*rows, golden.gradients(pair, "grad_norm_sum"), *golden.left_over()]


@torch.no_grad()
def tex_vae(folder: Path) -> list[ParityRow]:
    """Encode, then decode along another decoder's subdivision."""
    golden = Golden(folder)
    encoder, decoder = _pair(golden)
    latent = encoder(sparse_tensor(golden.inputs["attr"], golden.inputs["coords"])).mean
    guides = [golden.inputs[f"guide_sub{level}_logits"] for level in range(len(decoder.blocks) - 1)]
    fresh = SparseTensor(golden.outputs["z"], latent.structure.without_fine())
    voxels = decoder(fresh, guides).voxels
    return [
        golden.exact("z_coords", latent.coords),
        golden.close("z", latent.feats, FLOW_TOLERANCE),
        golden.exact("dec_coords", voxels.coords),
        golden.close("dec", voxels.feats, DECODER_TOLERANCE),
        golden.close("dec01", voxels.feats * 0.5 + 0.5, DECODER_TOLERANCE),
        *golden.left_over(),
    ]


def fdg_to_mesh(folder: Path) -> list[ParityRow]:
    """Extract meshes from real dual grids in every split mode, by the decoder's extraction."""
    golden = Golden(folder)

    def parts() -> Iterator[tuple[str, Callable[[], list[ParityRow]]]]:
        for key, weight in golden.inputs.items():
            yield key, partial(_extracted, golden, key.removesuffix("_split"), weight)

    return [*each(folder.name, parts()), *golden.left_over()]


def _extracted(golden: Golden, name: str, weight: Tensor) -> list[ParityRow]:
    rows: list[ParityRow] = []
    path, size = find_grid(golden.folder, name, len(weight))
    grid = _dual_grid(path)
    for split, label in (("first", "angle"), ("weights", "split"), ("train", "train")):
        mesh = extract_mesh(*grid, weight, grid=size, split=split)  # type: ignore[arg-type]
        rows.append(golden.exact(f"{name}_{label}_f", mesh.faces))
        if split == "first":
            rows.append(golden.close(f"{name}_angle_v", mesh.vertices, VERTEX_TOLERANCE))
        if split == "train":
            middle = mesh.vertices[len(grid[0]) :]
            rows.append(golden.close(f"{name}_train_v", middle, VERTEX_TOLERANCE))
    return rows


def _dual_grid(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    arrays = read_arrays(path)
    flags = arrays["intersected"].reshape(-1, 1) >> torch.arange(3) & 1
    return arrays["coords"].to(torch.int32), arrays["dual_u8"].float() / 255.0, flags.bool()
