"""The networks at work on one asset: O-Voxel to latents, clicks to masks, noise to colourings.

Everything random depends on seeds only. Colours are decoded on the asset's own voxels, so row i
of every answer is voxel i of the encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from segvigen_model.model.bundle import SegviGenModel
from segvigen_model.model.image_condition import encode_guide_condition
from segvigen_model.model.offload import on_device
from segvigen_model.slat_flow.conditioning import (
    NUM_CLICK_SLOTS,
    ClickTokens,
    Task,
    make_click_tokens,
    stack_clicks,
)
from segvigen_model.slat_flow.sampler import (
    SamplerOptions,
    draw_noise,
    sample_in_one_step,
    sample_latents,
)
from segvigen_model.slat_flow.segmentation import FlowInputs, SegmentationFlow
from segvigen_model.sparse.structure import Structure, fold_levels
from segvigen_model.sparse.tensor import SparseTensor, make_sparse_tensor
from segvigen_model.types import BoolArray, Encoding, FloatArray, IntArray, OVoxel
from segvigen_model.vae.shape import make_shape_tensor
from segvigen_model.vae.texture import decode_texture_attributes, encode_pbr_features

NOISE_SEED_STEP = 7919  # draws of neighbouring seeds must not share noise


@dataclass(frozen=True, slots=True)
class ClickSet:
    """Clicks of one mask, latent frame, oldest first.

    Attributes:
        cells: (K, 3) int32 latent cells.
        is_positive: (K,) bool.
    """

    cells: IntArray
    is_positive: BoolArray


@torch.no_grad()
def encode_voxels(model: SegviGenModel, voxels: OVoxel) -> Encoding:
    """Encode shape and texture of an asset.

    Args:
        model: the model; its grid must be the voxels'.
        voxels: the asset.
    """
    device = model.device
    shape_in = make_shape_tensor(voxels.coords, voxels.dual, voxels.intersected)
    shape_in = make_sparse_tensor(shape_in.feats.to(device), shape_in.coords.to(device), 1)
    attributes = encode_pbr_features(
        voxels.base_color, voxels.metallic, voxels.roughness, voxels.alpha
    )
    with on_device(model.shape_encoder, device) as encoder:
        shape_slat = encoder(shape_in).mean
    with on_device(model.tex_encoder, device) as encoder:
        tex_slat = encoder(shape_in.replace(attributes.to(device))).mean
    return Encoding(
        grid=voxels.grid,
        factor=model.config.factor,
        coords=voxels.coords,
        latent_coords=shape_slat.coords[:, 1:].cpu().numpy(),
        shape_slat=shape_slat.feats.float().cpu().numpy(),
        tex_slat=tex_slat.feats.float().cpu().numpy(),
        base_color=voxels.base_color,
        frame=voxels.frame,
        checkpoint=model.sha256,
    )


def draw_masks(
    model: SegviGenModel, encoding: Encoding, click_sets: Sequence[ClickSet], seed: int = 0
) -> FloatArray:
    """Mask of each click set: in one step from zero noise, or sampled by released weights.

    Sets with more positives than there are slots are run in groups, so that no click is lost.

    Args:
        model: the model.
        encoding: the asset.
        click_sets: one per wanted mask, each with at least one positive.
        seed: of the noise, where it is sampled.

    Returns:
        (M, N) float32, 0..1 per voxel; 0.5 is the border.
    """
    knows_negatives = model.select_flow(Task.INTERACTIVE).config.num_click_embeddings > 1
    owned = [
        (index, group)
        for index, clicks in enumerate(click_sets)
        for group in _split_click_slots(clicks, knows_negatives)
    ]
    cond = _encode_condition(model, encoding, None)
    config = model.config.segmenter
    shift = 0.5 - config.clicks.mask_threshold if model.sampler is None else 0.0
    masks = np.zeros((len(click_sets), len(encoding.coords)), np.float32)
    tokens_each, batch_size = 2 * len(encoding.latent_coords), config.limits.max_batch_tokens
    for part in _split_batches(len(owned), tokens_each, batch_size):
        owners = [index for index, _ in owned[part]]
        tokens = [make_click_tokens(group.cells, group.is_positive) for _, group in owned[part]]
        request = _Request(Task.INTERACTIVE, stack_clicks(tokens), cond, model.sampler)
        latents = _sample_latents(model, encoding, request, [seed] * len(owners))
        colors = _decode(model, encoding, latents, len(owners))
        whiteness = np.clip(colors.mean(axis=2) + shift, 0.0, 1.0)
        np.maximum.at(masks, np.array(owners), whiteness)
    return masks


# What a draw depends on, by name.
def draw_colorings(
    model: SegviGenModel,
    encoding: Encoding,
    *,
    num_draws: int,
    num_steps: int,
    seed: int,
    view: FloatArray | None = None,
) -> FloatArray:
    """Seeded full colourings, all draws in one batch.

    Args:
        model: the model.
        encoding: the asset.
        num_draws: number of draws.
        num_steps: Euler steps; 1 = one step from zero noise (then all draws are equal).
        seed: of the noise.
        view: (S, S, 3) float RGB 0..1 painted view for guided mode, or None.

    Returns:
        (num_draws, N, 3) float32 RGB, about 0..1.
    """
    task = Task.FULL if view is None else Task.GUIDED
    options = replace(model.sampler or SamplerOptions(), num_steps=num_steps)
    request = _Request(task, None, _encode_condition(model, encoding, view), options)
    seeds = [seed * NOISE_SEED_STEP + draw for draw in range(num_draws)]
    decoded = []
    batch_size = model.config.segmenter.limits.max_batch_tokens
    for part in _split_batches(num_draws, 2 * len(encoding.latent_coords), batch_size):
        latents = _sample_latents(model, encoding, request, seeds[part])
        decoded.append(_decode(model, encoding, latents, len(seeds[part])))
    return np.concatenate(decoded)


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """What a flow is requested.

    Attributes:
        task: which answer.
        clicks: slots of the batch, or None.
        cond: (1, L, D) image tokens for all of the batch, or None.
        options: how to sample; None = one step from zero noise.
    """

    task: Task
    clicks: ClickTokens | None
    cond: Tensor | None
    options: SamplerOptions | None


def _sample_latents(
    model: SegviGenModel, encoding: Encoding, request: _Request, seeds: Sequence[int]
) -> Tensor:
    """(len(seeds) * T, C) normalised texture latents, one answer per seed."""
    with on_device(model.select_flow(request.task), model.device) as flow:
        inputs = _prepare_inputs(model, flow, encoding, len(seeds), request)
        if request.options is None:
            return sample_in_one_step(flow, inputs)
        tokens, channels = encoding.tex_slat.shape
        noise = torch.cat([draw_noise(tokens, channels, each) for each in seeds])
        return sample_latents(flow, inputs, noise.to(model.device), request.options)


def _split_batches(count: int, size: int, limit: int) -> list[slice]:
    """Split `count` runs of `size` rows each so that a batch has at most `limit` rows, or one."""
    step = max(1, limit // max(1, size))
    return [slice(start, start + step) for start in range(0, count, step)]


def _split_click_slots(clicks: ClickSet, knows_negatives: bool) -> list[ClickSet]:
    """Split clicks over runs of ten slots; positives of each run differ, negatives are repeated."""
    positive = np.flatnonzero(clicks.is_positive)
    negative = np.flatnonzero(~clicks.is_positive) if knows_negatives else positive[:0]
    negative = negative[-(NUM_CLICK_SLOTS // 2) :]
    room = NUM_CLICK_SLOTS - len(negative)
    # Latest first, so that the last group may overlap older clicks but never drops the newest.
    stops = range(len(positive), 0, -room)
    groups = [np.sort(np.r_[positive[max(0, stop - room) : stop], negative]) for stop in stops]
    return [ClickSet(clicks.cells[rows], clicks.is_positive[rows]) for rows in groups]


@torch.no_grad()
def _prepare_inputs(
    model: SegviGenModel, flow: SegmentationFlow, encoding: Encoding, batch: int, request: _Request
) -> FlowInputs:
    """The same asset `batch` times over."""
    device = model.device
    shape_slat = model.normalization.normalize_shape(
        torch.from_numpy(encoding.shape_slat).to(device)
    )
    tex_slat = model.normalization.normalize_tex(torch.from_numpy(encoding.tex_slat).to(device))
    return flow.prepare(
        Structure(_repeat_cells(encoding.latent_coords, batch).to(device), batch),
        shape_slat.repeat(batch, 1),
        tex_slat.repeat(batch, 1),
        cond=None if request.cond is None else request.cond.expand(batch, -1, -1),
        clicks=request.clicks,
        task=torch.full((batch,), int(request.task), dtype=torch.int64, device=device),
        needs_null=request.options is not None and request.options.needs_null,
    )


@torch.no_grad()
def _encode_condition(
    model: SegviGenModel, encoding: Encoding, view: FloatArray | None
) -> Tensor | None:
    """(1, L, D) tokens of a painted view, else of the asset's own picture, or None."""
    if view is None:
        if encoding.condition is None:
            return None
        return torch.from_numpy(encoding.condition)[None].to(model.device)
    if model.config.flow.view is None:
        picture = np.rint(255.0 * np.asarray(view)).astype(np.uint8)
        return torch.from_numpy(encode_guide_condition(model, picture))[None].to(model.device)
    image = torch.from_numpy(np.ascontiguousarray(view, dtype=np.float32)).permute(2, 0, 1)
    return model.dit.encode_view(image[None].to(model.device))


