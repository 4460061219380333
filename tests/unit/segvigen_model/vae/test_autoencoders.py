"""Autoencoders: structure, batching, losses, errors."""

from __future__ import annotations

import pytest
import torch

from segvigen_model.model.presets import PRESETS
from segvigen_model.sparse.structure import fold_levels
from segvigen_model.sparse.tensor import SparseTensor, make_sparse_tensor
from segvigen_model.vae.blocks import DownBlock, UpBlock
from segvigen_model.vae.decoder import Decoder, compute_subdivision_loss
from segvigen_model.vae.encoder import Encoder, get_torso_dtype, set_torso_dtype
from segvigen_model.vae.shape import decode_shape_voxels, make_shape_tensor
from segvigen_model.vae.texture import (
    decode_texture_attributes,
    encode_color_features,
    encode_pbr_features,
)

TINY = PRESETS["tiny"]


def voxels(seed=0, num=80, grid=16, index=0):
    cells = torch.randperm(grid**3, generator=torch.Generator().manual_seed(seed))[:num]
    xyz = torch.stack([cells // grid**2, cells // grid % grid, cells % grid], dim=1)
    return torch.nn.functional.pad(xyz, (1, 0), value=index).to(torch.int32)


def awake(module):
    """Give silent layers weights, so that nothing is tested by zeros."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module.eval()


def test_decoding_on_known_voxels_keeps_their_rows():
    coords = voxels()
    encoder, decoder = awake(Encoder(TINY.tex_encoder)), awake(Decoder(TINY.tex_decoder))
    feats = torch.randn(len(coords), 6)
    with torch.no_grad():
        mean = encoder(make_sparse_tensor(feats, coords)).mean
        direct = decoder(mean).voxels
        stored = decoder(SparseTensor(mean.feats, fold_levels(coords, TINY.num_levels))).voxels
    assert torch.equal(direct.coords, coords)
    assert torch.equal(stored.coords, coords)
    assert torch.allclose(direct.feats, stored.feats, atol=1e-6)


def test_a_batch_equals_its_assets_alone():
    parts = [voxels(seed=1), voxels(seed=2, num=50)]
    both = torch.cat([parts[0], parts[1] + torch.tensor([1, 0, 0, 0], dtype=torch.int32)])
    feats = torch.randn(len(both), 6)
    encoder, decoder = awake(Encoder(TINY.shape_encoder)), awake(Decoder(TINY.shape_decoder))
    with torch.no_grad():
        batched = decoder(encoder(make_sparse_tensor(feats, both)).mean).voxels.split()
        for rows, coords, found in zip(feats.split([80, 50]), parts, batched, strict=True):
            alone = decoder(encoder(make_sparse_tensor(rows, coords)).mean).voxels.feats
            assert float((alone - found).abs().max()) < 1e-5


def test_a_shape_decoder_predicts_its_own_structure():
    decoder = awake(Decoder(TINY.shape_decoder))
    latents = SparseTensor(torch.randn(6, 8), fold_levels(voxels(num=6), 2)).without_fine()
    with torch.no_grad():
        decoded = decoder(latents)
    first = decoded.subdivisions[0]
    assert len(decoded.subdivisions[1].feats) == int((first.feats > 0).sum())
    guided = decoder(latents, [level.feats for level in decoded.subdivisions])
    assert torch.equal(guided.voxels.coords, decoded.voxels.coords)


def test_a_texture_decoder_needs_structure():
    latents = SparseTensor(torch.randn(6, 8), fold_levels(voxels(num=6), 2)).without_fine()
    with pytest.raises(ValueError, match="predicts no structure"):
        Decoder(TINY.tex_decoder)(latents)


def test_subdivision_loss_falls_when_the_truth_is_predicted():
    encoder, decoder = Encoder(TINY.shape_encoder), Decoder(TINY.shape_decoder)
    coords = voxels()
    decoded = decoder(encoder(make_sparse_tensor(torch.randn(len(coords), 6), coords)).mean)
    before = compute_subdivision_loss(decoded).detach()
    truth = tuple(
        level.replace(20.0 * (level.structure.subdivision.float() - 0.5))
        for level in decoded.subdivisions
    )
    after = compute_subdivision_loss(type(decoded)(decoded.voxels, truth)).detach()
    assert float(after) < 0.01 < float(before)


def test_posterior_noise_follows_the_generator_and_the_bias():
    encoder = Encoder(TINY.tex_encoder)
    coords = voxels()
    posterior = encoder(make_sparse_tensor(torch.randn(len(coords), 6), coords))
    assert float(posterior.logvar.detach().mean()) == pytest.approx(-5.0, abs=1.0)
    draws = [posterior.sample(torch.Generator().manual_seed(s)).feats for s in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert float(posterior.compute_kl().detach()) > 0


def test_half_precision_torso_leaves_norms_alone():
    encoder = Encoder(TINY.tex_encoder)
    set_torso_dtype(encoder, torch.bfloat16)
    assert get_torso_dtype(encoder) == torch.bfloat16
    assert encoder.input_layer.weight.dtype == torch.float32
    assert encoder.blocks[1][0].norm.weight.dtype == torch.float32
    coords = voxels()
    mean = encoder(make_sparse_tensor(torch.randn(len(coords), 6), coords)).mean.feats
    assert mean.dtype == torch.float32


@pytest.mark.parametrize(
    "make", [lambda: DownBlock(64, 96), lambda: DownBlock(8, 12), lambda: UpBlock(16, 7, True)]
)
def test_widths_that_cannot_fold_are_refused(make):
    with pytest.raises(ValueError, match="cannot"):
        make()


def test_shape_channels_round_trip():
    import numpy as np

    x = make_shape_tensor(
        np.array([[1, 2, 3]]), np.array([[0, 51, 255]], np.uint8), np.array([[True, False, True]])
    )
    assert x.coords.tolist() == [[0, 1, 2, 3]]
    wanted = torch.tensor([[-0.5, -0.3, 0.5, 0.5, -0.5, 0.5]])
    assert torch.allclose(x.feats, wanted, atol=1e-6)
    decoded = decode_shape_voxels(x.replace(torch.full((1, 7), -100.0)))
    assert decoded.dual.tolist() == [[-0.5, -0.5, -0.5]]


def test_texture_channels_round_trip():
    import numpy as np

    color = np.array([[255, 0, 51]], np.uint8)
    feats = encode_pbr_features(color, *(np.array([value], np.uint8) for value in (0, 255, 255)))
    wanted = torch.tensor([[1.0, 0.0, 0.2, 0.0, 1.0, 1.0]])
    assert torch.allclose(decode_texture_attributes(feats), wanted, atol=1e-6)
    assert torch.allclose(feats, encode_color_features(wanted[:, :3]), atol=1e-6)
