"""The networks at work on one asset: O-Voxel to latents, clicks to masks, noise to colourings.

Everything random depends on seeds only. Colours are decoded on the asset's own voxels, so row i
of every answer is voxel i of the encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segvigen_model.checkpoint import Bundle
from segvigen_model.conditioning import (
    NUM_CLICK_SLOTS,
    ClickTokens,
    Task,
    click_tokens,
    stack_clicks,
)
from segvigen_model.sampler import SamplerOptions, draw_noise, one_step, sample
from segvigen_model.segmentation_flow import FlowInputs
from segvigen_model.sparse.structure import pyramid
from segvigen_model.sparse.tensor import SparseTensor, sparse_tensor
from segvigen_model.types import BoolArray, Encoding, FloatArray, IntArray, OVoxel
from segvigen_model.vae.shape import shape_tensor
from segvigen_model.vae.texture import pbr_features, texture_attributes

# A small checkpoint's mask is best cut here when decoded in one step (prototype's measurement);
# masks are shifted so that callers may cut at 0.5.
MASK_THRESHOLD = 0.45
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
def encode_voxels(bundle: Bundle, voxels: OVoxel) -> Encoding:
    """Encode shape and texture of an asset.

    Args:
        bundle: the model; its grid must be the voxels'.
        voxels: the asset.
    """
    device = bundle.device
    shape_in = shape_tensor(voxels.coords, voxels.dual, voxels.intersected)
    shape_in = sparse_tensor(shape_in.feats.to(device), shape_in.coords.to(device), 1)
    attributes = pbr_features(voxels.base_color, voxels.metallic, voxels.roughness, voxels.alpha)
    shape_slat = bundle.shape_encoder(shape_in).mean
    tex_slat = bundle.tex_encoder(shape_in.replace(attributes.to(device))).mean
    return Encoding(
        grid=voxels.grid,
        factor=bundle.config.factor,
        coords=voxels.coords,
        latent_coords=shape_slat.coords[:, 1:].cpu().numpy(),
        shape_slat=shape_slat.feats.float().cpu().numpy(),
        tex_slat=tex_slat.feats.float().cpu().numpy(),
        base_color=voxels.base_color,
        frame=voxels.frame,
        checkpoint=bundle.sha256,
    )


def draw_masks(bundle: Bundle, encoding: Encoding, click_sets: Sequence[ClickSet]) -> FloatArray:
    """Mask of each click set, in one step from zero noise.

    Sets with more positives than there are slots are run in groups, so that no click is lost.

    Args:
        bundle: the model.
        encoding: the asset.
        click_sets: one per wanted mask, each with at least one positive.

    Returns:
        (M, N) float32, 0..1 per voxel; 0.5 is the border.
    """
    groups: list[ClickSet] = []
    owners: list[int] = []
    for index, clicks in enumerate(click_sets):
        for group in _slot_groups(clicks, bundle.dit.config.num_click_embeddings > 1):
            groups.append(group)
            owners.append(index)
    tokens = stack_clicks([click_tokens(each.cells, each.is_positive) for each in groups])
    inputs = _inputs(bundle, encoding, len(groups), Task.INTERACTIVE, tokens, None)
    colors = _decode(bundle, encoding, one_step(bundle.dit, inputs), len(groups))
    whiteness = np.clip(colors.mean(axis=2) + (0.5 - MASK_THRESHOLD), 0.0, 1.0)
    masks = np.zeros((len(click_sets), len(encoding.coords)), np.float32)
    np.maximum.at(masks, np.array(owners), whiteness)
    return masks


def draw_colorings(
    bundle: Bundle,
    encoding: Encoding,
    *,
    num_draws: int,
    num_steps: int,
    seed: int,
    view: FloatArray | None = None,
) -> FloatArray:
    """Seeded full colourings, all draws in one batch.

    Args:
        bundle: the model.
        encoding: the asset.
        num_draws: number of draws.
        num_steps: Euler steps; 1 = one step from zero noise (then all draws are equal).
        seed: of the noise.
        view: (S, S, 3) float RGB 0..1 painted view for guided mode, or None.

    Returns:
        (num_draws, N, 3) float32 RGB, about 0..1.
    """
    task = Task.FULL if view is None else Task.GUIDED
    inputs = _inputs(bundle, encoding, num_draws, task, None, view)
    channels = encoding.tex_slat.shape[1]
    tokens = len(encoding.latent_coords)
    seeds = [seed * NOISE_SEED_STEP + draw for draw in range(num_draws)]
    noise = torch.cat([draw_noise(tokens, channels, each) for each in seeds]).to(bundle.device)
    latents = sample(bundle.dit, inputs, noise, SamplerOptions(num_steps=num_steps))
    return _decode(bundle, encoding, latents, num_draws)


def _slot_groups(clicks: ClickSet, knows_negatives: bool) -> list[ClickSet]:
    """Split clicks over runs of ten slots; positives of each run differ, negatives are repeated."""
    positive = np.flatnonzero(clicks.is_positive)
    negative = np.flatnonzero(~clicks.is_positive) if knows_negatives else positive[:0]
    negative = negative[-(NUM_CLICK_SLOTS // 2) :]
    room = NUM_CLICK_SLOTS - len(negative)
    # Latest first, so that the last group may overlap older clicks but never drops the newest.
    stops = range(len(positive), 0, -room)
    groups = [np.sort(np.r_[positive[max(0, stop - room) : stop], negative]) for stop in stops]
    return [ClickSet(clicks.cells[rows], clicks.is_positive[rows]) for rows in groups]


def _inputs(
    bundle: Bundle,
    encoding: Encoding,
    batch: int,
    task: Task,
    clicks: ClickTokens | None,
    view: FloatArray | None,
) -> FlowInputs:
    """The same asset `batch` times over."""
    device = bundle.device
    shape_slat = bundle.normalization.normalize_shape(
        torch.from_numpy(encoding.shape_slat).to(device)
    )
    tex_slat = bundle.normalization.normalize_tex(torch.from_numpy(encoding.tex_slat).to(device))
    return bundle.dit.prepare(
        _repeat(encoding, batch, bundle).structure,
        shape_slat.repeat(batch, 1),
        tex_slat.repeat(batch, 1),
        cond=_condition(bundle, view, batch),
        clicks=clicks,
        task=torch.full((batch,), int(task), dtype=torch.int64, device=device),
    )


@torch.no_grad()
def _condition(bundle: Bundle, view: FloatArray | None, batch: int) -> Tensor | None:
    """(B, L, D) tokens of a painted view, or None."""
    if view is None:
        return None
    image = torch.from_numpy(np.ascontiguousarray(view, dtype=np.float32)).permute(2, 0, 1)
    return bundle.dit.encode_view(image[None].to(bundle.device)).expand(batch, -1, -1)


def _repeat(encoding: Encoding, batch: int, bundle: Bundle) -> SparseTensor:
    """An empty latent tensor of the asset `batch` times, that knows its voxels."""
    coords = torch.from_numpy(encoding.coords.astype(np.int32))
    index = torch.arange(batch, dtype=torch.int32).repeat_interleave(len(coords))
    rows = torch.cat([index[:, None], coords.repeat(batch, 1)], dim=1).to(bundle.device)
    structure = pyramid(rows, bundle.config.num_levels, batch)
    return SparseTensor(rows.new_zeros(len(structure), 0, dtype=torch.float32), structure)


@torch.no_grad()
def _decode(bundle: Bundle, encoding: Encoding, latents: Tensor, batch: int) -> FloatArray:
    """(batch * T, C) normalised texture latents -> (batch, N, 3) RGB, voxel order."""
    tensor = _repeat(encoding, batch, bundle).replace(bundle.normalization.denormalize_tex(latents))
    decoded = bundle.tex_decoder(tensor).voxels
    colors = texture_attributes(decoded.feats[:, :3]).float().cpu().numpy()
    result: FloatArray = colors.reshape(batch, len(encoding.coords), 3)
    return result