def _repeat_cells(cells: IntArray, batch: int) -> Tensor:
    """(N, 3) cells -> (batch * N, 4) int32 rows [asset, x, y, z]."""
    coords = torch.from_numpy(cells.astype(np.int32))
    index = torch.arange(batch, dtype=torch.int32).repeat_interleave(len(coords))
    return torch.cat([index[:, None], coords.repeat(batch, 1)], dim=1)


@torch.no_grad()
def _decode(model: SegviGenModel, encoding: Encoding, latents: Tensor, batch: int) -> FloatArray:
    """(batch * T, C) normalised texture latents -> (batch, N, 3) RGB, voxel order."""
    num, tokens = len(encoding.coords), len(encoding.latent_coords)
    slats = model.normalization.denormalize_tex(latents)
    decoded = []
    with on_device(model.tex_decoder, model.device) as decoder:
        for part in _split_batches(batch, num, model.config.segmenter.limits.max_decoded_voxels):
            rows = slats[part.start * tokens : part.stop * tokens]
            rows_of = _repeat_cells(encoding.coords, len(rows) // tokens).to(model.device)
            top = fold_levels(rows_of, model.config.num_levels, len(rows) // tokens)
            voxels = decoder(SparseTensor(rows, top)).voxels
            decoded.append(decode_texture_attributes(voxels.feats[:, :3]).float().cpu().numpy())
    result: FloatArray = np.concatenate(decoded).reshape(batch, num, 3)
    return result
